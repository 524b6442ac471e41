//! The values that travel between a caller and a model.

use serde_json::Value as Json;

use crate::error::Error;

pub use crate::raw::ringfence::model::types::{
    BoundingBox, Concept, Frame, Ndarray, Part, Point, Region, Value,
};

impl Concept {
    /// A label whose id is its name. `value` is usually a probability.
    pub fn new(name: impl Into<String>, value: f32) -> Self {
        let name = name.into();
        Self { id: name.clone(), name, value }
    }
}

impl Region {
    /// A rectangle in which `concepts` were seen; `value` is how sure the
    /// model is of the region, 0 to 1.
    pub fn boxed(bounds: BoundingBox, concepts: Vec<Concept>, value: f32) -> Self {
        Self {
            id: String::new(),
            bounds: Some(bounds),
            points: Vec::new(),
            mask: None,
            concepts,
            text: None,
            track_id: String::new(),
            value,
        }
    }
}

impl Value {
    /// The name of the case that this is, as in the WIT world: `text`,
    /// `image`, `integer` and so on. It also names the part of a plain input.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Text(_) => "text",
            Value::Image(_) => "image",
            Value::Audio(_) => "audio",
            Value::Video(_) => "video",
            Value::Bytes(_) => "bytes",
            Value::Integer(_) => "integer",
            Value::Float(_) => "float",
            Value::Boolean(_) => "boolean",
            Value::Json(_) => "json",
            Value::Concepts(_) => "concepts",
            Value::Regions(_) => "regions",
            Value::Frames(_) => "frames",
            Value::Embedding(_) => "embedding",
            Value::Ndarray(_) => "ndarray",
        }
    }
}

impl Part {
    /// A named value. The name is the kind for plain values, an argument's
    /// name or `return` for typed methods, and a path (`images/0`) within
    /// lists.
    pub fn new(name: impl Into<String>, value: impl Into<Value>) -> Self {
        Self { name: name.into(), value: value.into() }
    }

    fn mismatch(&self, expected: &str) -> Error {
        let given = self.value.kind();
        Error::invalid_argument(format!("`{}`: expected {expected}, got {given}", self.name))
    }

    /// The text, or an invalid-argument error that names the part.
    pub fn text(&self) -> Result<&str, Error> {
        match &self.value {
            Value::Text(text) => Ok(text),
            _ => Err(self.mismatch("text")),
        }
    }

    /// The bytes of an image, audio or video file, or plain bytes.
    pub fn bytes(&self) -> Result<&[u8], Error> {
        match &self.value {
            Value::Image(bytes)
            | Value::Audio(bytes)
            | Value::Video(bytes)
            | Value::Bytes(bytes) => Ok(bytes),
            _ => Err(self.mismatch("bytes")),
        }
    }

    /// A whole number; a float without a fraction counts as one.
    pub fn integer(&self) -> Result<i64, Error> {
        match self.value {
            Value::Integer(integer) => Ok(integer),
            Value::Float(float) if float.fract() == 0.0 && float.abs() < 9.0e15 => Ok(float as i64),
            _ => Err(self.mismatch("an integer")),
        }
    }

    /// A number, whole or not.
    pub fn float(&self) -> Result<f64, Error> {
        match self.value {
            Value::Float(float) => Ok(float),
            Value::Integer(integer) => Ok(integer as f64),
            _ => Err(self.mismatch("a number")),
        }
    }

    /// A truth value.
    pub fn boolean(&self) -> Result<bool, Error> {
        match self.value {
            Value::Boolean(boolean) => Ok(boolean),
            _ => Err(self.mismatch("a boolean")),
        }
    }

    /// The JSON text, parsed.
    pub fn json(&self) -> Result<Json, Error> {
        match &self.value {
            Value::Json(json) => serde_json::from_str(json).map_err(|error| {
                Error::invalid_argument(format!("`{}` is not JSON: {error}", self.name))
            }),
            _ => Err(self.mismatch("json")),
        }
    }

    /// The vector of an embedding.
    pub fn embedding(&self) -> Result<&[f32], Error> {
        match &self.value {
            Value::Embedding(embedding) => Ok(embedding),
            _ => Err(self.mismatch("an embedding")),
        }
    }

    /// A dense array in row-major order, little-endian.
    pub fn ndarray(&self) -> Result<&Ndarray, Error> {
        match &self.value {
            Value::Ndarray(ndarray) => Ok(ndarray),
            _ => Err(self.mismatch("an ndarray")),
        }
    }

    /// Labels with scores.
    pub fn concepts(&self) -> Result<&[Concept], Error> {
        match &self.value {
            Value::Concepts(concepts) => Ok(concepts),
            _ => Err(self.mismatch("concepts")),
        }
    }
}

macro_rules! value_from {
    ($($type:ty => $case:ident),* $(,)?) => {$(
        impl From<$type> for Value {
            fn from(value: $type) -> Self {
                Value::$case(value.into())
            }
        }
    )*};
}

value_from! {
    &str => Text,
    String => Text,
    i64 => Integer,
    f64 => Float,
    bool => Boolean,
    Vec<Concept> => Concepts,
    Vec<Region> => Regions,
    Vec<Frame> => Frames,
    Vec<f32> => Embedding,
    Ndarray => Ndarray,
}

impl From<&Json> for Value {
    fn from(json: &Json) -> Self {
        Value::Json(json.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_another_kind_is_named_in_the_error() {
        let error = Part::new("prompt", 3).text().unwrap_err();
        assert_eq!(error.message(), "`prompt`: expected text, got integer");
    }

    #[test]
    fn a_float_without_fraction_is_an_integer() {
        assert_eq!(Part::new("n", 3.0).integer(), Ok(3));
        assert!(Part::new("n", 3.5).integer().is_err());
        assert!(Part::new("n", 1e300).integer().is_err());
        assert!(Part::new("n", f64::NAN).integer().is_err());
        assert_eq!(Part::new("x", 3).float(), Ok(3.0));
    }

    #[test]
    fn broken_json_is_an_invalid_argument() {
        let error =
            Part { name: "schema".into(), value: Value::Json("{".into()) }.json().unwrap_err();
        assert!(error.message().starts_with("`schema` is not JSON"));
    }
}
