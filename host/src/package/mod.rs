//! A model folder, checked: what the rest of the host may rely on.
//!
//! Owns reading and checking `config.yaml` and the files of a model folder.
//! Never touches sockets or wasmtime's runtime.

pub mod admission;
pub mod archive;
pub mod capability;
pub mod checkpoint;
pub mod config;
pub mod folder;
pub mod quantity;

use crate::limits::Limits;
use bytes::Bytes;
use std::path::PathBuf;
use tempfile::TempDir;

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
    /// The ONNX file.
    pub bytes: Bytes,
}

/// The assets of a package, in a private folder that nothing else writes to
/// and that goes with the package.
#[derive(Debug)]
pub struct Assets {
    /// Where they are.
    pub folder: TempDir,
    /// What there is, sorted by name.
    pub files: Vec<AssetFile>,
}

/// One asset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssetFile {
    /// Path below `1/`, with `/` between its parts.
    pub name: String,
    /// Length in bytes.
    pub size: u64,
}

impl Assets {
    /// The folder's path.
    pub fn path(&self) -> PathBuf {
        self.folder.path().to_path_buf()
    }
}

impl Package {
    /// The limits that `config.yaml` asks for.
    pub fn limits(&self) -> &Limits {
        &self.config.limits
    }
}
