//! Computes with a graph that the package does not have.
//!
//! Expected: GUEST_ERROR, code failed; the message names the graph and says
//! not-found.

use ringfence_guest::{Error, Input, Model, Output, Params, Tensor, graph};

struct Attack;

impl Model for Attack {
    fn load() -> Result<Self, Error> {
        Ok(Attack)
    }

    fn predict(&self, _input: Input, _params: &Params) -> Result<Output, Error> {
        let tensor = Tensor::f32(&[1, 4], &[0.0; 4])?;
        graph("absent").compute(&[("x", tensor)])?;
        Ok(Output::text("computed after all"))
    }
}

ringfence_guest::export!(innocent::Or<Attack>);
