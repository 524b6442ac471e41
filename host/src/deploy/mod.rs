//! Which versions are callable, by whom, where, and in how many replicas.
//!
//! Owns the table of models, the nodepools, and a call's admission to a
//! [`Lease`]. What the
//! store has is read once and changed here and there together. Never touches
//! guests.

mod table;
mod version;

mod compiler;
mod loader;

mod anew;
mod called;

mod group;
mod keeper;
mod placement;
mod replicas;

mod capacity;
mod compute;
mod details;
mod pools;

pub use capacity::{Amount, CPU_OVERCOMMIT, Full, Pool, PoolName, Reservation};
pub use compute::{ComputeError, Resource};
pub use details::{ClusterDetail, DeploymentDetail, NodepoolDetail};
pub use loader::{Loader, StartError, component_of};
pub use pools::{CLUSTER_LOCAL, NODEPOOL_DEFAULT, Pools};
pub use replicas::Load;
pub use table::{Model, Target, Wanted};
pub use version::{Lease, LeaseError, Source, Version};

use crate::auth::{Caller, Scope};
use crate::call::Deadline;
use crate::package::Package;
use crate::package::config::ModelName;
use crate::store::{ModelRow, ShareRow, StoreError, VersionRow};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use table::Table;

/// How often the number of replicas is looked at.
pub const KEEP_INTERVAL: Duration = Duration::from_secs(1);

/// All callable versions of this host.
#[derive(Debug)]
pub struct Deployments {
    loader: Loader,
    pools: Pools,
    table: RwLock<Table>,
    /// Held by whoever changes compute resources.
    changing: Mutex<()>,
}

/// Why a folder cannot be made callable.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// Another folder has the same name.
    #[error("two model folders are named {name}; change `id` in one of their config.yaml")]
    Duplicate {
        /// The name.
        name: ModelName,
    },
    /// It asks for accelerators.
    #[error(
        "{name} asks for {asked}, and this host computes on CPUs only; \
         set `num_accelerators: 0` to run it without"
    )]
    NoAccelerator {
        /// The model.
        name: ModelName,
        /// What it asks for.
        asked: String,
    },
    /// The host cannot run it.
    #[error("{name} cannot be served")]
    Start {
        /// The model.
        name: ModelName,
        /// Why.
        #[source]
        source: StartError,
    },
}

