//! Makes few but large tensors and never closes them: the host holds their bytes
//! while the guest's own memory stays small.
//!
//! Expected: MEMORY_LIMIT.

use std::mem;

use ringfence_guest::raw::wasi::nn::tensor::{Tensor, TensorType};
use ringfence_guest::{Error, Input, Model, Output, Params};

struct Attack;

impl Model for Attack {
    fn load() -> Result<Self, Error> {
        Ok(Attack)
    }

    fn predict(&self, _input: Input, _params: &Params) -> Result<Output, Error> {
        const BYTES: u32 = 4 << 20;
        let data = vec![0; BYTES as usize];
        loop {
            mem::forget(Tensor::new(&[BYTES], TensorType::U8, &data));
        }
    }
}

ringfence_guest::export!(innocent::Or<Attack>);
