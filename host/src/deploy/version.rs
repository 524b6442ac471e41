//! A version made callable, wherever it runs, and a call's admission to it.

use super::called::Called;
use super::capacity::{Amount, Full, PoolName};
use super::group::{Group, MakeRoom};
use super::loader::{Loader, StartError};
use super::placement::Placement;
use super::replicas::{Load, Place, Replicas};
use crate::auth::AllowanceError;
use crate::call::{Deadline, Function, Methods, Origin};
use crate::package::Package;
use crate::package::config::ModelName;
use crate::store::{VersionRow, now};
use crate::telemetry::VersionLog;
use crate::worker::{Inputs, Outputs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// A version that is callable, and what may be told about it.
#[derive(Debug)]
pub struct Version {
    /// The model's name.
    pub name: ModelName,
    /// The version's id.
    pub version: String,
    /// Grows with every version of the model.
    pub number: u64,
    /// `model_type_id` of its configuration.
    pub model_type_id: String,
    /// How many concepts its configuration has.
    pub concepts: u64,
    /// The typed methods that it declares.
    pub methods: Arc<Methods>,
    /// When it came, in seconds since 1970.
    pub created_at: i64,
    source: Source,
    log: Option<VersionLog>,
    /// Its replicas, by where they run.
    groups: RwLock<Vec<Arc<Group>>>,
    needs: OnceLock<Amount>,
    pub(super) called: Called,
    gone: AtomicBool,
}

/// Where the package comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A folder that the operator named; its replica runs as long as the host.
    Folder,
    /// The store; its replica is started on need and stopped when idle.
    Store,
}

/// Why a call is not admitted.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LeaseError {
    /// There is no such model, or it is not the caller's to see.
    #[error("there is no such model; check user, app and model id")]
    NoSuchModel,
    /// The model has no such version.
    #[error("the model has no such version; leave the version out for the newest")]
    NoSuchVersion,
    /// The model was made, and nothing was uploaded that could be called.
    #[error("the model has no version that can be called; upload one")]
    NoVersion,
    /// Its owner or the operator has stopped it.
    #[error("the model is stopped; `ringfence models start` starts it again")]
    Stopped,
    /// Its replica does not start.
    #[error("the version does not start: {0}")]
    Start(Arc<StartError>),
    /// The caller takes as much as it may.
    #[error(transparent)]
    Quota(#[from] AllowanceError),
    /// No replica of it fits.
    #[error("{0}")]
    Full(Full),
    /// The same, for those who are not to know of the machine.
    #[error("there is no room for a replica of the model now; try again in a moment")]
    NoRoom,
    /// There is no such nodepool, or it is not the caller's to see.
    #[error("there is no nodepool {0}; check runner_selector")]
    NoSuchNodepool(PoolName),
    /// The model has no such deployment.
    #[error("the model has no deployment {0}; check runner_selector")]
    NoSuchDeployment(String),
    /// It runs elsewhere.
    #[error(
        "no deployment of the model is on nodepool {0}; deploy it there, or leave runner_selector out"
    )]
    NotDeployedThere(PoolName),
    /// The deployment serves another version than the one that is asked for.
    #[error("deployment {id} serves version {serves}; leave the version out")]
    OtherVersion {
        /// The deployment.
        id: String,
        /// The version that it serves.
        serves: String,
    },
    /// Every place is taken and the queue is full.
    #[error("the model is busy; try again in a moment")]
    Busy,
    /// The deadline passed in the queue.
    #[error("the deadline passed before it was this call's turn")]
    DeadlinePassed,
}

/// The permission to make one call.
#[derive(Debug)]
pub struct Lease {
    version: Arc<Version>,
    place: Place,
    deadline: Deadline,
    started: Duration,
    queued: Duration,
}

impl Version {
    /// A version that is started on need.
    pub(super) fn stored(loader: &Loader, row: &VersionRow) -> Self {
        let methods = Methods::parse(&row.methods).unwrap_or_else(|error| {
            // It was read when the version was admitted, by an older program.
            tracing::warn!(model = %row.name, version = row.id, "{error}");
            Methods::default()
        });
        Self {
            log: loader.log(&row.name, &row.id),
            name: row.name.clone(),
            version: row.id.clone(),
            number: row.number,
            model_type_id: row.model_type_id.clone(),
            concepts: row.concepts,
            methods: Arc::new(methods),
            created_at: row.created_at,
            source: Source::Store,
            groups: RwLock::default(),
            needs: OnceLock::new(),
            called: Called::default(),
            gone: AtomicBool::new(false),
        }
    }

    /// A folder's version, which runs and reserves nothing.
    pub(super) async fn of_folder(
        loader: &Loader,
        package: Package,
        placement: Arc<Placement>,
    ) -> Result<Self, StartError> {
        let config = &package.config;
        let (name, version) = (config.name.clone(), package.version.clone());
        let model_type_id = config.model_type_id.clone();
        let concepts = config.concepts.len() as u64;
        let worker = loader.start(package).await?;
        let methods = Arc::new(worker.methods().clone());
        let group = Group::running_already(placement, Replicas::of(worker, None));
        Ok(Self {
            log: loader.log(&name, &version),
            name,
            version,
            number: 0,
            model_type_id,
            concepts,
            methods,
            created_at: now(),
            source: Source::Folder,
            groups: RwLock::new(vec![Arc::new(group)]),
            needs: OnceLock::new(),
            called: Called::default(),
            gone: AtomicBool::new(false),
        })
    }

