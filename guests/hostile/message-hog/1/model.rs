//! Keeps every message of a stream and answers none, so that a caller who goes
//! on sending fills whatever has no bound.
//!
//! Expected: MEMORY_LIMIT once the messages exceed `cpu_memory`, else
//! WALL_DEADLINE; a caller who stops sending gets one output with the count.

use ringfence_guest::{Error, Input, Model, Output, Outputs, Params, Requests};

struct Attack;

impl Model for Attack {
    fn load() -> Result<Self, Error> {
        Ok(Attack)
    }

    fn predict(&self, _input: Input, _params: &Params) -> Result<Output, Error> {
        Ok(Output::text("this one attacks in stream"))
    }

    fn stream(&self, requests: &mut Requests, outputs: &mut Outputs) -> Result<(), Error> {
        let messages = requests.collect::<Result<Vec<_>, Error>>()?;
        outputs.send(messages.len().to_string())
    }
}

ringfence_guest::export!(innocent::Or<Attack>);
