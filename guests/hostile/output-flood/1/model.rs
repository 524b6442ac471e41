//! Sends outputs without end from `generate`, and goes on when the host
//! refuses them.
//!
//! Expected: OUTPUT_LIMIT. With a caller that does not read, `send` waits and
//! the call ends with WALL_DEADLINE; the host buffers no more than its bound.

use ringfence_guest::{Error, Input, Model, Output, Outputs, Params};

struct Attack;

impl Model for Attack {
    fn load() -> Result<Self, Error> {
        Ok(Attack)
    }

    fn predict(&self, _input: Input, _params: &Params) -> Result<Output, Error> {
        Ok(Output::text("this one attacks in generate"))
    }

    fn generate(
        &self,
        _input: Input,
        _params: &Params,
        outputs: &mut Outputs,
    ) -> Result<(), Error> {
        let piece = "x".repeat(64 << 10);
        loop {
            // A refusal is ignored: the host must not depend on good manners.
            let _ = outputs.send(piece.as_str());
        }
    }
}

ringfence_guest::export!(innocent::Or<Attack>);
