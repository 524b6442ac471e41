//! Sleeps for ever in `load-model`: the clock's side of CPU-02, for no fuel.
//!
//! Expected: the upload is refused with LOAD_LIMIT and nothing is stored; where
//! the model is already there, the call ends with WALL_DEADLINE.

use std::thread;
use std::time::Duration;

use ringfence_guest::{Error, Input, Model, Output, Params};

struct Attack;

impl Model for Attack {
    fn load() -> Result<Self, Error> {
        loop {
            thread::sleep(Duration::from_secs(3600));
        }
    }

    fn predict(&self, _input: Input, _params: &Params) -> Result<Output, Error> {
        Ok(Output::text("loaded after all"))
    }
}

ringfence_guest::export!(Attack);
