//! The files of versions' logs: two for each, the newer and the older half.
//!
//! Owns their bounds: bytes of a file, and versions that have any. The version
//! that has been silent longest makes room for a new one.

use super::{Entry, ReadError};
use crate::limits::limit;
use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Bytes of one of the two files of a version.
pub(super) const FILE_BYTES_MAX: u64 = 512 << 10;

/// Versions that have a log.
pub(super) const VERSIONS_MAX: usize = 1000;

const NEWER: &str = ".log";
const OLDER: &str = ".log.1";

/// The folder of all logs, held by the thread that writes.
#[derive(Debug)]
pub(super) struct Files {
    folder: PathBuf,
    versions_max: usize,
    /// When each version last wrote, as a number that grows.
    written: HashMap<String, u64>,
    clock: u64,
}

impl Files {
    /// Makes the folder if need be, and looks which versions have written when.
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let mut found = Vec::new();
        for file in fs::read_dir(folder)? {
            let file = file?;
            let name = file.file_name();
            let name = name.to_str().unwrap_or_default();
            let key = name.strip_suffix(NEWER).or_else(|| name.strip_suffix(OLDER));
            if let Some(key) = key {
                let at = file.metadata()?.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                found.push((at, key.to_owned()));
            }
        }
        found.sort();
        let mut files = Self {
            folder: folder.to_owned(),
            versions_max: VERSIONS_MAX,
            written: HashMap::new(),
            clock: 0,
        };
        for (_, key) in found {
            files.note(&key)?;
        }
        Ok(files)
    }

    /// Writes an entry, and drops the older half of the version's log where it
    /// needs the room.
    pub(super) fn append(&mut self, key: &str, entry: &Entry) -> io::Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        let bytes = line.len() as u64;
        let bytes_max = limit("version_log_bytes", FILE_BYTES_MAX);
        if bytes > bytes_max {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.note(key)?;
        let path = self.path(key, NEWER);
        let mut file = append_to(&path)?;
        if file.metadata()?.len().saturating_add(bytes) > bytes_max {
            fs::rename(&path, self.path(key, OLDER))?;
            file = append_to(&path)?;
        }
        file.write_all(&line)
    }

    /// Removes what a version has written.
    pub(super) fn remove(&mut self, key: &str) -> io::Result<()> {
        self.written.remove(key);
        for end in [NEWER, OLDER] {
            match fs::remove_file(self.path(key, end)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// Remembers that a version writes, and makes room for it.
    fn note(&mut self, key: &str) -> io::Result<()> {
        self.clock += 1;
        if let Some(at) = self.written.get_mut(key) {
            *at = self.clock;
            return Ok(());
        }
        while self.written.len() >= limit("version_logs", self.versions_max) {
            let silent = self.written.iter().min_by_key(|(_, at)| **at);
            let Some(silent) = silent.map(|(key, _)| key.clone()) else { break };
            self.remove(&silent)?;
        }
        self.written.insert(key.to_owned(), self.clock);
        Ok(())
    }

    fn path(&self, key: &str, end: &str) -> PathBuf {
        self.folder.join(format!("{key}{end}"))
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// Everything that a version has written, the oldest first.
pub(super) fn read(folder: &Path, key: &str) -> Result<Vec<Entry>, ReadError> {
    // In this order: what becomes the older half meanwhile is then read twice
    // and not lost.
    let newer = bytes_of(&folder.join(format!("{key}{NEWER}")))?;
    let older = bytes_of(&folder.join(format!("{key}{OLDER}")))?;
    if newer.is_none() && older.is_none() {
        return Err(ReadError::Missing);
    }
    let (mut newer, older) = (newer.unwrap_or_default(), older.unwrap_or_default());
    if older.starts_with(&newer) {
        newer.clear();
    }
    let lines = older.split(|byte| *byte == b'\n').chain(newer.split(|byte| *byte == b'\n'));
    // A line that was cut off, as by a crash, is no entry.
    Ok(lines.filter_map(|line| serde_json::from_slice(line).ok()).collect())
}

fn bytes_of(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}
