//! Files of a package beside its component, its graphs and its configuration.

use serde::{Deserialize, Serialize};
use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

/// The assets of a package, in a folder that nothing else writes to.
#[derive(Debug, Clone)]
pub struct Assets {
    /// Where they are.
    pub folder: AssetsFolder,
    /// What there is, sorted by name.
    pub files: Vec<AssetFile>,
}

/// The folder of assets. Clones are the same folder.
#[derive(Debug, Clone)]
pub enum AssetsFolder {
    /// Made for the package, and gone with it: a folder `model` with the assets, and one
    /// with nothing in it, where a process can begin that sees nothing else.
    Private(Arc<TempDir>),
    /// Another process's, which has handed it over.
    Passed(PathBuf),
}

/// The folder with the assets, and the one with nothing in it.
const MODEL: &str = "model";
const EMPTY: &str = "empty";

/// Modes of what a process of another user reads. Whoever else would is kept out by the
/// data directory.
pub(super) const FOLDER_MODE: u32 = 0o755;
pub(super) const FILE_MODE: u32 = 0o444;

impl AssetsFolder {
    /// Makes a private one below a folder.
    pub(super) fn make(scratch: &Path) -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("assets-").tempdir_in(scratch)?;
        let this = folder.path();
        for name in [MODEL, EMPTY] {
            std::fs::create_dir(this.join(name))?;
            std::fs::set_permissions(this.join(name), Permissions::from_mode(FOLDER_MODE))?;
        }
        std::fs::set_permissions(this, Permissions::from_mode(FOLDER_MODE))?;
        Ok(Self::Private(Arc::new(folder)))
    }

    /// Where the assets are for a process that has the private folder as its root.
    pub fn path_in_root() -> PathBuf {
        Path::new("/").join(MODEL)
    }

    /// Where the assets are.
    pub(super) fn path(&self) -> PathBuf {
        match self {
            Self::Private(folder) => folder.path().join(MODEL),
            Self::Passed(path) => path.clone(),
        }
    }
}

/// One asset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssetFile {
    /// Path below `1/`, with `/` between its parts.
    pub name: String,
    /// Length in bytes.
    pub size: u64,
}

impl Assets {
    /// The folder's path.
    pub fn path(&self) -> PathBuf {
        self.folder.path()
    }

    /// A folder with nothing in it, beside them.
    pub fn empty(&self) -> PathBuf {
        self.path().with_file_name(EMPTY)
    }

    /// So many bytes of an asset, from an offset on. The error is a sentence
    /// without a path of the host.
    pub fn read(&self, name: &str, offset: u64, bytes: u64) -> Result<Vec<u8>, String> {
        let file = self.files.iter().find(|file| file.name == name);
        let file = file.ok_or_else(|| format!("there is no file 1/{name} in the package"))?;
        if offset.checked_add(bytes).is_none_or(|end| end > file.size) {
            let size = file.size;
            return Err(format!(
                "{bytes} bytes from {offset} on are not all in 1/{name}, which has {size}"
            ));
        }
        let read = || -> io::Result<Vec<u8>> {
            let content = File::open(self.path().join(name))?;
            let mut data = vec![0; usize::try_from(bytes).map_err(io::Error::other)?];
            content.read_exact_at(&mut data, offset)?;
            Ok(data)
        };
        // The operating system's words have no path in them.
        read().map_err(|error| format!("1/{name} cannot be read: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// NN-06.
    #[test]
    fn a_file_of_the_package_is_read_where_it_is_and_no_other() {
        let scratch = TempDir::new().unwrap();
        let folder = AssetsFolder::make(scratch.path()).unwrap();
        std::fs::create_dir(folder.path().join("a")).unwrap();
        let files = ["a/m.onnx_data", "other"].map(|name| {
            std::fs::write(folder.path().join(name), b"0123456789").unwrap();
            AssetFile { name: name.to_owned(), size: 10 }
        });
        // It is there, and no file of the package.
        std::fs::write(folder.path().join("a/stray"), b"0123456789").unwrap();
        let assets = Assets { folder, files: files.to_vec() };
        assert_eq!(assets.read("a/m.onnx_data", 2, 3).unwrap(), b"234");
        assert_eq!(assets.read("other", 0, 10).unwrap(), b"0123456789");
        assert_eq!(assets.read("other", 10, 0).unwrap(), b"");
        for (offset, bytes) in [(0, 11), (8, 3), (11, 0), (u64::MAX, 1), (1, u64::MAX)] {
            let refused = assets.read("other", offset, bytes).unwrap_err();
            assert!(refused.contains("are not all in 1/other, which has 10"), "{refused}");
        }
        for name in ["a/stray", "a/../other", "../other", "/etc/passwd", "m.onnx_data", ""] {
            let refused = assets.read(name, 0, 1).unwrap_err();
            assert!(refused.contains("there is no file 1/"), "{refused}");
        }
    }
}
