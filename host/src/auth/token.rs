//! The form of tokens (PATs).
//!
//! `rfp_`, 43 random characters, 6 of a checksum: the prefix lets leaks be
//! scanned for, the checksum tells junk without a look-up. Neither is a secret.

use crate::store::StoreError;
use flate2::Crc;
use std::fmt;

const PREFIX: &str = "rfp_";
/// 62^43 is more than 2^256.
const RANDOM_CHARS: usize = 43;
/// 62^6 is more than 2^32.
const SUM_CHARS: usize = 6;
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// The largest multiple of 62 that a byte can be below: bytes from it on would
/// make the first digits likelier than the others.
const FAIR_BELOW: u8 = 248;

/// The form of the first release: this, and 64 hexadecimal digits.
const OLD_PREFIX: &str = "rf_";
const OLD_DIGITS: usize = 64;

/// A token. Whoever has its text is its user, so it is never shown by chance.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// A new one, which nobody can guess.
    pub fn generate() -> Result<Self, StoreError> {
        let mut text = PREFIX.to_owned();
        let mut bytes = [0; 2 * RANDOM_CHARS];
        while text.len() < PREFIX.len() + RANDOM_CHARS {
            getrandom::fill(&mut bytes).map_err(StoreError::Random)?;
            let left = PREFIX.len() + RANDOM_CHARS - text.len();
            let fair = bytes.iter().filter(|byte| **byte < FAIR_BELOW);
            text.extend(fair.map(|byte| digit(u32::from(*byte))).take(left));
        }
        let sum = sum(&text);
        text.push_str(&sum);
        Ok(Self(text))
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

/// Whether a text has the form of a token of this host.
pub(super) fn is_token(text: &str) -> bool {
    if let Some(digits) = text.strip_prefix(OLD_PREFIX) {
        let lower = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        return digits.len() == OLD_DIGITS && digits.bytes().all(lower);
    }
    let Some((rest, given)) =
        text.len().checked_sub(SUM_CHARS).and_then(|at| text.split_at_checked(at))
    else {
        return false;
    };
    rest.len() == PREFIX.len() + RANDOM_CHARS && rest.starts_with(PREFIX) && sum(rest) == given
}

fn sum(text: &str) -> String {
    let mut crc = Crc::new();
    crc.update(text.as_bytes());
    let mut rest = crc.sum();
    let mut digits = [0; SUM_CHARS];
    for place in digits.iter_mut().rev() {
        *place = rest % 62;
        rest /= 62;
    }
    digits.into_iter().map(digit).collect()
}

fn digit(number: u32) -> char {
    let index = (number % 62) as usize;
    DIGITS.get(index).map_or('0', |digit| char::from(*digit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_told_from_junk_by_its_own_checksum() {
        let token = Token::generate().unwrap();
        let text = token.reveal();
        assert_eq!(text.len(), 53);
        assert!(is_token(text));
        for at in 0..text.len() {
            let mut other = text.as_bytes().to_vec();
            other[at] = if other[at] == b'x' { b'y' } else { b'x' };
            assert!(!is_token(std::str::from_utf8(&other).unwrap()), "{at}");
        }
        for junk in ["", "rfp_", "ü", &text[..52], &format!("{text}0"), &text.to_uppercase()] {
            assert!(!is_token(junk), "{junk}");
        }
    }

    #[test]
    fn tokens_of_the_first_release_still_have_the_form() {
        assert!(is_token(&format!("rf_{}", "0a".repeat(32))));
        for junk in [format!("rf_{}", "0A".repeat(32)), format!("rf_{}", "0".repeat(63))] {
            assert!(!is_token(&junk), "{junk}");
        }
    }

    #[test]
    fn tokens_are_never_the_same_and_use_every_digit() {
        let tokens: std::collections::HashSet<String> =
            (0..1000).map(|_| Token::generate().unwrap().reveal().to_owned()).collect();
        assert_eq!(tokens.len(), 1000);
        let used: std::collections::HashSet<char> =
            tokens.iter().flat_map(|token| token[4..47].chars()).collect();
        assert_eq!(used.len(), 62);
    }

    #[test]
    fn a_token_is_never_shown_by_chance() {
        let token = Token::generate().unwrap();
        assert!(!format!("{token:?}").contains(&token.reveal()[4..]));
    }
}
