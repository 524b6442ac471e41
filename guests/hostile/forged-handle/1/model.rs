//! Uses numbers that are no handles of its own (HST-09, NN-14). The parameter
//! `how` chooses: `unknown` (the default: a number never given), `dropped` (one
//! given back) or `other` (a tensor's number as a graph's).
//!
//! Expected: GUEST_TRAP.

#![allow(unsafe_code, reason = "JUSTIFICATION: safe code cannot forge a handle")]

use std::mem;

use ringfence_guest::raw::wasi::nn::graph::Graph;
use ringfence_guest::raw::wasi::nn::tensor::{Tensor, TensorType};
use ringfence_guest::{Error, Input, Model, Output, Params};

struct Attack;

impl Model for Attack {
    fn load() -> Result<Self, Error> {
        Ok(Attack)
    }

    fn predict(&self, _input: Input, params: &Params) -> Result<Output, Error> {
        let tensor = Tensor::new(&[1], TensorType::U8, &[0]);
        let number = tensor.handle();
        match params.str("how")?.unwrap_or("unknown") {
            "unknown" => {
                // SAFETY: none; the host has to refuse the number.
                let forged = unsafe { Tensor::from_handle(number + 1000) };
                mem::forget(forged.data());
            }
            "dropped" => {
                drop(tensor);
                // SAFETY: as above.
                let forged = unsafe { Tensor::from_handle(number) };
                mem::forget(forged.data());
            }
            "other" => {
                // SAFETY: as above.
                let forged = unsafe { Graph::from_handle(number) };
                mem::forget(forged.init_execution_context());
            }
            other => return Err(Error::invalid_argument(format!("no such case: `{other}`"))),
        }
        Ok(Output::text("used after all"))
    }
}

ringfence_guest::export!(innocent::Or<Attack>);
