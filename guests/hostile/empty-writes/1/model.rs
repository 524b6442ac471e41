//! Writes nothing to its log, without end (OUT-03).
//!
//! Expected: FUEL_EXHAUSTED or WALL_DEADLINE, and a host that holds no more than before.

use ringfence_guest::{Error, Input, Model, Output, Params};
use wasip2::cli::stdout::get_stdout;

struct Attack;

impl Model for Attack {
    fn load() -> Result<Self, Error> {
        Ok(Attack)
    }

    fn predict(&self, _input: Input, _params: &Params) -> Result<Output, Error> {
        let stdout = get_stdout();
        loop {
            let written = stdout.write(&[]).and_then(|()| stdout.blocking_flush());
            written.map_err(|error| Error::failed(error.to_string()))?;
        }
    }
}

ringfence_guest::export!(innocent::Or<Attack>);
