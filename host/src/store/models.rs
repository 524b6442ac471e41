//! Models, their versions and with whom they are shared.
//!
//! A version is added whole: its contents are on disk before the rows that
//! name them, and the rows are one transaction.

use super::record::{self, WriteError};
use super::rows::{FileRow, ModelRow, ShareRow, VersionRow};
use super::{Sha256Digest, Store, StoreError, now};
use crate::package::config::ModelName;
use rusqlite::Transaction;
use std::fs::File;
use std::path::PathBuf;

/// A file to store.
#[derive(Debug)]
pub struct VersionFile {
    /// `config.yaml`, or below `1/`.
    pub path: String,
    /// Of its content.
    pub sha256: Sha256Digest,
    /// Its length.
    pub bytes: u64,
    /// Its content.
    pub content: File,
}

#[cfg(test)]
impl VersionFile {
    /// Of a content that a test has.
    pub(crate) fn of(path: &str, content: &[u8]) -> Self {
        use std::io::{Seek, Write};
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        file.rewind().unwrap();
        let (sha256, bytes) = crate::digest::sha256_of(content).unwrap();
        Self { path: path.to_owned(), sha256, bytes, content: file }
    }
}

/// What became of a version that was to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored {
    /// It was not there before.
    New(VersionRow),
    /// The same content was there.
    Same(VersionRow),
}

/// What a user has stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Models.
    pub models: u64,
    /// Bytes of all versions.
    pub bytes: u64,
}

impl Store {
    /// What a user has stored.
    pub fn usage(&self, user_id: &str) -> Result<Usage, StoreError> {
        self.read(|connection| {
            let count = |statement: &str| -> rusqlite::Result<u64> {
                let count: i64 = connection.query_row(statement, [user_id], |row| row.get(0))?;
                Ok(count.unsigned_abs())
            };
            Ok(Usage {
                models: count("SELECT count(*) FROM models WHERE user_id=?1")?,
                bytes: count("SELECT coalesce(sum(bytes), 0) FROM versions WHERE user_id=?1")?,
            })
        })
    }

    /// Every model, in the order of names.
    pub fn models(&self) -> Result<Vec<ModelRow>, StoreError> {
        self.read(|connection| record::select(connection, "", []))
    }

    /// A model.
    pub fn model(&self, name: &ModelName) -> Result<Option<ModelRow>, StoreError> {
        self.read(|connection| record::one(connection, MODEL, key(name)))
    }

    /// Makes a model, or finds the one that is there. Its app has to be there.
    pub fn ensure_model(
        &self,
        name: &ModelName,
        model_type_id: &str,
    ) -> Result<ModelRow, StoreError> {
        if let Some(model) = self.model(name)? {
            return Ok(model);
        }
        let model = ModelRow {
            name: name.clone(),
            model_type_id: model_type_id.to_owned(),
            created_at: now(),
            stopped: None,
            promoted: None,
        };
        self.write(|transaction| Ok(record::put(transaction, &model)?))?;
        Ok(model)
    }

    /// Changes what is kept of a model.
    pub fn update_model(
        &self,
        name: &ModelName,
        change: impl FnOnce(&mut ModelRow),
    ) -> Result<ModelRow, StoreError> {
        self.write(|transaction| {
            let found = record::one(transaction, MODEL, key(name));
            let mut model: ModelRow = found?.ok_or_else(|| absent(name))?;
            change(&mut model);
            record::put(transaction, &model)?;
            Ok(model)
        })
    }

    /// Deletes a model with all its versions, shares and deployments.
    pub fn delete_model(&self, name: &ModelName) -> Result<(), StoreError> {
        let contents = self.contents_of(name, None)?;
        self.write(|transaction| {
            let deleted = transaction.execute(
                "DELETE FROM models WHERE user_id=?1 AND app_id=?2 AND id=?3",
                key(name),
            )?;
            if deleted == 0 {
                return Err(absent(name).into());
            }
            transaction.execute(
                "DELETE FROM deployments \
                     WHERE model_user_id=?1 AND model_app_id=?2 AND model_id=?3",
                key(name),
            )?;
            Ok(())
        })?;
        self.free(&contents);
        Ok(())
    }

    /// Every version, those of a model in the order in which they came.
    pub fn versions(&self) -> Result<Vec<VersionRow>, StoreError> {
        let mut versions: Vec<VersionRow> =
            self.read(|connection| record::select(connection, "", []))?;
        versions.sort_by(|a, b| (&a.name, a.number).cmp(&(&b.name, b.number)));
        Ok(versions)
    }

    /// The files of a version.
    pub fn files(&self, name: &ModelName, version: &str) -> Result<Vec<FileRow>, StoreError> {
        let [user, app, model] = key(name);
        self.read(|connection| record::select(connection, FILES, [user, app, model, version]))
    }

    /// Where the content of a file lies. It is read-only; what is there has to
    /// be compared with its digest before it is believed.
    pub fn content_path(&self, digest: &Sha256Digest) -> PathBuf {
        self.blobs.path(digest)
    }

