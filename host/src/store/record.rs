//! One row as one value, and the checksum that every row carries.
//!
//! Owns the statements that are the same for every table. What a row means is
//! in [`super::rows`].

use super::StoreError;
use rusqlite::types::Value;
use rusqlite::{Connection, Params, params_from_iter};
use sha2::{Digest, Sha256};

const SUM_BYTES: usize = 16;

/// Why a row cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub(super) enum RowError {
    #[error(transparent)]
    Database(#[from] rusqlite::Error),
    /// The row is not what was written.
    #[error("a row of the table {table} is damaged: {key}")]
    Damaged { table: &'static str, key: String },
}

/// Why a transaction is undone.
#[derive(Debug)]
pub(super) enum WriteError {
    Row(RowError),
    Store(StoreError),
}

impl From<RowError> for WriteError {
    fn from(error: RowError) -> Self {
        Self::Row(error)
    }
}

impl From<rusqlite::Error> for WriteError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Row(error.into())
    }
}

impl From<StoreError> for WriteError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// A row of one table. The columns begin with its key.
pub(super) trait Record: Sized {
    const TABLE: &'static str;
    const COLUMNS: &'static [&'static str];
    /// How many of the columns are the key.
    const KEY: usize;

    /// In the order of the columns.
    fn values(&self) -> Vec<Value>;

    /// Nothing where a column has another type than it should.
    fn of(columns: &mut Columns) -> Option<Self>;
}

/// The values of a row, taken one after the other.
pub(super) type Columns = std::vec::IntoIter<Value>;

/// What stands in one column, or in several beside each other.
pub(super) trait Column: Sized {
    fn put(&self, values: &mut Vec<Value>);

    /// Nothing where a value has another type than it should.
    fn take(columns: &mut Columns) -> Option<Self>;
}

impl Column for String {
    fn put(&self, values: &mut Vec<Value>) {
        values.push(Value::Text(self.clone()));
    }

    fn take(columns: &mut Columns) -> Option<Self> {
        match columns.next()? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }
}

impl Column for i64 {
    fn put(&self, values: &mut Vec<Value>) {
        values.push(Value::Integer(*self));
    }

    fn take(columns: &mut Columns) -> Option<Self> {
        match columns.next()? {
            Value::Integer(integer) => Some(integer),
            _ => None,
        }
    }
}

/// A count; SQLite has signed integers only.
impl Column for u64 {
    fn put(&self, values: &mut Vec<Value>) {
        i64::try_from(*self).unwrap_or(i64::MAX).put(values);
    }

    fn take(columns: &mut Columns) -> Option<Self> {
        Self::try_from(i64::take(columns)?).ok()
    }
}

impl Column for bool {
    fn put(&self, values: &mut Vec<Value>) {
        i64::from(*self).put(values);
    }

    fn take(columns: &mut Columns) -> Option<Self> {
        Some(i64::take(columns)? != 0)
    }
}

impl Column for [u8; 32] {
    fn put(&self, values: &mut Vec<Value>) {
        values.push(Value::Blob(self.to_vec()));
    }

    fn take(columns: &mut Columns) -> Option<Self> {
        match columns.next()? {
            Value::Blob(bytes) => bytes.try_into().ok(),
            _ => None,
        }
    }
}

/// Something of one column that may be absent.
impl<C: Column> Column for Option<C> {
    fn put(&self, values: &mut Vec<Value>) {
        match self {
            Some(column) => column.put(values),
            None => values.push(Value::Null),
        }
    }

    fn take(columns: &mut Columns) -> Option<Self> {
        match columns.as_slice().first()? {
            Value::Null => columns.next().map(|_| None),
            _ => C::take(columns).map(Some),
        }
    }
}

