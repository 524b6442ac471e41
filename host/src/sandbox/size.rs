//! How many bytes a request or an output makes the host hold.

use crate::call::{Concept, Input, Output, Part, Region, Request, Value};

/// What a record costs beside its texts and bytes.
const RECORD_BYTES: usize = 64;

/// What the length of an axis costs, on its way between processes.
const AXIS_BYTES: usize = 32;

/// Bytes of a request.
pub(crate) fn of_request(request: &Request) -> u64 {
    let inputs: usize = request.inputs.iter().map(of_input).sum();
    (RECORD_BYTES + request.method.len() + request.params.len() + inputs) as u64
}

/// Bytes of an output.
pub(crate) fn of_output(output: &Output) -> u64 {
    (RECORD_BYTES + output.info.len() + of_parts(&output.parts)) as u64
}

fn of_input(input: &Input) -> usize {
    RECORD_BYTES + input.id.len() + of_parts(&input.parts)
}

fn of_parts(parts: &[Part]) -> usize {
    parts.iter().map(|part| RECORD_BYTES + part.name.len() + of_value(&part.value)).sum()
}

fn of_value(value: &Value) -> usize {
    match value {
        Value::Text(text) | Value::Json(text) => text.len(),
        Value::Image(bytes) | Value::Audio(bytes) | Value::Video(bytes) | Value::Bytes(bytes) => {
            bytes.len()
        }
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => 0,
        Value::Concepts(concepts) => of_concepts(concepts),
        Value::Regions(regions) => regions.iter().map(of_region).sum(),
        Value::Frames(frames) => frames
            .iter()
            .map(|frame| {
                let regions: usize = frame.regions.iter().map(of_region).sum();
                RECORD_BYTES + of_concepts(&frame.concepts) + regions
            })
            .sum(),
        Value::Embedding(vector) => vector.len() * size_of::<f32>(),
        Value::NdArray(array) => {
            array.data.len() + array.shape.len() * AXIS_BYTES + array.dtype.len()
        }
    }
}

fn of_concepts(concepts: &[Concept]) -> usize {
    concepts.iter().map(|concept| RECORD_BYTES + concept.id.len() + concept.name.len()).sum()
}

fn of_region(region: &Region) -> usize {
    2 * RECORD_BYTES
        + region.id.len()
        + region.points.len() * 8
        + region.mask.as_ref().map_or(0, |mask| mask.len())
        + of_concepts(&region.concepts)
        + region.text.as_ref().map_or(0, String::len)
        + region.track_id.len()
}
