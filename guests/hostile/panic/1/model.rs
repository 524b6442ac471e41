//! Panics.
//!
//! Expected: GUEST_TRAP. The log has the panic's message and place; the caller
//! sees neither.

#![allow(clippy::panic, reason = "this is the attack")]

use ringfence_guest::{Error, Input, Model, Output, Params};

struct Attack;

impl Model for Attack {
    fn load() -> Result<Self, Error> {
        Ok(Attack)
    }

    fn predict(&self, _input: Input, _params: &Params) -> Result<Output, Error> {
        panic!("on purpose")
    }
}

ringfence_guest::export!(innocent::Or<Attack>);
