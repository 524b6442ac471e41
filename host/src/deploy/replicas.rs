//! The running replicas of a version in one place, with one queue before them.
//!
//! Owns the places of calls: as many as all replicas have together. A call that
//! got one goes to the replica that has least to do.

use super::autoscale::Autoscale;
use super::capacity::Reservation;
use super::error::LeaseError;
use crate::call::{Deadline, Function, Origin};
use crate::worker::{Figures, Inputs, Kernel, Outputs, Worker};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// Replicas that run. Whoever holds them keeps them so.
#[derive(Debug)]
pub(super) struct Replicas {
    replicas: Mutex<Vec<Arc<Replica>>>,
    /// Calls at a time of each.
    concurrency_max: usize,
    queue_max: usize,
    call_timeout: Duration,
    slots: Arc<Semaphore>,
    waiting: AtomicUsize,
    times: Mutex<Times>,
}

#[derive(Debug)]
struct Times {
    used_at: Instant,
    /// Since when calls have had to wait.
    busy_since: Option<Instant>,
    /// Since when one replica less would have done.
    spare_since: Option<Instant>,
}

#[derive(Debug)]
struct Replica {
    worker: Worker,
    calls: AtomicUsize,
    _reservation: Option<Reservation>,
}

/// A call's place at a replica.
#[derive(Debug)]
pub(super) struct Place {
    replica: Arc<Replica>,
    replicas: Arc<Replicas>,
    /// Until it is dropped.
    permit: Option<OwnedSemaphorePermit>,
}

/// How much there is to do at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Replicas that run.
    pub replicas: usize,
    /// Calls that run.
    pub running: usize,
    /// Calls that wait for a place.
    pub waiting: usize,
    /// What they hold, and have had since they were started.
    pub figures: Figures,
    /// What the kernel says of their processes.
    pub kernel: Kernel,
}

/// How well it would do for a call, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    /// A place is free.
    Free,
    /// So many calls wait for one, and the queue has room.
    Waiting(usize),
    /// Nothing runs, and a replica finds room as far as is known.
    Stopped,
    /// Nothing runs, and there is no room now.
    NoRoom,
    /// The queue is full.
    Busy,
    /// It did not start when it was tried a moment ago.
    Failed,
}

impl Replicas {
    /// A first replica.
    pub(super) fn of(worker: Worker, reservation: Option<Reservation>) -> Self {
        let limits = worker.limits();
        let (concurrency_max, queue_max) = (limits.concurrency_max, limits.queue_max);
        let call_timeout = limits.call_timeout;
        let times = Times { used_at: Instant::now(), busy_since: None, spare_since: None };
        let replica = Replica { worker, calls: AtomicUsize::new(0), _reservation: reservation };
        Self {
            replicas: Mutex::new(vec![Arc::new(replica)]),
            concurrency_max,
            queue_max,
            call_timeout,
            slots: Arc::new(Semaphore::new(concurrency_max)),
            waiting: AtomicUsize::new(0),
            times: Mutex::new(times),
        }
    }

    /// One more.
    pub(super) fn add(&self, worker: Worker, reservation: Option<Reservation>) {
        let replica = Replica { worker, calls: AtomicUsize::new(0), _reservation: reservation };
        self.lock().push(Arc::new(replica));
        self.times().busy_since = None;
        self.slots.add_permits(self.concurrency_max);
    }

    /// Takes those out whose processes have ended, and says why the last of them did.
    /// Their free places go with them, and the others as their calls end, which are told
    /// by now.
    pub(super) fn bury(&self) -> Option<String> {
        let mut replicas = self.lock();
        let (gone, left) = replicas.drain(..).partition::<Vec<_>, _>(|replica| replica.has_gone());
        *replicas = left;
        drop(replicas);
        for replica in &gone {
            let free = self.concurrency_max.saturating_sub(replica.calls());
            self.slots.forget_permits(free);
        }
        gone.last().map(|replica| replica.worker.why())
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.lock().len()
    }

    /// The end of a call that begins now.
    pub(super) fn deadline(&self, asked: Option<Deadline>) -> Deadline {
        let deadline = Deadline::after(self.call_timeout);
        asked.map_or(deadline, |asked| asked.min(deadline))
    }

    pub(super) fn touch(&self) {
        self.times().used_at = Instant::now();
    }

    /// A place, if one is free.
    pub(super) fn free_place(self: &Arc<Self>) -> Option<Place> {
        let permit = self.slots.clone().try_acquire_owned().ok()?;
        self.times().busy_since = None;
        self.taken(permit)
    }

    /// Waits for a place.
    pub(super) async fn place(self: &Arc<Self>, deadline: Deadline) -> Result<Place, LeaseError> {
        let _waiting = self.wait()?;
        let turn =
            tokio::time::timeout_at(deadline.instant().into(), self.slots.clone().acquire_owned());
        match turn.await {
            Ok(Ok(permit)) => self.taken(permit).ok_or(LeaseError::Busy),
            Ok(Err(_)) => Err(LeaseError::NoSuchModel),
            Err(_) => Err(LeaseError::DeadlinePassed),
        }
    }

    /// How well they would do for a call.
    pub(super) fn standing(&self) -> Standing {
        if self.slots.available_permits() > 0 {
            return Standing::Free;
        }
        match self.waiting.load(Ordering::Acquire) {
            waiting if waiting < self.queue_max => Standing::Waiting(waiting),
            _ => Standing::Busy,
        }
    }

