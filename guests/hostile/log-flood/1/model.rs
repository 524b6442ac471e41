//! Logs and prints lines of 1 MiB without end (HST-15, OUT-01).
//!
//! Expected: FUEL_EXHAUSTED or WALL_DEADLINE. The log has cut lines and a count
//! of what was dropped, and neither memory nor disk fills.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is the attack")]

use ringfence_guest::{Error, Input, Model, Output, Params};

struct Attack;

impl Model for Attack {
    fn load() -> Result<Self, Error> {
        Ok(Attack)
    }

    fn predict(&self, _input: Input, _params: &Params) -> Result<Output, Error> {
        let line = "line ".repeat((1 << 20) / 5);
        loop {
            ringfence_guest::info!("{line}");
            println!("{line}");
            eprintln!("{line}");
        }
    }
}

ringfence_guest::export!(innocent::Or<Attack>);
