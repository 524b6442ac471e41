//! Models and their versions in memory, as callers see them.

use super::deployment::{Deployment, LeaseError};
use crate::package::config::ModelName;
use crate::store::{ModelRow, ShareRow};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// A version of a model.
pub type Version = Arc<Deployment>;

/// Every model.
#[derive(Debug, Default)]
pub(super) struct Table {
    models: BTreeMap<ModelName, Model>,
    /// Folders that the operator named; each hides a stored model of its name.
    folders: BTreeMap<ModelName, Version>,
}

/// A stored model.
#[derive(Debug)]
pub(super) struct Model {
    name: ModelName,
    model_type_id: String,
    created_at: SystemTime,
    stopped: bool,
    promoted: Option<String>,
    shared_with: BTreeSet<String>,
    /// In the order in which they came.
    versions: Vec<Version>,
}

/// A model as it is at one moment.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Its name.
    pub name: ModelName,
    /// Of the version that it stands for, or what its maker said.
    pub model_type_id: String,
    /// When it was made.
    pub created_at: SystemTime,
    /// Whether calls are refused.
    pub stopped: bool,
    /// Its versions, in the order in which they came.
    pub versions: Vec<Version>,
    promoted: Option<String>,
}

impl Seen {
    /// The version that the model stands for: the promoted one, else the newest.
    pub fn current(&self) -> Option<&Version> {
        match &self.promoted {
            Some(promoted) => self.version(promoted),
            None => self.versions.last(),
        }
    }

    /// The version of an id.
    pub fn version(&self, id: &str) -> Option<&Version> {
        self.versions.iter().find(|version| version.version == id)
    }

    /// The version that came before the current one.
    pub fn before(&self) -> Option<&Version> {
        let current = self.current()?;
        self.versions.iter().rev().find(|version| version.number < current.number)
    }

    /// The version that a call means.
    pub fn called(&self, version: Option<&str>) -> Result<&Version, LeaseError> {
        if self.stopped {
            return Err(LeaseError::Stopped);
        }
        match version {
            Some(version) => self.version(version).ok_or(LeaseError::NoSuchVersion),
            None => self.current().ok_or(LeaseError::NoVersion),
        }
    }
}

impl Model {
    pub(super) fn of(row: &ModelRow) -> Self {
        let created_at =
            SystemTime::UNIX_EPOCH + Duration::from_secs(row.created_at.unsigned_abs());
        Self {
            name: row.name.clone(),
            model_type_id: row.model_type_id.clone(),
            created_at,
            stopped: row.stopped,
            promoted: row.promoted.clone(),
            shared_with: BTreeSet::new(),
            versions: Vec::new(),
        }
    }

    fn seen(&self) -> Seen {
        let mut seen = Seen {
            name: self.name.clone(),
            model_type_id: self.model_type_id.clone(),
            created_at: self.created_at,
            stopped: self.stopped,
            versions: self.versions.clone(),
            promoted: self.promoted.clone(),
        };
        if let Some(current) = seen.current() {
            seen.model_type_id = current.model_type_id.clone();
        }
        seen
    }

    fn is_seen_by(&self, user_id: &str) -> bool {
        self.name.user_id() == user_id
            || self.shared_with.contains(user_id)
            || self.shared_with.contains(ShareRow::EVERYONE)
    }
}

impl Table {
    /// Adds a model, or changes what is known of it.
    pub(super) fn put_model(&mut self, model: Model) {
        match self.models.get_mut(&model.name) {
            Some(there) => {
                there.model_type_id = model.model_type_id;
                there.stopped = model.stopped;
                there.promoted = model.promoted;
            }
            None => {
                self.models.insert(model.name.clone(), model);
            }
        }
    }

    pub(super) fn remove_model(&mut self, name: &ModelName) {
        self.models.remove(name);
    }

    /// Adds a version to its model, unless it is there.
    pub(super) fn put_version(&mut self, version: Version) {
        let Some(model) = self.models.get_mut(&version.name) else { return };
        if model.versions.iter().all(|there| there.version != version.version) {
            model.versions.push(version);
            model.versions.sort_by_key(|version| version.number);
        }
    }

    pub(super) fn remove_version(&mut self, name: &ModelName, version: &str) {
        if let Some(model) = self.models.get_mut(name) {
            model.versions.retain(|there| there.version != version);
            if model.promoted.as_deref() == Some(version) {
                model.promoted = None;
            }
        }
    }

    pub(super) fn put_folder(&mut self, version: Version) {
        self.folders.insert(version.name.clone(), version);
    }

    pub(super) fn folder(&self, name: &ModelName) -> Option<&Version> {
        self.folders.get(name)
    }

    pub(super) fn share(&mut self, name: &ModelName, with: &str) {
        if let Some(model) = self.models.get_mut(name) {
            model.shared_with.insert(with.to_owned());
        }
    }

    pub(super) fn unshare(&mut self, name: &ModelName, with: &str) {
        if let Some(model) = self.models.get_mut(name) {
            model.shared_with.remove(with);
        }
    }

    /// A stored model, whoever may see it.
    pub(super) fn stored(&self, name: &ModelName) -> Option<Seen> {
        self.models.get(name).map(Model::seen)
    }

    /// A model that is called by this name, whoever may see it.
    pub(super) fn find(&self, name: &ModelName) -> Option<Seen> {
        self.folders.get(name).map(of_folder).or_else(|| self.stored(name))
    }

    /// What a user may see of a model. Not allowed to know reads as not found.
    pub(super) fn see(&self, user_id: &str, name: &ModelName) -> Option<Seen> {
        if let Some(folder) = self.folders.get(name) {
            return (name.user_id() == user_id).then(|| of_folder(folder));
        }
        self.models.get(name).filter(|model| model.is_seen_by(user_id)).map(Model::seen)
    }

    pub(super) fn list(&self, user_id: &str) -> Vec<Seen> {
        let mut seen: Vec<Seen> = self
            .models
            .values()
            .filter(|model| model.is_seen_by(user_id) && !self.folders.contains_key(&model.name))
            .map(Model::seen)
            .collect();
        let own = |version: &&Version| version.name.user_id() == user_id;
        seen.extend(self.folders.values().filter(own).map(of_folder));
        seen.sort_by(|a, b| a.name.cmp(&b.name));
        seen
    }

    pub(super) fn all(&self) -> Vec<Version> {
        let mut all: Vec<Version> = self.folders.values().cloned().collect();
        all.extend(self.models.values().flat_map(|model| model.versions.iter().cloned()));
        all.sort_by(|a, b| (&a.name, a.number).cmp(&(&b.name, b.number)));
        all
    }
}

fn of_folder(version: &Version) -> Seen {
    Seen {
        name: version.name.clone(),
        model_type_id: version.model_type_id.clone(),
        created_at: version.created_at,
        stopped: false,
        versions: vec![version.clone()],
        promoted: None,
    }
}
