//! The database's tables, and the way from older ones.
//!
//! Owns the schema's version. A database is copied before it is changed.

use super::record::{self, RowError};
use super::rows::{ModelRow, StoppedBy, TokenRow, UserRow};
use super::{KeyedHash, QuotaRow, StoreError, now, private};
use rusqlite::{Connection, OpenFlags};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What this program writes; a file with a later one is left alone.
pub(super) const SCHEMA: i64 = 4;
const APPLICATION: i64 = 0x72_66_6e_63;
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// What tokens of the first schema were for.
const SCOPES_OF_OLD: &str = "predict upload admin";

/// Every table of the second schema. The first had one of `tokens`, of another
/// form.
const TABLES: &str = "
    CREATE TABLE users (
        id                        TEXT NOT NULL PRIMARY KEY,
        created_at                INTEGER NOT NULL,
        disabled                  INTEGER NOT NULL,
        calls_max                 INTEGER,
        fuel_per_minute_max       INTEGER,
        stored_bytes_max          INTEGER,
        models_max                INTEGER,
        compilations_per_hour_max INTEGER,
        sum                       BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE apps (
        user_id    TEXT NOT NULL REFERENCES users (id),
        id         TEXT NOT NULL,
        created_at INTEGER NOT NULL,
        sum        BLOB NOT NULL,
        PRIMARY KEY (user_id, id)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE models (
        user_id       TEXT NOT NULL,
        app_id        TEXT NOT NULL,
        id            TEXT NOT NULL,
        model_type_id TEXT NOT NULL,
        created_at    INTEGER NOT NULL,
        stopped       INTEGER NOT NULL,
        promoted      TEXT,
        sum           BLOB NOT NULL,
        PRIMARY KEY (user_id, app_id, id),
        FOREIGN KEY (user_id, app_id) REFERENCES apps (user_id, id)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE versions (
        user_id       TEXT NOT NULL,
        app_id        TEXT NOT NULL,
        model_id      TEXT NOT NULL,
        id            TEXT NOT NULL,
        number        INTEGER NOT NULL,
        created_at    INTEGER NOT NULL,
        model_type_id TEXT NOT NULL,
        concepts      INTEGER NOT NULL,
        methods       TEXT NOT NULL,
        bytes         INTEGER NOT NULL,
        sum           BLOB NOT NULL,
        PRIMARY KEY (user_id, app_id, model_id, id),
        UNIQUE (user_id, app_id, model_id, number),
        FOREIGN KEY (user_id, app_id, model_id) REFERENCES models (user_id, app_id, id) ON DELETE CASCADE
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE version_files (
        user_id    TEXT NOT NULL,
        app_id     TEXT NOT NULL,
        model_id   TEXT NOT NULL,
        version_id TEXT NOT NULL,
        path       TEXT NOT NULL,
        sha256     BLOB NOT NULL CHECK (length(sha256) = 32),
        bytes      INTEGER NOT NULL,
        sum        BLOB NOT NULL,
        PRIMARY KEY (user_id, app_id, model_id, version_id, path),
        FOREIGN KEY (user_id, app_id, model_id, version_id)
            REFERENCES versions (user_id, app_id, model_id, id) ON DELETE CASCADE
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX version_files_by_content ON version_files (sha256);
    CREATE TABLE tokens (
        id         TEXT NOT NULL PRIMARY KEY,
        user_id    TEXT NOT NULL REFERENCES users (id),
        hash       BLOB NOT NULL UNIQUE CHECK (length(hash) = 32),
        name       TEXT NOT NULL,
        scopes     TEXT NOT NULL,
        created_at INTEGER NOT NULL,
        expires_at INTEGER,
        revoked_at INTEGER,
        sum        BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE shares (
        user_id    TEXT NOT NULL,
        app_id     TEXT NOT NULL,
        model_id   TEXT NOT NULL,
        with_user  TEXT NOT NULL,
        created_at INTEGER NOT NULL,
        sum        BLOB NOT NULL,
        PRIMARY KEY (user_id, app_id, model_id, with_user),
        FOREIGN KEY (user_id, app_id, model_id) REFERENCES models (user_id, app_id, id) ON DELETE CASCADE
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE clusters (
        user_id    TEXT NOT NULL REFERENCES users (id),
        id         TEXT NOT NULL,
        created_at INTEGER NOT NULL,
        detail     TEXT NOT NULL,
        sum        BLOB NOT NULL,
        PRIMARY KEY (user_id, id)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE nodepools (
        user_id    TEXT NOT NULL,
        cluster_id TEXT NOT NULL,
        id         TEXT NOT NULL,
        created_at INTEGER NOT NULL,
        detail     TEXT NOT NULL,
        sum        BLOB NOT NULL,
        PRIMARY KEY (user_id, cluster_id, id),
        FOREIGN KEY (user_id, cluster_id) REFERENCES clusters (user_id, id)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE deployments (
        user_id       TEXT NOT NULL REFERENCES users (id),
        id            TEXT NOT NULL,
        created_at    INTEGER NOT NULL,
        modified_at   INTEGER NOT NULL,
        model_user_id TEXT NOT NULL,
        model_app_id  TEXT NOT NULL,
        model_id      TEXT NOT NULL,
        version_id    TEXT,
        cluster_id    TEXT NOT NULL,
        nodepool_id   TEXT NOT NULL,
        detail        TEXT NOT NULL,
        sum           BLOB NOT NULL,
        PRIMARY KEY (user_id, id)
    ) STRICT, WITHOUT ROWID;";

/// What the third schema has beside these. The fourth has the same tables; it says of
/// a stopped model who has stopped it.
const TABLES_OF_3: &str = "
    CREATE TABLE version_calls (
        user_id      TEXT NOT NULL,
        app_id       TEXT NOT NULL,
        model_id     TEXT NOT NULL,
        version_id   TEXT NOT NULL,
        called_at_ms INTEGER NOT NULL,
        sum          BLOB NOT NULL,
        PRIMARY KEY (user_id, app_id, model_id, version_id),
        FOREIGN KEY (user_id, app_id, model_id, version_id)
            REFERENCES versions (user_id, app_id, model_id, id) ON DELETE CASCADE
    ) STRICT, WITHOUT ROWID;";

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
    if found > 0 && found < SCHEMA {
        copy(&connection, path, found)?;
    }
    if found < SCHEMA {
        migrate(&mut connection, found).map_err(|source| StoreError::row(path, source))?;
    }
    Ok(connection)
}

/// Where the copy of a database lies that was made before its schema changed.
pub(super) fn copy_before(path: &Path, schema: i64) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".schema-{schema}"));
    path.with_file_name(name)
}

fn copy(connection: &Connection, path: &Path, schema: i64) -> Result<(), StoreError> {
    let copy = copy_before(path, schema);
    // One that is there is of a start that was cut off before it had changed
    // anything.
    match std::fs::remove_file(&copy) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(source) => return Err(StoreError::File { path: copy, source }),
    }
    snapshot(connection, path, &copy)
}

/// Writes a copy of the whole database, as it is at one moment.
pub(super) fn snapshot(
    connection: &Connection,
    path: &Path,
    into: &Path,
) -> Result<(), StoreError> {
    // SQLite gives a new file the permissions of the process; an empty one that
    // is there keeps its own.
    private::touch(into)?;
    let name = into.to_str().ok_or_else(|| StoreError::File {
        path: into.to_owned(),
        source: std::io::ErrorKind::InvalidFilename.into(),
    })?;
    connection
        .execute("VACUUM INTO ?1", [name])
        .map_err(|source| StoreError::Database { path: path.to_owned(), source })?;
    private::sync(into)
}

fn migrate(connection: &mut Connection, found: i64) -> Result<(), RowError> {
    let transaction = connection.transaction()?;
    if found < 2 {
        let mut old = Vec::new();
        if found == 1 {
            old = tokens_of_schema_1(&transaction)?;
            transaction.execute_batch("DROP TABLE tokens;")?;
        }
        transaction.execute_batch(TABLES)?;
        for token in old {
            record::put(&transaction, &user(&token.user_id))?;
            record::put(&transaction, &token)?;
        }
    }
    if found < 3 {
        transaction.execute_batch(TABLES_OF_3)?;
    }
    if (2..4).contains(&found) {
        // Nobody was noted. The operator can start what its owner has stopped; it
        // would be worse the other way round.
        let models: Vec<ModelRow> = record::select(&transaction, "", [])?;
        for mut model in models.into_iter().filter(|model| model.stopped.is_some()) {
            model.stopped = Some(StoppedBy::Operator);
            record::put(&transaction, &model)?;
        }
    }
    transaction.pragma_update(None, "application_id", APPLICATION)?;
    transaction.pragma_update(None, "user_version", SCHEMA)?;
    Ok(transaction.commit()?)
}

/// A user with nothing said of it.
pub(super) fn user(id: &str) -> UserRow {
    UserRow { id: id.to_owned(), created_at: now(), disabled: false, quota: QuotaRow::default() }
}

fn tokens_of_schema_1(connection: &Connection) -> Result<Vec<TokenRow>, RowError> {
    let mut statement =
        connection.prepare("SELECT id, user_id, hash, created_at FROM tokens ORDER BY id")?;
    let rows = statement.query_map([], |row| {
        Ok(TokenRow {
            id: format!("token-{}", row.get::<_, i64>(0)?),
            user_id: row.get(1)?,
            hash: KeyedHash(row.get(2)?),
            name: String::new(),
            scopes: SCOPES_OF_OLD.to_owned(),
            created_at: row.get(3)?,
            expires_at: None,
            revoked_at: None,
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}
