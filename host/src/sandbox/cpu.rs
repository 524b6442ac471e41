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

use super::bucket::Bucket;
use super::meters::{Meters, nanoseconds, thread_cpu};
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// About what a turn takes, for those that are under way.
const SLICE_NS: u64 = 1_000_000;

/// A replica that wanted nothing for so long has no claim to what it did not take.
const IDLE_AFTER: Duration = Duration::from_millis(10);

/// The CPUs of this process, as slots of which each turn takes one. Guests have as
/// many as there are CPUs, and engines as many of their own: a graph that computes
/// for long keeps no guest from its turn.
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
    kind: Kind,
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

/// What a turn is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Guest,
    Engine,
}

/// One for each kind.
#[derive(Debug, Clone, Copy, Default)]
struct Each<T> {
    guest: T,
    engine: T,
}

#[derive(Debug)]
struct State {
    slots_free: Each<usize>,
    replicas: HashMap<u64, Replica>,
    /// Those with credit for whom something waits, by what they have had.
    ready: Each<BTreeSet<(u64, u64)>>,
    /// Those without, by when they will have some.
    broke: BTreeSet<(Instant, u64)>,
    /// Whose slot is taken, but who has not looked yet.
    granted: HashSet<u64>,
    /// What those have had that are served by now.
    had_ns: u64,
    next: u64,
}

#[derive(Debug)]
struct Replica {
    bucket: Bucket,
    /// Graphs that may be computed for it at a time.
    jobs_max: usize,
    /// CPU time that it has had.
    had_ns: u64,
    /// Slots that it has.
    turns: Each<usize>,
    waiting: Each<VecDeque<Waiter>>,
    ready_at: Each<Option<(u64, u64)>>,
    broke_at: Option<(Instant, u64)>,
    /// Since when it has wanted nothing.
    idle_since: Instant,
}

#[derive(Debug)]
struct Waiter {
    number: u64,
    wake: Wake,
}

/// How somebody gets a turn.
enum Wake {
    /// A task looks for it at its next poll.
    Task(Waker),
    /// Work for another thread is started with it.
    Job(Arc<Share>, Box<dyn FnOnce(Turn) + Send>),
}

impl Kind {
    const ALL: [Self; 2] = [Self::Guest, Self::Engine];
}

impl<T> Each<T> {
    fn of(&self, kind: Kind) -> &T {
        match kind {
            Kind::Guest => &self.guest,
            Kind::Engine => &self.engine,
        }
    }

    fn of_mut(&mut self, kind: Kind) -> &mut T {
        match kind {
            Kind::Guest => &mut self.guest,
            Kind::Engine => &mut self.engine,
        }
    }
}

impl Replica {
    fn wants_nothing(&self) -> bool {
        Kind::ALL
            .into_iter()
            .all(|kind| *self.turns.of(kind) == 0 && self.waiting.of(kind).is_empty())
    }

    /// What it will have had when its turns have ended.
    fn will_have_had_ns(&self) -> u64 {
        let turns = self.turns.guest + self.turns.engine;
        self.had_ns.saturating_add((turns as u64).saturating_mul(SLICE_NS))
    }

    /// Whether one more turn of a kind is allowed, if something waits for it.
    fn may(&self, kind: Kind) -> bool {
        match kind {
            Kind::Guest => true,
            Kind::Engine => self.turns.engine < self.jobs_max,
        }
    }
}

impl fmt::Debug for Wake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Task(_) => "Task",
            Self::Job(..) => "Job",
        })
    }
}

impl Cpus {
    /// So many of them.
    pub(crate) fn new(count: usize) -> Arc<Self> {
        let count = count.max(1);
        Arc::new(Self(Mutex::new(State {
            slots_free: Each { guest: count, engine: count },
            replicas: HashMap::new(),
            ready: Each::default(),
            broke: BTreeSet::new(),
            granted: HashSet::new(),
            had_ns: 0,
            next: 0,
        })))
    }

