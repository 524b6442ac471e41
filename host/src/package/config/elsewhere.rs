//! What the other platform does with a model: `build_info`, `checkpoints` and
//! `secrets`.
//!
//! Owns their keys, and keeps what they say; nothing here acts on it. The text
//! of a token or a secret is in no error and no debug text.

use super::section::{Entry, Section, Unknown};
use super::{ConfigError, NAME_BYTES_MAX};
use std::fmt;

const SECRETS_MAX: usize = 100;

/// `build_info`: kept, and of no effect here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BuildInfo {
    /// Version of Python.
    pub python_version: Option<String>,
    /// A container image.
    pub image: Option<String>,
    /// Version of Node.
    pub node_version: Option<String>,
    /// Operating system and processor.
    pub platform: Option<String>,
}

/// `checkpoints`: a repository of weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoints {
    /// `OWNER/NAME` or `NAME` on the hub.
    pub repo_id: String,
    /// A token for the hub.
    pub hf_token: Option<Secret>,
    /// When they would be fetched.
    pub when: CheckpointStage,
    /// Globs of files to fetch; all where empty.
    pub allowed_file_patterns: Vec<String>,
    /// Globs of files to leave.
    pub ignore_file_patterns: Vec<String>,
}

/// `checkpoints.when`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckpointStage {
    /// By who uploads.
    Upload,
    /// As the version is built.
    Build,
    /// As the model is loaded.
    Runtime,
}

/// One of `secrets`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretDeclaration {
    /// Its id.
    pub id: String,
    /// The environment variable it would be in.
    pub env_var: String,
    /// Its value, where the file has it.
    pub value: Option<Secret>,
}

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself; for the one place that needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

pub(super) fn build_info(root: &mut Section) -> Result<BuildInfo, ConfigError> {
    let Some(mut section) = root.section("build_info")? else { return Ok(BuildInfo::default()) };
    section.boolean("dereference_symlinks")?;
    Ok(BuildInfo {
        python_version: section.plain("python_version")?,
        image: section.plain("image")?,
        node_version: section.plain("node_version")?,
        platform: section.plain("platform")?,
    })
}

pub(super) fn checkpoints(root: &mut Section) -> Result<Option<Checkpoints>, ConfigError> {
    let Some(mut section) = root.section("checkpoints")? else { return Ok(None) };
    let kind = section.text("type")?;
    if let Some(entry) = &kind
        && !matches!(entry.text.as_str(), "huggingface" | "")
    {
        return Err(entry.refused("is not a type of checkpoints; write \"huggingface\""));
    }
    let repo_id = section.text("repo_id")?;
    let hf_token = match section.text("hf_token")? {
        Some(entry) => secret(entry)?,
        None => None,
    };
    let when = match section.text("when")? {
        None => CheckpointStage::Runtime,
        Some(entry) => match entry.text.as_str() {
            "upload" => CheckpointStage::Upload,
            "build" => CheckpointStage::Build,
            "runtime" => CheckpointStage::Runtime,
            _ => {
                return Err(
                    entry.refused("is not a stage; write \"upload\", \"build\" or \"runtime\"")
                );
            }
        },
    };
    let allowed_file_patterns = section.texts_or_text("allowed_file_patterns")?;
    let ignore_file_patterns = section.texts_or_text("ignore_file_patterns")?;
    let repo_id = match repo_id {
        Some(entry) if is_repo_id(&entry.text) => entry.text,
        Some(entry) => return Err(entry.refused("is not a repository; write \"OWNER/NAME\"")),
        None if kind.is_some_and(|entry| entry.text == "huggingface") => {
            return Err(section.missing("repo_id", "write the repository as `repo_id: OWNER/NAME`"));
        }
        None => return Ok(None),
    };
    let known =
        ["type", "repo_id", "hf_token", "when", "allowed_file_patterns", "ignore_file_patterns"];
    section.finish(&known, Unknown::RefuseMisspelt)?;
    Ok(Some(Checkpoints { repo_id, hf_token, when, allowed_file_patterns, ignore_file_patterns }))
}

fn is_repo_id(text: &str) -> bool {
    let parts: Vec<&str> = text.split('/').collect();
    parts.len() <= 2
        && text.len() <= 2 * NAME_BYTES_MAX
        && parts.iter().all(|part| is_repo_part(part))
}

fn is_repo_part(part: &str) -> bool {
    !part.is_empty()
        && !part.starts_with('.')
        && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
}

/// A token travels in headers, so one with other characters could say more
/// than a token should.
fn secret(entry: Entry) -> Result<Option<Secret>, ConfigError> {
    if !entry.text.chars().all(|c| c.is_ascii_graphic() || c == ' ') {
        return Err(entry.refused_secret("has characters that no token has; copy it again"));
    }
    Ok((!entry.text.is_empty()).then_some(Secret(entry.text)))
}

pub(super) fn secrets(root: &mut Section) -> Result<Vec<SecretDeclaration>, ConfigError> {
    let mut secrets = Vec::new();
    for (path, node) in root.list("secrets")? {
        let line = node.line;
        if secrets.len() >= SECRETS_MAX {
            let problem = format!("is one secret too many; {SECRETS_MAX} are allowed");
            return Err(ConfigError::Key { key: path, line, problem });
        }
        let mut section = Section::new(&path, node)?;
        if let Some(entry) = section.text("type")?
            && entry.text != "env"
        {
            return Err(entry.refused("is not a type of secret; write \"env\""));
        }
        let Some(id) = section.plain("id")? else {
            return Err(section.missing("id", "give each secret an id"));
        };
        let Some(env_var) = section.plain("env_var")? else {
            return Err(section.missing("env_var", "write the environment variable's name"));
        };
        let value = section.plain("value")?.filter(|value| !value.is_empty()).map(Secret);
        section
            .finish(&["id", "env_var", "type", "value", "description"], Unknown::RefuseMisspelt)?;
        secrets.push(SecretDeclaration { id, env_var, value });
    }
    Ok(secrets)
}
