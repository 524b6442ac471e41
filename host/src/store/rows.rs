//! What stands in the tables: one type for each. Their columns are in the order
//! of the fields.

use super::KeyedHash;
use super::record::{Column, Columns, Record};
use crate::package::config::ModelName;
use rusqlite::types::Value;

/// A user, and what the user may take of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserRow {
    /// The name.
    pub id: String,
    /// Seconds since 1970.
    pub created_at: i64,
    /// Whether the user's tokens count for nothing.
    pub disabled: bool,
    /// Limits of the user, where they differ from the defaults.
    pub quota: QuotaRow,
}

/// What a user may take; nothing stands for the host's default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QuotaRow {
    /// Calls at a time.
    pub calls_max: Option<u64>,
    /// Fuel of all calls of a minute.
    pub fuel_per_minute_max: Option<u64>,
    /// Bytes of all versions.
    pub stored_bytes_max: Option<u64>,
    /// Models.
    pub models_max: Option<u64>,
    /// Uploads that are compiled in an hour.
    pub compilations_per_hour_max: Option<u64>,
}

/// An app of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppRow {
    /// The owner.
    pub user_id: String,
    /// The name.
    pub id: String,
    /// Seconds since 1970.
    pub created_at: i64,
}

/// Who has stopped a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoppedBy {
    /// Its owner.
    Owner,
    /// The operator, who alone starts it again.
    Operator,
}

/// A model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelRow {
    /// The name.
    pub name: ModelName,
    /// What the client said when it made the model.
    pub model_type_id: String,
    /// Seconds since 1970.
    pub created_at: i64,
    /// Who has stopped it, so that calls are refused.
    pub stopped: Option<StoppedBy>,
    /// The version that is called where none is named; nothing for the newest.
    pub promoted: Option<String>,
}

/// A version of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionRow {
    /// The model.
    pub name: ModelName,
    /// Derived from the content.
    pub id: String,
    /// Grows with every version of the model.
    pub number: u64,
    /// Seconds since 1970.
    pub created_at: i64,
    /// `model_type_id` of `config.yaml`.
    pub model_type_id: String,
    /// How many concepts it has.
    pub concepts: u64,
    /// What it says of its typed methods: JSON, or empty.
    pub methods: String,
    /// Bytes of its files.
    pub bytes: u64,
}

/// A file of a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileRow {
    /// The model.
    pub name: ModelName,
    /// The version.
    pub version_id: String,
    /// `config.yaml`, or below `1/`.
    pub path: String,
    /// Of its content.
    pub sha256: [u8; 32],
    /// Its length.
    pub bytes: u64,
}

/// When a version was last called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionCallRow {
    /// The model.
    pub name: ModelName,
    /// The version.
    pub version_id: String,
    /// Milliseconds since 1970.
    pub called_at_ms: i64,
}

/// A token. What it proves is kept, not the token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRow {
    /// By which it is listed and revoked.
    pub id: String,
    /// Whose it is.
    pub user_id: String,
    /// All that is kept of it.
    pub hash: KeyedHash,
    /// For people.
    pub name: String,
    /// What it may be used for, with spaces between.
    pub scopes: String,
    /// Seconds since 1970.
    pub created_at: i64,
    /// Seconds since 1970, if it ends by itself.
    pub expires_at: Option<i64>,
    /// Seconds since 1970, once it is revoked.
    pub revoked_at: Option<i64>,
}

/// A model that others may call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareRow {
    /// The model.
    pub name: ModelName,
    /// A user, or `*` for everyone.
    pub with: String,
    /// Seconds since 1970.
    pub created_at: i64,
}

impl ShareRow {
    /// Stands for every user; no user can be called so.
    pub const EVERYONE: &'static str = "*";
}

/// A compute cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterRow {
    /// The owner.
    pub user_id: String,
    /// The name.
    pub id: String,
    /// Seconds since 1970.
    pub created_at: i64,
    /// What its owner says of it, as JSON.
    pub detail: String,
}

/// A nodepool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodepoolRow {
    /// The owner.
    pub user_id: String,
    /// Its cluster.
    pub cluster_id: String,
    /// The name.
    pub id: String,
    /// Seconds since 1970.
    pub created_at: i64,
    /// What it has, and what its owner says of it, as JSON.
    pub detail: String,
}

/// A deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeploymentRow {
    /// The owner.
    pub user_id: String,
    /// The name.
    pub id: String,
    /// Seconds since 1970.
    pub created_at: i64,
    /// Seconds since 1970.
    pub modified_at: i64,
    /// The model.
    pub model: ModelName,
    /// The version; nothing to follow the model.
    pub version_id: Option<String>,
    /// Where it runs.
    pub cluster_id: String,
    /// Where in it.
    pub nodepool_id: String,
    /// Replicas and delays, and what its owner says of it, as JSON.
    pub detail: String,
}