    /// Where its package comes from.
    pub fn source(&self) -> Source {
        self.source
    }

    /// Where what its guests wrote is kept, if it is. It may have been kept by
    /// earlier replicas.
    pub fn log(&self) -> Option<&VersionLog> {
        self.log.as_ref()
    }

    /// How much its replicas have to do now, if any run.
    pub fn load(&self) -> Option<Load> {
        let loads = self.all_groups().into_iter().filter_map(|group| group.load());
        loads.reduce(|sum, load| sum.plus(&load))
    }

    /// Whether a replica of it runs.
    pub fn is_running(&self) -> bool {
        self.groups().iter().any(|group| group.is_running())
    }

    /// Why it did not start when it was last tried.
    pub fn failure(&self) -> Option<Arc<StartError>> {
        self.groups().iter().find_map(|group| group.failure())
    }

    /// Admits a call, after starting a replica and waiting for the call's turn if
    /// need be.
    ///
    /// The deadline is the model's `call_timeout` from the moment that the
    /// replica runs, or the caller's own if that is earlier; waiting counts.
    pub(super) async fn lease(
        self: &Arc<Self>,
        placement: &Arc<Placement>,
        loader: &Loader,
        room: &impl MakeRoom,
        asked: Option<Deadline>,
    ) -> Result<Lease, LeaseError> {
        self.called.touch();
        let began = Instant::now();
        let group = self.group(placement);
        let (place, deadline, started) = group.place(self, loader, room, asked).await?;
        let queued = began.elapsed().saturating_sub(started);
        Ok(Lease { version: self.clone(), place, deadline, started, queued })
    }

    /// Its replicas in a placement, whether or not any run.
    pub(super) fn group(&self, placement: &Arc<Placement>) -> Arc<Group> {
        if let Some(group) = find(&self.groups(), placement) {
            return group;
        }
        let mut groups = self.groups_mut();
        if let Some(group) = find(&groups, placement) {
            return group;
        }
        let group = Arc::new(Group::stopped(placement.clone()));
        groups.push(group.clone());
        group
    }

    /// How many replicas run in a placement.
    pub(super) fn count_in(&self, placement: &Arc<Placement>) -> u32 {
        find(&self.groups(), placement).map_or(0, |group| group.count())
    }

    /// Whether a replica runs in a placement.
    pub(super) fn runs_in(&self, placement: &Arc<Placement>) -> bool {
        find(&self.groups(), placement).is_some_and(|group| group.is_running())
    }

    /// Its replicas in every placement.
    pub(super) fn all_groups(&self) -> Vec<Arc<Group>> {
        self.groups().clone()
    }

    /// Forgets placements that are no more; calls that run there end as they
    /// would.
    pub(super) fn forget_retired(&self) {
        self.groups_mut().retain(|group| !group.placement.is_retired());
    }

    /// Lets replicas go of placements that are no more.
    pub(super) fn stop_retired(&self) {
        let groups = self.all_groups();
        groups.iter().filter(|group| group.placement.is_retired()).for_each(|group| group.stop());
        self.forget_retired();
    }

    /// What a replica of it reserves, once that is known.
    pub(super) fn needs(&self) -> Option<Amount> {
        self.needs.get().copied()
    }

    pub(super) fn set_needs(&self, needs: Amount) {
        // A version does not change.
        let _ = self.needs.set(needs);
    }

    /// Lets all replicas go; calls that run keep theirs until they have ended.
    pub(super) fn stop(&self) {
        self.groups().iter().for_each(|group| group.stop());
    }

    /// The same, for good: its files are deleted, and its log with them.
    pub(super) fn end(&self) {
        self.gone.store(true, Ordering::Release);
        self.stop();
        self.forget();
    }

    pub(super) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    fn forget(&self) {
        if let Some(log) = &self.log {
            log.forget();
        }
    }

    fn groups(&self) -> std::sync::RwLockReadGuard<'_, Vec<Arc<Group>>> {
        self.groups.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn groups_mut(&self) -> std::sync::RwLockWriteGuard<'_, Vec<Arc<Group>>> {
        self.groups.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn find(groups: &[Arc<Group>], placement: &Arc<Placement>) -> Option<Arc<Group>> {
    groups.iter().find(|group| Arc::ptr_eq(&group.placement, placement)).cloned()
}

impl Drop for Version {
    /// What its last calls wrote after it was deleted goes as well.
    fn drop(&mut self) {
        if self.gone.load(Ordering::Acquire) {
            self.forget();
        }
    }
}

impl Lease {
    /// Which version is called.
    pub fn version(&self) -> &Arc<Version> {
        &self.version
    }

    /// When the call must have ended.
    pub fn deadline(&self) -> Deadline {
        self.deadline
    }

    /// Time that the call waited for the start of the replica; nothing where it
    /// ran.
    pub fn started(&self) -> Duration {
        self.started
    }

    /// Time that the call waited for a place after that.
    pub fn queued(&self) -> Duration {
        self.queued
    }

    /// Starts the call. The permission goes with the guest: it is free again
    /// when the guest has ended, which dropping the outputs brings about.
    /// `origin` is what logs say of it.
    pub fn call(self, function: Function, origin: Origin) -> (Inputs, Outputs) {
        let Self { version, place, deadline, .. } = self;
        place.call(function, origin, deadline, version)
    }
}
