//! What the other platform does with a model: `build_info`, `checkpoints` and
//! `secrets`.
//!
//! Owns their keys, and keeps what they say; `ringfence build` fetches what
//! `checkpoints` names, nothing else here is acted on. The text
//! of a token or a secret is in no error and no debug text.

use super::NAME_BYTES_MAX;
use crate::limits::limit;
use crate::yaml::{Entry, Form, Key, Section, Unknown, key};
use std::fmt;

const SECRETS_MAX: usize = 100;

/// `build_info`.
pub(super) const BUILD_INFO_KEYS: [Key; 5] = [
    key("python_version", Form::Text, "Of platforms that build images; no effect here"),
    key("image", Form::Text, "Of platforms that build images; no effect here"),
    key("node_version", Form::Text, "Of platforms that build images; no effect here"),
    key("platform", Form::Text, "What the model was built for; no effect here"),
    key("dereference_symlinks", Form::Boolean, "A package has no links; no effect here"),
];

/// `checkpoints`.
pub(super) const CHECKPOINTS_KEYS: [Key; 6] = [
    key("type", Form::OneOf(&["huggingface", ""]), "The kind of hub"),
    key("repo_id", Form::Text, "The repository of weights, OWNER/NAME"),
    key("hf_token", Form::Text, "A token for the hub, never packaged; better in HF_TOKEN"),
    key(
        "when",
        Form::OneOf(&["upload", "build", "runtime"]),
        "Each of them means `ringfence build` here",
    ),
    key("allowed_file_patterns", Form::TextOrTexts, "Globs of files to fetch; all where absent"),
    key("ignore_file_patterns", Form::TextOrTexts, "Globs of files to leave"),
];

/// Each of `secrets`.
pub(super) const SECRETS_KEYS: [Key; 5] = [
    key("id", Form::Text, "The secret's name"),
    key("env_var", Form::Text, "The variable that would hold it; a guest has no variables"),
    key("type", Form::OneOf(&["env"]), "The kind of secret"),
    key("value", Form::Text, "The secret itself, never packaged"),
    key("description", Form::Text, "What it is for"),
];

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

pub(super) fn build_info(root: &mut Section) -> BuildInfo {
    let Some(mut section) = root.section("build_info") else { return BuildInfo::default() };
    section.boolean("dereference_symlinks");
    let build_info = BuildInfo {
        python_version: section.plain("python_version"),
        image: section.plain("image"),
        node_version: section.plain("node_version"),
        platform: section.plain("platform"),
    };
    section.finish(&BUILD_INFO_KEYS, Unknown::RefuseMisspelt);
    build_info
}

pub(super) fn checkpoints(root: &mut Section, notes: &mut Vec<String>) -> Option<Checkpoints> {
    let mut section = root.section("checkpoints")?;
    let kind = section.text("type");
    if let Some(entry) = &kind
        && !matches!(entry.text.as_str(), "huggingface" | "")
    {
        let _: Option<()> =
            entry.refuse_secret("it is not a type of checkpoints; write \"huggingface\"");
    }
    let repo_id = match kind.is_some_and(|entry| entry.text == "huggingface") {
        true => section.required("repo_id", "write the repository as `repo_id: OWNER/NAME`"),
        false => section.text("repo_id"),
    };
    let repo_id = repo_id.and_then(|entry| match is_repo_id(&entry.text) {
        true => Some(entry.text),
        false => entry.refuse_secret("it is not a repository; write \"OWNER/NAME\""),
    });
    let hf_token = section.text("hf_token").and_then(secret);
    if hf_token.is_some() {
        notes.push(
            "`checkpoints.hf_token` is left out of the package; better keep it in HF_TOKEN"
                .to_owned(),
        );
    }
    let when = match section.text("when") {
        None => CheckpointStage::Runtime,
        Some(entry) => stage(&entry).unwrap_or(CheckpointStage::Runtime),
    };
    let allowed_file_patterns = section.texts_or_text("allowed_file_patterns");
    let ignore_file_patterns = section.texts_or_text("ignore_file_patterns");
    section.finish(&CHECKPOINTS_KEYS, Unknown::RefuseMisspelt);
    let repo_id = repo_id?;
    if when != CheckpointStage::Upload {
        notes.push(
            "`checkpoints.when`: here it always means on the author's machine, by `ringfence build`; \
             a host fetches nothing"
                .to_owned(),
        );
    }
    Some(Checkpoints { repo_id, hf_token, when, allowed_file_patterns, ignore_file_patterns })
}

fn stage(entry: &Entry) -> Option<CheckpointStage> {
    match entry.text.as_str() {
        "upload" => Some(CheckpointStage::Upload),
        "build" => Some(CheckpointStage::Build),
        "runtime" => Some(CheckpointStage::Runtime),
        _ => entry.refuse_secret("it is not a stage; write \"upload\", \"build\" or \"runtime\""),
    }
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
fn secret(entry: Entry) -> Option<Secret> {
    if !entry.text.chars().all(|c| c.is_ascii_graphic() || c == ' ') {
        return entry.refuse_secret("has characters that no token has; copy it again");
    }
    (!entry.text.is_empty()).then_some(Secret(entry.text))
}

pub(super) fn secrets(root: &mut Section) -> Vec<SecretDeclaration> {
    let mut sections = root.sections("secrets");
    if let Some(one_more) = sections.get(limit("secrets", SECRETS_MAX)) {
        one_more.refuse_whole(&format!("is one too many: there may be {SECRETS_MAX}"));
        sections.truncate(SECRETS_MAX);
    }
    sections.into_iter().filter_map(declaration).collect()
}

fn declaration(mut section: Section) -> Option<SecretDeclaration> {
    if let Some(entry) = section.text("type")
        && entry.text != "env"
    {
        let _: Option<()> = entry.refuse_secret("it is not a type of secret; write \"env\"");
    }
    let id = section.required("id", "give each secret an id");
    let env_var = section.required("env_var", "write the environment variable's name");
    let value = section.plain("value").filter(|value| !value.is_empty()).map(Secret);
    section.finish(&SECRETS_KEYS, Unknown::RefuseMisspelt);
    Some(SecretDeclaration { id: id?.text, env_var: env_var?.text, value })
}
