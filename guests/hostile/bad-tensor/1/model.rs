//! Gives `compute` what does not fit the graph, through the raw bindings,
//! because the guest crate's own tensors are checked (NN-01, NN-04). The graph
//! adds `x` to itself: four floats of shape [1, 4] in, `y` alike out.
//!
//! The parameter `case` chooses: `bytes` (the default: 3 bytes for 4 floats),
//! `overflow` (a shape whose product is 2^64), `type`, `shape`, `missing`,
//! `duplicate`, `unknown`, `number` (the name "0"), or `fits`, which is the
//! innocent one and answers 2.
//!
//! Expected: an error of the model with code invalid-argument, made of the
//! host's answer invalid-argument from `compute`; `fits` succeeds.

use ringfence_guest::raw::wasi::nn::errors;
use ringfence_guest::raw::wasi::nn::graph::load_by_name;
use ringfence_guest::raw::wasi::nn::tensor::{Tensor, TensorType};
use ringfence_guest::{Error, Input, Model, Output, Params};

struct Attack;

impl Model for Attack {
    fn load() -> Result<Self, Error> {
        Ok(Attack)
    }

    fn predict(&self, _input: Input, params: &Params) -> Result<Output, Error> {
        let ones: Vec<u8> = [1.0_f32; 4].iter().flat_map(|one| one.to_le_bytes()).collect();
        let fits = || ("x".to_string(), Tensor::new(&[1, 4], TensorType::Fp32, &ones));
        let named = |name: &str| (name.to_string(), fits().1);
        let made = |dimensions: &[u32], ty, data: &[u8]| {
            ("x".to_string(), Tensor::new(dimensions, ty, data))
        };
        let inputs = match params.str("case")?.unwrap_or("bytes") {
            "fits" => vec![fits()],
            "bytes" => vec![made(&[1, 4], TensorType::Fp32, &[0; 3])],
            "overflow" => vec![made(&[1 << 31, 1 << 31, 4], TensorType::Fp32, &[])],
            "type" => vec![made(&[1, 4], TensorType::I32, &ones)],
            "shape" => vec![made(&[4, 1], TensorType::Fp32, &ones)],
            "missing" => Vec::new(),
            "duplicate" => vec![fits(), fits()],
            "unknown" => vec![fits(), named("z")],
            "number" => vec![named("0")],
            other => return Err(Error::invalid_argument(format!("no such case: `{other}`"))),
        };
        let outputs = load_by_name("double")
            .and_then(|graph| graph.init_execution_context())
            .and_then(|context| context.compute(inputs))
            .map_err(model_error)?;
        let first = outputs.first().map(|(_, tensor)| tensor.data());
        let first = first.as_deref().and_then(|bytes| bytes.first_chunk());
        Ok(Output::text(first.copied().map_or(0.0, f32::from_le_bytes).to_string()))
    }
}

fn model_error(error: errors::Error) -> Error {
    let message = format!("{:?}: {}", error.code(), error.data());
    match error.code() {
        errors::ErrorCode::InvalidArgument => Error::invalid_argument(message),
        _ => Error::failed(message),
    }
}

ringfence_guest::export!(innocent::Or<Attack>);
