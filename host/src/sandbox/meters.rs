//! What a call takes besides fuel and memory, counted where it is taken.

use super::thread_cpu::{thread_cpu, thread_cpu_about};
use crate::call::Receipt;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The counters of one call. The engine's threads and the guest share them.
#[derive(Debug, Default)]
pub(crate) struct Meters {
    pub(crate) bytes_in: Counter,
    pub(crate) bytes_out: Counter,
    computes: Counter,
    pub(super) guest_cpu_ns: Counter,
    cpu_wait_ns: Counter,
    turn_began_ns: Counter,
    yielded: AtomicBool,
    engine_cpu_ns: Counter,
    device_ns: Counter,
    /// What engines have taken within the guest's turn.
    within_turn_ns: Counter,
}

/// A number that grows, and begins anew with a call.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

impl Meters {
    /// A guest has a turn on this thread, from this time of it on.
    pub(super) fn turn_begins(&self, began: Duration) {
        self.turn_began_ns.0.store(nanoseconds(began), Ordering::Relaxed);
    }

    /// The guest could go on, and lets others go first.
    pub(super) fn yields(&self) {
        self.yielded.store(true, Ordering::Relaxed);
    }

    /// Whether it did so since this was last asked.
    pub(super) fn has_yielded(&self) -> bool {
        self.yielded.swap(false, Ordering::Relaxed)
    }

    /// How long it has had it, in time of this thread.
    pub(super) fn turn_has_run(&self) -> Duration {
        let began = Duration::from_nanos(self.turn_began_ns.value());
        thread_cpu_about().saturating_sub(began)
    }

    /// Computes a graph on this thread and adds its CPU time, which it tells in
    /// nanoseconds.
    pub(crate) fn time_engine<T>(&self, compute: impl FnOnce() -> T) -> (T, u64) {
        let began = thread_cpu();
        let outputs = compute();
        let cpu_ns = nanoseconds(thread_cpu().saturating_sub(began));
        self.engine_cpu_ns.add(cpu_ns);
        self.computes.add(1);
        (outputs, cpu_ns)
    }

    /// Adds CPU time that a graph took on other threads.
    pub(crate) fn add_engine(&self, cpu: Duration) {
        self.engine_cpu_ns.add(nanoseconds(cpu));
    }

    /// Adds time in which devices computed a graph.
    pub(crate) fn add_device(&self, time: Duration) {
        self.device_ns.add(nanoseconds(time));
    }

    /// Computes a graph within the guest's turn.
    pub(crate) fn within_turn<T>(&self, compute: impl FnOnce() -> T) -> T {
        let began = thread_cpu_about();
        let computed = compute();
        self.within_turn_ns.add(nanoseconds(thread_cpu_about().saturating_sub(began)));
        computed
    }

    /// What the guest has run of a turn that took so long.
    pub(super) fn of_guest(&self, turn_ns: u64) -> u64 {
        turn_ns.saturating_sub(self.within_turn_ns.0.swap(0, Ordering::Relaxed))
    }

    /// Adds a part of a graph's run that was for several calls.
    pub(crate) fn add_part(
        &self,
        engine: Duration,
        device: Duration,
        wait: Duration,
        has_computed: bool,
    ) {
        self.add_engine(engine);
        self.add_device(device);
        self.cpu_wait_ns.add(nanoseconds(wait));
        self.computes.add(u64::from(has_computed));
    }

    /// What another process has counted.
    pub(crate) fn set(&self, receipt: &Receipt) {
        let set = |counter: &Counter, value| counter.0.store(value, Ordering::Relaxed);
        set(&self.guest_cpu_ns, nanoseconds(receipt.guest_cpu));
        set(&self.engine_cpu_ns, nanoseconds(receipt.engine_cpu));
        set(&self.device_ns, nanoseconds(receipt.device));
        set(&self.cpu_wait_ns, nanoseconds(receipt.cpu_wait));
        set(&self.computes, receipt.computes);
        set(&self.bytes_in, receipt.bytes_in);
        set(&self.bytes_out, receipt.bytes_out);
    }

    /// What has been counted so far.
    pub(crate) fn receipt(&self) -> Receipt {
        Receipt {
            guest_cpu: Duration::from_nanos(self.guest_cpu_ns.value()),
            engine_cpu: Duration::from_nanos(self.engine_cpu_ns.value()),
            device: Duration::from_nanos(self.device_ns.value()),
            cpu_wait: Duration::from_nanos(self.cpu_wait_ns.value()),
            computes: self.computes.value(),
            bytes_in: self.bytes_in.value(),
            bytes_out: self.bytes_out.value(),
            ..Receipt::default()
        }
    }
}

/// A wait that is counted when it ends, or with this value.
#[derive(Debug)]
pub(crate) struct Waits<M: Deref<Target = Meters>> {
    meters: M,
    since: Option<Instant>,
}

impl<M: Deref<Target = Meters>> Waits<M> {
    /// What is waited for a CPU, once that begins.
    pub(crate) fn of(meters: M) -> Self {
        Self { meters, since: None }
    }

    pub(crate) fn begin(&mut self) {
        self.since.get_or_insert_with(Instant::now);
    }

    pub(super) fn end(&mut self) {
        if let Some(since) = self.since.take() {
            self.meters.cpu_wait_ns.add(nanoseconds(since.elapsed()));
        }
    }
}

impl<M: Deref<Target = Meters>> Drop for Waits<M> {
    fn drop(&mut self) {
        self.end();
    }
}

pub(super) fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
