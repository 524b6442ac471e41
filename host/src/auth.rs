//! Who is calling: tokens to callers.
//!
//! Owns tokens (PATs), their hashes in memory and the `authorization`
//! metadata. Knows no models: what a caller may do is decided elsewhere.

use crate::store::{Key, KeyedHash, Store, StoreError};
use crate::text::hex;
use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

/// The user of the first token, and of every call without authentication.
const FIRST_USER: &str = "local";
const FIRST_TOKEN_FILE: &str = "admin.pat";
const TOKEN_PREFIX: &str = "rf_";
const TOKEN_RANDOM_BYTES: usize = 32;
/// More than any token has; longer ones are not even hashed.
const TOKEN_BYTES_MAX: usize = 256;

/// The principal that a token proves.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Caller {
    user_id: Arc<str>,
}

impl Caller {
    /// The user.
    pub fn user_id(&self) -> &str {
        &self.user_id
    }

    /// A caller as a test needs one.
    #[cfg(test)]
    pub(crate) fn of_user(user_id: &str) -> Self {
        Self { user_id: user_id.into() }
    }
}

/// A token. Whoever has its text is its user, so it is never shown by chance.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// A new one, which nobody can guess.
    pub fn generate() -> Result<Self, StoreError> {
        let mut bytes = [0; TOKEN_RANDOM_BYTES];
        getrandom::fill(&mut bytes).map_err(StoreError::Random)?;
        Ok(Self(format!("{TOKEN_PREFIX}{}", hex(&bytes))))
    }

    /// The text, for the one who is meant to have it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// The token that was made at the first start.
#[derive(Debug)]
pub struct FirstToken {
    /// The file that holds it and that only this user can read.
    pub path: PathBuf,
    /// The token itself.
    pub token: Token,
}

/// Why a caller is refused. A missing token, a malformed one and an unknown one
/// are all the same to whoever sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// No token, or none that counts.
    #[error(
        "the PAT is missing or not valid; send `authorization: Key PAT` with a PAT of this host"
    )]
    Refused,
}

/// Tells callers by their tokens.
#[derive(Debug)]
pub struct Auth {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// Everyone is this one.
    Everyone(Caller),
    Tokens(Box<Tokens>),
}

struct Tokens {
    key: Key,
    callers: HashMap<KeyedHash, Caller>,
    /// Keeps the data directory's lock, and later takes new tokens.
    _store: Mutex<Store>,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tokens({})", self.callers.len())
    }
}

impl Auth {
    /// Every caller is `local` and no token is asked for. Only for a host that
    /// nobody else can reach.
    pub fn none() -> Self {
        Self { kind: Kind::Everyone(Caller { user_id: FIRST_USER.into() }) }
    }

    /// Whether everyone is let in.
    pub fn is_none(&self) -> bool {
        matches!(self.kind, Kind::Everyone(_))
    }

    /// Opens a data directory. Where it has no tokens yet, one is made for the
    /// user `local` and written to `admin.pat`.
    pub fn open(data_dir: &std::path::Path) -> Result<(Self, Option<FirstToken>), StoreError> {
        let mut store = Store::open(data_dir)?;
        let mut rows = store.tokens()?;
        let mut first = None;
        if rows.is_empty() {
            let token = Token::generate()?;
            let hash = store.key().hash(token.reveal().as_bytes());
            let path = data_dir.join(FIRST_TOKEN_FILE);
            // In this order a crash never leaves a token that nobody has.
            store.add_token(FIRST_USER, &hash, |_| {
                Store::write_private(&path, format!("{}\n", token.reveal()).as_bytes())
            })?;
            rows = store.tokens()?;
            first = Some(FirstToken { path, token });
        }
        let callers = rows
            .into_iter()
            .map(|row| (row.hash, Caller { user_id: row.user_id.into() }))
            .collect();
        let tokens = Tokens { key: store.key().clone(), callers, _store: Mutex::new(store) };
        Ok((Self { kind: Kind::Tokens(Box::new(tokens)) }, first))
    }

    /// The caller that an `authorization` value proves: `Key PAT`, or
    /// `Bearer PAT`.
    pub fn caller(&self, authorization: Option<&str>) -> Result<Caller, AuthError> {
        match &self.kind {
            Kind::Everyone(caller) => Ok(caller.clone()),
            Kind::Tokens(tokens) => {
                let token = authorization.and_then(token_of).ok_or(AuthError::Refused)?;
                // What is looked up is a keyed hash. How long that takes may
                // depend on the hash, but nobody without the key can steer it,
                // so it tells nothing about any stored token.
                let hash = tokens.key.hash(token.as_bytes());
                tokens.callers.get(&hash).cloned().ok_or(AuthError::Refused)
            }
        }
    }
}

