//! Bytes that nobody can change any more, as a file that other processes can be
//! given.
//!
//! Owns sealing: what is checked here is what the other process gets, byte for byte.
//! Elsewhere than on Linux it is a file without a name, and whoever is given it has to be
//! trusted.

use std::fs::File;
use std::io::{self, Read};
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
        let mut file = unsealed()?;
        let bytes = io::copy(&mut from, &mut file)?;
        seal(&file)?;
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

#[cfg(target_os = "linux")]
fn unsealed() -> io::Result<File> {
    use rustix::fs::{MemfdFlags, memfd_create};
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    Ok(memfd_create("ringfence", flags)?.into())
}

#[cfg(target_os = "linux")]
fn seal(file: &File) -> io::Result<()> {
    use rustix::fs::{SealFlags, fcntl_add_seals};
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    Ok(fcntl_add_seals(file, seals)?)
}

#[cfg(not(target_os = "linux"))]
fn unsealed() -> io::Result<File> {
    tempfile::tempfile()
}

#[cfg(not(target_os = "linux"))]
fn seal(_: &File) -> io::Result<()> {
    Ok(())
}

impl AsFd for Sealed {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{SealFlags, fcntl_add_seals};

    #[test]
    fn what_is_sealed_is_read_and_never_changed() {
        let sealed = Sealed::of(&[7; 100_000][..]).unwrap();
        assert_eq!(sealed.to_vec().unwrap(), [7; 100_000]);
        let again = sealed.file.try_clone().unwrap();
        assert!(again.write_at(b"x", 0).is_err() && again.set_len(1).is_err());
        assert!(fcntl_add_seals(&again, SealFlags::FUTURE_WRITE).is_err());
    }
}
