//! What a folder says about the checkpoint in `1/checkpoints`: where it came
//! from, and the labels that it brings.
//!
//! Owns `checkpoints.lock` and `id2label`. Fetches nothing.

use super::config::{Checkpoints, ConfigConcept, is_label};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Below `1/`, where the files of the repository are.
pub const FOLDER: &str = "checkpoints";
/// Beside `config.yaml`, which commit they are of.
pub const LOCK: &str = "checkpoints.lock";
/// Below `1/`, what the repository says of its model.
pub const CONFIG: &str = "checkpoints/config.json";
/// Longest of either file.
pub const FILE_BYTES_MAX: u64 = 4 << 20;

/// `checkpoints.lock`: which files were fetched, and of which commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// The repository.
    pub repo_id: String,
    /// Globs that they were chosen by.
    #[serde(default)]
    pub allowed_file_patterns: Vec<String>,
    /// Globs that they were left out by.
    #[serde(default)]
    pub ignore_file_patterns: Vec<String>,
    /// The commit, 40 hexadecimal digits.
    pub commit: String,
    /// The files, by name.
    pub files: Vec<LockedFile>,
}

/// A file of `checkpoints.lock`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedFile {
    /// Path below `1/checkpoints`.
    pub name: String,
    /// Length in bytes.
    pub size: u64,
    /// What its bytes are told by.
    pub digest: Digest,
}

/// How the hub tells a file's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Digest {
    /// SHA-256 of the bytes, as Git LFS has it.
    Sha256(String),
    /// SHA-1 of git's header `blob LENGTH` and the bytes: git's name of a blob.
    GitBlob(String),
}

impl Digest {
    /// Its hexadecimal digits.
    pub fn digits(&self) -> &str {
        match self {
            Self::Sha256(digits) | Self::GitBlob(digits) => digits,
        }
    }
}

impl Lock {
    /// Whether its commit is one.
    pub fn is_plain(&self) -> bool {
        self.commit.len() == 40 && self.commit.bytes().all(|byte| byte.is_ascii_hexdigit())
    }

    /// Whether it is of what `config.yaml` asks for.
    pub fn is_of(&self, checkpoints: &Checkpoints) -> bool {
        self.repo_id == checkpoints.repo_id
            && self.allowed_file_patterns == checkpoints.allowed_file_patterns
            && self.ignore_file_patterns == checkpoints.ignore_file_patterns
    }
}

/// Why labels cannot be taken from `1/checkpoints/config.json`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelsError {
    /// It, or its `id2label`, is no JSON object.
    #[error("1/checkpoints/config.json, or `id2label` in it, is no JSON object")]
    Json,
    /// A key of `id2label` is no number or stands there twice, or its value is no
    /// text.
    #[error(
        "1/checkpoints/config.json: `id2label` maps numbers to texts, once each, and {key:?} is otherwise"
    )]
    Label {
        /// That key.
        key: String,
    },
}

/// The labels that a checkpoint's `config.json` has under `id2label`, in the
/// order of their numbers; none where it has no such key.
pub fn labels(config: &[u8]) -> Result<Vec<ConfigConcept>, LabelsError> {
    let config: serde_json::Map<String, Value> =
        serde_json::from_slice(config).map_err(|_| LabelsError::Json)?;
    let id2label = match config.get("id2label") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Object(id2label)) => id2label,
        Some(_) => return Err(LabelsError::Json),
    };
    let mut labels = BTreeMap::new();
    for (key, value) in id2label {
        match (key.parse::<u32>(), value) {
            (Ok(number), Value::String(name))
                if is_label(name) && !labels.contains_key(&number) =>
            {
                labels.insert(number, ConfigConcept { id: key.clone(), name: name.clone() });
            }
            _ => return Err(LabelsError::Label { key: key.clone() }),
        }
    }
    Ok(labels.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_ordered_by_their_numbers() {
        let found = labels(br#"{"id2label": {"10": "ten", "2": "two"}, "x": 1}"#).unwrap();
        let found: Vec<_> = found.iter().map(|label| (&*label.id, &*label.name)).collect();
        assert_eq!(found, [("2", "two"), ("10", "ten")]);
        assert_eq!(labels(b"{}").unwrap(), []);
    }

    #[test]
    fn labels_of_another_form_are_refused_by_name() {
        for config in [r#"{"id2label": {"a": "b"}}"#, r#"{"id2label": {"a": 1}}"#] {
            assert_eq!(labels(config.as_bytes()), Err(LabelsError::Label { key: "a".into() }));
        }
        for config in [r#"{"id2label": {"1": 2}}"#, r#"{"id2label": {"01": "a", "1": "b"}}"#] {
            assert_eq!(labels(config.as_bytes()), Err(LabelsError::Label { key: "1".into() }));
        }
        for config in ["[]", "{", r#"{"id2label": []}"#] {
            assert_eq!(labels(config.as_bytes()), Err(LabelsError::Json));
        }
    }
}