    fn wait(&self) -> Result<Waiting<'_>, LeaseError> {
        let waiting = Waiting::enter(&self.waiting, self.queue_max)?;
        self.times().busy_since.get_or_insert_with(Instant::now);
        Ok(waiting)
    }

    /// There are never more permits than places, so one has room.
    fn taken(self: &Arc<Self>, permit: OwnedSemaphorePermit) -> Option<Place> {
        let replicas = self.lock();
        let alive = replicas.iter().filter(|replica| !replica.has_gone());
        let replica = alive.min_by_key(|replica| replica.calls())?.clone();
        replica.calls.fetch_add(1, Ordering::AcqRel);
        Some(Place { replica, replicas: self.clone(), permit: Some(permit) })
    }

    /// Whether calls have waited for so long that there should be one more.
    pub(super) fn wants_more(&self, scale: &Autoscale) -> bool {
        let count = self.count();
        if count < scale.replicas_min as usize {
            return true;
        }
        let waited = self.times().busy_since.map(|since| since.elapsed());
        count < scale.replicas_max as usize
            && self.waiting.load(Ordering::Acquire) > 0
            && waited.is_some_and(|waited| waited >= scale.scale_up_delay)
    }

    /// Stops one if the others would have done for so long; whether it did.
    pub(super) fn shrink(&self, scale: &Autoscale) -> bool {
        let is_spare = self.count() > scale.replicas_min.max(1) as usize
            && self.slots.available_permits() >= self.concurrency_max;
        {
            let mut times = self.times();
            let since = is_spare.then(|| times.spare_since.unwrap_or_else(Instant::now));
            times.spare_since = since;
            let is_over = self.count() > scale.replicas_max.max(1) as usize;
            let has_been = since.is_some_and(|since| since.elapsed() >= scale.scale_down_delay);
            if !is_spare || !(has_been || is_over) {
                return false;
            }
            times.spare_since = None;
        }
        self.shrink_now()
    }

    /// How many could stop now, and calls would find a place; one stays.
    pub(super) fn spare(&self) -> usize {
        let free = self.slots.available_permits() / self.concurrency_max.max(1);
        free.min(self.count().saturating_sub(1))
    }

    /// Stops one if its places are free and another stays; whether it did.
    pub(super) fn shrink_now(&self) -> bool {
        if self.count() < 2 {
            return false;
        }
        let Ok(places) = u32::try_from(self.concurrency_max) else { return false };
        let Ok(permits) = self.slots.try_acquire_many(places) else { return false };
        permits.forget();
        let mut replicas = self.lock();
        let least = replicas.iter().enumerate().min_by_key(|(_, replica)| replica.calls());
        let index = least.map(|(index, _)| index);
        // Its last calls hold it until they have ended; it goes without the lock.
        let stopped = index.map(|index| replicas.swap_remove(index));
        drop(replicas);
        stopped.is_some()
    }

    /// How long nobody has called them, if no call runs or waits.
    pub(super) fn idle(&self) -> Option<Duration> {
        let all = self.count().saturating_mul(self.concurrency_max);
        let is_idle =
            self.slots.available_permits() >= all && self.waiting.load(Ordering::Acquire) == 0;
        is_idle.then(|| self.times().used_at.elapsed())
    }

    pub(super) fn load(&self) -> Load {
        let replicas = self.lock();
        let places = replicas.len().saturating_mul(self.concurrency_max);
        let load = Load {
            replicas: 0,
            running: places.saturating_sub(self.slots.available_permits()),
            waiting: self.waiting.load(Ordering::Acquire),
            figures: Figures::default(),
            kernel: Kernel::default(),
        };
        replicas.iter().fold(load, |sum, replica| {
            sum.plus(&Load {
                replicas: 1,
                running: 0,
                waiting: 0,
                figures: replica.worker.figures(),
                kernel: replica.worker.kernel(),
            })
        })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Replica>>> {
        self.replicas.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn times(&self) -> MutexGuard<'_, Times> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Load {
    /// The sum of both.
    pub fn plus(mut self, other: &Self) -> Self {
        self.replicas += other.replicas;
        self.running += other.running;
        self.waiting += other.waiting;
        self.figures = self.figures.plus(&other.figures);
        self.kernel = self.kernel.plus(other.kernel);
        self
    }
}

impl Replica {
    /// Whether its process has ended.
    fn has_gone(&self) -> bool {
        self.worker.has_gone()
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::Acquire)
    }
}

impl Place {
    /// Starts a call, which has the place until its guest has ended. `hold` lives
    /// as long.
    pub(super) fn call<H: Send + Sync + 'static>(
        self,
        ended: &CancellationToken,
        function: Function,
        origin: Origin,
        deadline: Deadline,
        hold: H,
    ) -> (Inputs, Outputs) {
        let replica = self.replica.clone();
        replica.worker.call(ended, function, origin, deadline, (hold, self))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.replicas.touch();
        // Before the permit, so that whoever gets that finds room.
        self.replica.calls.fetch_sub(1, Ordering::AcqRel);
        if self.replica.has_gone()
            && let Some(permit) = self.permit.take()
        {
            // Its place is nobody's any more.
            permit.forget();
        }
    }
}

/// A place in the queue.
#[derive(Debug)]
pub(super) struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    /// One of so many.
    pub(super) fn enter(waiting: &'a AtomicUsize, queue_max: usize) -> Result<Self, LeaseError> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_place_is_better_than_a_short_queue_and_that_than_a_start() {
        let best_first = [
            Standing::Free,
            Standing::Waiting(1),
            Standing::Waiting(2),
            Standing::Stopped,
            Standing::NoRoom,
            Standing::Busy,
            Standing::Failed,
        ];
        assert!(best_first.is_sorted());
    }
}
