//! SHA-256 of what is read, without holding it.

use sha2::{Digest, Sha256};
use std::io::{self, BufReader, Read};

const READ_BYTES: usize = 256 << 10;

/// A reader that takes the digest of what passes.
#[derive(Debug)]
pub(crate) struct Hashing<R> {
    inner: R,
    hash: Sha256,
    bytes: u64,
}

impl<R: Read> Hashing<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self { inner, hash: Sha256::new(), bytes: 0 }
    }

    /// The digest of all that was read, and its length in bytes.
    pub(crate) fn finish(self) -> ([u8; 32], u64) {
        (self.hash.finalize().into(), self.bytes)
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(buffer.get(..count).unwrap_or_default());
        self.bytes += count as u64;
        Ok(count)
    }
}

/// The digest of a content to its end, and its length in bytes.
pub(crate) fn sha256_of(content: impl Read) -> io::Result<([u8; 32], u64)> {
    let mut hashing = Hashing::new(content);
    copy(&mut hashing, &mut io::sink())?;
    Ok(hashing.finish())
}

/// Copies in pieces that suit a disk.
pub(crate) fn copy(from: &mut impl Read, to: &mut impl io::Write) -> io::Result<u64> {
    io::copy(&mut BufReader::with_capacity(READ_BYTES, from), to)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::hex;

    /// FIPS 180-4 gives this digest of `abc`.
    #[test]
    fn what_passes_is_counted_and_digested() {
        let (digest, bytes) = sha256_of(&b"abc"[..]).unwrap();
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!((hex(&digest).as_str(), bytes), (expected, 3));
    }
}
