//! Makes timers without end and closes none (HST-13).
//!
//! Expected: HANDLE_LIMIT.

use std::mem;

use ringfence_guest::{Error, Input, Model, Output, Params};
use wasip2::clocks::monotonic_clock::subscribe_duration;

struct Attack;

impl Model for Attack {
    fn load() -> Result<Self, Error> {
        Ok(Attack)
    }

    fn predict(&self, _input: Input, _params: &Params) -> Result<Output, Error> {
        loop {
            mem::forget(subscribe_duration(u64::MAX));
        }
    }
}

ringfence_guest::export!(innocent::Or<Attack>);
