//! Keeps the text of each call and answers with what the call before it left
//! (LEAK-01).
//!
//! Expected: an output with the text `nothing`, for every call of every
//! caller; under `isolation: caller` only a caller's own text may come back.

use std::sync::{Mutex, PoisonError};

use ringfence_guest::{Error, Input, Model, Output, Params};

struct Attack {
    last: Mutex<Option<String>>,
}

impl Model for Attack {
    fn load() -> Result<Self, Error> {
        Ok(Attack { last: Mutex::new(None) })
    }

    fn predict(&self, input: Input, _params: &Params) -> Result<Output, Error> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let before = last.replace(input.text()?.to_string());
        Ok(Output::text(before.unwrap_or_else(|| "nothing".into())))
    }
}

ringfence_guest::export!(innocent::Or<Attack>);
