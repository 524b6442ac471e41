//! Asks for memory until it is refused and then answers: a refusal alone must not
//! end a guest that copes with it (MEM-01).
//!
//! Expected: an output with the number of pages of 64 KiB that it got, below what
//! `cpu_memory` allows; MEMORY_LIMIT where the host ends refused guests.

use std::arch::wasm32::{memory_grow, memory_size};

use ringfence_guest::{Error, Input, Model, Output, Params};

struct Attack;

impl Model for Attack {
    fn load() -> Result<Self, Error> {
        Ok(Attack)
    }

    fn predict(&self, _input: Input, _params: &Params) -> Result<Output, Error> {
        const REFUSED: usize = usize::MAX;
        while memory_grow::<0>(16) != REFUSED {}
        Ok(Output::text(memory_size::<0>().to_string()))
    }
}

ringfence_guest::export!(innocent::Or<Attack>);
