//! The seam's types to the world's types and back. Moves, never copies.

use super::bindings::ringfence::model::types as wit;
use crate::call::{
    BoundingBox, Concept, Frame, GuestError, GuestErrorCode, Input, NdArray, Output, Part, Point,
    Region, Request, Usage, Value,
};
use crate::text::{cut, escape_controls};

impl From<Request> for wit::Request {
    fn from(request: Request) -> Self {
        Self {
            method: request.method,
            inputs: request.inputs.into_iter().map(Into::into).collect(),
            params: request.params,
        }
    }
}

impl From<Input> for wit::Input {
    fn from(input: Input) -> Self {
        Self { id: input.id, parts: input.parts.into_iter().map(Into::into).collect() }
    }
}

impl From<Part> for wit::Part {
    fn from(part: Part) -> Self {
        Self { name: part.name, value: part.value.into() }
    }
}

impl From<wit::Part> for Part {
    fn from(part: wit::Part) -> Self {
        Self { name: part.name, value: part.value.into() }
    }
}

impl From<Value> for wit::Value {
    fn from(value: Value) -> Self {
        match value {
            Value::Text(text) => Self::Text(text),
            Value::Image(bytes) => Self::Image(bytes),
            Value::Audio(bytes) => Self::Audio(bytes),
            Value::Video(bytes) => Self::Video(bytes),
            Value::Bytes(bytes) => Self::Bytes(bytes),
            Value::Integer(integer) => Self::Integer(integer),
            Value::Float(float) => Self::Float(float),
            Value::Boolean(boolean) => Self::Boolean(boolean),
            Value::Json(json) => Self::Json(json),
            Value::Concepts(list) => Self::Concepts(list.into_iter().map(Into::into).collect()),
            Value::Regions(list) => Self::Regions(list.into_iter().map(Into::into).collect()),
            Value::Frames(list) => Self::Frames(list.into_iter().map(Into::into).collect()),
            Value::Embedding(vector) => Self::Embedding(vector),
            Value::NdArray(NdArray { dtype, shape, data }) => {
                Self::Ndarray(wit::Ndarray { dtype, shape, data })
            }
        }
    }
}

impl From<wit::Value> for Value {
    fn from(value: wit::Value) -> Self {
        match value {
            wit::Value::Text(text) => Self::Text(text),
            wit::Value::Image(bytes) => Self::Image(bytes),
            wit::Value::Audio(bytes) => Self::Audio(bytes),
            wit::Value::Video(bytes) => Self::Video(bytes),
            wit::Value::Bytes(bytes) => Self::Bytes(bytes),
            wit::Value::Integer(integer) => Self::Integer(integer),
            wit::Value::Float(float) => Self::Float(float),
            wit::Value::Boolean(boolean) => Self::Boolean(boolean),
            wit::Value::Json(json) => Self::Json(json),
            wit::Value::Concepts(list) => {
                Self::Concepts(list.into_iter().map(Into::into).collect())
            }
            wit::Value::Regions(list) => Self::Regions(list.into_iter().map(Into::into).collect()),
            wit::Value::Frames(list) => Self::Frames(list.into_iter().map(Into::into).collect()),
            wit::Value::Embedding(vector) => Self::Embedding(vector),
            wit::Value::Ndarray(wit::Ndarray { dtype, shape, data }) => {
                Self::NdArray(NdArray { dtype, shape, data })
            }
        }
    }
}

impl From<Concept> for wit::Concept {
    fn from(Concept { id, name, value }: Concept) -> Self {
        Self { id, name, value }
    }
}

impl From<wit::Concept> for Concept {
    fn from(wit::Concept { id, name, value }: wit::Concept) -> Self {
        Self { id, name, value }
    }
}

impl From<BoundingBox> for wit::BoundingBox {
    fn from(BoundingBox { top, left, bottom, right }: BoundingBox) -> Self {
        Self { top, left, bottom, right }
    }
}

impl From<wit::BoundingBox> for BoundingBox {
    fn from(wit::BoundingBox { top, left, bottom, right }: wit::BoundingBox) -> Self {
        Self { top, left, bottom, right }
    }
}

impl From<Region> for wit::Region {
    fn from(region: Region) -> Self {
        let point = |Point { x, y }| wit::Point { x, y };
        Self {
            id: region.id,
            bounds: region.bounds.map(Into::into),
            points: region.points.into_iter().map(point).collect(),
            mask: region.mask,
            concepts: region.concepts.into_iter().map(Into::into).collect(),
            text: region.text,
            track_id: region.track_id,
            value: region.value,
        }
    }
}

impl From<wit::Region> for Region {
    fn from(region: wit::Region) -> Self {
        let point = |wit::Point { x, y }| Point { x, y };
        Self {
            id: region.id,
            bounds: region.bounds.map(Into::into),
            points: region.points.into_iter().map(point).collect(),
            mask: region.mask,
            concepts: region.concepts.into_iter().map(Into::into).collect(),
            text: region.text,
            track_id: region.track_id,
            value: region.value,
        }
    }
}

impl From<Frame> for wit::Frame {
    fn from(frame: Frame) -> Self {
        Self {
            index: frame.index,
            time_ms: frame.time_ms,
            concepts: frame.concepts.into_iter().map(Into::into).collect(),
            regions: frame.regions.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<wit::Frame> for Frame {
    fn from(frame: wit::Frame) -> Self {
        Self {
            index: frame.index,
            time_ms: frame.time_ms,
            concepts: frame.concepts.into_iter().map(Into::into).collect(),
            regions: frame.regions.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<wit::Output> for Output {
    fn from(output: wit::Output) -> Self {
        let usage = |usage: wit::Usage| Usage {
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
            cached_tokens: usage.cached_tokens,
        };
        Self {
            parts: output.parts.into_iter().map(Into::into).collect(),
            usage: output.usage.map(usage),
            info: output.info,
        }
    }
}

/// A guest's error with its texts cut to `text_bytes_max`.
pub(crate) fn guest_error(error: wit::Error, text_bytes_max: usize) -> GuestError {
    let code = match error.code {
        wit::ErrorCode::InvalidArgument => GuestErrorCode::InvalidArgument,
        wit::ErrorCode::OutOfRange => GuestErrorCode::OutOfRange,
        wit::ErrorCode::FailedPrecondition => GuestErrorCode::FailedPrecondition,
        wit::ErrorCode::Unsupported => GuestErrorCode::Unsupported,
        wit::ErrorCode::Failed => GuestErrorCode::Failed,
    };
    let (mut message, mut info) = (error.message, error.info);
    cut(&mut message, text_bytes_max);
    message = escape_controls(&message);
    if info.len() > text_bytes_max {
        // Half a JSON object is of no use to anybody.
        info.clear();
    }
    GuestError { code, message, info }
}

/// An error that the host answers to a guest's call.
pub(crate) fn refusal(code: wit::ErrorCode, message: impl Into<String>) -> wit::Error {
    wit::Error { code, message: message.into(), info: String::new() }
}
