//! A model folder, checked: what the rest of the host may rely on.
//!
//! Owns reading and checking `config.yaml` and the files of a model folder.
//! Never touches sockets or wasmtime's runtime.

pub mod admission;
pub mod archive;
pub mod assets;
pub mod capability;
pub mod checkpoint;
pub mod config;
pub mod content;
pub mod folder;
pub mod quantity;

pub use assets::{AssetFile, Assets, AssetsFolder};
pub use content::Content;

use crate::limits::Limits;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// The checked content of one version. Immutable.
#[derive(Debug)]
pub struct Package {
    /// The checked `config.yaml`.
    pub config: config::Config,
    /// Derived from the content of every file: 32 hexadecimal digits.
    pub version: String,
    /// The compiled model logic, `1/model.wasm`.
    pub component: Bytes,
    /// Every `1/**/*.onnx`, by name.
    pub graphs: Vec<GraphFile>,
    /// Every other file below `1/` but `model.rs` and `model.wasm`.
    pub assets: Assets,
    /// All files of the package, in the order of paths.
    pub listing: Vec<ListedFile>,
}

/// A file that a version's id is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedFile {
    /// `config.yaml`, or below `1/`, with `/` between its parts.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// Of its content.
    pub sha256: [u8; 32],
}

/// A graph of a package.
#[derive(Debug, Clone)]
pub struct GraphFile {
    /// Path below `1/` without the extension, unless `ringfence.graphs` renames it.
    pub name: String,
    /// Where it is below `1/`, with a `/` at its end; empty for `1/` itself.
    pub folder: String,
    /// The ONNX file.
    pub content: Content,
}

/// What a replica needs of a package beside its machine code.
#[derive(Debug, Clone)]
pub struct Parts {
    /// What the guest is told, and its limits.
    pub sheet: Sheet,
    /// Every graph.
    pub graphs: Vec<GraphFile>,
    /// Every asset.
    pub assets: Assets,
}

/// The part of `config.yaml` that a replica goes by.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sheet {
    /// The whole name, for logs.
    pub name: String,
    /// The model's id.
    pub id: String,
    /// The version's id.
    pub version: String,
    /// `model_type_id`.
    pub model_type_id: String,
    /// Id and name of each concept.
    pub concepts: Vec<(String, String)>,
    /// The limits of the version and its calls.
    pub limits: Limits,
}

#[cfg(test)]
impl Sheet {
    /// That of a model of which nothing matters but its limits.
    pub(crate) fn of_tests(limits: Limits) -> Self {
        Self {
            name: "u/a/m".into(),
            id: "m".into(),
            version: "0".into(),
            model_type_id: String::new(),
            concepts: vec![],
            limits,
        }
    }
}

impl From<Package> for Parts {
    fn from(mut package: Package) -> Self {
        package.take_parts()
    }
}

impl Package {
    fn sheet(&self) -> Sheet {
        let config = &self.config;
        let concepts = config.concepts.iter();
        Sheet {
            name: config.name.to_string(),
            id: config.name.id().to_owned(),
            version: self.version.clone(),
            model_type_id: config.model_type_id.clone(),
            concepts: concepts.map(|concept| (concept.id.clone(), concept.name.clone())).collect(),
            limits: config.limits.clone(),
        }
    }

    /// What a replica needs of it, which takes its graphs and assets away.
    pub fn take_parts(&mut self) -> Parts {
        let sheet = self.sheet();
        let nowhere = Assets { folder: AssetsFolder::Passed("".into()), files: Vec::new() };
        let assets = std::mem::replace(&mut self.assets, nowhere);
        Parts { sheet, graphs: std::mem::take(&mut self.graphs), assets }
    }

    /// The same, which leaves them to it, too.
    pub fn parts(&self) -> Parts {
        Parts { sheet: self.sheet(), graphs: self.graphs.clone(), assets: self.assets.clone() }
    }

    /// The limits that `config.yaml` asks for.
    pub fn limits(&self) -> &Limits {
        &self.config.limits
    }
}
