//! Sleeps for ever, for no fuel at all. `generate` sends one output before it
//! falls asleep, so that a caller knows when it has; `predict` answers the
//! text `awake` at once.
//!
//! Expected: WALL_DEADLINE, and no thread of the host is held meanwhile. The
//! output of `generate` reaches its caller at once.

use std::thread;
use std::time::Duration;

use ringfence_guest::{Error, Input, Model, Output, Outputs, Params};

struct Attack;

impl Model for Attack {
    fn load() -> Result<Self, Error> {
        Ok(Attack)
    }

    fn predict(&self, input: Input, _params: &Params) -> Result<Output, Error> {
        match input.text()? {
            "awake" => Ok(Output::text("awake")),
            _ => sleep(),
        }
    }

    fn generate(
        &self,
        _input: Input,
        _params: &Params,
        outputs: &mut Outputs,
    ) -> Result<(), Error> {
        outputs.send("falling asleep")?;
        sleep()
    }
}

fn sleep() -> ! {
    loop {
        thread::sleep(Duration::MAX);
    }
}

ringfence_guest::export!(innocent::Or<Attack>);
