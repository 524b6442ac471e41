//! Contents of files, each under the SHA-256 of its bytes.
//!
//! Owns `blobs/` of the data directory. A content is written beside its place,
//! flushed, compared with its digest, renamed into place, and the folder is
//! flushed: after that it is there, whole, whatever happens to the machine.

use super::{StoreError, private};
use crate::digest::{self, Hashing, sha256_of};
use crate::text::hex;
use rustix::fs::OFlags;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const FOLDER: &str = "blobs";
/// What is being written, in the same file system as its place.
const INCOMING: &str = "incoming";
/// Digits of a digest that name the folder it lies in.
const SHARD_DIGITS: usize = 2;

/// The SHA-256 of a content.
pub type Sha256Digest = [u8; 32];

/// The folder of contents.
#[derive(Debug, Clone)]
pub(super) struct Blobs {
    root: PathBuf,
}

impl Blobs {
    /// Opens the folder, or makes it. What an earlier host had begun to write is
    /// removed.
    pub(super) fn open(data_dir: &Path) -> Result<Self, StoreError> {
        let root = data_dir.join(FOLDER);
        private::directory(&root)?;
        let blobs = Self { root };
        private::emptied(&blobs.root.join(INCOMING))?;
        Ok(blobs)
    }

    /// Where a content lies, or would.
    pub(super) fn path(&self, digest: &Sha256Digest) -> PathBuf {
        let name = hex(digest);
        self.root.join(name.get(..SHARD_DIGITS).unwrap_or_default()).join(name)
    }

    /// Stores a content whose digest is known. Returns once it is on disk; one
    /// that is there already and whole is not written again, a damaged one is.
    pub(super) fn put(
        &self,
        digest: &Sha256Digest,
        bytes: u64,
        content: impl Read,
    ) -> Result<(), StoreError> {
        let place = self.path(digest);
        if self.check(digest, bytes).is_ok() {
            return Ok(());
        }
        let error = |path: &Path| {
            let path = path.to_owned();
            move |source| StoreError::File { path, source }
        };
        let incoming = self.root.join(INCOMING);
        let mut file = tempfile::Builder::new()
            .prefix("blob-")
            .tempfile_in(&incoming)
            .map_err(error(&incoming))?;
        let mut content = Hashing::new(content);
        digest::copy(&mut content, &mut file).map_err(error(&place))?;
        file.as_file().sync_all().map_err(error(&place))?;
        if content.finish() != (*digest, bytes) {
            return Err(StoreError::Damaged {
                path: place,
                problem: "its content changed while it was stored; upload it again",
            });
        }
        let shard = place.parent().unwrap_or(&self.root);
        private::directory(shard)?;
        // Also where it is there: whoever made it may have been killed before this.
        private::sync(&self.root)?;
        file.persist(&place).map_err(|failed| error(&place)(failed.error))?;
        private::sync(shard)
    }

    /// Opens a content. Its bytes are not looked at.
    pub(super) fn file(&self, digest: &Sha256Digest) -> Result<File, StoreError> {
        let path = self.path(digest);
        let flags = (OFlags::NOFOLLOW | OFlags::CLOEXEC).bits().cast_signed();
        OpenOptions::new()
            .read(true)
            .custom_flags(flags)
            .open(&path)
            .map_err(|source| StoreError::File { path, source })
    }

    /// Whether a content is there and what it should be; says what is wrong.
    pub(super) fn check(&self, digest: &Sha256Digest, bytes: u64) -> Result<(), String> {
        let path = self.path(digest);
        let shown = path.display();
        let file = match self.file(digest) {
            Ok(file) => file,
            Err(StoreError::File { source, .. }) => return Err(format!("{shown}: {source}")),
            Err(other) => return Err(other.to_string()),
        };
        match sha256_of(file) {
            Ok((_, found)) if found != bytes => {
                Err(format!("{shown} has {found} bytes and should have {bytes}"))
            }
            Ok((found, _)) if found != *digest => {
                Err(format!("{shown} has another content than its name says"))
            }
            Ok(_) => Ok(()),
            Err(error) => Err(format!("{shown} cannot be read: {error}")),
        }
    }