/// Why something cannot be done with a model.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// There is no such model, or it is not the caller's.
    #[error("there is no such model; check user, app and model id")]
    NoSuchModel,
    /// It has no such version.
    #[error("the model has no such version")]
    NoSuchVersion,
    /// There is no older version.
    #[error("the model has no version before the one that is called")]
    NoOlderVersion,
    /// It is a folder that the operator named.
    #[error("the model is served from a folder; it is changed there, and by a new start")]
    Folder,
    /// The store fails.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Deployments {
    /// Reads what the store has, for a machine with so much. Nothing is started.
    pub fn open(loader: Loader, machine: Amount) -> Result<Self, StoreError> {
        let store = loader.store();
        let mut table = Table::default();
        for model in store.models()? {
            table.put_model(&model);
        }
        for version in store.versions()? {
            table.put_version(Arc::new(Version::stored(&loader, &version)));
        }
        for share in store.shares()? {
            table.share(&share.name, &share.with);
        }
        for user in store.users()? {
            table.set_disabled(&user.id, user.disabled);
        }
        let pools = Pools::of(machine);
        let opened = Self { loader, pools, table: RwLock::new(table), changing: Mutex::default() };
        opened.read_compute()?;
        Ok(opened)
    }

    /// What starts replicas.
    pub fn loader(&self) -> &Loader {
        &self.loader
    }

    /// Makes a folder's package callable.
    pub async fn add_folder(&self, package: Package) -> Result<(), DeployError> {
        let name = package.config.name.clone();
        if self.read().has_folder(&name) {
            return Err(DeployError::Duplicate { name });
        }
        if let Some(asked) = package.config.accelerators() {
            return Err(DeployError::NoAccelerator { name, asked: asked.to_string() });
        }
        let placement = self.pools.of_all().clone();
        let version = Version::of_folder(&self.loader, package, placement)
            .await
            .map_err(|source| DeployError::Start { name, source })?;
        self.write().put_folder(Arc::new(version));
        Ok(())
    }

    /// What the caller may see of a model.
    pub fn see(&self, caller: &Caller, name: &ModelName) -> Option<Arc<Model>> {
        self.read().see(caller.user_id(), name).cloned()
    }

    /// A model, whoever may see it. For the operator only.
    pub fn find(&self, name: &ModelName) -> Option<Arc<Model>> {
        self.read().find(name).cloned()
    }

    /// Every model that the caller may see, in the order of names.
    pub fn list(&self, caller: &Caller) -> Vec<Arc<Model>> {
        self.read().list(caller.user_id())
    }

    /// Every version that runs or could, in the order of names. For the operator
    /// only.
    pub fn all(&self) -> Vec<Arc<Version>> {
        self.read().all()
    }

    /// What a call of a model means that the caller may see.
    pub fn called(
        &self,
        caller: &Caller,
        seen: &Model,
        version: Option<&str>,
        wanted: &Wanted,
    ) -> Result<Target, LeaseError> {
        match wanted {
            Wanted::Anywhere | Wanted::Deployment(_) => {
                seen.placed(version, wanted, self.pools.of_all())
            }
            Wanted::Nodepool(name) => {
                let pool = self.wanted_pool(caller, seen, name);
                let pool = pool.ok_or_else(|| LeaseError::NoSuchNodepool(name.clone()))?;
                let wanted = Wanted::Nodepool(pool.name().clone());
                seen.placed(version, &wanted, self.pools.of_all())
            }
        }
    }

    /// The nodepool that a call asks for: one that the model runs on, else one of
    /// the caller's own. Those of others are not there.
    fn wanted_pool(&self, caller: &Caller, seen: &Model, name: &PoolName) -> Option<Arc<Pool>> {
        let is_asked = |user: &str| name.user_id.is_empty() || name.user_id == user;
        let of_model = seen.placements().iter().map(|placement| &placement.pool).find(|pool| {
            let there = pool.name();
            (&there.cluster_id, &there.id) == (&name.cluster_id, &name.id)
                && is_asked(seen.name.user_id())
        });
        if let Some(pool) = of_model {
            return Some(pool.clone());
        }
        let own = caller.user_id();
        self.pools
            .find(own, &name.cluster_id, &name.id)
            .filter(|pool| is_asked(own) || Arc::ptr_eq(pool, self.pools.machine()))
    }

    /// A user's replicas run without calls, or not any more.
    pub fn set_disabled(&self, user_id: &str, disabled: bool) {
        self.write().set_disabled(user_id, disabled);
    }

    /// Reserves memory for a message of an upload, of what is set aside for them.
    pub fn reserve_upload(&self, memory_bytes: u64) -> Result<Reservation, Full> {
        self.pools.uploads().reserve(Amount { cpu_millis: 0, memory_bytes })
    }

    /// Admits a call.
    pub async fn lease(
        &self,
        called: &Target,
        asked: Option<Deadline>,
    ) -> Result<Lease, LeaseError> {
        called.version.lease(&called.placement, &self.loader, self, asked).await
    }

    /// The nodepools.
    pub fn pools(&self) -> &Pools {
        &self.pools
    }

    /// Makes a model that nothing has been uploaded to yet, or finds it.
    pub fn ensure_model(&self, name: &ModelName, model_type_id: &str) -> Result<(), ModelError> {
        let row = self.loader.store().ensure_model(name, model_type_id)?;
        self.write().put_model(&row);
        Ok(())
    }

    /// Makes a version callable that has just been stored.
    pub fn stored(&self, version: &VersionRow) {
        self.write().put_version(Arc::new(Version::stored(&self.loader, version)));
    }

    /// The files of a version are whole again: it is tried at the next call.
    pub fn mended(&self, name: &ModelName, version: &str) {
        let stored = self.read().stored(name).cloned();
        if let Some(version) = stored.as_ref().and_then(|seen| seen.version(version))
            && version.failure().is_some()
        {
            version.stop();
        }
    }

    /// Calls without a version go to this one from now on; nothing for the
    /// newest, whatever comes.
    pub fn promote(
        &self,
        caller: &Caller,
        name: &ModelName,
        version: Option<&str>,
    ) -> Result<(), ModelError> {
        let seen = self.owned(caller, name)?;
        if version.is_some_and(|version| seen.version(version).is_none()) {
            return Err(ModelError::NoSuchVersion);
        }
        self.change(name, |model| model.promoted = version.map(str::to_owned))
    }

    /// Calls without a version go to the one before from now on. Returns it.
    pub fn roll_back(&self, caller: &Caller, name: &ModelName) -> Result<String, ModelError> {
        let seen = self.owned(caller, name)?;
        let before = seen.before().ok_or(ModelError::NoOlderVersion)?.version.clone();
        self.change(name, |model| model.promoted = Some(before.clone()))?;
        Ok(before)
    }

    /// Refuses calls to a model, or admits them again.
    pub fn set_stopped(
        &self,
        caller: &Caller,
        name: &ModelName,
        stopped: bool,
    ) -> Result<(), ModelError> {
        let seen = self.owned(caller, name)?;
        self.change(name, |model| model.stopped = stopped)?;
        if stopped {
            seen.versions.iter().for_each(|version| version.stop());
        }
        Ok(())
    }

    /// Deletes a version, or the whole model. Calls that run end as they would.
    pub fn delete(
        &self,
        caller: &Caller,
        name: &ModelName,
        version: Option<&str>,
    ) -> Result<(), ModelError> {
        // No deployment of it comes meanwhile.
        let _alone = self.alone();
        let seen = self.owned(caller, name)?;
        let store = self.loader.store();
        match version {
            None => {
                store.delete_model(name)?;
                self.write().remove_model(name);
                seen.placements().iter().for_each(|placement| placement.retire());
                seen.versions.iter().for_each(|version| version.end());
            }
            Some(version) => {
                let deleted = seen.version(version).ok_or(ModelError::NoSuchVersion)?.clone();
                store.delete_version(name, version)?;
                self.write().remove_version(name, version);
                for placement in seen.placements() {
                    if placement.version.as_deref() == Some(version)
                        && let Some(id) = &placement.id
                    {
                        self.write().remove_placement(name, id);
                        placement.retire();
                    }
                }
                deleted.end();
            }
        }
        Ok(())
    }

    /// Lets a user, or everyone, call a model, or no longer.
    pub fn share(
        &self,
        caller: &Caller,
        name: &ModelName,
        with: &str,
        shared: bool,
    ) -> Result<(), ModelError> {
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
            Some(model) => Ok(model.clone()),
            None if table.has_folder(name) => Err(ModelError::Folder),
            None => Err(ModelError::NoSuchModel),
        }
    }

    fn change(
        &self,
        name: &ModelName,
        change: impl FnOnce(&mut ModelRow),
    ) -> Result<(), ModelError> {
        let row = self.loader.store().update_model(name, change)?;
        self.write().put_model(&row);
        Ok(())
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }
}
