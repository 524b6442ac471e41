//! Compiled components, each with a MAC over its bytes, and what is known of snapshots.
//!
//! Owns `cache/` of the data directory, which may be emptied at any time. What
//! is loaded from it would run with no sandbox around it if it were replaced,
//! so nothing leaves here whose MAC, made with the key of the data directory,
//! does not match the very bytes that are handed out.

use super::{Key, Sha256Digest, StoreError, private};
use crate::package::config::ModelName;
use crate::sealed::Sealed;
use crate::text::hex;
use sha2::{Digest, Sha256};
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

const FOLDER: &str = "cache";
const MAC_BYTES: usize = 32;
/// Of names of what is being written.
const INCOMING_PREFIX: &str = "compiled-";
/// Largest compiled component; one of 64 MiB compiles to a few times that.
pub(super) const COMPILED_BYTES_MAX: u64 = 1 << 30;

/// The folder of compiled components.
#[derive(Debug)]
pub(super) struct CompiledCache {
    folder: PathBuf,
    key: Key,
}

impl CompiledCache {
    pub(super) fn open(data_dir: &Path, key: &Key) -> Result<Self, StoreError> {
        let folder = data_dir.join(FOLDER);
        private::directory(&folder)?;
        let cache = Self { folder, key: key.clone() };
        // What an earlier host had begun to write.
        cache.remove(|name| name.starts_with(INCOMING_PREFIX))?;
        Ok(cache)
    }

    /// The compiled form of a component for one compiler, if it is there and
    /// whole.
    pub(super) fn get(&self, component: &Sha256Digest, compiler: &str) -> Option<Sealed> {
        let name = name(component, compiler);
        let path = self.folder.join(&name);
        let mut file = private::open(&path, OpenOptions::new().read(true)).ok()?;
        let mut mac = [0; MAC_BYTES];
        file.read_exact(&mut mac).ok()?;
        // What is checked is what is handed on, whatever becomes of the file.
        let code = Sealed::of(file.take(COMPILED_BYTES_MAX + 1)).ok()?;
        if self.mac(&name, &code).ok()?.matches(&mac) {
            return Some(code);
        }
        tracing::warn!(path = %path.display(), "a compiled component is damaged; it is made anew");
        // What cannot be removed is overwritten by what is made anew.
        let _ = fs::remove_file(&path);
        None
    }

    /// Keeps a compiled form.
    pub(super) fn put(
        &self,
        component: &Sha256Digest,
        compiler: &str,
        code: &Sealed,
    ) -> Result<(), StoreError> {
        let name = name(component, compiler);
        let path = self.folder.join(&name);
        let write = || -> io::Result<()> {
            let mut file =
                tempfile::Builder::new().prefix(INCOMING_PREFIX).tempfile_in(&self.folder)?;
            file.write_all(&self.mac(&name, code)?.0)?;
            let mut written = Ok(());
            code.pieces(|bytes| {
                if written.is_ok() {
                    written = file.write_all(bytes);
                }
            })?;
            written?;
            // Not flushed: what a power cut leaves of it does not match its MAC.
            file.persist(&path).map(drop).map_err(|error| error.error)
        };
        write().map_err(|source| StoreError::File { path: path.clone(), source })
    }

    /// Every component that has a compiled form of a compiler's.
    pub(super) fn contains(&self, component: &Sha256Digest, compiler: &str) -> bool {
        self.folder.join(name(component, compiler)).is_file()
    }

    /// Removes what is not of the components that are kept, or of another
    /// compiler.
    pub(super) fn retain(&self, kept: impl Fn(&str) -> bool) -> Result<u64, StoreError> {
        // What is being written gets its name, or goes, by itself.
        self.remove(|name| !kept(name) && !name.starts_with(INCOMING_PREFIX))
    }