    /// Gives turns to those who have credit again. Has to be called now and then
    /// while anything waits.
    pub(super) fn tick(&self) {
        let state = match self.0.try_lock() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // The caller has a time to keep, and comes again.
            Err(TryLockError::WouldBlock) => return,
        };
        Self::change_locked(state, |state, now| {
            while let Some((at, id)) = state.broke.first().copied()
                && at <= now
            {
                state.settle(id, now);
            }
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
        woken.into_iter().for_each(Wake::start);
        changed
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    /// For a replica that may take so many thousandths of a CPU.
    pub(crate) fn new(cpus: &Arc<Cpus>, cpu_millis: u64) -> Arc<Self> {
        let now = Instant::now();
        let mut state = cpus.lock();
        let id = state.number();
        let replica = Replica {
            bucket: Bucket::new(cpu_millis, now),
            jobs_max: usize::try_from(cpu_millis.div_ceil(1000)).unwrap_or(usize::MAX),
            had_ns: state.had_ns,
            turns: Each::default(),
            waiting: Each::default(),
            ready_at: Each::default(),
            broke_at: None,
            idle_since: now,
        };
        state.replicas.insert(id, replica);
        drop(state);
        Arc::new(Self { cpus: cpus.clone(), id })
    }

    /// Runs a future to its end, a turn for each poll. What a guest does between
    /// two yields is one turn, so none is longer than a time slice and what one
    /// function of the host takes. A future that yields, as its meters know, is
    /// polled again when it is its turn; it need not wake anybody.
    pub(super) async fn run<F: Future>(self: &Arc<Self>, meters: &Meters, future: F) -> F::Output {
        let mut future = pin!(future);
        let mut waiting = Waiting { share: self.clone(), kind: Kind::Guest, number: None };
        let mut waits = meters.waits();
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
            let began = thread_cpu();
            let turn = turn.begin_at(began);
            meters.turn_begins(began);
            let polled = future.as_mut().poll(context);
            let wants_more = polled.is_pending() && meters.has_yielded();
            let (cpu_ns, next) = turn.end(wants_more.then(|| context.waker()));
            meters.guest_cpu_ns.add(cpu_ns);
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
        let (kind, wake) = (Kind::Engine, Wake::Job(self.clone(), Box::new(job)));
        let number = self.cpus.change(|state, now| state.wait(self.id, kind, wake, now));
        Waiting { share: self.clone(), kind, number: Some(number) }
    }

    /// Does what needs no turn because it cannot wait, and charges it.
    pub(crate) fn charged<T>(&self, work: impl FnOnce() -> T) -> T {
        let began = thread_cpu();
        let done = work();
        self.charge(thread_cpu().saturating_sub(began));
        done
    }

    /// Charges time that was taken without a turn.
    pub(super) fn charge(&self, cpu: Duration) {
        let cpu_ns = nanoseconds(cpu);
        self.cpus.change(|state, now| state.charge(self.id, cpu_ns, now));
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.cpus.lock().remove(self.id);
    }
}

impl Waiting {
    /// A turn, or a place among those who wait for one.
    fn poll(&mut self, context: &Context<'_>) -> Poll<Turn> {
        let (id, kind, number) = (self.share.id, self.kind, &mut self.number);
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
                    *number = Some(state.wait(id, kind, wake, now));
                }
                taken
            }
        });
        match has_turn {
            true => Poll::Ready(Turn::of(&self.share, kind)),
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
                state.release(id, kind, now);
                None
            }
            false => state.leave(id, kind, number, now),
        });
    }
}

impl Turn {
    fn of(share: &Arc<Share>, kind: Kind) -> Self {
        Self { share: Some(share.clone()), kind, began: None }
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
        let (id, kind, cpu_ns) = (share.id, self.kind, self.has_run_ns());
        let place = share.cpus.change(|state, now| {
            state.charge(id, cpu_ns, now);
            if wants_more.is_some() && state.is_next(id, now) {
                state.serve(id);
                return None;
            }
            state.release(id, kind, now);
            let wake = wants_more.map(|waker| Wake::Task(waker.clone()));
            Some(wake.map(|wake| state.wait(id, kind, wake, now)))
        });
        let next = match place {
            None => Some(Next::Turn(Self::of(&share, kind))),
            Some(number) => number.map(Next::Place),
        };
        (cpu_ns, next)
    }

    fn has_run_ns(&self) -> u64 {
        self.began.map_or(0, |began| nanoseconds(thread_cpu().saturating_sub(began)))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(share) = self.share.take() else { return };
        let (kind, cpu_ns) = (self.kind, self.has_run_ns());
        share.cpus.change(|state, now| {
            state.charge(share.id, cpu_ns, now);
            state.release(share.id, kind, now);
        });
    }
}

impl Wake {
    fn start(self) {
        match self {
            Self::Task(waker) => waker.wake(),
            Self::Job(share, job) => job(Turn::of(&share, Kind::Engine)),
        }
    }
}

impl State {
    /// Takes a guest's slot at once, if that is nobody else's turn.
    fn take(&mut self, id: u64, now: Instant) -> bool {
        self.join(id, now);
        let Some(replica) = self.replicas.get_mut(&id) else { return false };
        let is_free = self.slots_free.guest > 0 && replica.waiting.guest.is_empty();
        if !is_free || !replica.bucket.has_credit(now) {
            return false;
        }
        self.occupy(id, Kind::Guest);
        true
    }

    /// Takes a slot that is free.
    fn occupy(&mut self, id: u64, kind: Kind) {
        *self.slots_free.of_mut(kind) -= 1;
        if let Some(replica) = self.replicas.get_mut(&id) {
            *replica.turns.of_mut(kind) += 1;
        }
        self.serve(id);
    }

    /// Takes note of what those have had that are served: no more of it at once
    /// than a slice, since one long turn is not what everybody has had.
    fn serve(&mut self, id: u64) {
        let had_ns = self.replicas.get(&id).map_or(0, |replica| replica.had_ns);
        self.had_ns = self.had_ns.max(had_ns.min(self.had_ns.saturating_add(SLICE_NS)));
    }

