//! `config.yaml`, checked.
//!
//! Owns every key of the file: those of the platform it comes from, whose files
//! are accepted as they are, and our own below `ringfence:`. Opens no file.

mod compute;
mod elsewhere;
mod extension;
mod name;
mod section;
mod tree;

#[cfg(test)]
mod tests;

pub use compute::{Accelerators, Compute};
pub use elsewhere::{BuildInfo, CheckpointStage, Checkpoints, Secret, SecretDeclaration};
pub use extension::{GraphAction, GraphRule};
pub use name::{ModelName, NAME_BYTES_MAX, NameError};

use crate::limits::Limits;
use name::Part;
use section::{Entry, Section, Unknown};
use std::collections::HashSet;

/// Longest `config.yaml`.
pub const CONFIG_BYTES_MAX: usize = 1 << 20;
/// Most concepts of one model.
pub const CONCEPTS_MAX: usize = 10_000;

const CONCEPT_BYTES_MAX: usize = 1024;
const MODEL_TYPE_DEFAULT: &str = "any-to-any";

/// A checked `config.yaml`.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Whose model it is and what it is called.
    pub name: ModelName,
    /// What goes in and what comes out, such as `visual-classifier`.
    pub model_type_id: String,
    /// The labels that the model knows, in the file's order.
    pub concepts: Vec<ConfigConcept>,
    /// The limits of the version and of each of its calls.
    pub limits: Limits,
    /// What it asks of a machine beside its limits.
    pub compute: Compute,
    /// What `ringfence.graphs` says about graphs.
    pub graphs: Vec<GraphRule>,
    /// How it was built elsewhere.
    pub build_info: BuildInfo,
    /// Where weights come from elsewhere.
    pub checkpoints: Option<Checkpoints>,
    /// Secrets that the model expects.
    pub secrets: Vec<SecretDeclaration>,
    /// Calls at a time elsewhere.
    pub num_threads: Option<u32>,
    /// What was understood but should be written otherwise, one line each.
    pub warnings: Vec<String>,
}

/// A label of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigConcept {
    /// Unique in its model.
    pub id: String,
    /// What people read.
    pub name: String,
}

/// Why a `config.yaml` is refused. Each text names the place and the fix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file is too long.
    #[error("config.yaml has {bytes} bytes; {CONFIG_BYTES_MAX} are allowed")]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// The text is no YAML, or more of it than is read.
    #[error("config.yaml line {line}: {problem}; correct the YAML there")]
    Yaml {
        /// Where, from 1; 0 is the whole file.
        line: u64,
        /// What the YAML reader says.
        problem: String,
    },
    /// A key is missing, unknown or has a value that it cannot have.
    #[error("config.yaml line {line}: `{key}`: {problem}")]
    Key {
        /// Path of the key, with dots.
        key: String,
        /// Where, from 1.
        line: u64,
        /// What is wrong and what to write.
        problem: String,
    },
}

impl Config {
    /// Reads and checks a whole file.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        if text.len() > CONFIG_BYTES_MAX {
            return Err(ConfigError::TooLong { bytes: text.len() });
        }
        let mut root = Section::new("", tree::parse(text)?)?;
        let mut warnings = Vec::new();

        // A misspelt section is told before what is missing because of it.
        let taken = take(&mut root, &mut warnings);
        root.finish(
            &[
                "model",
                "build_info",
                "inference_compute_info",
                "compute",
                "checkpoints",
                "concepts",
                "num_threads",
                "secrets",
                "mcp_server",
                "streaming_video_consumer",
                "toolkit",
                "ringfence",
            ],
            Unknown::RefuseMisspelt,
        )?;
        Ok(Self { warnings, ..taken? })
    }

    /// The accelerators asked for, if any. A host that cannot give them must
    /// refuse to serve the model: there is no silent fallback to the CPU.
    pub fn accelerators(&self) -> Option<&Accelerators> {
        (self.compute.accelerators.count > 0).then_some(&self.compute.accelerators)
    }
}

fn take(root: &mut Section, warnings: &mut Vec<String>) -> Result<Config, ConfigError> {
    let (name, model_type_id) = model(root)?;
    let mut limits = Limits::default();
    let asked = compute::read(root, warnings)?;
    limits.cpu_millis = asked.cpu_millis.unwrap_or(limits.cpu_millis);
    limits.memory_bytes_max = asked.memory_bytes.unwrap_or(limits.memory_bytes_max);
    let graphs = extension::read(root.section("ringfence")?, &mut limits)?;
    Ok(Config {
        name,
        model_type_id,
        concepts: concepts(root)?,
        limits,
        compute: asked.compute,
        graphs,
        build_info: elsewhere::build_info(root)?,
        checkpoints: elsewhere::checkpoints(root)?,
        secrets: elsewhere::secrets(root)?,
        num_threads: root
            .number("num_threads", 1, 65_536)?
            .and_then(|threads| u32::try_from(threads).ok()),
        warnings: Vec::new(),
    })
}

fn model(root: &mut Section) -> Result<(ModelName, String), ConfigError> {
    let Some(mut section) = root.section("model")? else {
        return Err(root.missing("model", "write `model:` and below it `id: my-model`"));
    };
    let user_id = part_or(&mut section, "user_id", ModelName::USER_DEFAULT)?;
    let app_id = part_or(&mut section, "app_id", ModelName::APP_DEFAULT)?;
    let model_type_id = part_or(&mut section, "model_type_id", MODEL_TYPE_DEFAULT)?;
    let id = match section.text("id")? {
        Some(entry) => part(&entry)?,
        None => return Err(section.missing("id", "write a name such as `id: my-model`")),
    };
    section.finish(&["id", "user_id", "app_id", "model_type_id"], Unknown::RefuseMisspelt)?;
    Ok((ModelName::from_parts(user_id, app_id, id), model_type_id.into_string()))
}

fn part_or(section: &mut Section, key: &str, default: &str) -> Result<Part, ConfigError> {
    match section.text(key)? {
        Some(entry) => part(&entry),
        None => part(&Entry { key: key.to_owned(), line: 0, text: default.to_owned() }),
    }
}

fn part(entry: &Entry) -> Result<Part, ConfigError> {
    entry.text.parse().map_err(|problem: NameError| entry.refused(problem))
}

fn concepts(root: &mut Section) -> Result<Vec<ConfigConcept>, ConfigError> {
    let items = root.list("concepts")?;
    if let Some((path, node)) = items.get(CONCEPTS_MAX) {
        return Err(ConfigError::Key {
            key: path.clone(),
            line: node.line,
            problem: format!("is one concept too many; {CONCEPTS_MAX} are allowed"),
        });
    }
    let mut ids = HashSet::with_capacity(items.len());
    let mut concepts = Vec::with_capacity(items.len());
    for (path, node) in items {
        let mut section = Section::new(&path, node)?;
        let Some(id) = section.text("id")? else {
            return Err(section.missing("id", "give each concept an id of its own"));
        };
        let Some(name) = section.text("name")? else {
            return Err(section.missing("name", "write what people read"));
        };
        for entry in [&id, &name] {
            if entry.text.trim().is_empty()
                || entry.text.len() > CONCEPT_BYTES_MAX
                || entry.text.chars().any(char::is_control)
            {
                return Err(entry
                    .refused("is empty, too long or has control characters; write a short text"));
            }
        }
        if !ids.insert(id.text.clone()) {
            return Err(
                id.refused("is the id of an earlier concept too; give each an id of its own")
            );
        }
        concepts.push(ConfigConcept { id: id.text, name: name.text });
    }
    Ok(concepts)
}
