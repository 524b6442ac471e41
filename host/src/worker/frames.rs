//! What a one-shot process says to the one that started it, over its standard
//! output: frames of a kind, a length in bytes, and the bytes.
//!
//! The reader takes the writer for hostile: every length is bounded, and what
//! does not follow the form is an error.

use crate::limits::limit;
use std::io::{self, Write};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes of a refusal.
const TEXT_BYTES_MAX: u64 = 1 << 20;
/// Bytes of a compiled component.
const COMPILED_BYTES_MAX: u64 = 1 << 30;

/// One frame.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    /// A component's machine code.
    Compiled(Vec<u8>),
    /// It is refused; the text says why.
    Refused(String),
}

impl Frame {
    /// Writes it whole.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let (kind, bytes) = match self {
            Self::Compiled(bytes) => (b'C', bytes.as_slice()),
            Self::Refused(text) => (b'R', text.as_bytes()),
        };
        out.write_all(&[kind])?;
        out.write_all(&(bytes.len() as u64).to_le_bytes())?;
        out.write_all(bytes)?;
        out.flush()
    }

    /// Reads the next one; nothing at the end.
    pub(super) async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Self>> {
        let mut kind = [0];
        if from.read(&mut kind).await? == 0 {
            return Ok(None);
        }
        let [kind] = kind;
        let length = from.read_u64_le().await?;
        let bytes_max = match kind {
            b'C' => limit("frame_compiled", COMPILED_BYTES_MAX),
            _ => limit("frame_text", TEXT_BYTES_MAX),
        };
        if length > bytes_max {
            return Err(invalid("a frame is too long"));
        }
        let mut bytes = Vec::new();
        from.take(length).read_to_end(&mut bytes).await?;
        if bytes.len() as u64 != length {
            return Err(invalid("a frame breaks off"));
        }
        let text = |bytes| String::from_utf8(bytes).map_err(|_| invalid("a frame is no text"));
        Ok(Some(match kind {
            b'C' => Self::Compiled(bytes),
            b'R' => Self::Refused(text(bytes)?),
            _ => return Err(invalid("a frame is of no known kind")),
        }))
    }
}

fn invalid(problem: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_are_read_as_they_were_written() {
        let frames = [Frame::Compiled(vec![0, 255]), Frame::Refused(String::new())];
        let mut bytes = Vec::new();
        for frame in &frames {
            frame.write(&mut bytes).unwrap();
        }
        let mut from = bytes.as_slice();
        for frame in frames {
            assert_eq!(Frame::read(&mut from).await.unwrap(), Some(frame));
        }
        assert_eq!(Frame::read(&mut from).await.unwrap(), None);
    }

    /// PKG-08.
    #[tokio::test]
    async fn garbage_is_an_error_and_takes_no_memory() {
        let long = |kind: u8, length: u64| [&[kind][..], &length.to_le_bytes()].concat();
        for bytes in [
            long(b'R', TEXT_BYTES_MAX + 1),
            long(b'C', COMPILED_BYTES_MAX + 1),
            long(b'C', COMPILED_BYTES_MAX),
            long(b'X', 0),
            b"R\0\0".to_vec(),
            [long(b'R', 1), vec![0xff]].concat(),
        ] {
            assert!(Frame::read(&mut bytes.as_slice()).await.is_err(), "{bytes:?}");
        }
        for bytes in [long(b'R', TEXT_BYTES_MAX + 1), long(b'C', COMPILED_BYTES_MAX + 1)] {
            let refused = Frame::read(&mut bytes.as_slice()).await.unwrap_err();
            assert_eq!(refused.to_string(), "a frame is too long");
        }
    }
}
