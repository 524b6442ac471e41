//! The replicas of a version in one placement: started on need, grown, stopped.

use super::capacity::{Amount, Full, Pool, Reservation};
use super::error::{LeaseError, StartError};
use super::loader::Loader;
use super::placement::Placement;
use super::replicas::{Load, Place, Replicas, Standing, Waiting};
use super::version::Version;
use crate::call::Deadline;
use crate::limits::{Limits, limit};
use crate::package::config::ModelName;
use crate::worker::{Gone, StartFailure, Worker};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// How long the calls of a version that does not start are told so before it is
/// tried again.
const START_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// Crashes of its processes, within so much time, after which a version is left alone
/// for as long.
const CRASHES_MAX: usize = 3;
const CRASHES_WITHIN: Duration = Duration::from_secs(60);

/// How long a start waits after a crash, and how often that doubles at most.
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_DOUBLINGS_MAX: u32 = 6;

/// How often that time doubles where no call asks for it: to some five minutes.
const START_DOUBLINGS_MAX: u32 = 6;

/// Time that a call without a deadline of its own waits for a replica to start.
const START_TIMEOUT: Duration = Duration::from_secs(300);

/// Time that a call waits for room for its first replica.
const ROOM_TIMEOUT: Duration = Duration::from_secs(30);

/// How often it looks for it meanwhile.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// The replicas of a version in one placement.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) placement: Arc<Placement>,
    state: RwLock<State>,
    /// Held by whoever starts the first replica.
    starting: tokio::sync::Mutex<()>,
    /// Whether a further replica is being started.
    growing: AtomicBool,
    /// Whether a replica found no room when one was last tried.
    is_short: AtomicBool,
    /// How often in a row the first one did not start.
    failures: AtomicU32,
    /// When processes of it have ended that should not have, of late.
    crashes: Mutex<Vec<Instant>>,
    /// Calls that wait for the first one.
    waiting: AtomicUsize,
}

#[derive(Debug)]
enum State {
    Stopped,
    Running(Arc<Replicas>),
    /// Why, and since when. Whoever calls until `until` is told so.
    Failed {
        error: Arc<StartError>,
        at: Instant,
        until: Instant,
    },
}

/// Why there is no first replica.
enum NotStarted {
    Lease(LeaseError),
    Full(Full),
}

/// Why there is not one replica more.
enum NoReplica {
    Full(Full),
    Start(StartError),
}

impl From<StartError> for NoReplica {
    fn from(error: StartError) -> Self {
        Self::Start(error)
    }
}

/// Calls that may wait for a first replica: as many as it then has places and a queue
/// for, if `config.yaml`, which is not read before that, says nothing else.
fn starting_max() -> usize {
    let Limits { concurrency_max, queue_max, .. } = Limits::default().lifted();
    concurrency_max.saturating_add(queue_max)
}

/// Frees what is reserved and not needed now; whether so much fits then.
pub(super) trait MakeRoom {
    fn make_room(&self, pool: &Pool, full: &Full) -> bool;
}

impl Group {
    /// Nothing runs yet.
    pub(super) fn stopped(placement: Arc<Placement>) -> Self {
        Self::with(placement, State::Stopped)
    }

    /// What runs already.
    pub(super) fn running_already(
        placement: Arc<Placement>,
        model: &ModelName,
        worker: Worker,
    ) -> Arc<Self> {
        let group = Arc::new(Self::stopped(placement));
        let gone = worker.gone();
        let replicas = Arc::new(Replicas::of(worker, None));
        group.set(State::Running(replicas.clone()));
        group.mourn(model, &replicas, gone);
        group
    }

    fn with(placement: Arc<Placement>, state: State) -> Self {
        let (growing, is_short) = (AtomicBool::new(false), AtomicBool::new(false));
        let (state, starting) = (RwLock::new(state), tokio::sync::Mutex::default());
        let failures = AtomicU32::new(0);
        let (crashes, waiting) = (Mutex::default(), AtomicUsize::new(0));
        Self { placement, state, starting, growing, is_short, failures, crashes, waiting }
    }

