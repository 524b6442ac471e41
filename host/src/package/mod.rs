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
pub mod folder;
pub mod quantity;

pub use assets::{AssetFile, Assets};

use crate::limits::Limits;
use bytes::Bytes;

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
    pub bytes: Bytes,
}

impl Package {
    /// The limits that `config.yaml` asks for.
    pub fn limits(&self) -> &Limits {
        &self.config.limits
    }
}
