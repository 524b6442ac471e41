//! A look at a data directory that changes nothing of it.

use super::{LOCK, StoreError, lock, private};
use rustix::fs::{Access, access};
use std::path::Path;

/// What a host would find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataDir {
    /// Nothing; it would be made.
    NotThere,
    /// A directory that no host has open.
    Free,
}

/// Looks at a data directory. Fails as [`super::Store::open`] would where others
/// can write to it, or where a host has it open; the lock is held for that
/// moment alone. What is in the database is not looked at.
pub fn inspect(data_dir: &Path) -> Result<DataDir, StoreError> {
    match data_dir.try_exists() {
        Ok(false) => {
            // Folders above it may be missing as well.
            let above = data_dir.ancestors().skip(1).find(|folder| folder.exists());
            let above = above.filter(|folder| !folder.as_os_str().is_empty());
            writable(data_dir, above.unwrap_or(Path::new(".")))?;
            return Ok(DataDir::NotThere);
        }
        Ok(true) => {}
        Err(source) => {
            return Err(StoreError::Directory { path: data_dir.to_owned(), source });
        }
    }
    private::check(data_dir)?;
    writable(data_dir, data_dir)?;
    if data_dir.join(LOCK).exists() {
        drop(lock::Lock::take(data_dir, LOCK)?);
    }
    Ok(DataDir::Free)
}

fn writable(data_dir: &Path, folder: &Path) -> Result<(), StoreError> {
    access(folder, Access::WRITE_OK | Access::EXEC_OK)
        .map_err(|errno| StoreError::Directory { path: data_dir.to_owned(), source: errno.into() })
}
