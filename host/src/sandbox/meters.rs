//! What a call takes besides fuel and memory, counted where it is taken.

use crate::call::Receipt;
use rustix::time::{ClockId, clock_gettime};
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The counters of one call. The engine's threads and the guest share them.
#[derive(Debug, Default)]
pub(crate) struct Meters {
    pub(crate) bytes_in: Counter,
    pub(crate) bytes_out: Counter,
    computes: Counter,
    guest_cpu_ns: Counter,
    engine_cpu_ns: Counter,
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
    /// Runs a future and adds up the CPU time of its polls, whichever threads
    /// they run on.
    pub(crate) async fn time<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        std::future::poll_fn(|context| {
            let began = thread_cpu();
            let polled = future.as_mut().poll(context);
            self.guest_cpu_ns.add(nanoseconds(thread_cpu().saturating_sub(began)));
            polled
        })
        .await
    }

    /// Computes a graph on this thread and adds its CPU time.
    pub(crate) fn time_engine<T>(&self, compute: impl FnOnce() -> T) -> T {
        let began = thread_cpu();
        let outputs = compute();
        self.engine_cpu_ns.add(nanoseconds(thread_cpu().saturating_sub(began)));
        self.computes.add(1);
        outputs
    }

    /// What has been counted so far.
    pub(crate) fn receipt(&self) -> Receipt {
        Receipt {
            guest_cpu: Duration::from_nanos(self.guest_cpu_ns.value()),
            engine_cpu: Duration::from_nanos(self.engine_cpu_ns.value()),
            computes: self.computes.value(),
            bytes_in: self.bytes_in.value(),
            bytes_out: self.bytes_out.value(),
            ..Receipt::default()
        }
    }
}

/// CPU time that the calling thread has taken: clock_gettime(2).
fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
