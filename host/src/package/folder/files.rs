//! The files of a model folder: found, opened, read, copied and counted.
//!
//! Owns the caps as they are met and the digest of all that was read. Knows
//! not what a file is for.

use super::super::assets::{FILE_MODE, FOLDER_MODE};
use super::super::{Content, ListedFile};
use super::{CODE, DEPTH_MAX, ENTRIES_MAX, FolderError, PACKAGE_BYTES_MAX, PATH_BYTES_MAX, Taking};
use crate::digest::sha256_of;
use crate::limits::limit;
use crate::text::hex;
use bytes::Bytes;
use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt, Permissions, PermissionsExt as _};
use rustix::fs::OFlags;
use sha2::{Digest, Sha256};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

const COPY_BYTES: usize = 64 << 10;
const VERSION_DIGITS: usize = 32;

/// What was read so far; the version's id is made of it.
#[derive(Default)]
pub(super) struct Listing {
    files: Vec<ListedFile>,
    bytes: u64,
}

impl Listing {
    fn charge(&mut self, bytes: u64) -> Result<(), FolderError> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > limit("package_bytes", PACKAGE_BYTES_MAX) {
            return Err(FolderError::TooLarge {
                path: CODE.to_owned(),
                bytes_max: PACKAGE_BYTES_MAX,
            });
        }
        Ok(())
    }

    /// A whole file.
    pub(super) fn add(&mut self, path: &str, bytes: &[u8]) -> Result<(), FolderError> {
        self.charge(bytes.len() as u64)?;
        self.list(path, bytes.len() as u64, Sha256::digest(bytes).into());
        Ok(())
    }

    fn list(&mut self, path: &str, bytes: u64, sha256: [u8; 32]) {
        self.files.push(ListedFile { path: path.to_owned(), bytes, sha256 });
    }

    /// Every file that was read, in the order of paths.
    pub(super) fn finish(mut self) -> Vec<ListedFile> {
        self.files.sort_by(|a, b| a.path.cmp(&b.path));
        self.files
    }
}

/// The id of the version that has these files, each a path, a length in bytes
/// and a SHA-256: half a SHA-256 over the sorted list.
pub fn version_of<'a>(files: impl Iterator<Item = (&'a str, u64, &'a [u8; 32])>) -> String {
    // Paths have no control characters, so a line is one file and no two
    // packages have the same lines.
    let mut lines: Vec<String> =
        files.map(|(path, bytes, sha256)| format!("{path}\t{bytes}\t{}\n", hex(sha256))).collect();
    lines.sort_unstable();
    let mut hash = Sha256::new();
    hash.update(b"ringfence package 1\n");
    for line in &lines {
        hash.update(line.as_bytes());
    }
    let mut version = hex(&hash.finalize());
    version.truncate(VERSION_DIGITS);
    version
}

