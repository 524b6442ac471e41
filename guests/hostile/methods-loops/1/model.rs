//! Spins in `methods`, which the host calls before `load-model` to learn the
//! typed methods.
//!
//! Expected: the host warns and serves it with plain inputs; calls, in which the guest
//! crate asks for the methods itself, end with FUEL_EXHAUSTED or WALL_DEADLINE.

use std::hint::black_box;

use ringfence_guest::{Error, Input, Model, Output, Params};

struct Attack;

impl Model for Attack {
    fn load() -> Result<Self, Error> {
        Ok(Attack)
    }

    fn predict(&self, _input: Input, _params: &Params) -> Result<Output, Error> {
        Ok(Output::text("answered after all"))
    }

    fn methods() -> String {
        let mut rounds = 0_u64;
        loop {
            rounds = black_box(rounds).wrapping_add(1);
        }
    }
}

ringfence_guest::export!(Attack);
