//! Reports an error from `load-model`, as a model does whose files are missing.
//!
//! Expected: the upload is refused with GUEST_ERROR, code failed-precondition,
//! and the message below; where the model is already there, so is the call.

use ringfence_guest::{Error, Input, Model, Output, Params};

struct Attack;

impl Model for Attack {
    fn load() -> Result<Self, Error> {
        Err(Error::failed_precondition("the weights are not there"))
    }

    fn predict(&self, _input: Input, _params: &Params) -> Result<Output, Error> {
        Ok(Output::text("loaded after all"))
    }
}

ringfence_guest::export!(Attack);
