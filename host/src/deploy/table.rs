//! Models and their versions in memory, as callers see them.

use super::capacity::PoolName;
use super::error::LeaseError;
use super::placement::Placement;
use super::version::Version;
use crate::package::config::ModelName;
use crate::store::{ModelRow, ShareRow, StoppedBy};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Every model. Whoever has looked at one keeps it as it was at that moment.
#[derive(Debug, Default)]
pub(super) struct Table {
    models: BTreeMap<ModelName, Arc<Model>>,
    /// Folders that the operator named; each hides a stored model of its name.
    folders: BTreeMap<ModelName, Arc<Model>>,
    /// Users whose replicas run for calls alone.
    disabled: BTreeSet<String>,
}

/// A model and its versions.
#[derive(Debug, Clone)]
pub struct Model {
    /// Its name.
    pub name: ModelName,
    /// When it was made, in seconds since 1970.
    pub created_at: i64,
    /// Who has stopped it, so that calls are refused.
    pub stopped: Option<StoppedBy>,
    /// Its versions, in the order in which they came.
    pub versions: Vec<Arc<Version>>,
    /// What its maker said.
    model_type_id: String,
    promoted: Option<String>,
    shared_with: BTreeSet<String>,
    /// Its deployments.
    placements: Vec<Arc<Placement>>,
}

/// Where a call wants to run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Wanted {
    /// Wherever the model runs.
    #[default]
    Anywhere,
    /// On a nodepool.
    Nodepool(PoolName),
    /// In a deployment.
    Deployment(String),
}

