//! Opens a file of its package again and again and never closes it.
//!
//! Expected: HANDLE_LIMIT, or an output that begins with `denied` where the
//! host refuses to open the file once more.

use std::fs::File;
use std::mem;

use ringfence_guest::{Error, Input, Model, Output, Params};

struct Attack;

impl Model for Attack {
    fn load() -> Result<Self, Error> {
        Ok(Attack)
    }

    fn predict(&self, _input: Input, _params: &Params) -> Result<Output, Error> {
        let mut opened = 0_u64;
        loop {
            match File::open("/model/notes.txt") {
                Ok(file) => mem::forget(file),
                Err(error) => return Ok(Output::text(format!("denied after {opened}: {error}"))),
            }
            opened += 1;
        }
    }
}

ringfence_guest::export!(innocent::Or<Attack>);
