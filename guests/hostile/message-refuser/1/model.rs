//! Never reads a message of its stream and never returns.
//!
//! Expected: WALL_DEADLINE; a caller who goes on sending is held back by the
//! bound of the channel, and the host's memory stays flat.

use std::thread;
use std::time::Duration;

use ringfence_guest::{Error, Input, Model, Output, Outputs, Params, Requests};

struct Attack;

impl Model for Attack {
    fn load() -> Result<Self, Error> {
        Ok(Attack)
    }

    fn predict(&self, _input: Input, _params: &Params) -> Result<Output, Error> {
        Ok(Output::text("this one attacks in stream"))
    }

    fn stream(&self, _requests: &mut Requests, _outputs: &mut Outputs) -> Result<(), Error> {
        loop {
            thread::sleep(Duration::from_secs(3600));
        }
    }
}

ringfence_guest::export!(innocent::Or<Attack>);
