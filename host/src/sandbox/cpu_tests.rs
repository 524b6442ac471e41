//! Turns, in a time of the tests' own: a turn lasts a millisecond and whoever had
//! one wants the next.

use super::queue::ENGINE_SLOT;
use super::*;
use crate::sandbox::executor::Executor;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Waker;

const MS: Duration = Duration::from_millis(1);

/// Replicas that never have enough.
struct Sim {
    cpus: Arc<Cpus>,
    now: Instant,
    shares: Vec<(Arc<Share>, Vec<Want>)>,
    had_ms: Vec<u64>,
}

#[derive(Clone, Copy)]
enum Want {
    Waits(u64),
    Runs,
}

impl Sim {
    fn new(cpus: usize) -> Self {
        let (shares, had_ms) = (Vec::new(), Vec::new());
        Self { cpus: Cpus::new(cpus), now: Instant::now(), shares, had_ms }
    }

    /// One more replica, which runs so many calls.
    fn add(&mut self, cpu_millis: u64, calls: usize) {
        let share = Share::new(&self.cpus, cpu_millis);
        let mut state = self.cpus.lock();
        let wants = (0..calls).map(|_| want(&mut state, share.id, self.now)).collect();
        drop(state);
        self.shares.push((share, wants));
        self.had_ms.push(0);
    }

    fn run(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.now += MS;
            let mut state = self.cpus.lock();
            state.settle_due(self.now);
            drop(state.grant(self.now));
            for (index, (share, wants)) in self.shares.iter_mut().enumerate() {
                for wanted in wants.iter_mut().filter(|wanted| matches!(wanted, Want::Runs)) {
                    self.had_ms[index] += 1;
                    state.charge(share.id, 1_000_000, self.now);
                    if state.is_next(share.id, self.now) {
                        state.serve(share.id);
                        continue;
                    }
                    state.release(share.id, Taken::Guest, self.now);
                    let wake = Wake::Task(Waker::noop().clone());
                    let number = state.wait(share.id, wake, self.now);
                    *wanted = Want::Waits(number);
                    drop(state.grant(self.now));
                }
            }
            drop(state.grant(self.now));
            for wanted in self.shares.iter_mut().flat_map(|(_, wants)| wants) {
                if let Want::Waits(number) = *wanted
                    && state.granted.remove(&number)
                {
                    *wanted = Want::Runs;
                }
            }
        }
    }

    /// What each has had meanwhile, in thousandths of a CPU.
    fn shares_during(&mut self, time: Duration) -> Vec<u64> {
        let before = self.had_ms.clone();
        self.run(time);
        let had = self.had_ms.iter().zip(before).map(|(had, before)| had - before);
        had.map(|ms| ms * 1000 / u64::try_from(time.as_millis()).unwrap()).collect()
    }
}

fn want(state: &mut State, id: u64, now: Instant) -> Want {
    match state.take(id, now) {
        true => Want::Runs,
        false => Want::Waits(state.wait(id, Wake::Task(Waker::noop().clone()), now)),
    }
}

#[test]
fn each_replica_has_its_limit_and_no_more() {
    let mut sim = Sim::new(2);
    for cpu_millis in [250, 500, 500] {
        sim.add(cpu_millis, 1);
    }
    sim.run(Duration::from_millis(200));
    for (had, limit) in sim.shares_during(Duration::from_secs(10)).into_iter().zip([250, 500, 500])
    {
        assert!(had >= limit * 98 / 100 && had <= limit * 102 / 100, "{had} of {limit}");
    }
}

#[test]
fn small_replicas_keep_their_limit_beside_one_that_takes_all_it_gets() {
    for calls in [2, 16] {
        let mut sim = Sim::new(2);
        for cpu_millis in [250, 500, 500] {
            sim.add(cpu_millis, 1);
        }
        sim.add(2000, calls);
        sim.run(Duration::from_millis(500));
        let had = sim.shares_during(Duration::from_secs(10));
        for (had, limit) in had.iter().zip([250, 500, 500]) {
            assert!(*had >= limit * 9 / 10 && *had <= limit * 102 / 100, "{had} of {limit}");
        }
        assert!(had[3] >= 600, "{had:?}");
    }
}