    fn remove(&self, goes: impl Fn(&str) -> bool) -> Result<u64, StoreError> {
        let error = |source| StoreError::File { path: self.folder.clone(), source };
        let mut freed = 0;
        for entry in fs::read_dir(&self.folder).map_err(error)? {
            let entry = entry.map_err(error)?;
            if !goes(entry.file_name().to_str().unwrap_or_default()) {
                continue;
            }
            let removed = entry.metadata().and_then(|metadata| {
                fs::remove_file(entry.path())?;
                Ok(metadata.len())
            });
            match removed {
                Ok(bytes) => freed += bytes,
                // One that is damaged goes when it is read.
                Err(gone) if gone.kind() == io::ErrorKind::NotFound => {}
                Err(other) => return Err(error(other)),
            }
        }
        Ok(freed)
    }

    /// The name is part of what is authenticated: a compiled component is not
    /// taken for another.
    fn mac(&self, name: &str, code: &Sealed) -> io::Result<super::KeyedHash> {
        let mut hashing = self.key.hashing(&[b"compiled\0", name.as_bytes(), b"\0"]);
        code.pieces(|bytes| hashing.add(bytes))?;
        Ok(hashing.finish())
    }
}

/// Under which names the cache has what is known of a version's snapshot, and its code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotKeys {
    /// What is known.
    pub about: Sha256Digest,
    /// The machine code.
    pub code: Sha256Digest,
}

impl SnapshotKeys {
    /// Those of a version.
    pub fn of(name: &ModelName, version: &str) -> Self {
        // No part of a name has a slash or a zero in it.
        let key = |what: &str| Sha256::digest(format!("{what}\0{name}\0{version}")).into();
        Self { about: key("about snapshot"), code: key("code of snapshot") }
    }
}

impl super::Store {
    /// The machine code of a component, if the cache has it whole. `compiler` is
    /// what the code depends on beside the component, as hexadecimal digits.
    pub fn compiled(&self, component: &Sha256Digest, compiler: &str) -> Option<Sealed> {
        self.compiled.get(component, compiler)
    }

    /// Keeps the machine code of a component.
    pub fn keep_compiled(
        &self,
        component: &Sha256Digest,
        compiler: &str,
        code: &Sealed,
    ) -> Result<(), StoreError> {
        self.compiled.put(component, compiler, code)
    }

    /// Whether the cache has something under a component's name.
    pub fn has_compiled(&self, component: &Sha256Digest, compiler: &str) -> bool {
        self.compiled.contains(component, compiler)
    }
}

/// `compiler` is a short text of hexadecimal digits.
pub(super) fn name(component: &Sha256Digest, compiler: &str) -> String {
    format!("{}-{compiler}", hex(component))
}

#[cfg(test)]
mod tests {
    use super::super::Store;
    use super::*;
    use tempfile::TempDir;

    fn code() -> Sealed {
        Sealed::of(&b"code"[..]).unwrap()
    }

    /// OPS-05.
    #[test]
    fn only_what_was_put_there_leaves_and_only_under_its_name() {
        let dir = TempDir::new().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let cache = &store.compiled;
        let (component, other) = ([1; 32], [2; 32]);
        assert!(cache.get(&component, "c0").is_none());
        cache.put(&component, "c0", &code()).unwrap();
        assert_eq!(cache.get(&component, "c0").unwrap().to_vec().unwrap(), b"code");
        assert!(cache.get(&component, "c1").is_none());
        let path = |digest| cache.folder.join(name(digest, "c0"));
        fs::copy(path(&component), path(&other)).unwrap();
        assert!(cache.get(&other, "c0").is_none(), "the MAC is of another name");
        let mut bytes = fs::read(path(&component)).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(path(&component), bytes).unwrap();
        assert!(cache.get(&component, "c0").is_none());
        assert!(!path(&component).exists());
    }

    #[test]
    fn what_is_not_kept_goes() {
        let dir = TempDir::new().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let cache = &store.compiled;
        cache.put(&[1; 32], "c0", &code()).unwrap();
        cache.put(&[1; 32], "c1", &code()).unwrap();
        assert_eq!(cache.retain(|name| name.ends_with("c1")).unwrap(), 36);
        assert!(cache.contains(&[1; 32], "c1") && !cache.contains(&[1; 32], "c0"));
    }
}
