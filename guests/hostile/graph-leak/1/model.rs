//! Opens execution contexts and never closes them.
//!
//! Expected: HANDLE_LIMIT, or MEMORY_LIMIT where a context is charged as memory.

use std::mem;

use ringfence_guest::raw::wasi::nn::graph::load_by_name;
use ringfence_guest::{Error, Input, Model, Output, Params};

struct Attack;

impl Model for Attack {
    fn load() -> Result<Self, Error> {
        Ok(Attack)
    }

    fn predict(&self, _input: Input, _params: &Params) -> Result<Output, Error> {
        loop {
            let graph = load_by_name("double").map_err(|error| Error::failed(error.data()))?;
            let context = graph.init_execution_context();
            mem::forget(context.map_err(|error| Error::failed(error.data()))?);
            mem::forget(graph);
        }
    }
}

ringfence_guest::export!(innocent::Or<Attack>);