    pub(super) fn load(&self) -> Option<Load> {
        self.replicas().map(|replicas| replicas.load())
    }

    /// How well it would do for a call; nothing where it would have to start.
    pub(super) fn standing(&self) -> Option<Standing> {
        match &*self.state() {
            State::Running(replicas) => Some(replicas.standing()),
            State::Failed { until, .. } if Instant::now() < *until => Some(Standing::Failed),
            State::Failed { .. } | State::Stopped => None,
        }
    }

    pub(super) fn is_running(&self) -> bool {
        matches!(*self.state(), State::Running(_))
    }

    /// Why it did not start when it was last tried.
    pub(super) fn failure(&self) -> Option<Arc<StartError>> {
        match &*self.state() {
            State::Failed { error, .. } => Some(error.clone()),
            State::Stopped | State::Running(_) => None,
        }
    }

    /// A call's place, after the start of a replica and waiting for its turn if
    /// need be. Also says how long the start took.
    pub(super) async fn place(
        self: &Arc<Self>,
        version: &Arc<Version>,
        loader: &Loader,
        room: &impl MakeRoom,
        asked: Option<Deadline>,
    ) -> Result<(Place, Deadline, Duration), LeaseError> {
        let began = Instant::now();
        let (replicas, started) = match self.running()? {
            Some(replicas) => (replicas, Duration::ZERO),
            None => (self.started(version, loader, room, asked).await?, began.elapsed()),
        };
        let deadline = replicas.deadline(asked);
        if let Some(place) = replicas.free_place() {
            return Ok((place, deadline, started));
        }
        let mut waiting = std::pin::pin!(replicas.place(deadline));
        // It is in the queue once it has been polled.
        if let std::task::Poll::Ready(placed) = futures_util::poll!(waiting.as_mut()) {
            return Ok((placed?, deadline, started));
        }
        self.grow(version, loader);
        Ok((waiting.await?, deadline, started))
    }

    /// Starts the first replica if none runs, without a call that waits for it.
    pub(super) fn ensure(self: &Arc<Self>, version: &Arc<Version>, loader: &Loader) {
        match self.running() {
            Ok(Some(_)) => self.grow(version, loader),
            Ok(None) => {
                // Whoever starts it already does.
                if self.starting.try_lock().is_err() || self.has_just_failed() {
                    return;
                }
                let (group, version, loader) = (self.clone(), version.clone(), loader.clone());
                tokio::spawn(async move {
                    let full = match group.start_first(&version, &loader).await {
                        Err(NotStarted::Full(full)) => Some(full),
                        Ok(_) | Err(NotStarted::Lease(_)) => None,
                    };
                    // Said once, however often it is tried.
                    if group.is_short.swap(full.is_some(), Ordering::AcqRel) != full.is_some()
                        && let Some(full) = full
                    {
                        tracing::warn!(model = %version.name, "a replica that has to run: {full}");
                    }
                });
            }
            // It was tried a moment ago.
            Err(_) => {}
        }
    }

    /// Starts one replica more in the background if calls have waited for it long
    /// enough, or more have to run, and it fits.
    pub(super) fn grow(self: &Arc<Self>, version: &Arc<Version>, loader: &Loader) {
        let Some(replicas) = self.replicas() else { return };
        if !replicas.wants_more(&self.placement.scale())
            || self.growing.swap(true, Ordering::AcqRel)
        {
            return;
        }
        let (group, version, loader) = (self.clone(), version.clone(), loader.clone());
        tokio::spawn(async move {
            let _growing = Growing(group.clone());
            let added = group.add_one(&version, &loader, &replicas).await;
            // What is stopped meanwhile is not held any longer.
            drop((replicas, version));
            if !added {
                // What did not fit a moment ago does not fit now.
                tokio::time::sleep(START_AGAIN_AFTER).await;
            }
        });
    }

