//! Leaves by `std::process::exit` in the middle of a call, with the status of the
//! parameter `status`, 0 by default (HST-14).
//!
//! Expected: GUEST_TRAP, for 0 as well.

use std::process;

use ringfence_guest::{Error, Input, Model, Output, Params};

struct Attack;

impl Model for Attack {
    fn load() -> Result<Self, Error> {
        Ok(Attack)
    }

    fn predict(&self, _input: Input, params: &Params) -> Result<Output, Error> {
        let status = params.i64("status")?.unwrap_or(0);
        process::exit(i32::try_from(status).unwrap_or(1))
    }
}

ringfence_guest::export!(innocent::Or<Attack>);
