//! The tables of the database.
//!
//! Owns the schema and every statement.

use super::{KeyedHash, StoreError, private};
use rusqlite::{Connection, OpenFlags, params};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// What this program writes; a file with a later one is left alone.
const SCHEMA: i64 = 1;
const APPLICATION: i64 = 0x72_66_6e_63;
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// One stored token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRow {
    /// Whose it is.
    pub user_id: String,
    /// All that is kept of it.
    pub hash: KeyedHash,
}

/// Opens the database and brings it to the schema of this program.
pub(super) fn open(path: &Path) -> Result<Connection, StoreError> {
    private::touch(path)?;
    let error = |source| StoreError::Database { path: path.to_owned(), source };
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(error)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(error)?;
    let found: i64 =
        connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(error)?;
    if found > SCHEMA {
        return Err(StoreError::Newer { path: path.to_owned(), found, known: SCHEMA });
    }
    // An answer that was given must survive a power cut.
    connection.pragma_update(None, "journal_mode", "wal").map_err(error)?;
    connection.pragma_update(None, "synchronous", "full").map_err(error)?;
    connection.pragma_update(None, "foreign_keys", true).map_err(error)?;
    connection.pragma_update(None, "trusted_schema", false).map_err(error)?;
    if found < SCHEMA {
        migrate(&mut connection).map_err(error)?;
    }
    Ok(connection)
}

fn migrate(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    transaction.execute_batch(
        "CREATE TABLE tokens (
            id         INTEGER PRIMARY KEY,
            user_id    TEXT NOT NULL,
            hash       BLOB NOT NULL UNIQUE CHECK (length(hash) = 32),
            created_at INTEGER NOT NULL
        ) STRICT;",
    )?;
    transaction.pragma_update(None, "application_id", APPLICATION)?;
    transaction.pragma_update(None, "user_version", SCHEMA)?;
    transaction.commit()
}

/// How many tokens there are.
pub(super) fn count(connection: &Connection, path: &Path) -> Result<u64, StoreError> {
    let count: Result<i64, _> =
        connection.query_row("SELECT count(*) FROM tokens", [], |row| row.get(0));
    count
        .map(i64::unsigned_abs)
        .map_err(|source| StoreError::Database { path: path.to_owned(), source })
}

/// Every token.
pub(super) fn all(connection: &Connection, path: &Path) -> Result<Vec<TokenRow>, StoreError> {
    let rows = || -> rusqlite::Result<Vec<TokenRow>> {
        let mut statement = connection.prepare("SELECT user_id, hash FROM tokens ORDER BY id")?;
        let rows = statement.query_map([], |row| {
            Ok(TokenRow { user_id: row.get(0)?, hash: KeyedHash(row.get(1)?) })
        })?;
        rows.collect()
    };
    rows().map_err(|source| StoreError::Database { path: path.to_owned(), source })
}

/// Adds a token.
pub(super) fn add(
    connection: &Connection,
    user_id: &str,
    hash: &KeyedHash,
) -> rusqlite::Result<()> {
    // A clock before 1970 is no reason to fail; the time is for people only.
    let now =
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    connection
        .execute(
            "INSERT INTO tokens (user_id, hash, created_at) VALUES (?1, ?2, ?3)",
            params![user_id, hash.0, now],
        )
        .map(drop)
}