    async fn add_one(
        self: &Arc<Self>,
        version: &Version,
        loader: &Loader,
        replicas: &Arc<Replicas>,
    ) -> bool {
        if self.crashes_too_often() {
            return false;
        }
        tokio::time::sleep(self.pause()).await;
        match self.start_one(version, loader).await {
            Ok((worker, reservation)) => {
                let is_same = self.replicas().is_some_and(|now| Arc::ptr_eq(&now, replicas));
                if is_same {
                    let gone = worker.gone();
                    replicas.add(worker, reservation);
                    self.mourn(&version.name, replicas, gone);
                    self.is_short.store(false, Ordering::Release);
                }
                is_same
            }
            Err(NoReplica::Full(full)) => {
                // Said once, however often it is tried.
                if !self.is_short.swap(true, Ordering::AcqRel) {
                    tracing::warn!(model = %version.name, "no further replica: {full}");
                }
                false
            }
            Err(NoReplica::Start(error)) => {
                self.note_crash(&error);
                tracing::error!(model = %version.name, "a further replica does not start: {error}");
                false
            }
        }
    }

    /// The replicas, if they run; why not, if that was tried a moment ago.
    fn running(&self) -> Result<Option<Arc<Replicas>>, LeaseError> {
        match &*self.state() {
            State::Running(replicas) => {
                replicas.touch();
                Ok(Some(replicas.clone()))
            }
            State::Failed { error, until, .. } if Instant::now() < *until => {
                Err(LeaseError::Start(error.clone()))
            }
            State::Failed { .. } | State::Stopped => Ok(None),
        }
    }

    /// Waits for the first replica to start, and for room if there is none. It
    /// goes on starting for the next caller if this one leaves.
    async fn started(
        self: &Arc<Self>,
        version: &Arc<Version>,
        loader: &Loader,
        room: &impl MakeRoom,
        asked: Option<Deadline>,
    ) -> Result<Arc<Replicas>, LeaseError> {
        let starting_max = limit("starts_waiting", starting_max());
        let _waiting = Waiting::enter(&self.waiting, starting_max)?;
        let deadline = asked.unwrap_or_else(|| Deadline::after(START_TIMEOUT));
        let room_until = deadline.min(Deadline::after(limit("room_timeout", ROOM_TIMEOUT)));
        loop {
            let mut freed = std::pin::pin!(self.placement.pool.freed());
            freed.as_mut().enable();
            let (group, version, loader) = (self.clone(), version.clone(), loader.clone());
            let starting = tokio::spawn(async move { group.start_first(&version, &loader).await });
            let full = match tokio::time::timeout_at(deadline.instant().into(), starting).await {
                Ok(Ok(Ok(started))) => return Ok(started),
                Ok(Ok(Err(NotStarted::Lease(error)))) => return Err(error),
                Ok(Ok(Err(NotStarted::Full(full)))) => full,
                Ok(Err(ended)) => return Err(LeaseError::Start(Arc::new(ended.into()))),
                Err(_) => return Err(LeaseError::DeadlinePassed),
            };
            if full.is_for_ever() {
                return Err(LeaseError::Full(full));
            }
            if !room.make_room(&self.placement.pool, &full) {
                // What becomes idle meanwhile frees nothing by itself.
                let again = room_until.min(Deadline::after(LOOK_AGAIN_AFTER));
                let _ = tokio::time::timeout_at(again.instant().into(), freed).await;
            }
            if room_until.instant() <= Instant::now() {
                return Err(LeaseError::Full(full));
            }
        }
    }

