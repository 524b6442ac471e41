//! Not an attack but a stranger: written without the guest crate, against its
//! own copies of the WIT, of which it declares only what it uses.
//!
//! Expected: an output. The text is a number, or several with spaces between,
//! and each comes back doubled by the graph `double`, which adds four floats
//! to themselves.

#![allow(
    unsafe_code,
    clippy::allow_attributes_without_reason,
    clippy::undocumented_unsafe_blocks,
    reason = "JUSTIFICATION: generated bindings"
)]

wit_bindgen::generate!({
    path: "wit",
    world: "elsewhere:doubler/doubler",
    generate_all,
});

use exports::ringfence::model::runner::Guest;
use ringfence::model::streams::{Sink, Source};
use ringfence::model::types::{Error, ErrorCode, Input, Output, Part, Request, Value};
use wasi::nn::graph::load_by_name;
use wasi::nn::tensor::{Tensor, TensorType};

/// What the graph takes at once.
const WIDTH: usize = 4;

struct Doubler;

impl Guest for Doubler {
    fn methods() -> String {
        "[]".into()
    }

    fn load_model() -> Result<(), Error> {
        Ok(())
    }

    fn predict(request: Request) -> Result<Vec<Result<Output, Error>>, Error> {
        Ok(request.inputs.iter().map(answer).collect())
    }

    fn generate(request: Request, outputs: &Sink) -> Result<(), Error> {
        for input in &request.inputs {
            outputs.send(&answer(input)?)?;
        }
        Ok(())
    }

    fn stream(requests: &Source, outputs: &Sink) -> Result<(), Error> {
        while let Some(request) = requests.next() {
            Self::generate(request, outputs)?;
        }
        Ok(())
    }
}

fn answer(input: &Input) -> Result<Output, Error> {
    let text = input.parts.iter().find_map(|part| match &part.value {
        Value::Text(text) => Some(text),
        _ => None,
    });
    let text = text.ok_or_else(|| error(ErrorCode::InvalidArgument, "expected text"))?;
    let numbers = text
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<Vec<f32>, _>>()
        .map_err(|_| error(ErrorCode::InvalidArgument, "expected numbers"))?;
    let mut doubled = Vec::new();
    for chunk in numbers.chunks(WIDTH) {
        let mut row = chunk.to_vec();
        row.resize(WIDTH, 0.0);
        let computed = double(&row).map_err(|nn| error(ErrorCode::Failed, &nn.data()))?;
        doubled.extend(computed.iter().take(chunk.len()).map(f32::to_string));
    }
    Ok(Output {
        parts: vec![Part { name: "text".into(), value: Value::Text(doubled.join(" ")) }],
        usage: None,
        info: String::new(),
    })
}

fn double(row: &[f32]) -> Result<Vec<f32>, wasi::nn::errors::Error> {
    let data: Vec<u8> = row.iter().flat_map(|number| number.to_le_bytes()).collect();
    let tensor = Tensor::new(&[1, WIDTH as u32], TensorType::Fp32, &data);
    let context = load_by_name("double")?.init_execution_context()?;
    let outputs = context.compute(vec![("x".into(), tensor)])?;
    Ok(outputs
        .iter()
        .flat_map(|(_, tensor)| {
            let data = tensor.data();
            let (numbers, _) = data.as_chunks();
            numbers.iter().copied().map(f32::from_le_bytes).collect::<Vec<_>>()
        })
        .collect())
}

fn error(code: ErrorCode, message: &str) -> Error {
    Error { code, message: message.into(), info: String::new() }
}

export!(Doubler);
