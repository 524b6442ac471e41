//! Models changed by whoever may: promoted, stopped, shared, deleted.
//!
//! Owns that what callers see and what the store has change together, one change
//! at a time.

use super::Deployments;
use super::error::ModelError;
use super::placement::Placement;
use super::table::Model;
use super::version::Version;
use crate::auth::{Caller, Scope};
use crate::package::config::ModelName;
use crate::store::{ModelRow, ShareRow, StoppedBy, StoreError};
use std::sync::Arc;

impl Deployments {
    /// Calls without a version go to this one from now on; nothing for the
    /// newest, whatever comes.
    pub fn promote(
        &self,
        caller: &Caller,
        name: &ModelName,
        version: Option<&str>,
    ) -> Result<(), ModelError> {
        let _alone = self.alone();
        let seen = self.owned(caller, name)?;
        if version.is_some_and(|version| seen.version(version).is_none()) {
            return Err(ModelError::NoSuchVersion);
        }
        self.change(name, |model| model.promoted = version.map(str::to_owned))
    }

    /// Calls without a version go to the one before from now on. Returns it.
    pub fn roll_back(&self, caller: &Caller, name: &ModelName) -> Result<String, ModelError> {
        let _alone = self.alone();
        let seen = self.owned(caller, name)?;
        let before = seen.before().ok_or(ModelError::NoOlderVersion)?.version.clone();
        self.change(name, |model| model.promoted = Some(before.clone()))?;
        Ok(before)
    }

    /// Refuses calls to a model from now on. What the operator has stopped stays so,
    /// whoever stops it again.
    pub fn stop(&self, caller: &Caller, name: &ModelName) -> Result<(), ModelError> {
        let _alone = self.alone();
        let seen = self.owned(caller, name)?;
        let by = match caller.may(Scope::Admin) {
            true => StoppedBy::Operator,
            false => seen.stopped.unwrap_or(StoppedBy::Owner),
        };
        self.change(name, |model| model.stopped = Some(by))?;
        seen.versions.iter().for_each(|version| version.stop());
        Ok(())
    }

    /// Admits them again.
    pub fn start(&self, caller: &Caller, name: &ModelName) -> Result<(), ModelError> {
        let _alone = self.alone();
        let seen = self.owned(caller, name)?;
        unless_stopped(caller, &seen)?;
        self.change(name, |model| model.stopped = None)
    }

    /// Deletes a version, or the whole model. Calls that run end as they would.
    /// Returns the deployments that went along.
    pub fn delete(
        &self,
        caller: &Caller,
        name: &ModelName,
        version: Option<&str>,
    ) -> Result<Vec<String>, ModelError> {
        // No deployment of it comes meanwhile.
        let _alone = self.alone();
        let seen = self.owned(caller, name)?;
        // Else it could be uploaded anew, and what was wrong with it would be gone.
        unless_stopped(caller, &seen)?;
        let store = self.loader.store();
        let goes = |placement: &&Arc<Placement>| {
            version.is_none() || placement.version.as_deref() == version
        };
        let retired: Vec<_> = seen.placements().iter().filter(goes).collect();
        match version {
            None => {
                going(&seen.versions, || store.delete_model(name))?;
                self.write().remove_model(name);
                seen.versions.iter().for_each(|version| version.end());
            }
            Some(version) => {
                let deleted = seen.version(version).ok_or(ModelError::NoSuchVersion)?.clone();
                going(std::slice::from_ref(&deleted), || store.delete_version(name, version))?;
                self.write().remove_version(name, version);
                deleted.end();
            }
        }
        for placement in &retired {
            placement.retire();
            if let Some(id) = &placement.id {
                self.write().remove_placement(name, id);
            }
        }
        Ok(retired.iter().filter_map(|placement| placement.id.clone()).collect())
    }

    /// Lets a user, or everyone, call a model, or no longer.
    pub fn share(
        &self,
        caller: &Caller,
        name: &ModelName,
        with: &str,
        shared: bool,
    ) -> Result<(), ModelError> {
        let _alone = self.alone();
        self.owned(caller, name)?;
        let store = self.loader.store();
        if shared {
            if with != ShareRow::EVERYONE && store.user(with)?.is_none() {
                return Err(StoreError::Absent { what: format!("user {with}") }.into());
            }
            store.add_share(name, with)?;
            self.write().share(name, with);
        } else {
            store.delete_share(name, with)?;
            self.write().unshare(name, with);
        }
        Ok(())
    }

    /// A stored model that is the caller's, or anybody's for the operator.
    fn owned(&self, caller: &Caller, name: &ModelName) -> Result<Arc<Model>, ModelError> {
        if caller.user_id() != name.user_id() && !caller.may(Scope::Admin) {
            return Err(ModelError::NoSuchModel);
        }
        let table = self.read();
        match table.stored(name) {
            // What is stored is not what is called.
            _ if table.has_folder(name) => Err(ModelError::Folder),
            Some(model) => Ok(model.clone()),
            None => Err(ModelError::NoSuchModel),
        }
    }

    /// By whoever is alone.
    fn change(
        &self,
        name: &ModelName,
        change: impl FnOnce(&mut ModelRow),
    ) -> Result<(), ModelError> {
        let row = self.loader.store().update_model(name, change)?;
        self.write().put_model(&row);
        Ok(())
    }
}

/// What the operator has stopped is the operator's to start and to delete.
fn unless_stopped(caller: &Caller, model: &Model) -> Result<(), ModelError> {
    match model.stopped == Some(StoppedBy::Operator) && !caller.may(Scope::Admin) {
        true => Err(ModelError::StoppedByOperator),
        false => Ok(()),
    }
}

/// Deletes what is stored of versions. Who starts one of them meanwhile finds that
/// it is gone, and not that its files are.
pub(super) fn going(
    versions: &[Arc<Version>],
    delete: impl FnOnce() -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    versions.iter().for_each(|version| version.set_gone(true));
    let deleted = delete();
    if deleted.is_err() {
        versions.iter().for_each(|version| version.set_gone(false));
    }
    deleted
}
