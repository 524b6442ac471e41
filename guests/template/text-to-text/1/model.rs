//! Greets whoever is named in the text.

use ringfence_guest::{Error, Input, Model, Output, Params};

struct Hello;

impl Model for Hello {
    fn load() -> Result<Self, Error> {
        Ok(Hello)
    }

    fn predict(&self, input: Input, _params: &Params) -> Result<Output, Error> {
        Ok(Output::text(format!("Hello, {}!", input.text()?)))
    }
}

ringfence_guest::export!(Hello);
