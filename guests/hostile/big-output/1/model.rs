//! Returns one output of 48 MiB; `generate` sends it.
//!
//! Expected: OUTPUT_LIMIT, or MEMORY_LIMIT where the copy in the host exceeds
//! `cpu_memory` first.

use ringfence_guest::{Error, Input, Model, Output, Params};

struct Attack;

impl Model for Attack {
    fn load() -> Result<Self, Error> {
        Ok(Attack)
    }

    fn predict(&self, _input: Input, _params: &Params) -> Result<Output, Error> {
        Ok(Output::text("x".repeat(48 << 20)))
    }
}

ringfence_guest::export!(innocent::Or<Attack>);
