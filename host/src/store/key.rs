//! The key of a data directory, and hashes made with it.
//!
//! Owns the file `secret.key`. A copy of the database alone is of no use to
//! guess tokens with, because the key is not in it.

use super::{StoreError, private};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::fmt;
use std::path::Path;

const KEY_BYTES: usize = 32;

/// The key of one data directory.
#[derive(Clone)]
pub struct Key(Hmac<Sha256>);

/// HMAC-SHA256 of a text under the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyedHash(pub(super) [u8; 32]);

impl Key {
    /// The hash of a text.
    pub fn hash(&self, text: &[u8]) -> KeyedHash {
        self.hash_parts(&[text])
    }

    /// The hash of several texts, one after the other.
    pub(super) fn hash_parts(&self, parts: &[&[u8]]) -> KeyedHash {
        self.hashing(parts).finish()
    }

    /// The hash of what begins with these texts.
    pub(super) fn hashing(&self, parts: &[&[u8]]) -> KeyedHashing {
        let mut hashing = KeyedHashing(self.0.clone());
        parts.iter().for_each(|part| hashing.add(part));
        hashing
    }
}

/// A hash in the making.
pub(super) struct KeyedHashing(Hmac<Sha256>);

impl KeyedHashing {
    pub(super) fn add(&mut self, part: &[u8]) {
        self.0.update(part);
    }

    pub(super) fn finish(self) -> KeyedHash {
        KeyedHash(self.0.finalize().into_bytes().into())
    }
}

impl KeyedHash {
    /// Whether these are its bytes; how long that takes says nothing of where
    /// they differ.
    pub(super) fn matches(&self, bytes: &[u8; 32]) -> bool {
        self.0.iter().zip(bytes).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// Reads the key, or makes one where `create` allows it: a new key would make
/// every hash that is already stored unusable.
pub(super) fn open(path: &Path, create: bool) -> Result<Key, StoreError> {
    let damaged = |problem| StoreError::Damaged { path: path.to_owned(), problem };
    let bytes = match private::read(path, KEY_BYTES as u64 + 1)? {
        Some(bytes) => bytes,
        None if create => {
            let mut bytes = [0; KEY_BYTES];
            getrandom::fill(&mut bytes).map_err(StoreError::Random)?;
            private::write(path, &bytes)?;
            bytes.to_vec()
        }
        None => {
            return Err(damaged(
                "it is missing, and tokens were made with it; restore it from a copy",
            ));
        }
    };
    if bytes.len() != KEY_BYTES {
        return Err(damaged("it has not 32 bytes; restore it from a copy"));
    }
    let mac = Hmac::new_from_slice(&bytes)
        .map_err(|_| damaged("it is no key; restore it from a copy"))?;
    Ok(Key(mac))
}
