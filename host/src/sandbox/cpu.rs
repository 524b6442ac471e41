//! Whose turn it is on the machine's CPUs.
//!
//! Owns two promises. A replica takes no more CPU time than its `cpu_limit`: what
//! runs for it is charged to its bucket, and waits while that is empty. And where
//! more wants to run than there are CPUs, that replica is next which has had
//! least, so that a small one keeps its limit beside a large one. Nobody waits on
//! a thread.
//!
//! Time is that of threads, around each turn: fuel does not count what page faults
//! and the host's own functions take.

mod queue;

use super::meters::{Meters, Waits, nanoseconds};
use super::thread_cpu::{thread_cpu, thread_cpu_about};
pub(crate) use queue::ENGINE_SLOT;
use queue::{Kind, State, Taken, Wake};
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// The CPUs of this process, as slots of which each turn takes one. At most as many
/// engines have a turn at a time as there are CPUs.
#[derive(Debug)]
pub(crate) struct Cpus(Mutex<State>);

/// One replica's part of them.
#[derive(Debug)]
pub(crate) struct Share {
    cpus: Arc<Cpus>,
    id: u64,
}

/// A slot that is taken. Drop gives it back, and charges what the thread has run
/// since [`Turn::begin`].
#[derive(Debug)]
pub(crate) struct Turn {
    /// Nothing once the slot is given back.
    share: Option<Arc<Share>>,
    taken: Taken,
    /// Nothing before it begins.
    began: Option<Duration>,
}

/// A place among those who wait, if it came to that.
#[derive(Debug)]
pub(crate) struct Waiting {
    share: Arc<Share>,
    kind: Kind,
    number: Option<u64>,
}

/// What comes after a turn, for a guest that has yielded.
#[derive(Debug)]
enum Next {
    /// Another one at once.
    Turn(Turn),
    /// This place among those who wait.
    Place(u64),
}

