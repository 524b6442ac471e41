//! Files and directories that no other user can read.
//!
//! Owns how they are made and checked; knows not what is in them.

use super::StoreError;
use rustix::fs::OFlags;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
const WRITABLE_BY_OTHERS: u32 = 0o022;
const OPEN_TO_OTHERS: u32 = 0o077;

/// Makes the directory, or checks that nobody else may write to one that is
/// there. Being entered by others is no harm: what is secret in it has
/// permissions of its own.
pub(super) fn directory(path: &Path) -> Result<(), StoreError> {
    let error = |source| StoreError::Directory { path: path.to_owned(), source };
    match DirBuilder::new().recursive(false).mode(DIRECTORY_MODE).create(path) {
        Ok(()) => return Ok(()),
        Err(source) if source.kind() == io::ErrorKind::AlreadyExists => {}
        Err(source) if source.kind() == io::ErrorKind::NotFound => {
            // Folders above it are nobody's secret.
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent).map_err(error)?;
            }
            return DirBuilder::new().mode(DIRECTORY_MODE).create(path).map_err(error);
        }
        Err(source) => return Err(error(source)),
    }
    check(path)
}

/// Makes the directory anew, with nothing in it.
pub(super) fn emptied(path: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(file_error(path, error));
        }
        _ => {}
    }
    directory(path)
}

/// Checks that nobody else may write to a directory that is there.
pub(super) fn check(path: &Path) -> Result<(), StoreError> {
    let error = |source| StoreError::Directory { path: path.to_owned(), source };
    let metadata = fs::metadata(path).map_err(error)?;
    if !metadata.is_dir() {
        return Err(error(io::ErrorKind::NotADirectory.into()));
    }
    let mode = metadata.mode() & 0o777;
    if mode & WRITABLE_BY_OTHERS != 0 {
        return Err(StoreError::Permissions {
            path: path.to_owned(),
            mode,
            allowed: DIRECTORY_MODE,
        });
    }
    Ok(())
}

/// Makes an empty file unless there is one; SQLite would make it readable for
/// all, and gives its own files the permissions of this one.
pub(super) fn touch(path: &Path) -> Result<(), StoreError> {
    open(path, OpenOptions::new().create(true).truncate(false).write(true)).map(drop)
}

/// The content of a file, up to a length, or nothing where there is no file.
pub(super) fn read(path: &Path, bytes_max: u64) -> Result<Option<Vec<u8>>, StoreError> {
    let file = match open(path, OpenOptions::new().read(true)) {
        Err(StoreError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Ok(None);
        }
        file => file?,
    };
    let mut content = Vec::new();
    file.take(bytes_max).read_to_end(&mut content).map_err(|source| file_error(path, source))?;
    Ok(Some(content))
}

/// Opens a file and checks that it is one and that it is nobody else's to see.
pub(super) fn open(path: &Path, options: &mut OpenOptions) -> Result<File, StoreError> {
    let flags = (OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK).bits().cast_signed();
    let file = options
        .mode(FILE_MODE)
        .custom_flags(flags)
        .open(path)
        .map_err(|source| file_error(path, source))?;
    let metadata = file.metadata().map_err(|source| file_error(path, source))?;
    if !metadata.is_file() {
        return Err(StoreError::Damaged {
            path: path.to_owned(),
            problem: "it is no file; move it away",
        });
    }
    let mode = metadata.permissions().mode() & 0o777;
    if mode & OPEN_TO_OTHERS != 0 {
        return Err(StoreError::Permissions { path: path.to_owned(), mode, allowed: FILE_MODE });
    }
    Ok(file)
}

/// Writes a file beside its place and moves it there once it is on disk.
pub(super) fn write(path: &Path, content: &[u8]) -> Result<(), StoreError> {
    let folder =
        path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let write = || -> io::Result<()> {
        // A temporary file has mode 600 from the start and goes on any error.
        let mut file = tempfile::Builder::new().prefix(".tmp-").tempfile_in(folder)?;
        file.write_all(content)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        File::open(folder)?.sync_all()
    };
    write().map_err(|source| file_error(path, source))
}

/// Brings a file or a folder to disk.
pub(super) fn sync(path: &Path) -> Result<(), StoreError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(|source| file_error(path, source))
}

fn file_error(path: &Path, source: io::Error) -> StoreError {
    StoreError::File { path: path.to_owned(), source }
}