/// The same on threads, where whoever is granted a turn is not polled at once: what
/// small replicas do not get, nobody has more of than they.
#[test]
fn small_replicas_have_no_less_than_a_large_one_on_threads() {
    const LIMITS: [u64; 4] = [250, 500, 500, 2000];
    let time = Duration::from_millis(1500);
    let executor = Executor::start(2).unwrap();
    let cpus = Cpus::new(2);
    let shares = LIMITS.map(|cpu_millis| Share::new(&cpus, cpu_millis));
    let had_ns = || {
        let state = cpus.lock();
        shares.each_ref().map(|share| state.replicas[&share.id].had_ns)
    };
    let over = Arc::new(AtomicBool::new(false));
    let ended = Arc::new(AtomicUsize::new(0));
    for (share, calls) in shares.iter().zip([1, 1, 1, 4]) {
        for _ in 0..calls {
            let (share, over, ended) = (share.clone(), over.clone(), ended.clone());
            executor.spawn(async move {
                let meters = Meters::default();
                let spins = poll_fn(|_| {
                    let began = thread_cpu();
                    while thread_cpu() - began < MS {}
                    meters.yields();
                    match over.load(Ordering::Relaxed) {
                        true => Poll::Ready(()),
                        false => Poll::Pending,
                    }
                });
                share.run(&meters, spins).await;
                ended.fetch_add(1, Ordering::Relaxed);
            });
        }
    }
    let ticks = |time: Duration| {
        let until = Instant::now() + time;
        while Instant::now() < until {
            std::thread::sleep(MS);
            cpus.tick();
        }
    };
    ticks(time / 3);
    let before = had_ns();
    ticks(time);
    let had: Vec<u64> = had_ns().iter().zip(before).map(|(had, before)| had - before).collect();
    for (had_ns, limit) in had.iter().zip(LIMITS) {
        let fair_ns = had[3].min(nanoseconds(time) * limit / 1000);
        assert!(*had_ns >= fair_ns * 8 / 10, "{had:?} of {LIMITS:?}");
    }
    over.store(true, Ordering::Relaxed);
    // Nobody waits for a turn that does not come.
    let bound = Instant::now() + Duration::from_secs(20);
    while ended.load(Ordering::Relaxed) < 7 && Instant::now() < bound {
        ticks(MS);
    }
    assert_eq!(ended.load(Ordering::Relaxed), 7);
}

/// Whoever runs a guest may drop it at any time: while it waits for a turn, when it
/// has been granted one, when it holds one that has not begun.
#[test]
fn a_guest_that_is_dropped_leaves_its_slot() {
    let cpus = Cpus::new(1);
    let context = &mut Context::from_waker(Waker::noop());
    let (share, other) = (Share::new(&cpus, 1000), Share::new(&cpus, 1000));
    for polls in 0..=3 {
        let (meters, begun) = (Meters::default(), AtomicUsize::new(0));
        let Poll::Ready(turn) = of_guest(&other).poll(context) else { panic!("nobody waits") };
        let mut guest = Box::pin(share.run(
            &meters,
            poll_fn(|_| {
                begun.fetch_add(1, Ordering::Relaxed);
                meters.yields();
                Poll::<()>::Pending
            }),
        ));
        assert!(guest.as_mut().poll(context).is_pending());
        drop(turn);
        assert_eq!(cpus.lock().slots_free, 0, "it is granted");
        for _ in 0..polls {
            assert!(guest.as_mut().poll(context).is_pending());
        }
        assert_eq!(begun.load(Ordering::Relaxed), usize::saturating_sub(polls, 1));
        drop(guest);
        let state = cpus.lock();
        assert_eq!(state.slots_free, 1, "after {polls} polls");
        assert!(state.granted.is_empty() && state.ready.guest.is_empty());
    }
}

#[test]
fn who_comes_back_has_no_claim_from_before() {
    let mut sim = Sim::new(1);
    sim.add(1000, 1);
    sim.run(Duration::from_secs(5));
    sim.add(1000, 1);
    let had = sim.shares_during(Duration::from_secs(1));
    assert!(had.iter().all(|had| (450..=550).contains(had)), "{had:?}");
}

#[test]
fn calls_of_a_replica_have_turns_one_after_the_other() {
    let mut sim = Sim::new(1);
    sim.add(300, 5);
    sim.run(Duration::from_secs(1));
    let state = sim.cpus.lock();
    let replica = state.replicas.values().next().unwrap();
    let numbers: Vec<_> = replica.waiting.guest.iter().map(|waiter| waiter.number).collect();
    assert!(numbers.is_sorted(), "{numbers:?}");
    assert!(numbers.len() >= 4 && numbers[numbers.len() - 1] - numbers[0] < 10, "{numbers:?}");
}

