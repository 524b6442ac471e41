//! Why a data directory, or something in it, cannot be used.

use super::record::RowError;
use rusqlite::ErrorCode;
use rustix::io::Errno;
use std::io;
use std::path::{Path, PathBuf};

/// Why a data directory cannot be used. Each text names the path and the fix.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory cannot be made or looked at.
    #[error("cannot use the data directory {path}; check that this user may write there")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is nothing of a host.
    #[error("there is no data of a host in {path}; give the --data-dir of `ringfence serve`")]
    NoStore {
        /// The directory.
        path: PathBuf,
    },
    /// Another host has it open.
    #[error(
        "the data directory {path} is in use by another host; stop that one or give another --data-dir"
    )]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// Others could read or replace what is secret.
    #[error("{path} is open to other users (mode {mode:03o}); run `chmod {allowed:03o} {path}`")]
    Permissions {
        /// The file or directory.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
        /// What they have to be.
        allowed: u32,
    },
    /// A file is not what it has to be.
    #[error("{path} is not what it should be: {problem}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: &'static str,
    },
    /// The database is not what was written.
    #[error("the database {path} is damaged ({problem}); {advice}")]
    DatabaseDamaged {
        /// The database.
        path: PathBuf,
        /// What is wrong.
        problem: String,
        /// What to do: which backup to restore.
        advice: String,
    },
    /// A file cannot be read or written.
    #[error("cannot read or write {path}; check the disk and the permissions")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A newer program has written it.
    #[error("{path} has schema {found}, this program knows {known}; use the newer program")]
    Newer {
        /// The database.
        path: PathBuf,
        /// What the file has.
        found: i64,
        /// What this program writes.
        known: i64,
    },
    /// The database fails.
    #[error("the database {path} fails; check the disk, or restore the data directory")]
    Database {
        /// The database.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// What was asked about is not there.
    #[error("there is no {what}")]
    Absent {
        /// What it is, with its name.
        what: String,
    },
    /// There is one already.
    #[error("there is {what} already")]
    Exists {
        /// What it is, with its name.
        what: String,
    },
    /// Nothing can be restored there.
    #[error("there is something in {path}; restore into a new or an empty directory")]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// The place that was named for a backup cannot be written to.
    #[error(
        "the host cannot write the backup {path}; name a file in a folder that is there, on the \
         host's machine, and that its user may write to"
    )]
    Unwritable {
        /// The backup.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something still needs it.
    #[error("{what} is still used by {by}; delete that first")]
    Used {
        /// What should go.
        what: String,
        /// What needs it.
        by: String,
    },
    /// A version's id stands for another content.
    #[error("the version {version} of {model} is stored with another content; it stays as it is")]
    OtherContent {
        /// The model.
        model: String,
        /// The version.
        version: String,
    },
    /// A backup cannot be read.
    #[error("{path} is no backup that can be restored: {problem}")]
    Backup {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The system has no random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(getrandom::Error),
}

impl StoreError {
    /// Whether the disk is full, read-only or broken: nothing is wrong with what
    /// was asked, and the operator can put it right.
    pub fn is_of_disk(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
        match self {
            Self::Directory { source, .. }
            | Self::File { source, .. }
            | Self::Unwritable { source, .. } => {
                matches!(source.kind(), StorageFull | ReadOnlyFilesystem | QuotaExceeded)
                    || Errno::from_io_error(source) == Some(Errno::IO)
            }
            Self::Database { source, .. } => matches!(
                source.sqlite_error_code(),
                Some(
                    ErrorCode::DiskFull
                        | ErrorCode::ReadOnly
                        | ErrorCode::SystemIoFailure
                        | ErrorCode::CannotOpen
                )
            ),
            Self::NoStore { .. }
            | Self::InUse { .. }
            | Self::Permissions { .. }
            | Self::Damaged { .. }
            | Self::DatabaseDamaged { .. }
            | Self::Newer { .. }
            | Self::Absent { .. }
            | Self::Exists { .. }
            | Self::NotEmpty { .. }
            | Self::Used { .. }
            | Self::OtherContent { .. }
            | Self::Backup { .. }
            | Self::Random(_) => false,
        }
    }

    pub(super) fn row(database: &Path, error: RowError) -> Self {
        match error {
            RowError::Database(source) => Self::Database { path: database.to_owned(), source },
            damaged @ RowError::Damaged { .. } => Self::DatabaseDamaged {
                path: database.to_owned(),
                problem: damaged.to_string(),
                advice: "run `ringfence store check`".to_owned(),
            },
        }
    }
}
