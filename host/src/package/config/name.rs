//! Names of models, users and apps.
//!
//! Owns which texts are names. What passes is safe as one segment of a URL and
//! of a path, so nothing after this has to escape it.

use crate::limits::limit;
use std::fmt;
use std::str::FromStr;

/// Longest name, in bytes.
pub const NAME_BYTES_MAX: usize = 64;

/// Which model: its owner, the owner's app, the model's own id.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModelName {
    user_id: String,
    app_id: String,
    id: String,
}

/// A text that is no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It has no characters.
    #[error("is empty; write a name such as \"my-model_2.1\"")]
    Empty,
    /// It has too many.
    #[error("is longer than {NAME_BYTES_MAX} characters; write a shorter name")]
    TooLong,
    /// It begins with a dot, as `..` and hidden files do.
    #[error("begins with a dot; begin it with a letter or a digit")]
    Dot,
    /// It has a character that a URL or a path would have to escape.
    #[error(
        "has other characters than names may have; use letters, digits, \"_\", \"-\" and \".\""
    )]
    Character,
}

impl ModelName {
    /// The user of a model whose `config.yaml` names none.
    pub const USER_DEFAULT: &'static str = "local";
    /// What a client calls the user of its own token.
    pub const USER_ME: &'static str = "me";
    /// The app of a model whose `config.yaml` names none.
    pub const APP_DEFAULT: &'static str = "main";

    /// Checks each of the three parts.
    pub fn new(user_id: &str, app_id: &str, id: &str) -> Result<Self, NameError> {
        Ok(Self::from_parts(user_id.parse()?, app_id.parse()?, id.parse()?))
    }

    pub(super) fn from_parts(user_id: Part, app_id: Part, id: Part) -> Self {
        Self { user_id: user_id.0, app_id: app_id.0, id: id.0 }
    }

    /// The owner.
    pub fn user_id(&self) -> &str {
        &self.user_id
    }

    /// The owner's app.
    pub fn app_id(&self) -> &str {
        &self.app_id
    }

    /// The model's own id.
    pub fn id(&self) -> &str {
        &self.id
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.user_id, self.app_id, self.id)
    }
}

/// Whether a text can be the name of a model, a user, an app, or of what they own.
pub fn check_name(text: &str) -> Result<(), NameError> {
    text.parse::<Part>().map(drop)
}

/// One checked part of a name.
pub(super) struct Part(String);

impl Part {
    pub(super) fn into_string(self) -> String {
        self.0
    }
}

impl FromStr for Part {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > limit("name_bytes", NAME_BYTES_MAX) {
            return Err(NameError::TooLong);
        }
        if text.starts_with('.') {
            return Err(NameError::Dot);
        }
        if !text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.')) {
            return Err(NameError::Character);
        }
        Ok(Self(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_need_no_escaping_anywhere() {
        assert!(check_name("facebook_mask2former-swin-tiny-ade-semantic").is_ok());
        assert!(check_name("qwen3-0.6B").is_ok());
        assert!(check_name(&"a".repeat(64)).is_ok());
        assert_eq!(check_name(&"a".repeat(65)), Err(NameError::TooLong));
        assert_eq!(check_name(""), Err(NameError::Empty));
        assert_eq!(check_name(".."), Err(NameError::Dot));
        for text in ["../../etc", ".hidden"] {
            assert_eq!(check_name(text), Err(NameError::Dot));
        }
        for text in ["a/b", "a b", "a@b", "é", "a\0", "a\n", "a%2e", "a?b"] {
            assert_eq!(check_name(text), Err(NameError::Character), "{text:?}");
        }
    }

    #[test]
    fn a_model_name_is_shown_as_it_is_typed() {
        let name = ModelName::new("alice", "main", "echo").unwrap();
        assert_eq!(name.to_string(), "alice/main/echo");
    }
}
