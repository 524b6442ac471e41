//! Calls itself without end (CPU-04).
//!
//! Expected: GUEST_TRAP; the host's own stack is not touched.

use std::hint::black_box;

use ringfence_guest::{Error, Input, Model, Output, Params};

#[expect(unconditional_recursion, reason = "this is the attack")]
fn deeper(depth: u64) -> u64 {
    let kept = black_box([depth; 8]);
    black_box(deeper(depth + 1)) + kept.len() as u64
}

struct Attack;

impl Model for Attack {
    fn load() -> Result<Self, Error> {
        Ok(Attack)
    }

    fn predict(&self, _input: Input, _params: &Params) -> Result<Output, Error> {
        Ok(Output::text(deeper(0).to_string()))
    }
}

ringfence_guest::export!(innocent::Or<Attack>);