    async fn start_first(
        self: &Arc<Self>,
        version: &Version,
        loader: &Loader,
    ) -> Result<Arc<Replicas>, NotStarted> {
        let _alone = self.starting.lock().await;
        if let Some(replicas) = self.running().map_err(NotStarted::Lease)? {
            return Ok(replicas);
        }
        if version.is_gone() || self.placement.is_retired() {
            return Err(NotStarted::Lease(LeaseError::NoSuchVersion));
        }
        tokio::time::sleep(self.pause()).await;
        // Looked at before the package is read, which takes longer.
        if let Some(needs) = version.needs() {
            self.placement.has_room(needs).map_err(NotStarted::Full)?;
        }
        match self.start_one(version, loader).await {
            // It was deleted meanwhile, and its files perhaps before it was read.
            Ok(_) | Err(_) if version.is_gone() => {
                Err(NotStarted::Lease(LeaseError::NoSuchVersion))
            }
            Err(NoReplica::Full(full)) => Err(NotStarted::Full(full)),
            Ok((worker, reservation)) => {
                self.failures.store(0, Ordering::Release);
                let gone = worker.gone();
                let replicas = Arc::new(Replicas::of(worker, reservation));
                self.set(State::Running(replicas.clone()));
                self.mourn(&version.name, &replicas, gone);
                Ok(replicas)
            }
            Err(NoReplica::Start(error)) => {
                self.failures.fetch_add(1, Ordering::AcqRel);
                let is_crash = self.note_crash(&error);
                let error = if is_crash && self.crashes_too_often() {
                    self.leave_alone(&version.name, error.to_string())
                } else {
                    tracing::error!(
                        model = %version.name, version = version.version,
                        "a version does not start: {error}"
                    );
                    self.fail(error, START_AGAIN_AFTER)
                };
                Err(NotStarted::Lease(LeaseError::Start(error)))
            }
        }
    }

    /// Reserves what a replica takes, and starts it.
    async fn start_one(
        &self,
        version: &Version,
        loader: &Loader,
    ) -> Result<(Worker, Option<Reservation>), NoReplica> {
        if let Some((parts, compiled)) = version.folder() {
            let asked = &parts.sheet.limits.accelerators;
            let needs = Amount { accelerators: asked.count, ..Amount::default() };
            let started = match loader.devices().give(asked) {
                Ok(given) => loader.start_again(&version.name, parts, compiled, given).await,
                Err(none) => Err(none.into()),
            };
            return Ok((started.map_err(|error| self.no_replica(needs, error))?, None));
        }
        let package = loader.package(&version.name, &version.version).await?;
        let needs = Amount::of(&package.config);
        version.set_needs(needs);
        // No nodepool has what the machine has not.
        let asked = &package.limits().accelerators;
        loader.devices().check(asked).map_err(|none| NoReplica::Start(none.into()))?;
        let reservation = self.placement.reserve(needs).map_err(NoReplica::Full)?;
        let started = loader.start(package).await;
        Ok((started.map_err(|error| self.no_replica(needs, error))?, Some(reservation)))
    }

    /// Why there is none that needs so much: what others have may be free in a moment.
    fn no_replica(&self, needs: Amount, error: StartError) -> NoReplica {
        match error {
            StartError::Accelerators(none) if !none.is_for_ever() => {
                NoReplica::Full(self.placement.pool.without_devices(needs))
            }
            error => NoReplica::Start(error),
        }
    }

    /// Takes a replica out when its process ends that should not have.
    fn mourn(self: &Arc<Self>, model: &ModelName, replicas: &Arc<Replicas>, gone: Option<Gone>) {
        let Some(gone) = gone else { return };
        // Neither lives for this: whoever lets go of them ends the process.
        let (group, replicas) = (Arc::downgrade(self), Arc::downgrade(replicas));
        let model = model.clone();
        gone.then(move || {
            let Some((group, replicas)) = group.upgrade().zip(replicas.upgrade()) else { return };
            if let Some(why) = replicas.bury() {
                group.crashed(&replicas, &model, why);
            }
        });
    }

    /// Counts a process that has ended before it was ready; whether that was so.
    fn note_crash(&self, error: &StartError) -> bool {
        let is_crash = matches!(error, StartError::Replica(StartFailure::Process(_)));
        if is_crash {
            self.crashes().push(Instant::now());
        }
        is_crash
    }

