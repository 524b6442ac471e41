//! What attacks wrap their models in, so that a test can call them without an attack
//! and see that the host still serves them.

use ringfence_guest::{Error, Input, Model, Output, Outputs, Params, Requests};

/// Text of an input that is answered with the same.
const INNOCENT: &str = "innocent";

/// `predict` of an innocent input does no more than answer; all else is `M`'s.
pub struct Or<M>(M);

impl<M: Model> Model for Or<M> {
    fn load() -> Result<Self, Error> {
        M::load().map(Or)
    }

    fn methods() -> String {
        M::methods()
    }

    fn predict(&self, input: Input, params: &Params) -> Result<Output, Error> {
        match input.text() {
            Ok(INNOCENT) => Ok(Output::text(INNOCENT)),
            _ => self.0.predict(input, params),
        }
    }

    fn generate(&self, input: Input, params: &Params, outputs: &mut Outputs) -> Result<(), Error> {
        self.0.generate(input, params, outputs)
    }

    fn stream(&self, requests: &mut Requests, outputs: &mut Outputs) -> Result<(), Error> {
        self.0.stream(requests, outputs)
    }
}
