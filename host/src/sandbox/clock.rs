//! Clocks for guests, in steps of a millisecond.
//!
//! Finer clocks would let a guest time its neighbours' caches.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};
use wasmtime_wasi::{HostMonotonicClock, HostWallClock};

const STEP: Duration = Duration::from_millis(1);

fn coarse(time: Duration) -> Duration {
    Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

/// Time since the sandbox was made.
pub(crate) struct Monotonic(pub(crate) Instant);

impl HostMonotonicClock for Monotonic {
    fn resolution(&self) -> u64 {
        u64::try_from(STEP.as_nanos()).unwrap_or(u64::MAX)
    }

    fn now(&self) -> u64 {
        u64::try_from(coarse(self.0.elapsed()).as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Time since the Unix epoch; zero on a host whose clock is before it.
pub(crate) struct Wall;

impl HostWallClock for Wall {
    fn resolution(&self) -> Duration {
        STEP
    }

    fn now(&self) -> Duration {
        coarse(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
    }
}

/// A clock that counts how often it was read, a step each time.
#[derive(Debug, Default)]
pub(crate) struct Counting(AtomicU64);

impl Counting {
    /// Where the wall clock begins: the first second of 2026, UTC.
    const EPOCH: Duration = Duration::from_secs(1_767_225_600);

    fn read(&self) -> Duration {
        Duration::from_millis(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

impl HostMonotonicClock for Counting {
    fn resolution(&self) -> u64 {
        u64::try_from(STEP.as_nanos()).unwrap_or(u64::MAX)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.read().as_nanos()).unwrap_or(u64::MAX)
    }
}

impl HostWallClock for Counting {
    fn resolution(&self) -> Duration {
        STEP
    }

    fn now(&self) -> Duration {
        Self::EPOCH + self.read()
    }
}
