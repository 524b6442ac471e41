//! The answer to one input.

use serde_json::{Map, Value as Json};

use crate::error::info_text;
use crate::raw::ringfence::model::types;
use crate::value::{Concept, Part, Region, Value};

pub use crate::raw::ringfence::model::types::Usage;

/// The answer to one input, or one piece of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Output {
    /// What is answered, in this order.
    pub parts: Vec<Part>,
    /// What a language model counted.
    pub usage: Option<Usage>,
    /// Anything else that the caller should know.
    pub info: Map<String, Json>,
}

impl Output {
    /// An output of one value, named by its kind.
    pub fn of(value: impl Into<Value>) -> Self {
        let value = value.into();
        Self::from_parts(vec![Part::new(value.kind(), value)])
    }

    /// An output of these parts.
    pub fn from_parts(parts: Vec<Part>) -> Self {
        Self { parts, ..Self::default() }
    }

    /// What a typed method returns: one part named `return`.
    pub fn returned(value: impl Into<Value>) -> Self {
        Self::from_parts(vec![Part::new("return", value)])
    }

    /// A text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::of(text.into())
    }

    /// An image: the bytes of a whole file (PNG, JPEG, ...).
    pub fn image(file: impl Into<Vec<u8>>) -> Self {
        Self::of(Value::Image(file.into()))
    }

    /// Audio: the bytes of a whole file.
    pub fn audio(file: impl Into<Vec<u8>>) -> Self {
        Self::of(Value::Audio(file.into()))
    }

    /// Labels with scores, best first by custom.
    pub fn concepts(concepts: impl Into<Vec<Concept>>) -> Self {
        Self::of(concepts.into())
    }

    /// Parts of the image and what is seen there.
    pub fn regions(regions: impl Into<Vec<Region>>) -> Self {
        Self::of(regions.into())
    }

    /// A vector that stands for the input.
    pub fn embedding(vector: impl Into<Vec<f32>>) -> Self {
        Self::of(vector.into())
    }

    /// A JSON value.
    pub fn json(json: &Json) -> Self {
        Self::of(json)
    }

    /// The same output with one more part.
    #[must_use]
    pub fn with_part(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.parts.push(Part::new(name, value));
        self
    }

    /// The same output with the tokens that were read and written.
    #[must_use]
    pub fn with_usage(mut self, prompt_tokens: u32, completion_tokens: u32) -> Self {
        self.usage = Some(Usage { prompt_tokens, completion_tokens, cached_tokens: 0 });
        self
    }

    /// The same output with one more detail in `info`.
    #[must_use]
    pub fn with_info(mut self, key: impl Into<String>, value: impl Into<Json>) -> Self {
        self.info.insert(key.into(), value.into());
        self
    }

    pub(crate) fn into_raw(self) -> types::Output {
        types::Output { parts: self.parts, usage: self.usage, info: info_text(self.info) }
    }
}

impl From<&str> for Output {
    fn from(text: &str) -> Self {
        Self::text(text)
    }
}

impl From<String> for Output {
    fn from(text: String) -> Self {
        Self::text(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_named_by_their_kind() {
        let output = Output::concepts([Concept::new("7", 0.9)]).with_part("why", "a hook");
        let names: Vec<&str> = output.parts.iter().map(|part| part.name.as_str()).collect();
        assert_eq!(names, ["concepts", "why"]);
    }

    #[test]
    fn info_is_a_json_object_or_empty() {
        assert_eq!(Output::text("x").into_raw().info, "");
        let output = Output::text("x").with_info("seed", 7).into_raw();
        assert_eq!(output.info, r#"{"seed":7}"#);
    }
}
