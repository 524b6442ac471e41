//! Keeps 40 MiB from `load-model` on and needs 10 more in a call: two of them
//! beside each other exceed the limit that one keeps.
//!
//! Expected: an output with the text `fits`, call after call. A sandbox that is
//! made for the next call does not take this one's memory.

use std::hint::black_box;

use ringfence_guest::{Error, Input, Model, Output, Params};

struct Attack {
    kept: Vec<u8>,
}

impl Model for Attack {
    fn load() -> Result<Self, Error> {
        Ok(Attack { kept: vec![1; 40 << 20] })
    }

    fn predict(&self, _input: Input, _params: &Params) -> Result<Output, Error> {
        let more = black_box(vec![2_u8; 10 << 20]);
        match (self.kept.first(), more.last()) {
            (Some(1), Some(2)) => Ok(Output::text("fits")),
            _ => Err(Error::failed("the memory has changed")),
        }
    }
}

ringfence_guest::export!(innocent::Or<Attack>);
