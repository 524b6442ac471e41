//! What a token may be used for.

use std::fmt;
use std::str::FromStr;

/// One thing that a token may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Calling models, and seeing what there is.
    Predict,
    /// Uploading, promoting, sharing and deleting the user's own models, and
    /// where they run.
    Upload,
    /// The host itself: users, tokens, the store, everybody's models and calls.
    Admin,
}

impl Scope {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Predict, Self::Upload, Self::Admin];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Predict => "predict",
            Self::Upload => "upload",
            Self::Admin => "admin",
        }
    }
}

/// A set of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scopes {
    bits: u8,
}

/// A text that is no set of scopes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScopeError {
    /// A word that means nothing.
    #[error("there is no scope {0:?}; write some of predict, upload, admin")]
    Unknown(String),
    /// No word.
    #[error("a token needs a scope; write some of predict, upload, admin")]
    Empty,
}

impl Scopes {
    /// Those that are listed.
    pub fn of(scopes: &[Scope]) -> Self {
        Self { bits: scopes.iter().fold(0, |bits, scope| bits | 1 << *scope as u8) }
    }

    /// Whether one is in it.
    pub fn has(self, scope: Scope) -> bool {
        self.bits & (1 << scope as u8) != 0
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<&str> =
            Scope::ALL.into_iter().filter(|scope| self.has(*scope)).map(Scope::as_str).collect();
        f.write_str(&words.join(" "))
    }
}

impl FromStr for Scopes {
    type Err = ScopeError;

    /// Words with spaces or commas between.
    fn from_str(text: &str) -> Result<Self, ScopeError> {
        let mut scopes = Vec::new();
        for word in text.split([' ', ',']).filter(|word| !word.is_empty()) {
            let scope = Scope::ALL.into_iter().find(|scope| scope.as_str() == word);
            scopes.push(scope.ok_or_else(|| ScopeError::Unknown(word.to_owned()))?);
        }
        if scopes.is_empty() { Err(ScopeError::Empty) } else { Ok(Self::of(&scopes)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_written_and_read() {
        let scopes: Scopes = "upload,predict".parse().unwrap();
        assert_eq!(scopes, Scopes::of(&[Scope::Predict, Scope::Upload]));
        assert!(scopes.has(Scope::Upload) && !scopes.has(Scope::Admin));
        assert_eq!(scopes.to_string(), "predict upload");
        assert_eq!("".parse::<Scopes>(), Err(ScopeError::Empty));
        assert_eq!("root".parse::<Scopes>(), Err(ScopeError::Unknown("root".into())));
    }
}