/// The names of all files below `1/`, sorted by their bytes.
pub(super) fn walk(code: &Dir) -> Result<Vec<String>, FolderError> {
    let mut names = Vec::new();
    let mut entries_left = limit("package_entries", ENTRIES_MAX);
    let mut folders = vec![(String::new(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        let read_error = |source| FolderError::Read { path: format!("{CODE}/{folder}"), source };
        let entries = if folder.is_empty() { code.entries() } else { code.read_dir(&folder) };
        for entry in entries.map_err(read_error)? {
            let entry = entry.map_err(read_error)?;
            entries_left = entries_left.checked_sub(1).ok_or(FolderError::TooMany)?;
            let file_name = entry.file_name();
            let name = file_name.to_str().filter(|name| !name.chars().any(char::is_control));
            let lossy = file_name.to_string_lossy();
            let full =
                if folder.is_empty() { lossy.into_owned() } else { format!("{folder}/{lossy}") };
            let path = format!("{CODE}/{full}");
            if name.is_none() || full.len() > limit("package_path", PATH_BYTES_MAX) {
                return Err(FolderError::Name { path });
            }
            let kind = entry.file_type().map_err(read_error)?;
            if kind.is_symlink() {
                return Err(FolderError::Symlink { path });
            } else if kind.is_dir() {
                if depth >= limit("package_depth", DEPTH_MAX) {
                    return Err(FolderError::TooDeep { path });
                }
                folders.push((full, depth + 1));
            } else if kind.is_file() {
                names.push(full);
            } else {
                return Err(FolderError::Special { path });
            }
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Opens a file that is one: a link put there since it was listed is refused,
/// and a pipe does not wait for its writer.
fn open_file(dir: &Dir, name: &str, path: &str) -> Result<cap_std::fs::File, FolderError> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed());
    let file = dir.open_with(name, &options).map_err(|source| {
        if source.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) {
            FolderError::Symlink { path: path.to_owned() }
        } else {
            FolderError::Read { path: path.to_owned(), source }
        }
    })?;
    let metadata =
        file.metadata().map_err(|source| FolderError::Read { path: path.to_owned(), source })?;
    if metadata.is_file() { Ok(file) } else { Err(FolderError::Special { path: path.to_owned() }) }
}

pub(super) fn read(
    dir: &Dir,
    name: &str,
    path: &str,
    bytes_max: u64,
) -> Result<Vec<u8>, FolderError> {
    let read_error = |source| FolderError::Read { path: path.to_owned(), source };
    let file = open_file(dir, name, path)?;
    let length = file.metadata().map_err(read_error)?.len();
    if length > bytes_max {
        return Err(FolderError::TooLarge { path: path.to_owned(), bytes_max });
    }
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    // One byte more than expected tells a file that grows meanwhile.
    file.take(length + 1).read_to_end(&mut bytes).map_err(read_error)?;
    if bytes.len() as u64 != length {
        return Err(FolderError::Changed { path: path.to_owned() });
    }
    Ok(bytes)
}

/// A file below `1/` that is taken as it is.
pub(super) struct Found<'a> {
    pub(super) code: &'a Dir,
    pub(super) name: &'a str,
    pub(super) path: &'a str,
}

impl Found<'_> {
    /// Reads a graph, which is for an engine. One that somebody else may write to is kept
    /// in memory.
    pub(super) fn take_graph(
        &self,
        taking: Taking,
        bytes_max: u64,
        listing: &mut Listing,
    ) -> Result<Content, FolderError> {
        let path = self.path;
        if taking != Taking::Link {
            let bytes = Bytes::from(read(self.code, self.name, path, bytes_max)?);
            listing.add(path, &bytes)?;
            return Ok(Content::Bytes(bytes));
        }
        let file = open_file(self.code, self.name, path)?.into_std();
        let (sha256, bytes) = sha256_of((&file).take(bytes_max.saturating_add(1)))
            .map_err(|source| FolderError::Read { path: path.to_owned(), source })?;
        if bytes > bytes_max {
            return Err(FolderError::TooLarge { path: path.to_owned(), bytes_max });
        }
        listing.charge(bytes)?;
        listing.list(path, bytes, sha256);
        Ok(Content::File { file: Arc::new(file), bytes })
    }

    /// Reads an asset, which is for guests, and takes it into the private folder. Returns
    /// its length.
    pub(super) fn take_asset(
        &self,
        taking: Taking,
        copies: &Dir,
        scratch: &Path,
        listing: &mut Listing,
    ) -> Result<u64, FolderError> {
        let scratch_error = |source| FolderError::Scratch { path: scratch.to_owned(), source };
        let (name, path) = (self.name, self.path);
        let mut file = open_file(self.code, name, path)?;
        if let Some((folder, _)) = name.rsplit_once('/') {
            copies.create_dir_all(folder).map_err(scratch_error)?;
            // Whatever this process's own mask is.
            for (end, _) in folder.match_indices('/').chain([(folder.len(), "")]) {
                let above = folder.get(..end).unwrap_or(folder);
                set_mode(copies, above, FOLDER_MODE).map_err(scratch_error)?;
            }
        }
        let mut copied = match taking {
            Taking::Copy => Some(copies.create(name).map_err(scratch_error)?),
            Taking::Link => {
                self.code.hard_link(name, copies, name).map_err(scratch_error)?;
                None
            }
            Taking::Nothing => None,
        };
        let mut hash = Sha256::new();
        let mut length = 0;
        let mut buffer = vec![0; COPY_BYTES];
        loop {
            let count = match file.read(&mut buffer) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(FolderError::Read { path: path.to_owned(), source }),
            };
            let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else { break };
            length += bytes.len() as u64;
            listing.charge(bytes.len() as u64)?;
            hash.update(bytes);
            if let Some(copied) = &mut copied {
                copied.write_all(bytes).map_err(scratch_error)?;
            }
        }
        if taking != Taking::Nothing {
            set_mode(copies, name, FILE_MODE).map_err(scratch_error)?;
        }
        listing.list(path, length, hash.finalize().into());
        Ok(length)
    }
}

fn set_mode(dir: &Dir, name: &str, mode: u32) -> io::Result<()> {
    // What is right already was not changed, to whoever looks at times.
    if dir.metadata(name)?.permissions().mode() & 0o777 == mode {
        return Ok(());
    }
    dir.set_permissions(name, Permissions::from_std(std::fs::Permissions::from_mode(mode)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_files_together_have_a_limit() {
        let mut listing = Listing::default();
        listing.charge(PACKAGE_BYTES_MAX - 1).unwrap();
        listing.charge(1).unwrap();
        let refused = listing.charge(1).unwrap_err().to_string();
        assert_eq!(refused, "1 has more than 17179869184 bytes; make it smaller");
    }
}
