//! Who waits for a CPU, what each replica has had, and whose turn is next.
//!
//! Nothing here knows the time, threads or locks: those are the caller's.

use super::{Share, Turn};
use crate::sandbox::bucket::Bucket;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

/// About what a turn takes, for those that are under way.
const SLICE_NS: u64 = 1_000_000;

/// So long an engine's turn takes a slot, up to the tick after that. A graph that
/// computes for longer keeps nobody from a turn: the system divides the CPU between it
/// and whoever comes.
pub(crate) const ENGINE_SLOT: Duration = Duration::from_millis(3);

/// How far one that has long turns may be ahead of what those have had that are
/// served.
const AHEAD_MAX_NS: u64 = 100_000_000;

/// A replica that wanted nothing for so long has no claim to what it did not take.
const IDLE_AFTER: Duration = Duration::from_millis(10);

/// What a turn is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Guest,
    Engine,
}

/// What is given back at the end of a turn.
#[derive(Debug, Clone, Copy)]
pub(super) enum Taken {
    Guest,
    /// By the number of the turn, as the slot may be another's by then.
    Engine(u64),
}

/// One for each kind.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Each<T> {
    pub(super) guest: T,
    pub(super) engine: T,
}

/// All that is known, under one lock.
#[derive(Debug)]
pub(super) struct State {
    /// CPUs that no turn takes.
    pub(super) slots_free: usize,
    /// Turns that engines may have besides those that they have.
    pub(super) engines_free: usize,
    /// The turns of engines that take a slot, by when they began.
    pub(super) engine_slots: VecDeque<(Instant, u64)>,
    pub(super) replicas: HashMap<u64, Replica>,
    /// Those with credit for whom something waits, by what they have had.
    pub(super) ready: Each<BTreeSet<(u64, u64)>>,
    /// Those without, by when they will have some.
    pub(super) broke: BTreeSet<(Instant, u64)>,
    /// Whose slot is taken, but who has not looked yet.
    pub(super) granted: HashSet<u64>,
    /// What those have had that are served by now.
    had_ns: u64,
    next: u64,
}

/// What one replica has had, and what waits for it.
#[derive(Debug)]
pub(super) struct Replica {
    bucket: Bucket,
    /// Graphs that may be computed for it at a time.
    jobs_max: usize,
    /// CPU time that it has had.
    pub(super) had_ns: u64,
    /// The same, all of it.
    charged_ns: u64,
    /// Slots that it has.
    turns: Each<usize>,
    pub(super) waiting: Each<VecDeque<Waiter>>,
    ready_at: Each<Option<(u64, u64)>>,
    broke_at: Option<(Instant, u64)>,
    /// Since when it has wanted nothing.
    idle_since: Instant,
}

/// Whose turn is next.
#[derive(Debug, Clone, Copy)]
struct First {
    had_ns: u64,
    id: u64,
    number: u64,
    kind: Kind,
}

/// One that waits.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) number: u64,
    wake: Wake,
}

