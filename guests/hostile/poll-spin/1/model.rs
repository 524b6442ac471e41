//! Waits for clocks that are always ready (CPU-17).
//!
//! Expected: FUEL_EXHAUSTED or WALL_DEADLINE; the host's runtime is not starved.

use ringfence_guest::{Error, Input, Model, Output, Params};
use wasip2::clocks::monotonic_clock::subscribe_duration;

struct Attack;

impl Model for Attack {
    fn load() -> Result<Self, Error> {
        Ok(Attack)
    }

    fn predict(&self, _input: Input, _params: &Params) -> Result<Output, Error> {
        loop {
            subscribe_duration(0).block();
        }
    }
}

ringfence_guest::export!(innocent::Or<Attack>);