impl Cpus {
    /// So many of them.
    pub(crate) fn new(count: usize) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State::new(count.max(1)))))
    }

    /// Gives turns to those who have credit again, and for whom long turns of engines
    /// have made room. Has to be called now and then while anything waits.
    pub(super) fn tick(&self) {
        let state = match self.0.try_lock() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // The caller has a time to keep, and comes again.
            Err(TryLockError::WouldBlock) => return,
        };
        Self::change_locked(state, |state, now| {
            state.settle_due(now);
            state.lend(now);
        });
    }

    /// Changes what is; then whoever's turn it is is told, without the lock.
    fn change<T>(&self, change: impl FnOnce(&mut State, Instant) -> T) -> T {
        Self::change_locked(self.lock(), change)
    }

    fn change_locked<T>(
        mut state: MutexGuard<'_, State>,
        change: impl FnOnce(&mut State, Instant) -> T,
    ) -> T {
        let now = Instant::now();
        let changed = change(&mut state, now);
        let woken = state.grant(now);
        drop(state);
        woken.into_iter().for_each(|(number, wake)| wake.start(number));
        changed
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    /// For a replica that may take so many thousandths of a CPU.
    pub(crate) fn new(cpus: &Arc<Cpus>, cpu_millis: u64) -> Arc<Self> {
        let id = cpus.lock().add(cpu_millis, Instant::now());
        Arc::new(Self { cpus: cpus.clone(), id })
    }

    /// Runs a future to its end, a turn for each poll. What a guest does between
    /// two yields is one turn, so none is longer than a time slice and what one
    /// function of the host takes. A future that yields, as its meters know, is
    /// polled again when it is its turn; it need not wake anybody.
    pub(super) async fn run<F: Future>(self: &Arc<Self>, meters: &Meters, future: F) -> F::Output {
        let mut future = pin!(future);
        let mut waiting = Waiting { share: self.clone(), kind: Kind::Guest, number: None };
        let mut waits = Waits::of(meters);
        let mut kept: Option<Turn> = None;
        poll_fn(|context| {
            let turn = match kept.take() {
                Some(turn) => turn,
                None => {
                    let has_waited = waiting.number.is_some();
                    let Poll::Ready(turn) = waiting.poll(context) else {
                        waits.begin();
                        return Poll::Pending;
                    };
                    // tokio polls whoever is woken within a poll right after it, and
                    // so on for some times: a turn that began there would go before
                    // all else that the thread has to run. Who wakes itself goes to
                    // the end of what the thread has, and behind all that comes from
                    // other threads.
                    if has_waited {
                        kept = Some(turn);
                        context.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    turn
                }
            };
            waits.end();
            let began = thread_cpu_about();
            let turn = turn.begin_at(began);
            meters.turn_begins(began);
            let polled = future.as_mut().poll(context);
            let wants_more = polled.is_pending() && meters.has_yielded();
            let (cpu_ns, next) = turn.end(wants_more.then(|| context.waker()));
            meters.guest_cpu_ns.add(meters.of_guest(cpu_ns));
            match next {
                Some(Next::Turn(turn)) => {
                    kept = Some(turn);
                    context.waker().wake_by_ref();
                }
                Some(Next::Place(number)) => {
                    waiting.number = Some(number);
                    waits.begin();
                }
                None => {}
            }
            polled
        })
        .await
    }

    /// Starts `job` when it is its turn; not at all if the answer is dropped
    /// before. `job` only hands on what it is given.
    pub(crate) fn queue(self: &Arc<Self>, job: impl FnOnce(Turn) + Send + 'static) -> Waiting {
        let wake = Wake::Job(self.clone(), Box::new(job));
        let number = self.cpus.change(|state, now| state.wait(self.id, wake, now));
        Waiting { share: self.clone(), kind: Kind::Engine, number: Some(number) }
    }

    /// Does what needs no turn because it cannot wait, and charges it.
    pub(crate) fn charged<T>(&self, work: impl FnOnce() -> T) -> T {
        let began = thread_cpu_about();
        let done = work();
        self.charge(thread_cpu_about().saturating_sub(began));
        done
    }

    /// CPU time that was charged so far.
    pub(super) fn charged_so_far(&self) -> Duration {
        Duration::from_nanos(self.cpus.lock().charged_ns(self.id))
    }

    /// Charges time that was taken without a turn.
    pub(crate) fn charge(&self, cpu: Duration) {
        let cpu_ns = nanoseconds(cpu);
        self.cpus.change(|state, now| state.charge(self.id, cpu_ns, now));
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.cpus.lock().remove(self.id, Instant::now());
    }
}

impl Waiting {
    /// A turn, or a place among those who wait for one.
    fn poll(&mut self, context: &Context<'_>) -> Poll<Turn> {
        let (id, number) = (self.share.id, &mut self.number);
        let has_turn = self.share.cpus.change(|state, now| match *number {
            Some(waits) if state.granted.remove(&waits) => {
                *number = None;
                true
            }
            Some(waits) => {
                state.rewake(id, waits, context.waker());
                false
            }
            None => {
                let taken = state.take(id, now);
                if !taken {
                    let wake = Wake::Task(context.waker().clone());
                    *number = Some(state.wait(id, wake, now));
                }
                taken
            }
        });
        match has_turn {
            true => Poll::Ready(Turn::of(&self.share, Taken::Guest)),
            false => Poll::Pending,
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let Some(number) = self.number else { return };
        let (id, kind) = (self.share.id, self.kind);
        // A job that is not started goes without the lock.
        let _left = self.share.cpus.change(|state, now| match state.granted.remove(&number) {
            true => {
                state.release(id, Taken::Guest, now);
                None
            }
            false => state.leave(id, kind, number, now),
        });
    }
}

impl Turn {
    fn of(share: &Arc<Share>, taken: Taken) -> Self {
        Self { share: Some(share.clone()), taken, began: None }
    }

    /// From here on this thread's time is charged.
    pub(crate) fn begin(self) -> Self {
        self.begin_at(thread_cpu())
    }

    fn begin_at(mut self, began: Duration) -> Self {
        self.began = Some(began);
        self
    }

    /// Charges what was run, in nanoseconds, and gives the slot back; or goes on
    /// with it, for whoever wants that and whose turn it is again. Others who want
    /// more wait from now on: by the time that they are polled again, whoever has
    /// had more might have gone first.
    fn end(mut self, wants_more: Option<&Waker>) -> (u64, Option<Next>) {
        let Some(share) = self.share.take() else { return (0, None) };
        let (id, taken, cpu_ns) = (share.id, self.taken, self.has_run_ns());
        let place = share.cpus.change(|state, now| {
            state.charge(id, cpu_ns, now);
            if wants_more.is_some() && state.is_next(id, now) {
                state.serve(id);
                return None;
            }
            state.release(id, taken, now);
            let wake = wants_more.map(|waker| Wake::Task(waker.clone()));
            Some(wake.map(|wake| state.wait(id, wake, now)))
        });
        let next = match place {
            None => Some(Next::Turn(Self::of(&share, taken))),
            Some(number) => number.map(Next::Place),
        };
        (cpu_ns, next)
    }

    fn has_run_ns(&self) -> u64 {
        self.began.map_or(0, |began| nanoseconds(thread_cpu_about().saturating_sub(began)))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(share) = self.share.take() else { return };
        let (taken, cpu_ns) = (self.taken, self.has_run_ns());
        share.cpus.change(|state, now| {
            state.charge(share.id, cpu_ns, now);
            state.release(share.id, taken, now);
        });
    }
}

#[cfg(test)]
#[path = "cpu_tests.rs"]
mod tests;
