//! Runs a convolutional network on a picture of floats, and a decoder that goes on with
//! whatever it is given, taking the likeliest token each time.

use ringfence_guest::raw::wasi::nn::errors;
use ringfence_guest::raw::wasi::nn::graph::load_by_name;
use ringfence_guest::raw::wasi::nn::inference::GraphExecutionContext;
use ringfence_guest::raw::wasi::nn::tensor::{Tensor, TensorType};
use ringfence_guest::{Error, Input, Model, Output, Outputs, Params, Value};

const LAYERS: usize = 4;
const HEADS: u32 = 4;
const HEAD: u32 = 64;
const VOCABULARY: usize = 512;
const CLASSES: usize = 100;
const PICTURE_BYTES: usize = 3 * 224 * 224 * size_of::<f32>();

struct Graphs;

impl Model for Graphs {
    fn load() -> Result<Self, Error> {
        Ok(Graphs)
    }

    fn predict(&self, input: Input, _: &Params) -> Result<Output, Error> {
        let bytes = input.parts.iter().find_map(|part| match &part.value {
            Value::Bytes(bytes) | Value::Image(bytes) => Some(bytes),
            _ => None,
        });
        let bytes = bytes.ok_or_else(|| Error::invalid_argument("send 3x224x224 floats"))?;
        let pictures = (bytes.len() / PICTURE_BYTES) as u32;
        let tensor = Tensor::new(&[pictures, 3, 224, 224], TensorType::Fp32, bytes);
        let context = open("conv")?;
        let outputs = context.compute(vec![("input".into(), tensor)]).map_err(failed)?;
        let (_, scores) = outputs.first().ok_or_else(|| Error::failed("no output"))?;
        Ok(Output::text(likeliest(&scores.data(), CLASSES).to_string()))
    }

    fn generate(&self, _: Input, params: &Params, outputs: &mut Outputs) -> Result<(), Error> {
        let count = params.usize("count")?.unwrap_or(16);
        // So many texts at a time, which are all the same.
        let rows = params.usize("rows")?.unwrap_or(1);
        let batch = rows as u32;
        let context = open("decoder")?;
        let empty =
            |name: String| (name, Tensor::new(&[batch, HEADS, 0, HEAD], TensorType::Fp32, &[]));
        let mut cache: Vec<_> = (0..LAYERS)
            .flat_map(|layer| [format!("past_k{layer}"), format!("past_v{layer}")])
            .map(empty)
            .collect();
        let mut token = 1_i64;
        for position in 0..count {
            let integer = |number: i64| {
                Tensor::new(&[batch, 1], TensorType::I64, &number.to_le_bytes().repeat(rows))
            };
            let seen = position as u32 + 1;
            let bias = vec![0; rows * seen as usize * size_of::<f32>()];
            let mut inputs = std::mem::take(&mut cache);
            inputs.push(("input_ids".into(), integer(token)));
            inputs.push(("position_ids".into(), integer(position as i64)));
            let bias = Tensor::new(&[batch, 1, 1, seen], TensorType::Fp32, &bias);
            inputs.push(("attention_bias".into(), bias));
            for (name, tensor) in context.compute(inputs).map_err(failed)? {
                match name.strip_prefix("present_") {
                    Some(what) => cache.push((format!("past_{what}"), tensor)),
                    None => token = likeliest(&tensor.data(), VOCABULARY) as i64,
                }
            }
            outputs.send(Output::text(token.to_string()))?;
        }
        Ok(())
    }
}

fn open(name: &str) -> Result<GraphExecutionContext, Error> {
    load_by_name(name).and_then(|graph| graph.init_execution_context()).map_err(failed)
}

/// The place of the largest of the first row's scores.
fn likeliest(data: &[u8], scores_of_row: usize) -> usize {
    let (scores, _) = data.as_chunks();
    let scores = scores.iter().take(scores_of_row).copied().map(f32::from_le_bytes);
    let best = scores.enumerate().max_by(|(_, a), (_, b)| a.total_cmp(b));
    best.map_or(0, |(place, _)| place)
}

fn failed(error: errors::Error) -> Error {
    Error::failed(error.data())
}

ringfence_guest::export!(Graphs);
