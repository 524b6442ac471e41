//! Which versions are callable, by whom, where, and in how many replicas.
//!
//! Owns the table of models, the nodepools, and a call's admission to a
//! [`Lease`]. What the store has is read once and changed here and there
//! together. Never touches guests.

mod error;
mod models;
mod table;
mod version;

mod compiler;
mod kernels;
mod loader;
mod snapshots;

mod anew;
mod called;

mod autoscale;
mod group;
mod keeper;
mod placement;
mod replicas;

mod capacity;
mod checks;
mod compute;
mod deploying;
mod details;
mod devices;
mod pools;

pub use capacity::{Amount, CPU_OVERCOMMIT, Full, Pool, PoolName, Reservation};
pub use details::{ClusterDetail, DeploymentDetail, NodepoolDetail};
pub use error::{ComputeError, DeployError, LeaseError, ModelError, Resource, StartError};
pub use loader::{Loader, component_of};
pub use pools::{CLUSTER_LOCAL, NODEPOOL_DEFAULT, Pools};
pub use replicas::Load;
pub use snapshots::Taken;
pub use table::{Model, Target, Wanted};
pub use version::{Lease, Source, Version};

use crate::auth::Caller;
use crate::call::Deadline;
use crate::package::Package;
use crate::package::config::ModelName;
use crate::store::{StoreError, VersionRow};
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
    /// Held by whoever changes models or compute resources.
    changing: Mutex<()>,
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
        let placement = self.pools.of_all().clone();
        let version = Version::of_folder(&self.loader, package, placement)
            .await
            .map_err(|source| DeployError::Start { name, source })?;
        self.write().put_folder(Arc::new(version));
        Ok(())
    }

    /// Whether a folder is called under this name, whatever is stored.
    pub fn is_folder(&self, name: &ModelName) -> bool {
        self.read().has_folder(name)
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

    /// Lets every replica go, as at the end of the host. Calls that run keep theirs.
    pub fn let_go(&self) {
        self.all().iter().for_each(|version| version.stop());
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
        self.pools.uploads().reserve(Amount { cpu_millis: 0, memory_bytes, accelerators: 0 })
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
        // It is not deleted meanwhile.
        let _alone = self.alone();
        let row = self.loader.store().ensure_model(name, model_type_id)?;
        self.write().put_model(&row);
        Ok(())
    }

    /// Makes a version callable that has just been stored. Returns whether it is:
    /// it may have been deleted since. Blocks.
    pub fn stored(&self, version: &VersionRow) -> Result<bool, StoreError> {
        let _alone = self.alone();
        let store = self.loader.store();
        if store.files(&version.name, &version.id)?.is_empty() {
            return Ok(false);
        }
        let model = store.ensure_model(&version.name, &version.model_type_id)?;
        let version = Arc::new(Version::stored(&self.loader, version));
        let mut table = self.write();
        table.put_model(&model);
        table.put_version(version);
        Ok(true)
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

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }
}
