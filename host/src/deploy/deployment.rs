//! A version made callable: its replica, started on need, and calls' places.

use super::loader::{Loader, StartError};
use crate::auth::AllowanceError;
use crate::call::{Deadline, Function, Holder, Methods, Origin};
use crate::package::Package;
use crate::package::config::ModelName;
use crate::store::{VersionRow, now};
use crate::telemetry::VersionLog;
use crate::worker::{Inputs, Outputs, Worker};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long the calls of a version that does not start are told so before it is
/// tried again.
const START_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// Time that a call without a deadline of its own waits for a replica to start.
const START_TIMEOUT: Duration = Duration::from_secs(300);

/// A version that is callable, and what may be told about it.
#[derive(Debug)]
pub struct Deployment {
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
    replica: RwLock<State>,
    /// Held by whoever starts the replica.
    starting: Arc<tokio::sync::Mutex<()>>,
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

#[derive(Debug)]
enum State {
    Stopped,
    Running(Arc<Replica>),
    Failed(Arc<StartError>, Instant),
}

/// A running replica.
#[derive(Debug)]
pub(super) struct Replica {
    worker: Worker,
    slots: Arc<Semaphore>,
    waiting: AtomicUsize,
    used_at: RwLock<Instant>,
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
    deployment: Arc<Deployment>,
    replica: Arc<Replica>,
    permit: OwnedSemaphorePermit,
    deadline: Deadline,
    started: Duration,
    queued: Duration,
}

/// How much a replica has to do at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Calls that run.
    pub running: usize,
    /// Calls that wait for a place.
    pub waiting: usize,
    /// Bytes held, by what holds them.
    pub memory_bytes: [(Holder, u64); Holder::ALL.len()],
    /// Sandboxes made since it started.
    pub sandboxes_made: u64,
}

impl Deployment {
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
            replica: RwLock::new(State::Stopped),
            starting: Arc::default(),
            gone: AtomicBool::new(false),
        }
    }

    /// A folder's version, which runs.
    pub(super) async fn of_folder(loader: &Loader, package: Package) -> Result<Self, StartError> {
        let config = &package.config;
        let (name, version) = (config.name.clone(), package.version.clone());
        let model_type_id = config.model_type_id.clone();
        let concepts = config.concepts.len() as u64;
        let replica = Replica::new(loader.start(package).await?);
        Ok(Self {
            log: loader.log(&name, &version),
            name,
            version,
            number: 0,
            model_type_id,
            concepts,
            methods: Arc::new(replica.worker.methods().clone()),
            created_at: now(),
            source: Source::Folder,
            replica: RwLock::new(State::Running(Arc::new(replica))),
            starting: Arc::default(),
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

    /// How much its replica has to do now, if it runs.
    pub fn load(&self) -> Option<Load> {
        match &*self.state() {
            State::Running(replica) => Some(replica.load()),
            State::Stopped | State::Failed(..) => None,
        }
    }

    /// Whether its replica runs.
    pub fn is_running(&self) -> bool {
        matches!(*self.state(), State::Running(_))
    }

    /// Why it did not start when it was last tried.
    pub fn failure(&self) -> Option<Arc<StartError>> {
        match &*self.state() {
            State::Failed(error, _) => Some(error.clone()),
            State::Stopped | State::Running(_) => None,
        }
    }

    /// Admits a call, after starting the replica and waiting for the call's turn
    /// if need be.
    ///
    /// The deadline is the model's `call_timeout` from the moment that the
    /// replica runs, or the caller's own if that is earlier; waiting counts.
    pub(super) async fn lease(
        self: &Arc<Self>,
        loader: &Loader,
        asked: Option<Deadline>,
    ) -> Result<Lease, LeaseError> {
        let began = Instant::now();
        let (replica, started) = match self.running()? {
            Some(replica) => (replica, Duration::ZERO),
            None => (self.started(loader, asked).await?, began.elapsed()),
        };
        let began = Instant::now();
        let limits = replica.worker.limits();
        let deadline = Deadline::after(limits.call_timeout);
        let deadline = asked.map_or(deadline, |asked| asked.min(deadline));
        let slots = replica.slots.clone();
        let permit = match slots.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                let _waiting = Waiting::enter(&replica.waiting, limits.queue_max)?;
                let turn =
                    tokio::time::timeout_at(deadline.instant().into(), slots.acquire_owned());
                match turn.await {
                    Ok(Ok(permit)) => permit,
                    Ok(Err(_)) => return Err(LeaseError::NoSuchModel),
                    Err(_) => return Err(LeaseError::DeadlinePassed),
                }
            }
        };
        let queued = began.elapsed();
        Ok(Lease { deployment: self.clone(), replica, permit, deadline, started, queued })
    }

    /// The replica, if it runs; why not, if it was tried a moment ago.
    fn running(&self) -> Result<Option<Arc<Replica>>, LeaseError> {
        match &*self.state() {
            State::Running(replica) => {
                replica.touch();
                Ok(Some(replica.clone()))
            }
            State::Failed(error, at) if at.elapsed() < START_AGAIN_AFTER => {
                Err(LeaseError::Start(error.clone()))
            }
            State::Failed(..) | State::Stopped => Ok(None),
        }
    }

    /// Waits for the replica to start. It goes on starting for the next caller
    /// if this one leaves.
    async fn started(
        self: &Arc<Self>,
        loader: &Loader,
        asked: Option<Deadline>,
    ) -> Result<Arc<Replica>, LeaseError> {
        let deadline = asked.unwrap_or_else(|| Deadline::after(START_TIMEOUT));
        let (deployment, loader) = (self.clone(), loader.clone());
        let starting = tokio::spawn(async move {
            let starting = deployment.starting.clone();
            let _alone = starting.lock().await;
            if let Some(replica) = deployment.running()? {
                return Ok(replica);
            }
            deployment.start(&loader).await
        });
        match tokio::time::timeout_at(deadline.instant().into(), starting).await {
            Ok(Ok(started)) => started,
            Ok(Err(_)) => Err(LeaseError::Start(Arc::new(StartError::Stopping))),
            Err(_) => Err(LeaseError::DeadlinePassed),
        }
    }

    async fn start(&self, loader: &Loader) -> Result<Arc<Replica>, LeaseError> {
        if self.gone.load(Ordering::Acquire) {
            return Err(LeaseError::NoSuchVersion);
        }
        let started = async {
            let package = loader.package(&self.name, &self.version).await?;
            loader.start(package).await
        };
        match started.await {
            // It was deleted meanwhile, and its files perhaps before it was read.
            Ok(_) | Err(_) if self.gone.load(Ordering::Acquire) => Err(LeaseError::NoSuchVersion),
            Ok(worker) => {
                let replica = Arc::new(Replica::new(worker));
                self.set(State::Running(replica.clone()));
                Ok(replica)
            }
            Err(error) => {
                tracing::error!(
                    model = %self.name, version = self.version, "a version does not start: {error}"
                );
                let error = Arc::new(error);
                self.set(State::Failed(error.clone(), Instant::now()));
                Err(LeaseError::Start(error))
            }
        }
    }

    /// Lets the replica go; calls that run keep theirs until they have ended.
    pub(super) fn stop(&self) {
        self.set(State::Stopped);
    }

    /// The same, for good: its files are deleted, and its log with them.
    pub(super) fn end(&self) {
        self.gone.store(true, Ordering::Release);
        self.stop();
        self.forget();
    }

    fn forget(&self) {
        if let Some(log) = &self.log {
            log.forget();
        }
    }

    /// How long nobody has called it, if it runs and no call does.
    pub(super) fn idle(&self) -> Option<Duration> {
        match &*self.state() {
            State::Running(replica) if self.source == Source::Store => replica.idle(),
            State::Running(_) | State::Stopped | State::Failed(..) => None,
        }
    }

    fn state(&self) -> std::sync::RwLockReadGuard<'_, State> {
        self.replica.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, state: State) {
        *self.replica.write().unwrap_or_else(PoisonError::into_inner) = state;
    }
}