/// What a call means: a version, and where it runs.
#[derive(Debug, Clone)]
pub struct Target {
    /// The version.
    pub version: Arc<Version>,
    pub(super) placement: Arc<Placement>,
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
            placements: Vec::new(),
        }
    }

    /// A folder's, which has one version and is its owner's alone.
    fn of_folder(version: Arc<Version>) -> Self {
        Self {
            name: version.name.clone(),
            created_at: version.created_at,
            stopped: None,
            model_type_id: version.model_type_id.clone(),
            versions: vec![version],
            promoted: None,
            shared_with: BTreeSet::new(),
            placements: Vec::new(),
        }
    }

    /// The type of the version that it stands for, or what its maker said.
    pub fn model_type_id(&self) -> &str {
        self.current().map_or(&self.model_type_id, |current| &current.model_type_id)
    }

    /// Whether the version that it stands for was promoted, and is not just the
    /// newest.
    pub fn is_promoted(&self) -> bool {
        self.promoted.is_some()
    }

    /// The version that the model stands for: the promoted one, else the newest.
    pub fn current(&self) -> Option<&Arc<Version>> {
        match &self.promoted {
            Some(promoted) => self.version(promoted),
            None => self.versions.last(),
        }
    }

    /// The version of an id.
    pub fn version(&self, id: &str) -> Option<&Arc<Version>> {
        self.versions.iter().find(|version| version.version == id)
    }

    /// The version that came before the current one.
    pub fn before(&self) -> Option<&Arc<Version>> {
        let current = self.current()?;
        self.versions.iter().rev().find(|version| version.number < current.number)
    }

    /// Whether it is stopped.
    pub fn admitted(&self) -> Result<(), LeaseError> {
        match self.stopped {
            None => Ok(()),
            Some(StoppedBy::Owner) => Err(LeaseError::Stopped),
            Some(StoppedBy::Operator) => Err(LeaseError::StoppedByOperator),
        }
    }

    /// With whom it is shared: users, or `*`.
    pub fn shared_with(&self) -> impl Iterator<Item = &str> {
        self.shared_with.iter().map(String::as_str)
    }

    /// The version that a call means.
    pub fn called(&self, version: Option<&str>) -> Result<&Arc<Version>, LeaseError> {
        self.admitted()?;
        match version {
            Some(version) => self.version(version).ok_or(LeaseError::NoSuchVersion),
            None => self.current().ok_or(LeaseError::NoVersion),
        }
    }

    /// The version and the place that a call means.
    pub(super) fn placed(
        &self,
        version: Option<&str>,
        wanted: &Wanted,
        of_all: &Arc<Placement>,
    ) -> Result<Target, LeaseError> {
        if let Wanted::Deployment(id) = wanted {
            self.admitted()?;
            let placement = self.placement(id).cloned();
            let placement = placement.ok_or_else(|| LeaseError::NoSuchDeployment(id.clone()))?;
            let serves = self.served_by(&placement).ok_or(LeaseError::NoVersion)?.clone();
            if version.is_some_and(|version| version != serves.version) {
                let (id, serves) = (id.clone(), serves.version.clone());
                return Err(LeaseError::OtherVersion { id, serves });
            }
            return Ok(Target { version: serves, placement });
        }
        let version = self.called(version)?.clone();
        let is_of_version = |placement: &&Arc<Placement>| {
            self.served_by(placement).is_some_and(|served| Arc::ptr_eq(served, &version))
        };
        let placements = self.placements.iter().filter(is_of_version);
        // Of equal ones the first.
        let standing = |placement: &&Arc<Placement>| version.standing_in(placement);
        let placement = match wanted {
            Wanted::Nodepool(name) => {
                let on_it = placements.filter(|placement| placement.pool.name() == name);
                let there = on_it.min_by_key(standing);
                // On the machine at large it runs without being deployed.
                there.or_else(|| (of_all.pool.name() == name).then_some(of_all))
            }
            Wanted::Anywhere | Wanted::Deployment(_) => {
                placements.min_by_key(standing).or(Some(of_all))
            }
        };
        match (placement.cloned(), wanted) {
            (Some(placement), _) => Ok(Target { version, placement }),
            (None, Wanted::Nodepool(name)) => Err(LeaseError::NotDeployedThere(name.clone())),
            (None, Wanted::Anywhere | Wanted::Deployment(_)) => Err(LeaseError::NoVersion),
        }
    }

    /// Its deployment of an id.
    pub(super) fn placement(&self, id: &str) -> Option<&Arc<Placement>> {
        self.placements.iter().find(|placement| placement.id.as_deref() == Some(id))
    }

    /// Its deployments.
    pub(super) fn placements(&self) -> &[Arc<Placement>] {
        &self.placements
    }

    /// The version that a deployment serves: the one that it pins, else the one
    /// that the model stands for.
    pub(super) fn served_by(&self, placement: &Placement) -> Option<&Arc<Version>> {
        self.serving(placement.version.as_deref())
    }

    /// The same of what a deployment pins.
    pub(super) fn serving(&self, pinned: Option<&str>) -> Option<&Arc<Version>> {
        match pinned {
            Some(pinned) => self.version(pinned),
            None => self.current(),
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
    pub(super) fn put_version(&mut self, version: Arc<Version>) {
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

    pub(super) fn put_folder(&mut self, version: Arc<Version>) {
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

    /// Adds a deployment of a model in the place of one of the same id.
    pub(super) fn put_placement(&mut self, name: &ModelName, placement: Arc<Placement>) {
        if let Some(model) = self.stored_mut(name) {
            model.placements.retain(|there| there.id != placement.id);
            model.placements.push(placement);
            model.placements.sort_by(|a, b| a.id.cmp(&b.id));
        }
    }

    pub(super) fn remove_placement(&mut self, name: &ModelName, id: &str) {
        if let Some(model) = self.stored_mut(name) {
            model.placements.retain(|there| there.id.as_deref() != Some(id));
        }
    }

    pub(super) fn set_disabled(&mut self, user_id: &str, disabled: bool) {
        match disabled {
            true => self.disabled.insert(user_id.to_owned()),
            false => self.disabled.remove(user_id),
        };
    }

    pub(super) fn is_disabled(&self, user_id: &str) -> bool {
        self.disabled.contains(user_id)
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

    pub(super) fn all(&self) -> Vec<Arc<Version>> {
        let mut all: Vec<Arc<Version>> = self.versions().cloned().collect();
        all.sort_by(|a, b| (&a.name, a.number).cmp(&(&b.name, b.number)));
        all
    }

    /// Whether calls of a stored model are admitted: it is not stopped, and no
    /// folder is called in its place.
    pub(super) fn admits(&self, model: &Model) -> bool {
        model.stopped.is_none() && !self.has_folder(&model.name)
    }

    /// Every stored model with a deployment, or with a replica that runs.
    pub(super) fn kept(&self) -> Vec<Arc<Model>> {
        let is_kept = |model: &&Arc<Model>| {
            !model.placements.is_empty()
                || model.versions.iter().any(|version| version.is_running())
        };
        self.models.values().filter(is_kept).cloned().collect()
    }

    /// The versions of stored models that calls without a version are for, in the order of
    /// names: each model's own, and what its deployments pin.
    pub(super) fn served(&self) -> Vec<Arc<Version>> {
        let admitted = self.models.values().filter(|model| self.admits(model));
        let served = |model: &Arc<Model>| {
            let pinned = model.placements.iter().filter_map(|placement| model.served_by(placement));
            let mut served: Vec<Arc<Version>> =
                model.current().into_iter().chain(pinned).cloned().collect();
            served.sort_by_key(|version| version.number);
            served.dedup_by_key(|version| version.number);
            served
        };
        admitted.flat_map(served).collect()
    }

    /// Every stored version that was called, and when, as far as the store does
    /// not have it.
    pub(super) fn called(&self) -> Vec<(Arc<Version>, i64)> {
        let stored = self.models.values().flat_map(|model| &model.versions);
        stored.filter_map(|version| Some((version.clone(), version.called.unnoted_ms()?))).collect()
    }

    fn versions(&self) -> impl Iterator<Item = &Arc<Version>> {
        self.folders.values().chain(self.models.values()).flat_map(|model| &model.versions)
    }
}
