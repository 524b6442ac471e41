//! Computes without end: hardly any fuel, all of it engine work.
//!
//! Expected: WALL_DEADLINE; FUEL_EXHAUSTED where calls of the host cost fuel.

use ringfence_guest::{Error, Input, Model, Output, Params, Tensor, graph};

struct Attack;

impl Model for Attack {
    fn load() -> Result<Self, Error> {
        Ok(Attack)
    }

    fn predict(&self, _input: Input, _params: &Params) -> Result<Output, Error> {
        graph("double").open(|double| {
            let mut tensor = Tensor::f32(&[1, 4], &[0.0; 4])?;
            loop {
                tensor = double.compute(&[("x", tensor)])?.take("y")?;
            }
        })
    }
}

ringfence_guest::export!(innocent::Or<Attack>);
