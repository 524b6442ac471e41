//! Reading `host.yaml` from the disk.

use super::Settings;
use crate::yaml::{self, BYTES_MAX};
use rustix::fs::OFlags;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Permissions that let everybody write.
const WRITABLE_BY_ALL: u32 = 0o002;

/// Why a `host.yaml` cannot be used. Each text names the path and the fix.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// It cannot be read.
    #[error("cannot read {path}; name a host.yaml that is there and that this user may read")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Everybody could change what the host does.
    #[error("everybody may write to {path}; run `chmod o-w {path}`")]
    Writable {
        /// The file.
        path: PathBuf,
    },
    /// It is not text.
    #[error("{path} is not UTF-8; save it as UTF-8")]
    NotUtf8 {
        /// The file.
        path: PathBuf,
    },
    /// It says what cannot be.
    #[error("cannot use {path}: {problem}")]
    Wrong {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: yaml::Error,
    },
}

/// Reads and checks a file. Relative paths in it begin at its folder.
pub fn open(path: &Path) -> Result<Settings, SettingsError> {
    let error = |source| SettingsError::Read { path: path.to_owned(), source };
    let file = open_regular(path).map_err(error)?;
    if file.metadata().map_err(error)?.mode() & WRITABLE_BY_ALL != 0 {
        return Err(SettingsError::Writable { path: path.to_owned() });
    }
    let text = content(file, BYTES_MAX).map_err(error)?;
    let text =
        String::from_utf8(text).map_err(|_| SettingsError::NotUtf8 { path: path.to_owned() })?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    Settings::parse_as(&name, &text, folder)
        .map_err(|problem| SettingsError::Wrong { path: path.to_owned(), problem })
}

/// Opens a file that has a content and an end.
pub(super) fn open_regular(path: &Path) -> io::Result<File> {
    // A pipe would be waited for.
    let flags = (OFlags::CLOEXEC | OFlags::NONBLOCK).bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file")),
    }
}

/// The first bytes of a file, at most one more than the limit, so that a reader
/// sees that there are too many.
pub(super) fn content(file: File, bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    file.take(bytes_max as u64 + 1).read_to_end(&mut content)?;
    Ok(content)
}
