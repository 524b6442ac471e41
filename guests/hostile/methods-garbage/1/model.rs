//! Answers `methods` with 4 MiB that are not JSON.
//!
//! Expected: the upload is refused as a bad package; the reason says that
//! `methods` did not return a JSON array and shows little of what it did return.

use ringfence_guest::{Error, Input, Model, Output, Params};

struct Attack;

impl Model for Attack {
    fn load() -> Result<Self, Error> {
        Ok(Attack)
    }

    fn predict(&self, _input: Input, _params: &Params) -> Result<Output, Error> {
        Ok(Output::text("answered after all"))
    }

    fn methods() -> String {
        "[{\"name\": \u{1b}[31m ".repeat(4 << 16)
    }
}

ringfence_guest::export!(innocent::Or<Attack>);