    /// Removes a content that nothing refers to.
    pub(super) fn remove(&self, digest: &Sha256Digest) -> Result<(), StoreError> {
        let path = self.path(digest);
        match fs::remove_file(&path) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(StoreError::File { path, source }),
        }
    }

    /// Every file that is there, with its digest where its name is one, and its
    /// length. Does not look at contents.
    pub(super) fn all(&self) -> Result<Vec<(PathBuf, Option<Sha256Digest>, u64)>, StoreError> {
        let error = |path: &Path| {
            let path = path.to_owned();
            move |source| StoreError::File { path, source }
        };
        let mut found = Vec::new();
        for shard in fs::read_dir(&self.root).map_err(error(&self.root))? {
            let shard = shard.map_err(error(&self.root))?.path();
            if shard.file_name() == Some(OsStr::new(INCOMING)) {
                continue;
            }
            if !shard.is_dir() {
                found.push((shard, None, 0));
                continue;
            }
            for entry in fs::read_dir(&shard).map_err(error(&shard))? {
                let entry = entry.map_err(error(&shard))?;
                let path = entry.path();
                let bytes = entry.metadata().map_err(error(&path))?.len();
                let digest = path
                    .file_name()
                    .and_then(OsStr::to_str)
                    .and_then(digest_of)
                    .filter(|digest| self.path(digest) == path);
                found.push((path, digest, bytes));
            }
        }
        found.sort();
        Ok(found)
    }
}

/// The digest that a name says, if it is one.
pub(super) fn digest_of(name: &str) -> Option<Sha256Digest> {
    let lower = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    match name.bytes().all(lower) {
        true => crate::text::unhex(name)?.try_into().ok(),
        false => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest, Sha256};
    use tempfile::TempDir;

    fn digest(content: &[u8]) -> Sha256Digest {
        Sha256::digest(content).into()
    }

    #[test]
    fn a_content_lies_under_its_digest_or_nowhere() {
        let dir = TempDir::new().unwrap();
        let blobs = Blobs::open(dir.path()).unwrap();
        let good = digest(b"good");
        assert!(blobs.put(&good, 4, &b"evil"[..]).is_err());
        assert!(blobs.put(&good, 3, &b"good"[..]).is_err());
        assert!(blobs.all().unwrap().is_empty());
        blobs.put(&good, 4, &b"good"[..]).unwrap();
        blobs.put(&good, 4, &b"good"[..]).unwrap();
        assert_eq!(blobs.check(&good, 4), Ok(()));
        assert_eq!(blobs.all().unwrap(), [(blobs.path(&good), Some(good), 4)]);
        assert_eq!(fs::read_dir(dir.path().join("blobs/incoming")).unwrap().count(), 0);
    }

    #[test]
    fn a_flipped_byte_a_lost_one_and_a_lost_file_are_told() {
        let dir = TempDir::new().unwrap();
        let blobs = Blobs::open(dir.path()).unwrap();
        let good = digest(b"good");
        blobs.put(&good, 4, &b"good"[..]).unwrap();
        fs::write(blobs.path(&good), b"goof").unwrap();
        assert!(blobs.check(&good, 4).unwrap_err().contains("another content"));
        fs::write(blobs.path(&good), b"goo").unwrap();
        assert!(blobs.check(&good, 4).unwrap_err().contains("3 bytes and should have 4"));
        fs::remove_file(blobs.path(&good)).unwrap();
        assert!(blobs.check(&good, 4).is_err());
    }

    #[test]
    fn storing_a_content_again_mends_it() {
        let dir = TempDir::new().unwrap();
        let blobs = Blobs::open(dir.path()).unwrap();
        let good = digest(b"good");
        blobs.put(&good, 4, &b"good"[..]).unwrap();
        fs::write(blobs.path(&good), b"goof").unwrap();
        blobs.put(&good, 4, &b"good"[..]).unwrap();
        assert_eq!(blobs.check(&good, 4), Ok(()));
    }

    #[test]
    fn what_an_earlier_host_had_begun_is_removed_at_the_next_start() {
        let dir = TempDir::new().unwrap();
        drop(Blobs::open(dir.path()).unwrap());
        fs::write(dir.path().join("blobs/incoming/blob-x"), b"half").unwrap();
        let blobs = Blobs::open(dir.path()).unwrap();
        assert!(!dir.path().join("blobs/incoming/blob-x").exists());
        assert!(blobs.all().unwrap().is_empty());
    }
}
