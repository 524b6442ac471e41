//! Files of a hub on this machine, where every tool of the hub keeps them.
//!
//! Owns the way from a blob to a file of a model folder: nothing arrives there
//! whose digest is not the listed one.

use super::hub::{Hub, HubError};
use crate::package::checkpoint::{Digest, LockedFile};
use crate::text::hex;
use hf_hub::{Cache, CacheRepo, Repo, RepoType};
use sha1::Sha1;
use sha2::{Digest as _, Sha256};
use std::fs::{File, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const COPY_BYTES: usize = 64 << 10;

/// Why a file does not arrive.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The hub does not give it.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// What came is not what was listed.
    #[error("{name} came with another digest than the hub lists; try again")]
    Digest {
        /// The file.
        name: String,
    },
    /// A file on this machine cannot be read or written.
    #[error("cannot use {path}")]
    Io {
        /// On this machine.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Somebody else fetches it.
    #[error("{path} is being fetched by another process; wait for it")]
    Busy {
        /// The part that is locked.
        path: PathBuf,
    },
}

/// The files of a repository at a commit, below `HF_HOME`.
pub struct Blobs {
    repo: CacheRepo,
    repo_id: String,
    commit: String,
}

impl Blobs {
    /// Where they are or will be.
    pub fn new(cache: &Cache, repo_id: &str, commit: &str) -> Self {
        let repo = Repo::with_revision(repo_id.to_owned(), RepoType::Model, commit.to_owned());
        Self { repo: cache.repo(repo), repo_id: repo_id.to_owned(), commit: commit.to_owned() }
    }

    /// Puts a file at `to`, fetching what of it is not here yet.
    pub fn place(
        &self,
        hub: &Hub,
        file: &LockedFile,
        to: &Path,
        progress: &mut dyn FnMut(i64),
    ) -> Result<(), CacheError> {
        let blob = self.repo.blob_path(file.digest.digits());
        if is_whole(&blob, file) {
            if copy(&blob, to, file)? {
                progress(i64::try_from(file.size).unwrap_or(i64::MAX));
                return Ok(());
            }
            // It rotted, or was cut off as it was written.
            remove(&blob)?;
        }
        let path = blob.with_extension("ringfence-part");
        let io = |source| CacheError::Io { path: path.clone(), source };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(io)?;
        }
        let mut part = locked(&path)?;
        hub.download(&self.repo_id, &self.commit, file, &mut part, progress)?;
        part.sync_all().map_err(io)?;
        if !copy(&path, to, file)? {
            remove(&path)?;
            return Err(CacheError::Digest { name: file.name.clone() });
        }
        std::fs::rename(&path, &blob).map_err(io)?;
        self.point(file, &blob)
    }

    /// Lets other tools of the hub find the file under its name.
    fn point(&self, file: &LockedFile, blob: &Path) -> Result<(), CacheError> {
        let pointer = self.repo.pointer_path(&self.commit).join(&file.name);
        let io = |source| CacheError::Io { path: pointer.clone(), source };
        if let Some(folder) = pointer.parent() {
            std::fs::create_dir_all(folder).map_err(io)?;
        }
        let up = "../".repeat(2 + file.name.split('/').count() - 1);
        let blob = blob.file_name().unwrap_or_default();
        match std::os::unix::fs::symlink(Path::new(&up).join("blobs").join(blob), &pointer) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            made => made.map_err(io),
        }
    }
}

/// Opens a part that nobody else writes to. One that was whole before it could
/// be locked has another name by now, so its lock is worth nothing.
fn locked(path: &Path) -> Result<File, CacheError> {
    let io = |source| CacheError::Io { path: path.to_owned(), source };
    loop {
        let mut options = File::options();
        let part = options.create(true).truncate(false).read(true).write(true).open(path);
        let part = part.map_err(io)?;
        match part.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(CacheError::Busy { path: path.to_owned() });
            }
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
        let opened = part.metadata().map_err(io)?;
        if std::fs::metadata(path).is_ok_and(|named| named.ino() == opened.ino()) {
            return Ok(part);
        }
    }
}

fn is_whole(blob: &Path, file: &LockedFile) -> bool {
    std::fs::metadata(blob).is_ok_and(|there| there.is_file() && there.len() == file.size)
}

fn remove(path: &Path) -> Result<(), CacheError> {
    std::fs::remove_file(path).map_err(|source| CacheError::Io { path: path.to_owned(), source })
}

/// Copies, and says whether it was what the hub lists; what was not is gone.
fn copy(from: &Path, to: &Path, file: &LockedFile) -> Result<bool, CacheError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| CacheError::Io { path, source }
    };
    let mut source = File::open(from).map_err(io(from))?;
    if let Some(folder) = to.parent() {
        std::fs::create_dir_all(folder).map_err(io(folder))?;
    }
    let mut copied = File::create_new(to).map_err(io(to))?;
    let mut hash = Hash::new(file);
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        let count = source.read(&mut buffer).map_err(io(from))?;
        let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else { break };
        hash.update(bytes);
        copied.write_all(bytes).map_err(io(to))?;
    }
    // A file of the right length and without its bytes would pass for fetched.
    copied.sync_all().map_err(io(to))?;
    let is_listed = hash.finish() == file.digest.digits();
    if !is_listed {
        remove(to)?;
    }
    Ok(is_listed)
}

/// What a file's bytes are told by.
enum Hash {
    Sha256(Sha256),
    Sha1(Sha1),
}

impl Hash {
    fn new(file: &LockedFile) -> Self {
        match file.digest {
            Digest::Sha256(_) => Self::Sha256(Sha256::new()),
            Digest::GitBlob(_) => {
                Self::Sha1(Sha1::new_with_prefix(format!("blob {}\0", file.size)))
            }
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hash) => hash.update(bytes),
            Self::Sha1(hash) => hash.update(bytes),
        }
    }

    fn finish(self) -> String {
        match self {
            Self::Sha256(hash) => hex(&hash.finalize()),
            Self::Sha1(hash) => hex(&hash.finalize()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_told_by_the_digest_that_the_hub_lists() {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("from");
        std::fs::write(&from, "hello\n").unwrap();
        // `git hash-object` and `sha256sum` say these.
        let git = "ce013625030ba8dba906f756967f9e9ca394464a";
        let sha = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        for (index, (digest, is_listed)) in [
            (Digest::GitBlob(git.into()), true),
            (Digest::Sha256(sha.into()), true),
            (Digest::GitBlob("0".repeat(40)), false),
            (Digest::Sha256("0".repeat(64)), false),
        ]
        .into_iter()
        .enumerate()
        {
            let file = LockedFile { name: "f".into(), size: 6, digest };
            let to = dir.path().join(format!("to/{index}"));
            assert_eq!(copy(&from, &to, &file).unwrap(), is_listed);
            assert_eq!(to.exists(), is_listed);
        }
    }
}