/// The token of an `authorization` value; the scheme is read in any case.
fn token_of(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.trim().split_once(' ')?;
    let token = token.trim();
    let known = scheme.eq_ignore_ascii_case("key") || scheme.eq_ignore_ascii_case("bearer");
    (known && !token.is_empty() && token.len() <= TOKEN_BYTES_MAX).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use tempfile::TempDir;

    fn key(token: &Token) -> String {
        format!("Key {}", token.reveal())
    }

    #[test]
    fn the_first_start_makes_a_token_and_the_next_ones_know_it() {
        let dir = TempDir::new().unwrap();
        let (auth, first) = Auth::open(dir.path()).unwrap();
        let first = first.unwrap();
        let token = &first.token;
        assert!(token.reveal().starts_with("rf_") && token.reveal().len() == 67);
        assert_eq!(fs::read_to_string(&first.path).unwrap().trim(), token.reveal());
        assert_eq!(fs::metadata(&first.path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(auth.caller(Some(&key(token))).unwrap().user_id(), "local");
        drop(auth);
        let (auth, second) = Auth::open(dir.path()).unwrap();
        assert!(second.is_none());
        assert_eq!(auth.caller(Some(&key(token))).unwrap().user_id(), "local");
    }

    #[test]
    fn a_missing_a_wrong_and_a_malformed_token_are_refused_alike() {
        let dir = TempDir::new().unwrap();
        let (auth, first) = Auth::open(dir.path()).unwrap();
        let token = first.unwrap().token;
        let text = token.reveal();
        let (short, _) = text.split_at(text.len() - 1);
        for authorization in [
            None,
            Some(String::new()),
            Some("Key".into()),
            Some("Key ".into()),
            Some(text.to_owned()),
            Some(format!("Basic {text}")),
            Some(format!("Key {short}")),
            Some(format!("Key {text}0")),
            Some(format!("Key {text} {text}")),
            Some(format!("Key {}", Token::generate().unwrap().reveal())),
            Some(format!("Key {}", "a".repeat(1 << 20))),
            Some(format!("Key {}", text.to_uppercase())),
        ] {
            assert_eq!(
                auth.caller(authorization.as_deref()),
                Err(AuthError::Refused),
                "{authorization:?}"
            );
        }
        for good in [format!("Bearer {text}"), format!("key  {text} ")] {
            assert!(auth.caller(Some(&good)).is_ok());
        }
    }

    /// I5: a copy of the whole directory but `admin.pat` has no token in it.
    #[test]
    fn no_token_is_stored_as_it_is() {
        let dir = TempDir::new().unwrap();
        let (auth, first) = Auth::open(dir.path()).unwrap();
        let first = first.unwrap();
        let digits = first.token.reveal().trim_start_matches("rf_");
        let raw: Vec<u8> =
            (0..32).map(|n| u8::from_str_radix(&digits[2 * n..2 * n + 2], 16).unwrap()).collect();
        let mut count = 0;
        for file in fs::read_dir(dir.path()).unwrap() {
            let path = file.unwrap().path();
            if path == first.path {
                continue;
            }
            let bytes = fs::read(&path).unwrap();
            for secret in [digits.as_bytes(), &raw] {
                assert!(
                    !bytes.windows(secret.len()).any(|window| window == secret),
                    "{}",
                    path.display()
                );
            }
            count += 1;
        }
        assert!(count >= 4, "database, its log, key and lock");
        assert!(!format!("{auth:?} {first:?}").contains(digits));
    }

    #[test]
    fn tokens_are_never_the_same() {
        let tokens: std::collections::HashSet<String> =
            (0..1000).map(|_| Token::generate().unwrap().reveal().to_owned()).collect();
        assert_eq!(tokens.len(), 1000);
    }

    #[test]
    fn a_first_start_that_was_cut_off_is_done_again() {
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join(FIRST_TOKEN_FILE), "rf_of_a_start_that_did_not_end").unwrap();
        let (auth, first) = Auth::open(dir.path()).unwrap();
        let first = first.unwrap();
        assert_eq!(fs::read_to_string(&first.path).unwrap().trim(), first.token.reveal());
        assert!(auth.caller(Some("Key rf_of_a_start_that_did_not_end")).is_err());
    }

    #[test]
    fn without_authentication_everyone_is_local() {
        let auth = Auth::none();
        assert_eq!(auth.caller(None).unwrap().user_id(), "local");
        assert_eq!(auth.caller(Some("Key anything")).unwrap().user_id(), "local");
    }
}
