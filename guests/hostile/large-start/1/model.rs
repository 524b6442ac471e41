//! Starts with more memory than `cpu_memory` allows (MEM-02, MEM-13).
//!
//! Expected: the upload is refused before anything runs, with both numbers.

use std::sync::atomic::{AtomicU8, Ordering};

use ringfence_guest::{Error, Input, Model, Output, Params};

const BYTES: usize = 128 << 20;
static LARGE: [AtomicU8; BYTES] = [const { AtomicU8::new(0) }; BYTES];

struct Attack;

impl Model for Attack {
    fn load() -> Result<Self, Error> {
        Ok(Attack)
    }

    fn predict(&self, input: Input, _params: &Params) -> Result<Output, Error> {
        let position = input.parts.len() % BYTES;
        // Written as well as read, or the compiler drops the array.
        let byte = LARGE.get(position).map(|byte| byte.fetch_add(1, Ordering::Relaxed));
        Ok(Output::text(format!("{byte:?}")))
    }
}

ringfence_guest::export!(Attack);