fn of_guest(share: &Arc<Share>) -> Waiting {
    Waiting { share: share.clone(), kind: Kind::Guest, number: None }
}

/// A CPU is either a guest's or an engine's, whoever has had less; a graph that
/// computes for long gives way, and may end when it likes.
#[test]
fn an_engine_takes_a_slot_as_a_guest_does_but_not_for_long() {
    let cpus = Cpus::new(1);
    let (small, large) = (Share::new(&cpus, 500), Share::new(&cpus, 2000));
    let context = &mut Context::from_waker(Waker::noop());
    let kept = Arc::new(Mutex::new(Vec::new()));
    let Poll::Ready(turn) = of_guest(&large).poll(context) else { panic!("nobody waits") };
    cpus.lock().charge(large.id, 1_000_000, Instant::now());
    let _job = small.queue({
        let kept = kept.clone();
        move |turn| kept.lock().unwrap().push(turn)
    });
    assert!(kept.lock().unwrap().is_empty(), "the CPU is taken");
    let (_, next) = turn.end(Some(Waker::noop()));
    let Some(Next::Place(number)) = next else { panic!("the engine's replica has had less") };
    let mut waiting = of_guest(&large);
    waiting.number = Some(number);
    assert_eq!(kept.lock().unwrap().len(), 1);
    assert!(waiting.poll(context).is_pending());

    cpus.tick();
    assert!(waiting.poll(context).is_pending(), "the engine has had the CPU for little");
    cpus.lock().engine_slots[0].0 -= ENGINE_SLOT;
    cpus.tick();
    let Poll::Ready(turn) = waiting.poll(context) else { panic!("it has had it for long") };
    drop(kept.lock().unwrap().pop());
    assert_eq!(free(&cpus), (0, 1));
    drop(turn);
    assert_eq!(free(&cpus), (1, 1));
}

/// Of one replica, whoever has waited longest is next.
#[test]
fn a_replicas_guests_do_not_keep_its_engines_waiting() {
    let cpus = Cpus::new(1);
    let share = Share::new(&cpus, 2000);
    let context = &mut Context::from_waker(Waker::noop());
    let Poll::Ready(turn) = of_guest(&share).poll(context) else { panic!("nobody waits") };
    let mut early = of_guest(&share);
    assert!(early.poll(context).is_pending());
    let started = Arc::new(AtomicUsize::new(0));
    let _job = share.queue({
        let started = started.clone();
        move |turn| {
            started.fetch_add(1, Ordering::Relaxed);
            drop(turn);
        }
    });
    let (_, next) = turn.end(Some(Waker::noop()));
    assert!(matches!(next, Some(Next::Place(_))));
    let Poll::Ready(turn) = early.poll(context) else { panic!("it has waited longest") };
    assert_eq!(started.load(Ordering::Relaxed), 0);
    let (_, next) = turn.end(Some(Waker::noop()));
    assert!(matches!(next, Some(Next::Place(_))));
    assert_eq!(started.load(Ordering::Relaxed), 1);
}

/// What nobody else wanted when a replica had it is not made up for.
#[test]
fn what_a_replica_had_alone_does_not_count_when_others_come() {
    let mut sim = Sim::new(1);
    sim.add(64_000, 1);
    let share = sim.shares[0].0.id;
    sim.cpus.lock().charge(share, 60_000_000_000, sim.now);
    sim.run(Duration::from_secs(2));
    sim.add(1000, 1);
    let had = sim.shares_during(Duration::from_secs(1));
    assert!(had.iter().all(|had| *had >= 350), "{had:?}");
}

/// A graph that computes for a minute keeps no guest from its turn, and what it
/// took is not held to be what everybody has had.
#[test]
fn a_long_turn_of_an_engine_is_nobody_elses() {
    let cpus = Cpus::new(2);
    let kept = Arc::new(Mutex::new(Vec::new()));
    let queue = |share: &Arc<Share>| {
        let kept = kept.clone();
        share.queue(move |turn| kept.lock().unwrap().push(turn))
    };
    let small = Share::new(&cpus, 100);
    let jobs = [queue(&small), queue(&small)];
    assert_eq!(kept.lock().unwrap().len(), 1, "as many at a time as its limit has CPUs");
    let large = Share::new(&cpus, 64_000);
    let job = queue(&large);
    assert_eq!(free(&cpus), (0, 0));
    cpus.lock().lend(Instant::now() + ENGINE_SLOT);
    let guest = Share::new(&cpus, 1000);
    let turn = of_guest(&guest).poll(&Context::from_waker(Waker::noop()));
    assert!(turn.is_ready(), "the graphs have had their slots for long");

    let now = Instant::now();
    cpus.lock().charge(large.id, 60_000_000_000, now);
    let turns = std::mem::take(&mut *kept.lock().unwrap());
    // Those who wait leave first, so that nobody is given what is given back.
    drop((jobs, job, turns, turn));
    let mut sim = Sim { cpus, now, shares: Vec::new(), had_ms: Vec::new() };
    sim.add(64_000, 4);
    sim.run(Duration::from_millis(200));
    sim.add(1000, 1);
    let had = sim.shares_during(Duration::from_secs(1));
    assert!(had[1] >= 800, "{had:?}");
}

