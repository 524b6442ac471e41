//! A version made callable, wherever it runs, and a call's admission to it.

use super::called::Called;
use super::capacity::Amount;
use super::error::{LeaseError, StartError};
use super::group::{Group, MakeRoom};
use super::loader::Loader;
use super::placement::Placement;
use super::replicas::{Load, Place, Standing};
use crate::call::{Deadline, Function, Methods, Origin};
use crate::package::config::ModelName;
use crate::package::{Package, Parts};
use crate::sandbox::Compiled;
use crate::store::{VersionRow, now};
use crate::telemetry::VersionLog;
use crate::worker::{Inputs, Outputs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

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
    /// What a further replica of a folder is started from.
    folder: Option<(Parts, Compiled)>,
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
            folder: None,
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
        let given = loader.give(&package)?;
        let compiled = loader.code(&package, &given).await?;
        let parts = Parts::from(package);
        let folder = Some((parts.clone(), compiled.clone()));
        let worker = loader.start_again(&name, parts, compiled, given).await?;
        let methods = Arc::new(worker.methods().cloned().unwrap_or_default());
        let group = Group::running_already(placement, &name, worker);
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
            groups: RwLock::new(vec![group]),
            needs: OnceLock::new(),
            folder,
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

    /// How well a placement would do for a call.
    pub(super) fn standing_in(&self, placement: &Arc<Placement>) -> Standing {
        let there = find(&self.groups(), placement).and_then(|group| group.standing());
        there.unwrap_or_else(|| match self.needs().map(|needs| placement.has_room(needs)) {
            Some(Err(_)) => Standing::NoRoom,
            Some(Ok(())) | None => Standing::Stopped,
        })
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

    /// What a further replica of it is started from, if it is a folder's.
    pub(super) fn folder(&self) -> Option<(Parts, Compiled)> {
        self.folder.clone()
    }

    pub(super) fn set_needs(&self, needs: Amount) {
        // A version does not change.
        let _ = self.needs.set(needs);
    }

    /// Lets all replicas go; calls that run keep theirs until they have ended.
    pub(super) fn stop(&self) {
        self.all_groups().iter().for_each(|group| group.stop());
    }

    /// The same, for good: its files are deleted, and its log with them.
    pub(super) fn end(&self) {
        self.set_gone(true);
        self.stop();
        self.forget();
    }

    pub(super) fn set_gone(&self, gone: bool) {
        self.gone.store(gone, Ordering::Release);
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
    /// when the guest has ended, which dropping the outputs brings about, and
    /// cancelling `ended`, whoever still reads. `origin` is what logs say of it, and
    /// `hold` lives as long as the guest.
    pub fn call<H: Send + Sync + 'static>(
        self,
        ended: &CancellationToken,
        function: Function,
        origin: Origin,
        hold: H,
    ) -> (Inputs, Outputs) {
        let Self { version, place, deadline, .. } = self;
        place.call(ended, function, origin, deadline, (hold, version))
    }
}
