//! Returns one result less than there are inputs, or with the parameter
//! `more` one more, through the raw bindings, because the guest crate counts.
//!
//! Expected: GUEST_TRAP for the whole call, since the world's contract is broken;
//! no input gets another one's output.

use ringfence_guest::raw::exports::ringfence::model::runner;
use ringfence_guest::raw::ringfence::model::{streams, types};
use ringfence_guest::{Params, Part};

struct Attack;

impl runner::Guest for Attack {
    fn methods() -> String {
        String::new()
    }

    fn load_model() -> Result<(), types::Error> {
        Ok(())
    }

    fn predict(
        request: types::Request,
    ) -> Result<Vec<Result<types::Output, types::Error>>, types::Error> {
        let params = Params::parse(&request.params).unwrap_or_default();
        let results = if params.get("more").is_some() {
            request.inputs.len() + 1
        } else {
            request.inputs.len().saturating_sub(1)
        };
        let output = types::Output {
            parts: vec![Part::new("text", "whose am I?")],
            usage: None,
            info: String::new(),
        };
        Ok(vec![Ok(output); results])
    }

    fn generate(_request: types::Request, _outputs: &streams::Sink) -> Result<(), types::Error> {
        Ok(())
    }

    fn stream(_requests: &streams::Source, _outputs: &streams::Sink) -> Result<(), types::Error> {
        Ok(())
    }
}

ringfence_guest::raw::export!(Attack with_types_in ringfence_guest::raw);