/// Slots, and turns of engines.
fn free(cpus: &Cpus) -> (usize, usize) {
    let state = cpus.lock();
    (state.slots_free, state.engines_free)
}

fn taken(cpus: &Cpus) -> usize {
    2 - cpus.lock().slots_free
}

#[test]
fn whoever_leaves_takes_no_turn_along() {
    let cpus = Cpus::new(2);
    let share = Share::new(&cpus, 1000);
    let context = Context::from_waker(Waker::noop());
    let poll = |waiting: &mut Waiting| match waiting.poll(&context) {
        Poll::Ready(turn) => Some(turn),
        Poll::Pending => None,
    };
    let mut tasks: Vec<_> = (0..5).map(|_| of_guest(&share)).collect();
    let mut turns: Vec<_> = tasks.iter_mut().filter_map(poll).collect();
    assert_eq!((turns.len(), taken(&cpus)), (2, 2));
    // One that waits, and one whose turn it has become without its knowing.
    drop(tasks.pop());
    drop(turns.pop());
    assert_eq!(taken(&cpus), 2, "it is another's");
    let granted = tasks.remove(2);
    drop(granted);
    assert_eq!(taken(&cpus), 2, "and another's again");
    let mut last = tasks.pop().unwrap();
    turns.push(poll(&mut last).unwrap());
    assert!(tasks.iter_mut().all(|task| poll(task).is_none()));
    drop(tasks);
    drop(turns);
    assert_eq!(taken(&cpus), 0);
    assert!(cpus.lock().ready.guest.is_empty() && cpus.lock().granted.is_empty());
    drop((share, last));
    assert!(cpus.lock().replicas.is_empty());
}

#[test]
fn a_job_starts_when_it_is_its_turn_or_never() {
    let cpus = Cpus::new(1);
    let share = Share::new(&cpus, 1000);
    let started = Arc::new(AtomicUsize::new(0));
    let kept = Arc::new(Mutex::new(Vec::new()));
    let queue = || {
        let (started, kept) = (started.clone(), kept.clone());
        share.queue(move |turn| {
            started.fetch_add(1, Ordering::Relaxed);
            kept.lock().unwrap().push(turn);
        })
    };
    let (_first, second, _third) = (queue(), queue(), queue());
    assert_eq!(started.load(Ordering::Relaxed), 1);
    drop(second);
    let turn = kept.lock().unwrap().pop();
    drop(turn);
    assert_eq!(started.load(Ordering::Relaxed), 2, "the third, as nobody waits for the second");
    let turn = kept.lock().unwrap().pop();
    drop(turn);
    assert_eq!(free(&cpus), (1, 1));
}

/// What a thread has really taken is charged, whatever it did.
#[test]
fn a_turn_is_charged_what_its_thread_has_run() {
    let cpus = Cpus::new(1);
    let share = Share::new(&cpus, 1);
    let spin = || {
        let began = thread_cpu();
        while thread_cpu() - began < Duration::from_millis(30) {}
    };
    let mut waiting = of_guest(&share);
    let context = Context::from_waker(Waker::noop());
    let Poll::Ready(turn) = waiting.poll(&context) else { panic!("nobody else is there") };
    let turn = turn.begin();
    spin();
    let (cpu_ns, next) = turn.end(Some(Waker::noop()));
    let Some(Next::Place(number)) = next else { panic!("it has had all that it may") };
    waiting.number = Some(number);
    assert!(cpu_ns >= 30_000_000, "{cpu_ns}");
    // A tenth of a millisecond is what it may take at once.
    assert!(waiting.poll(&context).is_pending());
    let at = cpus.lock().broke.first().unwrap().0;
    assert!(at > Instant::now(), "it waits for its limit to make up for it");
    share.charged(spin);
    assert!(cpus.lock().broke.first().unwrap().0 > at);
}
