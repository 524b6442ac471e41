//! Brings a graph of its own as bytes instead of using one of the package
//! (NN-05).
//!
//! Expected: an output with the text `refused`, unless the operator allows such
//! graphs; then `broken`, since the bytes are none.

use ringfence_guest::raw::wasi::nn::errors::ErrorCode;
use ringfence_guest::raw::wasi::nn::graph::{ExecutionTarget, GraphEncoding, load};
use ringfence_guest::{Error, Input, Model, Output, Params};

struct Attack;

impl Model for Attack {
    fn load() -> Result<Self, Error> {
        Ok(Attack)
    }

    fn predict(&self, _input: Input, _params: &Params) -> Result<Output, Error> {
        let builder = vec![0x08_u8; 1 << 20];
        Ok(match load(&[builder], GraphEncoding::Onnx, ExecutionTarget::Cpu) {
            Ok(_) => Output::text("loaded"),
            Err(error) => {
                let answer = match error.code() {
                    ErrorCode::UnsupportedOperation => "refused",
                    _ => "broken",
                };
                Output::text(answer).with_info("message", error.data())
            }
        })
    }
}

ringfence_guest::export!(innocent::Or<Attack>);
