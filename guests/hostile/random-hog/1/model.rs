//! Asks for random bytes at once, 2^40 of them unless the parameter `bytes` says
//! another number (HST-10).
//!
//! Expected: GUEST_TRAP beyond 64 KiB; the host makes no such list.

use ringfence_guest::{Error, Input, Model, Output, Params};
use wasip2::random::random::get_random_bytes;

struct Attack;

impl Model for Attack {
    fn load() -> Result<Self, Error> {
        Ok(Attack)
    }

    fn predict(&self, _input: Input, params: &Params) -> Result<Output, Error> {
        let bytes = params.u64("bytes")?.unwrap_or(1 << 40);
        Ok(Output::text(get_random_bytes(bytes).len().to_string()))
    }
}

ringfence_guest::export!(innocent::Or<Attack>);
