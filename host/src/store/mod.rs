//! What the host keeps on disk, in one data directory.
//!
//! Owns the directory, its lock, its key and its database. Knows no wire types
//! and never sees a token: what it stores of one is a keyed hash.

mod inspect;
mod key;
mod lock;
mod private;
mod rows;

#[cfg(test)]
mod tests;

pub use inspect::{DataDir, inspect};
pub use key::{Key, KeyedHash};
pub use rows::TokenRow;

use lock::Lock;
use rusqlite::Connection;
use std::io;
use std::path::{Path, PathBuf};

const DATABASE: &str = "ringfence.db";
const KEY: &str = "secret.key";
const LOCK: &str = "ringfence.lock";

/// An open data directory, and the proof that no other host has it open.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
    key: Key,
    data_dir: PathBuf,
    /// Held as long as the store is.
    _lock: Lock,
}

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
    /// The system has no random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(getrandom::Error),
}

impl Store {
    /// Opens a data directory, or makes one that only this user can enter.
    pub fn open(data_dir: &Path) -> Result<Self, StoreError> {
        private::directory(data_dir)?;
        let lock = Lock::take(data_dir, LOCK)?;
        let database = data_dir.join(DATABASE);
        let connection = rows::open(&database)?;
        let key = key::open(&data_dir.join(KEY), rows::count(&connection, &database)? == 0)?;
        Ok(Self { connection, key, data_dir: data_dir.to_owned(), _lock: lock })
    }

    /// The directory.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The key of the hashes.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Every token.
    pub fn tokens(&self) -> Result<Vec<TokenRow>, StoreError> {
        rows::all(&self.connection, &self.database())
    }

    /// Adds a token of a user and returns only when it is on disk. `before`
    /// runs first; when it fails, the token is not added.
    pub fn add_token(
        &mut self,
        user_id: &str,
        hash: &KeyedHash,
        before: impl FnOnce(&Path) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let database = self.database();
        let database_error = |source| StoreError::Database { path: database.clone(), source };
        let transaction = self.connection.transaction().map_err(database_error)?;
        rows::add(&transaction, user_id, hash).map_err(database_error)?;
        before(&self.data_dir)?;
        transaction.commit().map_err(database_error)
    }

    /// Writes a file that only this user can read, whole or not at all.
    pub fn write_private(path: &Path, content: &[u8]) -> Result<(), StoreError> {
        private::write(path, content)
    }

    fn database(&self) -> PathBuf {
        self.data_dir.join(DATABASE)
    }
}
