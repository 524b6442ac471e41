//! Outputs as JSON, with the protocol's own names; bytes are in base64.
//!
//! Owns nothing but the mapping. Values that are unset are left out, as the
//! protocol's own JSON does.

use crate::proto::clarifai::api::{Concept, Data, Frame, Output, Point, Region, RegionInfo};
use base64::prelude::{BASE64_STANDARD, Engine};
use prost_types::value::Kind;
use prost_types::{Struct, Value as ProtoValue};
use serde_json::{Map, Value, json};

/// An object that takes only what is set.
#[derive(Default)]
struct Object(Map<String, Value>);

impl Object {
    fn put(&mut self, key: &str, value: impl Into<Value>) -> &mut Self {
        let value = value.into();
        let unset = match &value {
            Value::Null => true,
            Value::Bool(value) => !value,
            Value::Number(value) => value.as_f64() == Some(0.0),
            Value::String(value) => value.is_empty(),
            Value::Array(values) => values.is_empty(),
            Value::Object(_) => false,
        };
        if !unset {
            self.0.insert(key.to_owned(), value);
        }
        self
    }

    fn put_all<T>(&mut self, key: &str, items: &[T], item: impl Fn(&T) -> Value) -> &mut Self {
        self.put(key, items.iter().map(item).collect::<Vec<_>>())
    }

    fn into_value(self) -> Value {
        Value::Object(self.0)
    }
}

/// One output.
pub(super) fn output(output: &Output) -> Value {
    let mut object = Object::default();
    object.put("id", output.id.as_str());
    if let Some(status) = &output.status {
        let mut fields = Object::default();
        fields
            .put("code", status.code)
            .put("description", status.description.as_str())
            .put("details", status.details.as_str());
        object.put("status", fields.into_value());
    }
    object
        .put("data", data(output.data.as_ref().unwrap_or(&Data::default())))
        .put("prompt_tokens", output.prompt_tokens)
        .put("completion_tokens", output.completion_tokens)
        .put("cached_tokens", output.cached_tokens);
    object.into_value()
}

fn data(from: &Data) -> Value {
    let mut object = Object::default();
    if let Some(text) = &from.text {
        let mut fields = Object::default();
        fields.put("raw", text.raw.as_str()).put("url", text.url.as_str());
        object.put("text", fields.into_value());
    }
    for (key, media) in [
        ("image", from.image.as_ref().map(|media| (media.url.as_str(), &media.base64[..]))),
        ("audio", from.audio.as_ref().map(|media| (media.url.as_str(), &media.base64[..]))),
        ("video", from.video.as_ref().map(|media| (media.url.as_str(), &media.base64[..]))),
    ] {
        if let Some((url, bytes)) = media {
            let mut fields = Object::default();
            fields.put("url", url).put("base64", base64(bytes));
            object.put(key, fields.into_value());
        }
    }
    object
        .put_all("concepts", &from.concepts, concept)
        .put_all("regions", &from.regions, region)
        .put_all("frames", &from.frames, frame)
        .put_all("embeddings", &from.embeddings, |embedding| {
            json!({"vector": embedding.vector, "num_dimensions": embedding.num_dimensions})
        })
        .put_all("parts", &from.parts, |part| {
            json!({"id": part.id, "data": data(part.data.as_ref().unwrap_or(&Data::default()))})
        });
    if let Some(array) = &from.ndarray {
        object.put(
            "ndarray",
            json!({"dtype": array.dtype, "shape": array.shape, "buffer": base64(&array.buffer)}),
        );
    }
    if let Some(metadata) = &from.metadata {
        object.put("metadata", self::object(metadata));
    }
    if let Some(fields) = &from.struct_value {
        object.put("struct_value", self::object(fields));
    }
    object
        .put("int_value", from.int_value)
        .put("float_value", from.float_value)
        .put("bytes_value", base64(&from.bytes_value))
        .put("bool_value", from.bool_value)
        .put("string_value", from.string_value.as_str());
    object.into_value()
}

/// A concept's value is always there: zero is a score.
fn concept(concept: &Concept) -> Value {
    json!({"id": concept.id, "name": concept.name, "value": concept.value})
}

fn region(region: &Region) -> Value {
    let mut object = Object::default();
    object.put("id", region.id.as_str());
    if let Some(info) = &region.region_info {
        object.put("region_info", region_info(info));
    }
    if let Some(from) = &region.data {
        object.put("data", data(from));
    }
    object.put("value", region.value).put("track_id", region.track_id.as_str());
    object.into_value()
}

fn region_info(info: &RegionInfo) -> Value {
    let mut object = Object::default();
    if let Some(b) = &info.bounding_box {
        let bounds = json!({"top_row": b.top_row, "left_col": b.left_col, "bottom_row": b.bottom_row, "right_col": b.right_col});
        object.put("bounding_box", bounds);
    }
    if let Some(image) = info.mask.as_ref().and_then(|mask| mask.image.as_ref()) {
        object.put("mask", json!({"image": {"base64": base64(&image.base64)}}));
    }
    if let Some(polygon) = &info.polygon {
        object.put(
            "polygon",
            json!({"points": polygon.points.iter().map(point).collect::<Vec<_>>()}),
        );
    }
    if let Some(from) = &info.point {
        object.put("point", point(from));
    }
    object.put_all("keypoint_locations", &info.keypoint_locations, point);
    object.into_value()
}

fn point(point: &Point) -> Value {
    json!({"row": point.row, "col": point.col})
}

fn frame(frame: &Frame) -> Value {
    let mut object = Object::default();
    if let Some(info) = &frame.frame_info {
        object.put(
            "frame_info",
            json!({"index": info.index, "time": info.time, "number": info.number}),
        );
    }
    if let Some(from) = &frame.data {
        object.put("data", data(from));
    }
    object.into_value()
}

/// The protocol's own JSON value.
pub(super) fn object(from: &Struct) -> Value {
    Value::Object(from.fields.iter().map(|(key, field)| (key.clone(), value(field))).collect())
}

fn value(from: &ProtoValue) -> Value {
    match &from.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        // A model may say NaN, which JSON cannot.
        Some(Kind::NumberValue(number)) => {
            crate::proto::json::from_number(*number).unwrap_or(Value::Null)
        }
        Some(Kind::StringValue(text)) => json!(text),
        Some(Kind::BoolValue(truth)) => json!(truth),
        Some(Kind::StructValue(fields)) => object(fields),
        Some(Kind::ListValue(list)) => list.values.iter().map(value).collect(),
    }
}

/// Base64 with padding, RFC 4648 section 4.
fn base64(bytes: &[u8]) -> String {
    BASE64_STANDARD.encode(bytes)
}
