//! Spins in `predict` without ever calling the host (CPU-01).
//!
//! Expected: FUEL_EXHAUSTED, or WALL_DEADLINE where the rate that `cpu_limit`
//! allows makes the time run out first.

use std::hint::black_box;

use ringfence_guest::{Error, Input, Model, Output, Params};

struct Attack;

impl Model for Attack {
    fn load() -> Result<Self, Error> {
        Ok(Attack)
    }

    fn predict(&self, _input: Input, _params: &Params) -> Result<Output, Error> {
        let mut rounds = 0_u64;
        loop {
            rounds = black_box(rounds).wrapping_add(1);
        }
    }
}

ringfence_guest::export!(innocent::Or<Attack>);
