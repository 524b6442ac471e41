//! What a model reports instead of an output.

use std::fmt;

use serde_json::{Map, Value as Json};

use crate::raw::ringfence::model::types;

pub use crate::raw::ringfence::model::types::ErrorCode;

/// Why an input got no output: a code, a sentence for the caller, and details.
///
/// `?` turns any standard error into one with code [`ErrorCode::Failed`] whose
/// message is the error's chain of causes. For that to work this type is no
/// [`std::error::Error`] itself.
#[derive(Clone, PartialEq)]
pub struct Error {
    code: ErrorCode,
    message: String,
    info: Map<String, Json>,
}

impl Error {
    /// An error of any code. The message is shown to the caller: say what was
    /// expected, what was given, and what to do.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), info: Map::new() }
    }

    /// The input makes no sense to this model.
    pub fn invalid_argument(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidArgument, message)
    }

    /// The input makes sense but is outside what the model covers.
    pub fn out_of_range(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::OutOfRange, message)
    }

    /// Something has to be done before this call can work.
    pub fn failed_precondition(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::FailedPrecondition, message)
    }

    /// The model has no such function or method.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Unsupported, message)
    }

    /// Anything else.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Failed, message)
    }

    /// The same error with `what` and a colon in front of its message.
    #[must_use]
    pub fn context(mut self, what: impl fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// The same error with one more detail for programs.
    #[must_use]
    pub fn with_info(mut self, key: impl Into<String>, value: impl Into<Json>) -> Self {
        self.info.insert(key.into(), value.into());
        self
    }

    /// The kind of failure.
    pub fn code(&self) -> ErrorCode {
        self.code
    }

    /// The sentence for the caller.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Details for programs.
    pub fn info(&self) -> &Map<String, Json> {
        &self.info
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.name(), self.message)?;
        if !self.info.is_empty() {
            write!(f, " {}", Json::Object(self.info.clone()))?;
        }
        Ok(())
    }
}

impl<E: std::error::Error> From<E> for Error {
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            message = format!("{message}: {cause}");
            source = cause.source();
        }
        Self::failed(message)
    }
}

impl Error {
    pub(crate) fn into_raw(self) -> types::Error {
        types::Error { code: self.code, message: self.message, info: info_text(self.info) }
    }

    #[cfg_attr(
        not(target_family = "wasm"),
        expect(dead_code, reason = "only a host makes raw errors")
    )]
    pub(crate) fn from_raw(raw: types::Error) -> Self {
        let info = match serde_json::from_str(&raw.info) {
            Ok(Json::Object(info)) => info,
            Ok(_) | Err(_) => Map::new(),
        };
        Self { code: raw.code, message: raw.message, info }
    }
}

/// A JSON object as the world wants it: "" when there is nothing in it.
pub(crate) fn info_text(info: Map<String, Json>) -> String {
    if info.is_empty() { String::new() } else { Json::Object(info).to_string() }
}

impl ErrorCode {
    /// The code's name in the WIT world.
    pub fn name(self) -> &'static str {
        match self {
            ErrorCode::InvalidArgument => "invalid-argument",
            ErrorCode::OutOfRange => "out-of-range",
            ErrorCode::FailedPrecondition => "failed-precondition",
            ErrorCode::Unsupported => "unsupported",
            ErrorCode::Failed => "failed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<u32, Error> {
        Ok(text.parse::<u32>()?)
    }

    #[test]
    fn question_mark_turns_a_standard_error_into_failed() {
        let error = parse("x").unwrap_err();
        assert_eq!(error.code(), ErrorCode::Failed);
        assert_eq!(error.message(), "invalid digit found in string");
    }

    #[test]
    fn context_and_info_are_added_to_the_error() {
        let error = Error::out_of_range("too long").context("text").with_info("max", 512);
        assert_eq!(format!("{error:?}"), r#"out-of-range: text: too long {"max":512}"#);
        assert_eq!(error.into_raw().info, r#"{"max":512}"#);
    }

    #[test]
    fn an_error_without_details_has_empty_info() {
        assert_eq!(Error::failed("x").into_raw().info, "");
    }
}
