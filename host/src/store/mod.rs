//! What the host keeps on disk, in one data directory.
//!
//! Owns the directory, its lock, its key, its database and the contents of
//! stored files. Knows no wire types and never sees a token: what it stores of
//! one is a keyed hash.

mod rows;

mod record;
mod schema;

mod accounts;
mod calls;
mod compute;
mod models;

mod blobs;
mod compiled;

mod audit;
mod backup;
mod calibration;
mod check;

mod error;
mod inspect;
mod key;
mod lock;
mod private;

#[cfg(test)]
mod tests;

pub use crate::clock::{now, now_ms};
pub use backup::BackedUp;
pub use blobs::Sha256Digest;
pub use calibration::calibration_of;
pub use check::{Freed, Report};
pub use compiled::SnapshotKeys;
pub use error::StoreError;
pub use inspect::{DataDir, inspect};
pub use key::{Key, KeyedHash};
pub use models::{Stored, Usage, VersionFile};
pub use rows::{
    AppRow, ClusterRow, DeploymentRow, FileRow, ModelRow, NodepoolRow, QuotaRow, ShareRow,
    StoppedBy, TokenRow, UserRow, VersionCallRow, VersionRow,
};

use audit::Audit;
use blobs::Blobs;
use compiled::CompiledCache;
use lock::Lock;
use record::{RowError, WriteError};
use rusqlite::{Connection, Transaction};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

const DATABASE: &str = "ringfence.db";
const KEY: &str = "secret.key";
const LOCK: &str = "ringfence.lock";

/// An open data directory, and the proof that no other host has it open. Its
/// functions block on the disk.
#[derive(Debug)]
pub struct Store {
    connection: Mutex<Connection>,
    key: Key,
    data_dir: PathBuf,
    blobs: Blobs,
    compiled: CompiledCache,
    audit: Audit,
    /// Read while contents are added that no row refers to yet, or copied;
    /// written while contents are removed.
    contents: RwLock<()>,
    /// Held as long as the store is.
    _lock: Lock,
}

impl Store {
    /// Opens a data directory, or makes one that only this user can enter.
    /// Every row is looked at; a damaged database is refused.
    pub fn open(data_dir: &Path) -> Result<Self, StoreError> {
        private::directory(data_dir)?;
        Self::open_locked(data_dir, Lock::take(data_dir, LOCK)?)
    }

    fn open_locked(data_dir: &Path, lock: Lock) -> Result<Self, StoreError> {
        let database = data_dir.join(DATABASE);
        let connection =
            schema::open(&database).map_err(|error| backup::advise(data_dir, error))?;
        check::whole(&connection, &database).map_err(|error| backup::advise(data_dir, error))?;
        let tokens: i64 = connection
            .query_row("SELECT count(*) FROM tokens", [], |row| row.get(0))
            .map_err(|source| StoreError::Database { path: database, source })?;
        let key = key::open(&data_dir.join(KEY), tokens == 0)?;
        Ok(Self {
            connection: Mutex::new(connection),
            compiled: CompiledCache::open(data_dir, &key)?,
            key,
            data_dir: data_dir.to_owned(),
            blobs: Blobs::open(data_dir)?,
            audit: Audit::open(data_dir)?,
            contents: RwLock::new(()),
            _lock: lock,
        })
    }

    /// The same, of a directory that is there.
    pub fn open_existing(data_dir: &Path) -> Result<Self, StoreError> {
        match data_dir.join(DATABASE).is_file() {
            true => Self::open(data_dir),
            false => Err(StoreError::NoStore { path: data_dir.to_owned() }),
        }
    }

    /// The directory.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The key of the hashes.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Writes a file that only this user can read, whole or not at all.
    pub fn write_private(path: &Path, content: &[u8]) -> Result<(), StoreError> {
        private::write(path, content)
    }

    /// Makes a folder of the data directory anew, that only this user can enter
    /// and that has nothing in it. Returns its path.
    pub fn emptied_folder(&self, name: &str) -> Result<PathBuf, StoreError> {
        let path = self.data_dir.join(name);
        private::emptied(&path)?;
        Ok(path)
    }

    fn read<T>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, RowError>,
    ) -> Result<T, StoreError> {
        read(&self.connection()).map_err(|error| self.error(error))
    }

    /// Does everything or nothing, and returns once it is on disk.
    fn write<T>(
        &self,
        write: impl FnOnce(&Transaction<'_>) -> Result<T, WriteError>,
    ) -> Result<T, StoreError> {
        let mut connection = self.connection();
        let whole = || -> Result<T, WriteError> {
            let transaction = connection.transaction()?;
            let written = write(&transaction)?;
            transaction.commit()?;
            Ok(written)
        };
        whole().map_err(|error| match error {
            WriteError::Row(error) => self.error(error),
            WriteError::Store(error) => error,
        })
    }

    fn error(&self, error: RowError) -> StoreError {
        StoreError::row(&self.database(), error)
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        // A transaction that was not committed is undone when it is dropped.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn database(&self) -> PathBuf {
        self.data_dir.join(DATABASE)
    }
}
