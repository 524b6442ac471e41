//! One input of a call.

use crate::error::Error;
use crate::raw::ringfence::model::types;
use crate::value::{Part, Value};

/// One of the inputs of a call: named parts, usually just one.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    /// The caller's id for this input; may be empty.
    pub id: String,
    /// The typed method that was called, or "" for a plain call. Never
    /// anything else for a model without [`methods`](crate::Model::methods).
    pub method: String,
    /// What was sent, in the caller's order.
    pub parts: Vec<Part>,
}

impl Input {
    /// An input of a plain call, as a test needs it. The parts are named by
    /// their kinds.
    pub fn of(values: impl IntoIterator<Item = Value>) -> Self {
        Self {
            id: String::new(),
            method: String::new(),
            parts: values.into_iter().map(|value| Part::new(value.kind(), value)).collect(),
        }
    }

    /// The text of the input: its first part that is text, whatever its name.
    /// An invalid-argument error says what was given instead.
    pub fn text(&self) -> Result<&str, Error> {
        self.first("text", |value| match value {
            Value::Text(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// The first image, as the bytes of its file (PNG, JPEG, ...).
    pub fn image(&self) -> Result<&[u8], Error> {
        self.first("an image", |value| match value {
            Value::Image(image) => Some(image.as_slice()),
            _ => None,
        })
    }

    /// The first audio, as the bytes of its file.
    pub fn audio(&self) -> Result<&[u8], Error> {
        self.first("audio", |value| match value {
            Value::Audio(audio) => Some(audio.as_slice()),
            _ => None,
        })
    }

    /// The first video, as the bytes of its file.
    pub fn video(&self) -> Result<&[u8], Error> {
        self.first("a video", |value| match value {
            Value::Video(video) => Some(video.as_slice()),
            _ => None,
        })
    }

    /// The part of this name, such as an argument of a typed method.
    pub fn get(&self, name: &str) -> Option<&Part> {
        self.parts.iter().find(|part| part.name == name)
    }

    /// The part of this name, or an invalid-argument error that says which
    /// parts there are.
    pub fn part(&self, name: &str) -> Result<&Part, Error> {
        self.get(name).ok_or_else(|| {
            Error::invalid_argument(format!("expected `{name}`, got {}", self.given()))
        })
    }

    fn first<'a, T>(
        &'a self,
        expected: &str,
        pick: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<T, Error> {
        self.parts.iter().find_map(|part| pick(&part.value)).ok_or_else(|| {
            Error::invalid_argument(format!("expected {expected}, got {}", self.given()))
        })
    }

    /// What the input holds, for error messages.
    fn given(&self) -> String {
        const NAMED_MAX: usize = 8;
        if self.parts.is_empty() {
            return "an empty input".into();
        }
        let mut given: Vec<String> = self
            .parts
            .iter()
            .take(NAMED_MAX)
            .map(|part| match part.value.kind() {
                kind if kind == part.name => kind.to_string(),
                kind => format!("{kind} (`{}`)", part.name),
            })
            .collect();
        if self.parts.len() > NAMED_MAX {
            given.push(format!("{} more", self.parts.len() - NAMED_MAX));
        }
        given.join(", ")
    }

    pub(crate) fn from_raw(raw: types::Input, method: String) -> Self {
        Self { id: raw.id, method, parts: raw.parts }
    }
}

impl From<&str> for Input {
    /// A plain text input.
    fn from(text: &str) -> Self {
        Self::of([text.into()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_found_whatever_its_name() {
        let mut input = Input::from("hi");
        assert_eq!(input.text(), Ok("hi"));
        input.parts = vec![Part::new("prompt", "hello")];
        assert_eq!(input.text(), Ok("hello"));
    }

    #[test]
    fn a_missing_kind_names_what_was_expected_and_given() {
        let mut input = Input::of([Value::Image(vec![1, 2, 3])]);
        input.parts.push(Part::new("top_k", 5));
        let error = input.text().unwrap_err();
        assert_eq!(error.message(), "expected text, got image, integer (`top_k`)");
        assert_eq!(
            Input::of([]).image().unwrap_err().message(),
            "expected an image, got an empty input"
        );
    }

    #[test]
    fn a_missing_argument_is_named() {
        let error = Input::from("hi").part("image").unwrap_err();
        assert_eq!(error.message(), "expected `image`, got text");
    }
}