    /// Stores a version of a model that is there. The number of `version` is
    /// not read: it is the next. Returns once everything is on disk.
    pub fn add_version(
        &self,
        version: &VersionRow,
        files: &mut [VersionFile],
    ) -> Result<Stored, StoreError> {
        // Nothing is freed between a content's coming and the row that names it.
        let _contents = self.contents.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        for file in files.iter_mut() {
            self.blobs.put(&file.sha256, file.bytes, &mut file.content)?;
        }
        self.write(|transaction| {
            let rows: Vec<FileRow> = files.iter().map(|file| row(version, file)).collect();
            if let Some(same) = self.same(transaction, version, &rows)? {
                return Ok(Stored::Same(same));
            }
            let number: i64 = transaction.query_row(
                "SELECT coalesce(max(number), 0) FROM versions \
                     WHERE user_id=?1 AND app_id=?2 AND model_id=?3",
                key(&version.name),
                |row| row.get(0),
            )?;
            let version = VersionRow { number: number.unsigned_abs() + 1, ..version.clone() };
            record::put(transaction, &version)?;
            for row in &rows {
                record::put(transaction, row)?;
            }
            Ok(Stored::New(version))
        })
    }

    /// The version that is stored under the same id, if it has the same files.
    fn same(
        &self,
        transaction: &Transaction<'_>,
        version: &VersionRow,
        rows: &[FileRow],
    ) -> Result<Option<VersionRow>, WriteError> {
        let [user, app, model] = key(&version.name);
        let of = [user, app, model, version.id.as_str()];
        let there = record::one(transaction, VERSION, of)?;
        let Some(there) = there else { return Ok(None) };
        let mut files: Vec<FileRow> = record::select(transaction, FILES, of)?;
        let mut rows = rows.to_vec();
        let by_path = |a: &FileRow, b: &FileRow| a.path.cmp(&b.path);
        files.sort_by(by_path);
        rows.sort_by(by_path);
        match files == rows {
            true => Ok(Some(there)),
            false => Err(StoreError::OtherContent {
                model: version.name.to_string(),
                version: version.id.clone(),
            }
            .into()),
        }
    }

    /// Deletes a version, and deployments that pin it. A model that had promoted
    /// it follows its newest again.
    pub fn delete_version(&self, name: &ModelName, version: &str) -> Result<(), StoreError> {
        let contents = self.contents_of(name, Some(version))?;
        let [user, app, model] = key(name);
        self.write(|transaction| {
            let deleted = transaction.execute(
                "DELETE FROM versions WHERE user_id=?1 AND app_id=?2 AND model_id=?3 AND id=?4",
                [user, app, model, version],
            )?;
            if deleted == 0 {
                return Err(
                    StoreError::Absent { what: format!("version {version} of {name}") }.into()
                );
            }
            transaction.execute(
                "DELETE FROM deployments WHERE model_user_id=?1 AND model_app_id=?2 \
                     AND model_id=?3 AND version_id=?4",
                [user, app, model, version],
            )?;
            let model: Option<ModelRow> = record::one(transaction, MODEL, key(name))?;
            if let Some(mut model) = model
                && model.promoted.as_deref() == Some(version)
            {
                model.promoted = None;
                record::put(transaction, &model)?;
            }
            Ok(())
        })?;
        self.free(&contents);
        Ok(())
    }

    /// Every share.
    pub fn shares(&self) -> Result<Vec<ShareRow>, StoreError> {
        self.read(|connection| record::select(connection, "", []))
    }

    /// Lets a user, or [`ShareRow::EVERYONE`], call a model.
    pub fn add_share(&self, name: &ModelName, with: &str) -> Result<(), StoreError> {
        let share = ShareRow { name: name.clone(), with: with.to_owned(), created_at: now() };
        self.write(|transaction| Ok(record::put(transaction, &share)?))
    }

    /// Ends that.
    pub fn delete_share(&self, name: &ModelName, with: &str) -> Result<(), StoreError> {
        let [user, app, model] = key(name);
        self.write(|transaction| {
            let deleted = transaction.execute(
                "DELETE FROM shares \
                     WHERE user_id=?1 AND app_id=?2 AND model_id=?3 AND with_user=?4",
                [user, app, model, with],
            )?;
            match deleted {
                0 => {
                    Err(StoreError::Absent { what: format!("share of {name} with {with}") }.into())
                }
                _ => Ok(()),
            }
        })
    }

    fn contents_of(
        &self,
        name: &ModelName,
        version: Option<&str>,
    ) -> Result<Vec<Sha256Digest>, StoreError> {
        let files: Vec<FileRow> = match version {
            Some(version) => self.files(name, version)?,
            None => self.read(|connection| {
                record::select(
                    connection,
                    "WHERE user_id=?1 AND app_id=?2 AND model_id=?3",
                    key(name),
                )
            })?,
        };
        Ok(files.into_iter().map(|file| file.sha256).collect())
    }
}

const MODEL: &str = "WHERE user_id=?1 AND app_id=?2 AND id=?3";
pub(super) const VERSION: &str = "WHERE user_id=?1 AND app_id=?2 AND model_id=?3 AND id=?4";
const FILES: &str = "WHERE user_id=?1 AND app_id=?2 AND model_id=?3 AND version_id=?4";

fn key(name: &ModelName) -> [&str; 3] {
    [name.user_id(), name.app_id(), name.id()]
}

fn absent(name: &ModelName) -> StoreError {
    StoreError::Absent { what: format!("model {name}") }
}

fn row(version: &VersionRow, file: &VersionFile) -> FileRow {
    FileRow {
        name: version.name.clone(),
        version_id: version.id.clone(),
        path: file.path.clone(),
        sha256: file.sha256,
        bytes: file.bytes,
    }
}
