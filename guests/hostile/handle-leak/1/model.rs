//! Makes tensors of one byte and never closes them.
//!
//! Expected: HANDLE_LIMIT.

use std::mem;

use ringfence_guest::raw::wasi::nn::tensor::{Tensor, TensorType};
use ringfence_guest::{Error, Input, Model, Output, Params};

struct Attack;

impl Model for Attack {
    fn load() -> Result<Self, Error> {
        Ok(Attack)
    }

    fn predict(&self, _input: Input, _params: &Params) -> Result<Output, Error> {
        loop {
            mem::forget(Tensor::new(&[1], TensorType::U8, &[0]));
        }
    }
}

ringfence_guest::export!(innocent::Or<Attack>);
