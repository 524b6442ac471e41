//! Counts in `generate` without end, and tells the count every million rounds.
//!
//! Expected: outputs whose texts grow, then FUEL_EXHAUSTED, or WALL_DEADLINE
//! where the time runs out first. The last count says how much the guest could
//! really compute.

use std::hint::black_box;

use ringfence_guest::{Error, Input, Model, Output, Outputs, Params};

const ROUNDS_PER_OUTPUT: u64 = 1_000_000;

struct Attack;

impl Model for Attack {
    fn load() -> Result<Self, Error> {
        Ok(Attack)
    }

    fn predict(&self, _input: Input, _params: &Params) -> Result<Output, Error> {
        Ok(Output::text("this one attacks in generate"))
    }

    fn generate(
        &self,
        _input: Input,
        _params: &Params,
        outputs: &mut Outputs,
    ) -> Result<(), Error> {
        let mut rounds = 0_u64;
        loop {
            for _ in 0..ROUNDS_PER_OUTPUT {
                rounds = black_box(rounds).wrapping_add(1);
            }
            outputs.send(rounds.to_string())?;
        }
    }
}

ringfence_guest::export!(innocent::Or<Attack>);