/// How somebody gets a turn.
pub(super) enum Wake {
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

impl First {
    fn order(&self) -> (u64, u64, u64) {
        (self.had_ns, self.id, self.number)
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

impl Wake {
    /// What is waited for.
    fn kind(&self) -> Kind {
        match self {
            Self::Task(_) => Kind::Guest,
            Self::Job(..) => Kind::Engine,
        }
    }

    /// With the number that it waited under.
    pub(super) fn start(self, number: u64) {
        match self {
            Self::Task(waker) => waker.wake(),
            Self::Job(share, job) => job(Turn::of(&share, Taken::Engine(number))),
        }
    }
}

impl State {
    /// Of so many CPUs.
    pub(super) fn new(count: usize) -> Self {
        Self {
            slots_free: count,
            engines_free: count,
            engine_slots: VecDeque::new(),
            replicas: HashMap::new(),
            ready: Each::default(),
            broke: BTreeSet::new(),
            granted: HashSet::new(),
            had_ns: 0,
            next: 0,
        }
    }

    /// One more replica, which may take so many thousandths of a CPU.
    pub(super) fn add(&mut self, cpu_millis: u64, now: Instant) -> u64 {
        let id = self.number();
        let replica = Replica {
            bucket: Bucket::new(cpu_millis, now),
            jobs_max: usize::try_from(cpu_millis.div_ceil(1000)).unwrap_or(usize::MAX),
            had_ns: self.had_ns,
            charged_ns: 0,
            turns: Each::default(),
            waiting: Each::default(),
            ready_at: Each::default(),
            broke_at: None,
            idle_since: now,
        };
        self.replicas.insert(id, replica);
        id
    }

    /// Those have credit again who were to have it by now.
    pub(super) fn settle_due(&mut self, now: Instant) {
        while let Some((at, id)) = self.broke.first().copied()
            && at <= now
        {
            self.settle(id, now);
        }
    }

    /// Takes a guest's slot at once, if that is nobody else's turn.
    pub(super) fn take(&mut self, id: u64, now: Instant) -> bool {
        self.join(id, now);
        let Some(replica) = self.replicas.get_mut(&id) else { return false };
        let is_free = self.slots_free > 0 && replica.waiting.guest.is_empty();
        if !is_free || !replica.bucket.has_credit(now) {
            return false;
        }
        self.occupy(id, Kind::Guest);
        true
    }

    /// Takes a slot that is free.
    fn occupy(&mut self, id: u64, kind: Kind) {
        self.slots_free -= 1;
        if let Some(replica) = self.replicas.get_mut(&id) {
            *replica.turns.of_mut(kind) += 1;
        }
        self.serve(id);
    }

    /// Takes note of what those have had that are served: no more of it at once
    /// than a slice, since one long turn is not what everybody has had.
    pub(super) fn serve(&mut self, id: u64) {
        let had_ns = self.replicas.get(&id).map_or(0, |replica| replica.had_ns);
        self.had_ns = self.had_ns.max(had_ns.min(self.had_ns.saturating_add(SLICE_NS)));
    }

    /// Gives slots to whose turn it is, and says who has to be told.
    pub(super) fn grant(&mut self, now: Instant) -> Vec<(u64, Wake)> {
        let mut woken = Vec::new();
        while self.slots_free > 0
            && let Some(First { id, kind, .. }) = self.first()
        {
            let replica = self.replicas.get_mut(&id);
            let next = replica.and_then(|replica| replica.waiting.of_mut(kind).pop_front());
            if let Some(Waiter { number, wake }) = next {
                self.occupy(id, kind);
                match kind {
                    Kind::Guest => drop(self.granted.insert(number)),
                    Kind::Engine => {
                        self.engines_free -= 1;
                        self.engine_slots.push_back((now, number));
                    }
                }
                woken.push((number, wake));
            }
            self.settle(id, now);
        }
        woken
    }

    /// Who has had least of those that may have a turn; of one replica, whoever has
    /// waited longest.
    fn first(&self) -> Option<First> {
        let of = |kind| {
            let (had_ns, id) = *self.ready.of(kind).first()?;
            let number = self.replicas.get(&id)?.waiting.of(kind).front()?.number;
            Some(First { had_ns, id, number, kind })
        };
        let engine = of(Kind::Engine).filter(|_| self.engines_free > 0);
        of(Kind::Guest).into_iter().chain(engine).min_by_key(First::order)
    }

    /// Takes the slots from engines that have had theirs for long, but not the turns.
    pub(super) fn lend(&mut self, now: Instant) {
        while let Some((began, _)) = self.engine_slots.front()
            && now.saturating_duration_since(*began) >= ENGINE_SLOT
        {
            self.engine_slots.pop_front();
            self.slots_free += 1;
        }
    }

    /// Puts somebody at the end of a replica's queue.
    pub(super) fn wait(&mut self, id: u64, wake: Wake, now: Instant) -> u64 {
        self.join(id, now);
        let (number, kind) = (self.number(), wake.kind());
        if let Some(replica) = self.replicas.get_mut(&id) {
            replica.waiting.of_mut(kind).push_back(Waiter { number, wake });
        }
        self.settle(id, now);
        number
    }

    /// Takes somebody out of it, who may have had a turn by now.
    pub(super) fn leave(
        &mut self,
        id: u64,
        kind: Kind,
        number: u64,
        now: Instant,
    ) -> Option<Waiter> {
        let waiting = self.replicas.get_mut(&id)?.waiting.of_mut(kind);
        let place = waiting.iter().position(|waiter| waiter.number == number)?;
        let left = waiting.remove(place);
        self.settle(id, now);
        left
    }

    /// A task may move from one waker to another.
    pub(super) fn rewake(&mut self, id: u64, number: u64, by: &Waker) {
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
    /// has had less, or waits for the same replica.
    pub(super) fn is_next(&mut self, id: u64, now: Instant) -> bool {
        let first = self.first();
        let Some(replica) = self.replicas.get_mut(&id) else { return false };
        // Without the turn that ends.
        let had_ns = replica.will_have_had_ns().saturating_sub(SLICE_NS);
        replica.waiting.guest.is_empty()
            && replica.bucket.has_credit(now)
            && first.is_none_or(|first| first.id != id && had_ns <= first.had_ns)
    }

    /// Takes back what a turn has taken.
    pub(super) fn release(&mut self, id: u64, taken: Taken, now: Instant) {
        let kind = match taken {
            Taken::Guest => {
                self.slots_free += 1;
                Kind::Guest
            }
            Taken::Engine(number) => {
                self.engines_free += 1;
                let slot = self.engine_slots.iter().position(|(_, turn)| *turn == number);
                if let Some(slot) = slot {
                    self.engine_slots.remove(slot);
                    self.slots_free += 1;
                }
                Kind::Engine
            }
        };
        if let Some(replica) = self.replicas.get_mut(&id) {
            let turns = replica.turns.of_mut(kind);
            *turns = turns.saturating_sub(1);
            replica.idle_since = now;
        }
        self.settle(id, now);
    }

    pub(super) fn charge(&mut self, id: u64, cpu_ns: u64, now: Instant) {
        if let Some(replica) = self.replicas.get_mut(&id) {
            replica.bucket.take(cpu_ns);
            replica.charged_ns = replica.charged_ns.saturating_add(cpu_ns);
            // For what it had while nobody wanted it, it does not stand behind others.
            let most_ns = self.had_ns.saturating_add(AHEAD_MAX_NS);
            let had_ns = replica.had_ns.saturating_add(cpu_ns);
            replica.had_ns = had_ns.min(most_ns.max(replica.had_ns));
        }
        self.settle(id, now);
    }

    /// What a replica was charged so far.
    pub(super) fn charged_ns(&self, id: u64) -> u64 {
        self.replicas.get(&id).map_or(0, |replica| replica.charged_ns)
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
    pub(super) fn settle(&mut self, id: u64, now: Instant) {
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

    pub(super) fn remove(&mut self, id: u64, now: Instant) {
        if let Some(replica) = self.replicas.get_mut(&id) {
            replica.waiting = Each::default();
        }
        self.settle(id, now);
        self.replicas.remove(&id);
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}
