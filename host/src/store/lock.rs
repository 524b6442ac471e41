//! Keeps a second host out of a data directory.
//!
//! Owns the lock file. The lock is the kernel's, so it ends with the process
//! however that ends; the file stays.

use super::{StoreError, private};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::path::Path;

/// A held lock.
#[derive(Debug)]
pub(super) struct Lock {
    /// Closing it gives the lock back.
    _file: File,
}

impl Lock {
    /// Takes the lock, or says that someone has it.
    pub(super) fn take(data_dir: &Path, name: &str) -> Result<Self, StoreError> {
        let path = data_dir.join(name);
        let file =
            private::open(&path, OpenOptions::new().create(true).truncate(false).write(true))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _file: file }),
            Err(Errno::WOULDBLOCK) => Err(StoreError::InUse { path: data_dir.to_owned() }),
            Err(errno) => Err(StoreError::File { path, source: errno.into() }),
        }
    }
}
