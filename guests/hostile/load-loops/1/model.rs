//! Spins in `load-model` (CPU-02).
//!
//! Expected: the upload is refused with LOAD_LIMIT and nothing is stored; where
//! the model is already there, the call ends with FUEL_EXHAUSTED or
//! WALL_DEADLINE.

use std::hint::black_box;

use ringfence_guest::{Error, Input, Model, Output, Params};

struct Attack;

impl Model for Attack {
    fn load() -> Result<Self, Error> {
        let mut rounds = 0_u64;
        loop {
            rounds = black_box(rounds).wrapping_add(1);
        }
    }

    fn predict(&self, _input: Input, _params: &Params) -> Result<Output, Error> {
        Ok(Output::text("loaded after all"))
    }
}

ringfence_guest::export!(Attack);