    /// Gives slots to whose turn it is, and says who has to be told.
    fn grant(&mut self, now: Instant) -> Vec<Wake> {
        let mut woken = Vec::new();
        for kind in Kind::ALL {
            while *self.slots_free.of(kind) > 0
                && let Some((_, id)) = self.ready.of(kind).first().copied()
            {
                let replica = self.replicas.get_mut(&id);
                let next = replica.and_then(|replica| replica.waiting.of_mut(kind).pop_front());
                if let Some(Waiter { number, wake }) = next {
                    self.occupy(id, kind);
                    if matches!(wake, Wake::Task(_)) {
                        self.granted.insert(number);
                    }
                    woken.push(wake);
                }
                self.settle(id, now);
            }
        }
        woken
    }

    /// Puts somebody at the end of a replica's queue.
    fn wait(&mut self, id: u64, kind: Kind, wake: Wake, now: Instant) -> u64 {
        self.join(id, now);
        let number = self.number();
        if let Some(replica) = self.replicas.get_mut(&id) {
            replica.waiting.of_mut(kind).push_back(Waiter { number, wake });
        }
        self.settle(id, now);
        number
    }

    /// Takes somebody out of it, who may have had a turn by now.
    fn leave(&mut self, id: u64, kind: Kind, number: u64, now: Instant) -> Option<Waiter> {
        let waiting = self.replicas.get_mut(&id)?.waiting.of_mut(kind);
        let place = waiting.iter().position(|waiter| waiter.number == number)?;
        let left = waiting.remove(place);
        self.settle(id, now);
        left
    }

    /// A task may move from one waker to another.
    fn rewake(&mut self, id: u64, number: u64, by: &Waker) {
        let waiting = self.replicas.get_mut(&id).map(|replica| &mut replica.waiting.guest);
        let waiter =
            waiting.and_then(|waiting| waiting.iter_mut().find(|waiter| waiter.number == number));
        if let Some(Waiter { wake: Wake::Task(waker), .. }) = waiter
            && !waker.will_wake(by)
        {
            waker.clone_from(by);
        }
    }

    /// Whether a guest that ends a turn would have the next one: nobody who waits
    /// has had less.
    fn is_next(&mut self, id: u64, now: Instant) -> bool {
        let Some(replica) = self.replicas.get_mut(&id) else { return false };
        // Without the turn that ends.
        let had_ns = replica.will_have_had_ns().saturating_sub(SLICE_NS);
        replica.waiting.guest.is_empty()
            && replica.bucket.has_credit(now)
            && self.ready.guest.first().is_none_or(|(least_ns, _)| had_ns <= *least_ns)
    }

    /// Takes a slot back.
    fn release(&mut self, id: u64, kind: Kind, now: Instant) {
        *self.slots_free.of_mut(kind) += 1;
        if let Some(replica) = self.replicas.get_mut(&id) {
            let turns = replica.turns.of_mut(kind);
            *turns = turns.saturating_sub(1);
            replica.idle_since = now;
        }
        self.settle(id, now);
    }

    fn charge(&mut self, id: u64, cpu_ns: u64, now: Instant) {
        if let Some(replica) = self.replicas.get_mut(&id) {
            replica.bucket.take(cpu_ns);
            replica.had_ns = replica.had_ns.saturating_add(cpu_ns);
        }
        self.settle(id, now);
    }

    /// A replica that comes back after a while has no claim from before.
    fn join(&mut self, id: u64, now: Instant) {
        if let Some(replica) = self.replicas.get_mut(&id)
            && replica.wants_nothing()
            && now.saturating_duration_since(replica.idle_since) >= IDLE_AFTER
        {
            replica.had_ns = replica.had_ns.max(self.had_ns);
        }
    }

    /// Puts a replica where it stands by now.
    fn settle(&mut self, id: u64, now: Instant) {
        let Some(replica) = self.replicas.get_mut(&id) else { return };
        if let Some(at) = replica.broke_at.take() {
            self.broke.remove(&at);
        }
        let at = (replica.will_have_had_ns(), id);
        let has_credit = replica.bucket.has_credit(now);
        let mut is_short = false;
        for kind in Kind::ALL {
            if let Some(at) = replica.ready_at.of_mut(kind).take() {
                self.ready.of_mut(kind).remove(&at);
            }
            let wants = !replica.waiting.of(kind).is_empty() && replica.may(kind);
            if wants && has_credit {
                self.ready.of_mut(kind).insert(at);
                *replica.ready_at.of_mut(kind) = Some(at);
            }
            is_short |= wants && !has_credit;
        }
        if is_short {
            let at = (replica.bucket.credit_at(), id);
            self.broke.insert(at);
            replica.broke_at = Some(at);
        }
    }

    fn remove(&mut self, id: u64) {
        if let Some(replica) = self.replicas.get_mut(&id) {
            replica.waiting = Each::default();
        }
        self.settle(id, Instant::now());
        self.replicas.remove(&id);
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

#[cfg(test)]
#[path = "cpu_tests.rs"]
mod tests;
