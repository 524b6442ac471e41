//! Files of the repository that are part of the program: the guest crate, the
//! templates, the example models and the world. Owns the tables and how they are
//! written to disk.

use std::io::{self, Write};
use std::path::Path;

/// A file, by its path below the folder it belongs to.
pub(super) struct File {
    pub(super) path: &'static str,
    pub(super) bytes: &'static [u8],
}

include!(concat!(env!("OUT_DIR"), "/embedded.rs"));

/// Writes a file that must not be there yet, and the folders that lead to it.
pub(super) fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::File::create_new(path)?.write_all(bytes)
}
