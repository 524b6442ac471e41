//! Traps. The parameter `how` chooses: `unreachable` (the default) or
//! `out-of-bounds`, a read far behind the end of memory.
//!
//! Expected: GUEST_TRAP.

#![allow(unsafe_code, reason = "JUSTIFICATION: safe code checks its bounds")]

use std::{process, ptr};

use ringfence_guest::{Error, Input, Model, Output, Params};

struct Attack;

impl Model for Attack {
    fn load() -> Result<Self, Error> {
        Ok(Attack)
    }

    fn predict(&self, _input: Input, params: &Params) -> Result<Output, Error> {
        match params.str("how")?.unwrap_or("unreachable") {
            "unreachable" => process::abort(),
            "out-of-bounds" => {
                let behind = ptr::without_provenance::<u8>(usize::MAX - 64);
                // SAFETY: none; the sandbox has to turn this read into a trap.
                let byte = unsafe { ptr::read_volatile(behind) };
                Ok(Output::text(byte.to_string()))
            }
            other => Err(Error::invalid_argument(format!("no such trap: `{other}`"))),
        }
    }
}

ringfence_guest::export!(innocent::Or<Attack>);
