//! What stands in the tables: one type for each.

use super::KeyedHash;
use super::record::{Columns, Record, count, count_or_null, text_or_null};
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

/// A model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelRow {
    /// The name.
    pub name: ModelName,
    /// What the client said when it made the model.
    pub model_type_id: String,
    /// Seconds since 1970.
    pub created_at: i64,
    /// Whether calls are refused.
    pub stopped: bool,
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

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

fn name_values(name: &ModelName) -> [Value; 3] {
    [text(name.user_id()), text(name.app_id()), text(name.id())]
}

fn name_of(columns: &mut Columns) -> Option<ModelName> {
    ModelName::new(&columns.text()?, &columns.text()?, &columns.text()?).ok()
}

impl Record for UserRow {
    const TABLE: &'static str = "users";
    const COLUMNS: &'static [&'static str] = &[
        "id",
        "created_at",
        "disabled",
        "calls_max",
        "fuel_per_minute_max",
        "stored_bytes_max",
        "models_max",
        "compilations_per_hour_max",
    ];
    const KEY: usize = 1;

    fn values(&self) -> Vec<Value> {
        let quota = &self.quota;
        vec![
            text(&self.id),
            Value::Integer(self.created_at),
            Value::Integer(self.disabled.into()),
            count_or_null(quota.calls_max),
            count_or_null(quota.fuel_per_minute_max),
            count_or_null(quota.stored_bytes_max),
            count_or_null(quota.models_max),
            count_or_null(quota.compilations_per_hour_max),
        ]
    }

    fn of(columns: &mut Columns) -> Option<Self> {
        Some(Self {
            id: columns.text()?,
            created_at: columns.integer()?,
            disabled: columns.boolean()?,
            quota: QuotaRow {
                calls_max: columns.count_or_null()?,
                fuel_per_minute_max: columns.count_or_null()?,
                stored_bytes_max: columns.count_or_null()?,
                models_max: columns.count_or_null()?,
                compilations_per_hour_max: columns.count_or_null()?,
            },
        })
    }
}

impl Record for AppRow {
    const TABLE: &'static str = "apps";
    const COLUMNS: &'static [&'static str] = &["user_id", "id", "created_at"];
    const KEY: usize = 2;

    fn values(&self) -> Vec<Value> {
        vec![text(&self.user_id), text(&self.id), Value::Integer(self.created_at)]
    }

    fn of(columns: &mut Columns) -> Option<Self> {
        Some(Self { user_id: columns.text()?, id: columns.text()?, created_at: columns.integer()? })
    }
}

impl Record for ModelRow {
    const TABLE: &'static str = "models";
    const COLUMNS: &'static [&'static str] =
        &["user_id", "app_id", "id", "model_type_id", "created_at", "stopped", "promoted"];
    const KEY: usize = 3;

    fn values(&self) -> Vec<Value> {
        let mut values = name_values(&self.name).to_vec();
        values.extend([
            text(&self.model_type_id),
            Value::Integer(self.created_at),
            Value::Integer(self.stopped.into()),
            text_or_null(&self.promoted),
        ]);
        values
    }

    fn of(columns: &mut Columns) -> Option<Self> {
        Some(Self {
            name: name_of(columns)?,
            model_type_id: columns.text()?,
            created_at: columns.integer()?,
            stopped: columns.boolean()?,
            promoted: columns.text_or_null()?,
        })
    }
}

impl Record for VersionRow {
    const TABLE: &'static str = "versions";
    const COLUMNS: &'static [&'static str] = &[
        "user_id",
        "app_id",
        "model_id",
        "id",
        "number",
        "created_at",
        "model_type_id",
        "concepts",
        "methods",
        "bytes",
    ];
    const KEY: usize = 4;

    fn values(&self) -> Vec<Value> {
        let mut values = name_values(&self.name).to_vec();
        values.extend([
            text(&self.id),
            count(self.number),
            Value::Integer(self.created_at),
            text(&self.model_type_id),
            count(self.concepts),
            text(&self.methods),
            count(self.bytes),
        ]);
        values
    }

    fn of(columns: &mut Columns) -> Option<Self> {
        Some(Self {
            name: name_of(columns)?,
            id: columns.text()?,
            number: columns.count()?,
            created_at: columns.integer()?,
            model_type_id: columns.text()?,
            concepts: columns.count()?,
            methods: columns.text()?,
            bytes: columns.count()?,
        })
    }
}