impl Drop for Deployment {
    /// What its last calls wrote after it was deleted goes as well.
    fn drop(&mut self) {
        if self.gone.load(Ordering::Acquire) {
            self.forget();
        }
    }
}

impl Replica {
    fn load(&self) -> Load {
        let places = self.worker.limits().concurrency_max;
        Load {
            running: places.saturating_sub(self.slots.available_permits()),
            waiting: self.waiting.load(Ordering::Acquire),
            memory_bytes: self.worker.memory_bytes(),
            sandboxes_made: self.worker.sandboxes_made(),
        }
    }

    fn new(worker: Worker) -> Self {
        let slots = Arc::new(Semaphore::new(worker.limits().concurrency_max));
        let (waiting, used_at) = (AtomicUsize::new(0), RwLock::new(Instant::now()));
        Self { worker, slots, waiting, used_at }
    }

    fn touch(&self) {
        *self.used_at.write().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn idle(&self) -> Option<Duration> {
        let all = self.slots.available_permits() == self.worker.limits().concurrency_max;
        let used_at = *self.used_at.read().unwrap_or_else(PoisonError::into_inner);
        all.then(|| used_at.elapsed())
    }
}

impl Lease {
    /// Which version is called.
    pub fn deployment(&self) -> &Arc<Deployment> {
        &self.deployment
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
        let Self { deployment, replica, permit, deadline, .. } = self;
        // Both live as long as the last of their calls.
        let hold = (permit, replica.clone(), deployment);
        replica.worker.call(function, origin, deadline, hold)
    }
}

/// A place in the queue.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn enter(waiting: &'a AtomicUsize, queue_max: usize) -> Result<Self, LeaseError> {
        waiting
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| {
                (count < queue_max).then_some(count + 1)
            })
            .map(|_| Self(waiting))
            .map_err(|_| LeaseError::Busy)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
