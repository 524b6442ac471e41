//! The socket between the host and a worker process, as the runtime knows it.
//!
//! Owns that it is told of when there is something to read, and of nothing else: whoever
//! asks when it takes more is woken whenever the other side has read, which nobody needs
//! until it has taken no more.
#![allow(
    unsafe_code,
    reason = "JUSTIFICATION: a buffer does not know by itself how much of it was read into, and \
              the runtime not that a descriptor stays open"
)]

use bytes::{BufMut, BytesMut};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use std::io::{self, IoSlice, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A socket that does not block.
#[derive(Debug)]
pub(super) struct Socket {
    stream: AsyncFd<UnixStream>,
    /// The same once more, for whoever waits until it takes more.
    again: UnixStream,
}

impl Socket {
    pub(super) fn of(stream: UnixStream) -> io::Result<Self> {
        let again = stream.try_clone()?;
        // SAFETY: A stream keeps its one descriptor open, and has it as long as this lives,
        // which has it.
        let stream = unsafe { AsyncFd::register_with_interest(stream, Interest::READABLE) }?;
        Ok(Self { stream, again })
    }

    /// Waits until it takes more.
    pub(super) async fn writable(&self) -> io::Result<()> {
        let again = self.again.as_fd();
        // SAFETY: Who has lent it keeps it open, and it is the same one, until this has gone.
        let again = unsafe { AsyncFd::register_with_interest(again, Interest::WRITABLE) }?;
        again.writable().await.map(drop)
    }

    /// Writes as much as it takes at once.
    pub(super) fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.stream.get_ref().write_vectored(slices)
    }

    /// Reads what there is, at most so many bytes and as far as the buffer has room. Nothing
    /// is the end.
    pub(super) async fn read(&self, buffer: &mut BytesMut, bytes_max: usize) -> io::Result<usize> {
        loop {
            let mut ready = self.stream.readable().await?;
            let room = buffer.spare_capacity_mut();
            let asked = room.len().min(bytes_max);
            let room = room.get_mut(..asked).unwrap_or_default();
            let count = match recv(self.stream.get_ref(), room, RecvFlags::empty()) {
                Ok(((read, _), _)) => read.len(),
                Err(Errno::AGAIN) => {
                    ready.clear_ready();
                    continue;
                }
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            if (1..asked).contains(&count) {
                // There was no more (epoll(7)), and the next is told of.
                ready.clear_ready();
            }
            // SAFETY: So many bytes of its room have just been written.
            unsafe { buffer.advance_mut(count) };
            return Ok(count);
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.get_ref().as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn pair() -> (Socket, Socket) {
        let (here, there) = UnixStream::pair().unwrap();
        here.set_nonblocking(true).unwrap();
        there.set_nonblocking(true).unwrap();
        (Socket::of(here).unwrap(), Socket::of(there).unwrap())
    }

    /// Until it takes no more.
    fn fill(socket: &Socket) -> usize {
        let mut written = 0;
        loop {
            match socket.write(&[IoSlice::new(&[7; 4096])]) {
                Ok(count) => written += count,
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                    return written;
                }
            }
        }
    }

    #[tokio::test]
    async fn it_is_waited_for_as_often_as_it_takes_no_more() {
        let (here, there) = pair();
        for _ in 0..5 {
            let mut left = fill(&here);
            let waiting = tokio::time::timeout(Duration::from_millis(50), here.writable());
            assert!(waiting.await.is_err(), "nothing has been read");
            let reading = async {
                let mut buffer = BytesMut::with_capacity(64 << 10);
                while left > 0 {
                    buffer.clear();
                    left -= there.read(&mut buffer, usize::MAX).await.unwrap();
                }
            };
            let both = async { tokio::join!(here.writable(), reading) };
            let (writable, ()) =
                tokio::time::timeout(Duration::from_secs(20), both).await.expect("room");
            writable.unwrap();
        }
    }

    /// What is told of once is read to its end, and so is the end itself.
    #[tokio::test]
    async fn what_was_written_before_the_end_is_read() {
        let (here, there) = pair();
        let mut left = fill(&here);
        drop(here);
        let mut buffer = BytesMut::with_capacity(64 << 10);
        while left > 0 {
            buffer.clear();
            left -= there.read(&mut buffer, 1000).await.unwrap();
        }
        buffer.clear();
        let end = tokio::time::timeout(Duration::from_secs(20), there.read(&mut buffer, 1000));
        assert_eq!(end.await.expect("an end").unwrap(), 0);
    }
}