    fn crashed(&self, replicas: &Arc<Replicas>, model: &ModelName, why: String) {
        self.crashes().push(Instant::now());
        let is_empty = replicas.count() == 0;
        if !is_empty || !self.replicas().is_some_and(|now| Arc::ptr_eq(&now, replicas)) {
            return;
        }
        match self.crashes_too_often() {
            true => drop(self.leave_alone(model, why)),
            false => self.set(State::Stopped),
        }
    }

    fn crashes_too_often(&self) -> bool {
        self.crashes().len() >= limit("worker_crashes", CRASHES_MAX)
    }

    /// Starts it no more for a while, and says why.
    fn leave_alone(&self, model: &ModelName, why: String) -> Arc<StartError> {
        let error = StartError::Crashes(why);
        let seconds = CRASHES_WITHIN.as_secs();
        tracing::error!(%model, "it is not started again for {seconds} s: {error}");
        self.fail(error, CRASHES_WITHIN)
    }

    /// Crashes of late.
    fn crashes(&self) -> MutexGuard<'_, Vec<Instant>> {
        let mut crashes = self.crashes.lock().unwrap_or_else(PoisonError::into_inner);
        crashes.retain(|at| at.elapsed() < CRASHES_WITHIN);
        crashes
    }

    /// How long a start waits after crashes: the longer, the more there were.
    fn pause(&self) -> Duration {
        match u32::try_from(self.crashes().len()).unwrap_or(u32::MAX) {
            0 => Duration::ZERO,
            crashes => PAUSE.saturating_mul(1 << crashes.min(PAUSE_DOUBLINGS_MAX)),
        }
    }

    fn fail(&self, error: StartError, hold: Duration) -> Arc<StartError> {
        let (error, at) = (Arc::new(error), Instant::now());
        self.set(State::Failed { error: error.clone(), at, until: at + hold });
        error
    }

    /// Whether it is too early to try again where no call asks for it: the more
    /// often it failed, the longer that is.
    fn has_just_failed(&self) -> bool {
        let doublings = self.failures.load(Ordering::Acquire).min(START_DOUBLINGS_MAX);
        let wait = START_AGAIN_AFTER.saturating_mul(1 << doublings);
        matches!(&*self.state(), State::Failed { at, .. } if at.elapsed() < wait)
    }

    /// Lets the replicas go; calls that run keep theirs until they have ended.
    pub(super) fn stop(&self) {
        self.set(State::Stopped);
    }

    /// How long nobody has called it, if it runs and no call does.
    pub(super) fn idle(&self) -> Option<Duration> {
        self.replicas().and_then(|replicas| replicas.idle())
    }

    /// How many replicas run.
    pub(super) fn count(&self) -> u32 {
        let count = self.replicas().map_or(0, |replicas| replicas.count());
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// How many of them could stop now, and calls would find a place.
    pub(super) fn spare(&self) -> u32 {
        let spare = self.replicas().map_or(0, |replicas| replicas.spare());
        u32::try_from(spare).unwrap_or(u32::MAX)
    }

    /// Stops one of those; whether it did.
    pub(super) fn shrink_now(&self) -> bool {
        self.replicas().is_some_and(|replicas| replicas.shrink_now())
    }

    /// Stops a replica that is not needed any more; whether it did.
    pub(super) fn shrink(&self) -> bool {
        self.replicas().is_some_and(|replicas| replicas.shrink(&self.placement.scale()))
    }

    fn replicas(&self) -> Option<Arc<Replicas>> {
        match &*self.state() {
            State::Running(replicas) => Some(replicas.clone()),
            State::Stopped | State::Failed { .. } => None,
        }
    }

    fn state(&self) -> std::sync::RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it was before goes without the lock: replicas take their time.
    fn set(&self, state: State) {
        let mut now = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *now, state);
        drop(now);
        drop(before);
    }
}

/// A further replica is being started as long as this lives.
struct Growing(Arc<Group>);

impl Drop for Growing {
    fn drop(&mut self) {
        self.0.growing.store(false, Ordering::Release);
    }
}

#[cfg(test)]
#[path = "group_tests.rs"]
mod tests;
