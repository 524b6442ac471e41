//! Measures how finely it can tell the time, as an attack on shared caches would
//! have to (FS-05).
//!
//! Expected: an output whose text gives the smallest step of the monotonic clock
//! and of the wall clock in nanoseconds; neither is finer than the host promises,
//! and neither runs backwards.

use std::time::{Instant, SystemTime};

use ringfence_guest::{Error, Input, Model, Output, Params};

/// The smallest difference between neighbours that is not zero.
fn smallest_step(times: &[u128]) -> Result<u128, Error> {
    let mut smallest = None;
    for (earlier, later) in times.iter().zip(times.iter().skip(1)) {
        let step =
            later.checked_sub(*earlier).ok_or_else(|| Error::failed("a clock ran backwards"))?;
        if step > 0 {
            smallest = Some(smallest.map_or(step, |least: u128| least.min(step)));
        }
    }
    smallest.ok_or_else(|| Error::failed("a clock stood still"))
}

/// Reads a clock until it has moved three times, or has been read often enough.
fn until_it_moves(read: impl Fn() -> Result<u128, Error>) -> Result<Vec<u128>, Error> {
    const SAMPLES_MAX: usize = 1_000_000;
    const STEPS: usize = 3;
    let mut times = vec![read()?];
    let mut steps = 0;
    while steps < STEPS && times.len() < SAMPLES_MAX {
        let now = read()?;
        steps += usize::from(times.last() != Some(&now));
        times.push(now);
    }
    Ok(times)
}

struct Attack;

impl Model for Attack {
    fn load() -> Result<Self, Error> {
        Ok(Attack)
    }

    fn predict(&self, _input: Input, _params: &Params) -> Result<Output, Error> {
        let start = Instant::now();
        let steady = until_it_moves(|| Ok(start.elapsed().as_nanos()))?;
        let wall = until_it_moves(|| Ok(SystemTime::UNIX_EPOCH.elapsed()?.as_nanos()))?;
        Ok(Output::text(format!(
            "monotonic {} ns, wall {} ns",
            smallest_step(&steady)?,
            smallest_step(&wall)?
        )))
    }
}

ringfence_guest::export!(innocent::Or<Attack>);
