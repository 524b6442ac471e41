//! Bytes that nobody can change any more, as a file that other processes can be
//! given.
//!
//! Owns sealing: what is checked here is what the other process gets, byte for byte.

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// Bytes read at a time.
const PIECE_BYTES: usize = 64 << 10;

/// A file in memory that can be read and not changed. Clones are the same file.
#[derive(Debug, Clone)]
pub struct Sealed {
    file: Arc<File>,
    bytes: u64,
}

impl Sealed {
    /// Takes all that a reader gives.
    pub fn of(mut from: impl Read) -> io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let mut file = File::from(memfd_create("ringfence", flags)?);
        let bytes = io::copy(&mut from, &mut file)?;
        file.flush()?;
        let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
        fcntl_add_seals(&file, seals)?;
        Ok(Self { file: Arc::new(file), bytes })
    }

    /// What another process has sealed, or a file that does not change.
    pub fn trusted(file: File) -> io::Result<Self> {
        let bytes = file.metadata()?.len();
        Ok(Self { file: Arc::new(file), bytes })
    }

    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        self.bytes
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Gives all of it, a piece at a time.
    pub fn pieces(&self, mut piece: impl FnMut(&[u8])) -> io::Result<()> {
        let mut buffer = vec![0; PIECE_BYTES];
        let mut at = 0;
        while at < self.bytes {
            let read = self.file.read_at(&mut buffer, at)?;
            match buffer.get(..read).filter(|bytes| !bytes.is_empty()) {
                Some(bytes) => piece(bytes),
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
            at += read as u64;
        }
        Ok(())
    }

    /// All of it.
    pub fn to_vec(&self) -> io::Result<Vec<u8>> {
        let mut all = Vec::with_capacity(usize::try_from(self.bytes).map_err(io::Error::other)?);
        self.pieces(|bytes| all.extend_from_slice(bytes))?;
        Ok(all)
    }
}

impl AsFd for Sealed {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_is_read_and_never_changed() {
        let sealed = Sealed::of(&[7; 100_000][..]).unwrap();
        assert_eq!(sealed.to_vec().unwrap(), [7; 100_000]);
        let again = sealed.file.try_clone().unwrap();
        assert!(again.write_at(b"x", 0).is_err() && again.set_len(1).is_err());
        assert!(fcntl_add_seals(&again, SealFlags::FUTURE_WRITE).is_err());
    }
}
