//! Spins before any export is called, while the component is instantiated
//! (CPU-03): a constructor that the linker runs at start.
//!
//! Expected: the upload is refused with LOAD_LIMIT and nothing is stored; where
//! the model is already there, the call ends with FUEL_EXHAUSTED or
//! WALL_DEADLINE.

#![allow(unsafe_code, reason = "JUSTIFICATION: only a link section makes code run at start")]

use std::hint::black_box;

use ringfence_guest::{Error, Input, Model, Output, Params};

#[used]
#[unsafe(link_section = ".init_array")]
static AT_START: extern "C" fn() = spin;

extern "C" fn spin() {
    let mut rounds = 0_u64;
    loop {
        rounds = black_box(rounds).wrapping_add(1);
    }
}

struct Attack;

impl Model for Attack {
    fn load() -> Result<Self, Error> {
        Ok(Attack)
    }

    fn predict(&self, _input: Input, _params: &Params) -> Result<Output, Error> {
        Ok(Output::text("started after all"))
    }
}

ringfence_guest::export!(Attack);
