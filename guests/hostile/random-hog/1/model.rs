//! Asks for 2^40 random bytes at once (HST-10).
//!
//! Expected: MEMORY_LIMIT or GUEST_TRAP; the host makes no such list.

use ringfence_guest::{Error, Input, Model, Output, Params};
use wasip2::random::random::get_random_bytes;

struct Attack;

impl Model for Attack {
    fn load() -> Result<Self, Error> {
        Ok(Attack)
    }

    fn predict(&self, _input: Input, _params: &Params) -> Result<Output, Error> {
        Ok(Output::text(get_random_bytes(1 << 40).len().to_string()))
    }
}

ringfence_guest::export!(Attack);
