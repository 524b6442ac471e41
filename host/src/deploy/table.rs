//! Models and their versions in memory, as callers see them.

use super::deployment::{Deployment, LeaseError};
use crate::package::config::ModelName;
use crate::store::{ModelRow, ShareRow};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A version of a model.
pub type Version = Arc<Deployment>;

/// Every model. Whoever has looked at one keeps it as it was at that moment.
#[derive(Debug, Default)]
pub(super) struct Table {
    models: BTreeMap<ModelName, Arc<Model>>,
    /// Folders that the operator named; each hides a stored model of its name.
    folders: BTreeMap<ModelName, Arc<Model>>,
}

/// A model and its versions.
#[derive(Debug, Clone)]
pub struct Model {
    /// Its name.
    pub name: ModelName,
    /// When it was made, in seconds since 1970.
    pub created_at: i64,
    /// Whether calls are refused.
    pub stopped: bool,
    /// Its versions, in the order in which they came.
    pub versions: Vec<Version>,
    /// What its maker said.
    model_type_id: String,
    promoted: Option<String>,
    shared_with: BTreeSet<String>,
}

impl Model {
    /// A stored one, without its versions and shares.
    pub(super) fn of(row: &ModelRow) -> Self {
        Self {
            name: row.name.clone(),
            created_at: row.created_at,
            stopped: row.stopped,
            versions: Vec::new(),
            model_type_id: row.model_type_id.clone(),
            promoted: row.promoted.clone(),
            shared_with: BTreeSet::new(),
        }
    }

    /// A folder's, which has one version and is its owner's alone.
    fn of_folder(version: Version) -> Self {
        Self {
            name: version.name.clone(),
            created_at: version.created_at,
            stopped: false,
            model_type_id: version.model_type_id.clone(),
            versions: vec![version],
            promoted: None,
            shared_with: BTreeSet::new(),
        }
    }

    /// The type of the version that it stands for, or what its maker said.
    pub fn model_type_id(&self) -> &str {
        self.current().map_or(&self.model_type_id, |current| &current.model_type_id)
    }

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

    fn is_seen_by(&self, user_id: &str) -> bool {
        self.name.user_id() == user_id
            || self.shared_with.contains(user_id)
            || self.shared_with.contains(ShareRow::EVERYONE)
    }
}

impl Table {
    /// Adds a model, or changes what is known of it.
    pub(super) fn put_model(&mut self, row: &ModelRow) {
        let model = Model::of(row);
        match self.models.get_mut(&row.name) {
            Some(there) => {
                let there = Arc::make_mut(there);
                there.model_type_id = model.model_type_id;
                there.stopped = model.stopped;
                there.promoted = model.promoted;
            }
            None => {
                self.models.insert(model.name.clone(), Arc::new(model));
            }
        }
    }

    pub(super) fn remove_model(&mut self, name: &ModelName) {
        self.models.remove(name);
    }

    /// Adds a version to its model, unless it is there.
    pub(super) fn put_version(&mut self, version: Version) {
        let Some(model) = self.stored_mut(&version.name) else { return };
        if model.version(&version.version).is_none() {
            model.versions.push(version);
            model.versions.sort_by_key(|version| version.number);
        }
    }

    pub(super) fn remove_version(&mut self, name: &ModelName, version: &str) {
        if let Some(model) = self.stored_mut(name) {
            model.versions.retain(|there| there.version != version);
            if model.promoted.as_deref() == Some(version) {
                model.promoted = None;
            }
        }
    }

    pub(super) fn put_folder(&mut self, version: Version) {
        self.folders.insert(version.name.clone(), Arc::new(Model::of_folder(version)));
    }

    pub(super) fn has_folder(&self, name: &ModelName) -> bool {
        self.folders.contains_key(name)
    }

    pub(super) fn share(&mut self, name: &ModelName, with: &str) {
        if let Some(model) = self.stored_mut(name) {
            model.shared_with.insert(with.to_owned());
        }
    }

    pub(super) fn unshare(&mut self, name: &ModelName, with: &str) {
        if let Some(model) = self.stored_mut(name) {
            model.shared_with.remove(with);
        }
    }

    /// A stored model, whoever may see it.
    pub(super) fn stored(&self, name: &ModelName) -> Option<&Arc<Model>> {
        self.models.get(name)
    }

    fn stored_mut(&mut self, name: &ModelName) -> Option<&mut Model> {
        self.models.get_mut(name).map(Arc::make_mut)
    }

    /// A model that is called by this name, whoever may see it.
    pub(super) fn find(&self, name: &ModelName) -> Option<&Arc<Model>> {
        self.folders.get(name).or_else(|| self.stored(name))
    }

    /// What a user may see of a model. Not allowed to know reads as not found.
    pub(super) fn see(&self, user_id: &str, name: &ModelName) -> Option<&Arc<Model>> {
        self.find(name).filter(|model| model.is_seen_by(user_id))
    }

    pub(super) fn list(&self, user_id: &str) -> Vec<Arc<Model>> {
        let visible = self.visible().filter(|model| model.is_seen_by(user_id));
        let mut seen: Vec<Arc<Model>> = visible.cloned().collect();
        seen.sort_by(|a, b| a.name.cmp(&b.name));
        seen
    }

    /// Every model that can be called by its name.
    fn visible(&self) -> impl Iterator<Item = &Arc<Model>> {
        let stored = self.models.values().filter(|model| !self.has_folder(&model.name));
        self.folders.values().chain(stored)
    }

    pub(super) fn all(&self) -> Vec<Version> {
        let mut all: Vec<Version> = self.versions().cloned().collect();
        all.sort_by(|a, b| (&a.name, a.number).cmp(&(&b.name, b.number)));
        all
    }

    /// Every version whose replica runs.
    pub(super) fn running(&self) -> Vec<Version> {
        self.versions().filter(|version| version.is_running()).cloned().collect()
    }

    /// Every stored version that was called, and when, as far as the store does
    /// not have it.
    pub(super) fn called(&self) -> Vec<(Version, i64)> {
        let stored = self.models.values().flat_map(|model| &model.versions);
        stored.filter_map(|version| Some((version.clone(), version.called.unnoted_ms()?))).collect()
    }

    fn versions(&self) -> impl Iterator<Item = &Version> {
        self.folders.values().chain(self.models.values()).flat_map(|model| &model.versions)
    }
}
