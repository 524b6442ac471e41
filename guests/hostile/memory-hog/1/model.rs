//! Allocates and touches memory until it dies (MEM-01).
//!
//! Expected: MEMORY_LIMIT. The refusal reaches Rust as a failed allocation, which
//! traps; the host knows that it refused.

use ringfence_guest::{Error, Input, Model, Output, Params};

struct Attack;

impl Model for Attack {
    fn load() -> Result<Self, Error> {
        Ok(Attack)
    }

    fn predict(&self, _input: Input, _params: &Params) -> Result<Output, Error> {
        let mut kept = Vec::new();
        loop {
            kept.push(vec![1_u8; 1 << 20]);
        }
    }
}

ringfence_guest::export!(innocent::Or<Attack>);
