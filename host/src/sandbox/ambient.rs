//! What guests have around them: clocks in steps of a millisecond, and, made
//! of a seed, clocks and random numbers that are the same each time.
//!
//! Finer clocks would let a guest time its neighbours' caches.

use super::meters::Counter;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng, TryRng};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use wasmtime_wasi::{HostMonotonicClock, HostWallClock};

const STEP: Duration = Duration::from_millis(1);

fn coarse(time: Duration) -> Duration {
    Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

/// How often a guest looked around.
#[derive(Debug, Default)]
pub(crate) struct Ambient {
    pub(crate) clock_reads: Counter,
    pub(crate) random_draws: Counter,
}

/// Time since the sandbox was made.
pub(crate) struct Monotonic {
    began: Instant,
    ambient: Arc<Ambient>,
}

impl Monotonic {
    pub(crate) fn new(ambient: &Arc<Ambient>) -> Self {
        Self { began: Instant::now(), ambient: ambient.clone() }
    }
}

impl HostMonotonicClock for Monotonic {
    fn resolution(&self) -> u64 {
        u64::try_from(STEP.as_nanos()).unwrap_or(u64::MAX)
    }

    fn now(&self) -> u64 {
        self.ambient.clock_reads.add(1);
        u64::try_from(coarse(self.began.elapsed()).as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Time since the Unix epoch; zero on a host whose clock is before it.
pub(crate) struct Wall {
    ambient: Arc<Ambient>,
}

impl Wall {
    pub(crate) fn new(ambient: &Arc<Ambient>) -> Self {
        Self { ambient: ambient.clone() }
    }
}

impl HostWallClock for Wall {
    fn resolution(&self) -> Duration {
        STEP
    }

    fn now(&self) -> Duration {
        self.ambient.clock_reads.add(1);
        coarse(crate::clock::since_1970())
    }
}

/// A clock that counts how often it was read, a step each time.
#[derive(Debug)]
pub(crate) struct Counting {
    steps: AtomicU64,
    ambient: Arc<Ambient>,
}

impl Counting {
    /// Where the wall clock begins: the first second of 2026, UTC.
    const EPOCH: Duration = Duration::from_secs(1_767_225_600);

    pub(crate) fn new(ambient: &Arc<Ambient>) -> Self {
        Self { steps: AtomicU64::new(0), ambient: ambient.clone() }
    }

    fn read(&self) -> Duration {
        self.ambient.clock_reads.add(1);
        Duration::from_millis(self.steps.fetch_add(1, Ordering::Relaxed))
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

/// Random numbers that are the same for the same seed.
pub(crate) struct Seeded {
    numbers: StdRng,
    ambient: Arc<Ambient>,
}

impl Seeded {
    pub(crate) fn new(seed: u64, ambient: &Arc<Ambient>) -> Self {
        Self { numbers: StdRng::seed_from_u64(seed), ambient: ambient.clone() }
    }
}

impl TryRng for Seeded {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.ambient.random_draws.add(1);
        Ok(self.numbers.next_u32())
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.ambient.random_draws.add(1);
        Ok(self.numbers.next_u64())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.ambient.random_draws.add(1);
        self.numbers.fill_bytes(bytes);
        Ok(())
    }
}