impl Record for FileRow {
    const TABLE: &'static str = "version_files";
    const COLUMNS: &'static [&'static str] =
        &["user_id", "app_id", "model_id", "version_id", "path", "sha256", "bytes"];
    const KEY: usize = 5;

    fn values(&self) -> Vec<Value> {
        let mut values = name_values(&self.name).to_vec();
        values.extend([
            text(&self.version_id),
            text(&self.path),
            Value::Blob(self.sha256.to_vec()),
            count(self.bytes),
        ]);
        values
    }

    fn of(columns: &mut Columns) -> Option<Self> {
        Some(Self {
            name: name_of(columns)?,
            version_id: columns.text()?,
            path: columns.text()?,
            sha256: columns.digest()?,
            bytes: columns.count()?,
        })
    }
}

impl Record for TokenRow {
    const TABLE: &'static str = "tokens";
    const COLUMNS: &'static [&'static str] =
        &["id", "user_id", "hash", "name", "scopes", "created_at", "expires_at", "revoked_at"];
    const KEY: usize = 1;

    fn values(&self) -> Vec<Value> {
        vec![
            text(&self.id),
            text(&self.user_id),
            Value::Blob(self.hash.0.to_vec()),
            text(&self.name),
            text(&self.scopes),
            Value::Integer(self.created_at),
            self.expires_at.map_or(Value::Null, Value::Integer),
            self.revoked_at.map_or(Value::Null, Value::Integer),
        ]
    }

    fn of(columns: &mut Columns) -> Option<Self> {
        Some(Self {
            id: columns.text()?,
            user_id: columns.text()?,
            hash: KeyedHash(columns.digest()?),
            name: columns.text()?,
            scopes: columns.text()?,
            created_at: columns.integer()?,
            expires_at: columns.integer_or_null()?,
            revoked_at: columns.integer_or_null()?,
        })
    }
}

impl Record for ShareRow {
    const TABLE: &'static str = "shares";
    const COLUMNS: &'static [&'static str] =
        &["user_id", "app_id", "model_id", "with_user", "created_at"];
    const KEY: usize = 4;

    fn values(&self) -> Vec<Value> {
        let mut values = name_values(&self.name).to_vec();
        values.extend([text(&self.with), Value::Integer(self.created_at)]);
        values
    }

    fn of(columns: &mut Columns) -> Option<Self> {
        Some(Self {
            name: name_of(columns)?,
            with: columns.text()?,
            created_at: columns.integer()?,
        })
    }
}

impl Record for ClusterRow {
    const TABLE: &'static str = "clusters";
    const COLUMNS: &'static [&'static str] = &["user_id", "id", "created_at", "detail"];
    const KEY: usize = 2;

    fn values(&self) -> Vec<Value> {
        vec![
            text(&self.user_id),
            text(&self.id),
            Value::Integer(self.created_at),
            text(&self.detail),
        ]
    }

    fn of(columns: &mut Columns) -> Option<Self> {
        Some(Self {
            user_id: columns.text()?,
            id: columns.text()?,
            created_at: columns.integer()?,
            detail: columns.text()?,
        })
    }
}

impl Record for NodepoolRow {
    const TABLE: &'static str = "nodepools";
    const COLUMNS: &'static [&'static str] =
        &["user_id", "cluster_id", "id", "created_at", "detail"];
    const KEY: usize = 3;

    fn values(&self) -> Vec<Value> {
        vec![
            text(&self.user_id),
            text(&self.cluster_id),
            text(&self.id),
            Value::Integer(self.created_at),
            text(&self.detail),
        ]
    }

    fn of(columns: &mut Columns) -> Option<Self> {
        Some(Self {
            user_id: columns.text()?,
            cluster_id: columns.text()?,
            id: columns.text()?,
            created_at: columns.integer()?,
            detail: columns.text()?,
        })
    }
}

impl Record for DeploymentRow {
    const TABLE: &'static str = "deployments";
    const COLUMNS: &'static [&'static str] = &[
        "user_id",
        "id",
        "created_at",
        "modified_at",
        "model_user_id",
        "model_app_id",
        "model_id",
        "version_id",
        "cluster_id",
        "nodepool_id",
        "detail",
    ];
    const KEY: usize = 2;

    fn values(&self) -> Vec<Value> {
        let mut values = vec![
            text(&self.user_id),
            text(&self.id),
            Value::Integer(self.created_at),
            Value::Integer(self.modified_at),
        ];
        values.extend(name_values(&self.model));
        values.extend([
            text_or_null(&self.version_id),
            text(&self.cluster_id),
            text(&self.nodepool_id),
            text(&self.detail),
        ]);
        values
    }

    fn of(columns: &mut Columns) -> Option<Self> {
        Some(Self {
            user_id: columns.text()?,
            id: columns.text()?,
            created_at: columns.integer()?,
            modified_at: columns.integer()?,
            model: name_of(columns)?,
            version_id: columns.text_or_null()?,
            cluster_id: columns.text()?,
            nodepool_id: columns.text()?,
            detail: columns.text()?,
        })
    }
}