/// The checksum of a row: half a SHA-256 over the table's name and each value,
/// told apart by its type and length.
fn sum(table: &str, values: &[Value]) -> Value {
    let mut hash = Sha256::new();
    let mut add = |kind: u8, bytes: &[u8]| {
        hash.update([kind]);
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    add(b't', table.as_bytes());
    for value in values {
        match value {
            Value::Null => add(b'0', &[]),
            Value::Integer(integer) => add(b'i', &integer.to_le_bytes()),
            Value::Real(real) => add(b'r', &real.to_le_bytes()),
            Value::Text(text) => add(b's', text.as_bytes()),
            Value::Blob(bytes) => add(b'b', bytes),
        }
    }
    Value::Blob(hash.finalize().iter().take(SUM_BYTES).copied().collect())
}

/// Adds a row, or replaces the one of the same key.
pub(super) fn put<R: Record>(connection: &Connection, record: &R) -> Result<(), RowError> {
    let (key, rest) = R::COLUMNS.split_at_checked(R::KEY).unwrap_or((R::COLUMNS, &[]));
    let updates: Vec<String> =
        rest.iter().chain(&["sum"]).map(|column| format!("{column}=excluded.{column}")).collect();
    let places = vec!["?"; R::COLUMNS.len() + 1].join(",");
    let statement = format!(
        "INSERT INTO {} ({},sum) VALUES ({places}) ON CONFLICT({}) DO UPDATE SET {}",
        R::TABLE,
        R::COLUMNS.join(","),
        key.join(","),
        updates.join(",")
    );
    let mut values = record.values();
    values.push(sum(R::TABLE, &values));
    connection.prepare_cached(&statement)?.execute(params_from_iter(values))?;
    Ok(())
}

/// Rows that a clause such as `WHERE user_id=?1` takes, in the order of their
/// keys. Fails at the first that is damaged.
pub(super) fn select<R: Record>(
    connection: &Connection,
    clause: &str,
    params: impl Params,
) -> Result<Vec<R>, RowError> {
    let mut found = Vec::new();
    each(connection, clause, params, |row: Result<R, RowError>| {
        found.push(row?);
        Ok(())
    })?;
    Ok(found)
}

/// The only row that a clause takes, if it takes any.
pub(super) fn one<R: Record>(
    connection: &Connection,
    clause: &str,
    params: impl Params,
) -> Result<Option<R>, RowError> {
    Ok(select(connection, clause, params)?.into_iter().next())
}

/// Every damaged row of a table, by its key.
pub(super) fn damaged<R: Record>(connection: &Connection) -> Result<Vec<RowError>, RowError> {
    let mut found = Vec::new();
    each(connection, "", [], |row: Result<R, RowError>| {
        match row {
            Ok(_) => {}
            Err(error @ RowError::Damaged { .. }) => found.push(error),
            Err(error) => return Err(error),
        }
        Ok(())
    })?;
    Ok(found)
}

fn each<R: Record>(
    connection: &Connection,
    clause: &str,
    params: impl Params,
    mut seen: impl FnMut(Result<R, RowError>) -> Result<(), RowError>,
) -> Result<(), RowError> {
    let (key, _) = R::COLUMNS.split_at_checked(R::KEY).unwrap_or((R::COLUMNS, &[]));
    let statement = format!(
        "SELECT {},sum FROM {} {clause} ORDER BY {}",
        R::COLUMNS.join(","),
        R::TABLE,
        key.join(",")
    );
    let mut statement = connection.prepare_cached(&statement)?;
    let mut rows = statement.query(params)?;
    while let Some(row) = rows.next()? {
        let mut values = Vec::with_capacity(R::COLUMNS.len());
        for index in 0..R::COLUMNS.len() {
            values.push(row.get::<_, Value>(index)?);
        }
        let expected = sum(R::TABLE, &values);
        let key = shown(values.get(..R::KEY).unwrap_or_default());
        let whole = row.get::<_, Value>(R::COLUMNS.len())? == expected;
        let record = whole.then(|| R::of(&mut values.into_iter())).flatten();
        seen(record.ok_or(RowError::Damaged { table: R::TABLE, key }))?;
    }
    Ok(())
}

/// A key for people.
fn shown(key: &[Value]) -> String {
    let parts: Vec<String> = key
        .iter()
        .map(|value| match value {
            Value::Text(text) => crate::text::escape_controls(text),
            Value::Integer(integer) => integer.to_string(),
            Value::Null | Value::Real(_) | Value::Blob(_) => "?".to_owned(),
        })
        .collect();
    parts.join("/")
}