impl Column for ModelName {
    fn put(&self, values: &mut Vec<Value>) {
        let parts = [self.user_id(), self.app_id(), self.id()];
        values.extend(parts.map(|part| Value::Text(part.to_owned())));
    }

    fn take(columns: &mut Columns) -> Option<Self> {
        let mut part = || String::take(columns);
        Self::new(&part()?, &part()?, &part()?).ok()
    }
}

/// 0 for nobody, as older schemas have it.
impl Column for Option<StoppedBy> {
    fn put(&self, values: &mut Vec<Value>) {
        let number: i64 = match self {
            None => 0,
            Some(StoppedBy::Owner) => 1,
            Some(StoppedBy::Operator) => 2,
        };
        number.put(values);
    }

    fn take(columns: &mut Columns) -> Option<Self> {
        match i64::take(columns)? {
            0 => Some(None),
            1 => Some(Some(StoppedBy::Owner)),
            2 => Some(Some(StoppedBy::Operator)),
            _ => None,
        }
    }
}

impl Column for KeyedHash {
    fn put(&self, values: &mut Vec<Value>) {
        self.0.put(values);
    }

    fn take(columns: &mut Columns) -> Option<Self> {
        Column::take(columns).map(Self)
    }
}

/// A type whose columns are its fields, one after the other.
macro_rules! fields {
    ($row:ident { $($field:ident),* }) => {
        impl Column for $row {
            fn put(&self, values: &mut Vec<Value>) {
                $(self.$field.put(values);)*
            }

            fn take(columns: &mut Columns) -> Option<Self> {
                Some(Self { $($field: Column::take(columns)?),* })
            }
        }
    };
}

/// Such a type and its table: the names of its columns, of which the first are
/// the key.
macro_rules! record {
    ($row:ident { $($field:ident),* }, $table:literal, $key:literal of $columns:expr) => {
        fields!($row { $($field),* });

        impl Record for $row {
            const TABLE: &'static str = $table;
            const COLUMNS: &'static [&'static str] = &$columns;
            const KEY: usize = $key;

            fn values(&self) -> Vec<Value> {
                let mut values = Vec::with_capacity(Self::COLUMNS.len());
                self.put(&mut values);
                values
            }

            fn of(columns: &mut Columns) -> Option<Self> {
                Column::take(columns)
            }
        }
    };
}

fields!(QuotaRow {
    calls_max,
    fuel_per_minute_max,
    stored_bytes_max,
    models_max,
    compilations_per_hour_max
});

record!(
    UserRow { id, created_at, disabled, quota },
    "users",
    1 of [
        "id", "created_at", "disabled", "calls_max", "fuel_per_minute_max",
        "stored_bytes_max", "models_max", "compilations_per_hour_max"
    ]
);
record!(
    AppRow { user_id, id, created_at },
    "apps",
    2 of [
        "user_id", "id", "created_at"
    ]
);
record!(
    ModelRow { name, model_type_id, created_at, stopped, promoted },
    "models",
    3 of [
        "user_id", "app_id", "id", "model_type_id", "created_at", "stopped", "promoted"
    ]
);
record!(
    VersionRow { name, id, number, created_at, model_type_id, concepts, methods, bytes },
    "versions",
    4 of [
        "user_id", "app_id", "model_id", "id", "number", "created_at", "model_type_id",
        "concepts", "methods", "bytes"
    ]
);
record!(
    FileRow { name, version_id, path, sha256, bytes },
    "version_files",
    5 of [
        "user_id", "app_id", "model_id", "version_id", "path", "sha256", "bytes"
    ]
);
record!(
    VersionCallRow { name, version_id, called_at_ms },
    "version_calls",
    4 of [
        "user_id", "app_id", "model_id", "version_id", "called_at_ms"
    ]
);
record!(
    TokenRow { id, user_id, hash, name, scopes, created_at, expires_at, revoked_at },
    "tokens",
    1 of [
        "id", "user_id", "hash", "name", "scopes", "created_at", "expires_at", "revoked_at"
    ]
);
record!(
    ShareRow { name, with, created_at },
    "shares",
    4 of [
        "user_id", "app_id", "model_id", "with_user", "created_at"
    ]
);
record!(
    ClusterRow { user_id, id, created_at, detail },
    "clusters",
    2 of [
        "user_id", "id", "created_at", "detail"
    ]
);
record!(
    NodepoolRow { user_id, cluster_id, id, created_at, detail },
    "nodepools",
    3 of [
        "user_id", "cluster_id", "id", "created_at", "detail"
    ]
);
record!(
    DeploymentRow { user_id, id, created_at, modified_at, model, version_id, cluster_id, nodepool_id, detail },
    "deployments",
    2 of [
        "user_id", "id", "created_at", "modified_at", "model_user_id", "model_app_id",
        "model_id", "version_id", "cluster_id", "nodepool_id", "detail"
    ]
);
