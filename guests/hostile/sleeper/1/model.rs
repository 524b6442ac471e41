//! Sleeps for ever, for no fuel at all.
//!
//! Expected: WALL_DEADLINE, and no thread of the host is held meanwhile.

use std::thread;
use std::time::Duration;

use ringfence_guest::{Error, Input, Model, Output, Params};

struct Attack;

impl Model for Attack {
    fn load() -> Result<Self, Error> {
        Ok(Attack)
    }

    fn predict(&self, _input: Input, _params: &Params) -> Result<Output, Error> {
        loop {
            thread::sleep(Duration::MAX);
        }
    }
}

ringfence_guest::export!(Attack);
