//! Lists its folder again and again and keeps every listing open: the host
//! holds each, and no account sees it.
//!
//! Expected: HANDLE_LIMIT, or an output whose text begins with `denied`; few can
//! be open at a time.

use std::fs::{ReadDir, read_dir};

use ringfence_guest::{Error, Input, Model, Output, Params};

struct Attack;

impl Model for Attack {
    fn load() -> Result<Self, Error> {
        Ok(Attack)
    }

    fn predict(&self, _input: Input, _params: &Params) -> Result<Output, Error> {
        let mut open: Vec<ReadDir> = Vec::new();
        loop {
            match read_dir("/model") {
                Ok(listing) => open.push(listing),
                Err(error) => {
                    return Ok(Output::text(format!("denied after {}: {error}", open.len())));
                }
            }
        }
    }
}

ringfence_guest::export!(innocent::Or<Attack>);
