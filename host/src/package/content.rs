//! What is in a file of a package, in memory or where it lies.

use crate::sealed::Sealed;
use bytes::Bytes;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// The content of a file that nobody else writes to.
#[derive(Debug, Clone)]
pub enum Content {
    /// In memory.
    Bytes(Bytes),
    /// In an open file.
    File {
        /// The file.
        file: Arc<File>,
        /// Its length.
        bytes: u64,
    },
}

impl Content {
    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File { bytes, .. } => *bytes,
        }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of it, in memory.
    pub fn read(&self) -> io::Result<Bytes> {
        match self {
            Self::Bytes(bytes) => Ok(bytes.clone()),
            Self::File { file, bytes } => {
                let mut all = vec![0; usize::try_from(*bytes).map_err(io::Error::other)?];
                file.read_exact_at(&mut all, 0)?;
                Ok(all.into())
            }
        }
    }

    /// As an open file, for another process.
    pub fn file(&self) -> io::Result<Passed> {
        match self {
            Self::Bytes(bytes) => Ok(Passed::Sealed(Sealed::of(bytes.as_ref())?)),
            Self::File { file, .. } => Ok(Passed::File(file.clone())),
        }
    }
}

/// A file for another process.
#[derive(Debug)]
pub enum Passed {
    /// Made for it.
    Sealed(Sealed),
    /// One that there is.
    File(Arc<File>),
}

impl AsFd for Passed {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Sealed(sealed) => sealed.as_fd(),
            Self::File(file) => file.as_fd(),
        }
    }
}
