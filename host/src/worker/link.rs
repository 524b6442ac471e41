//! One side of the socket between the host and a worker process: frames out, and
//! frames in.
//!
//! Owns that nobody waits to send: a frame is written by whoever has it, as far as the
//! other side takes it, and the rest by one task. How much may wait is bounded by what
//! each call may send before it is answered.

use super::message::{HEAD_BYTES, Head, Kind, invalid};
use bytes::{Buf, BytesMut};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::sync::Notify;

/// Frames that are written at once.
const SLICES_MAX: usize = 32;

/// How long a frame waits for another one to go with.
const LATER: Duration = Duration::from_millis(20);

/// Bytes that are read at a time.
const READ_BYTES: usize = 64 << 10;

/// The way out.
#[derive(Debug)]
pub(super) struct Outbox {
    stream: Arc<UnixStream>,
    waiting: Mutex<Waiting>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    frames: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Of the first frame.
    written: usize,
    /// Whether the other side takes no more at the moment.
    is_blocked: bool,
    /// Whether there is nobody to write to.
    is_closed: bool,
}

/// The way in.
#[derive(Debug)]
pub(super) struct Inbox {
    stream: Arc<UnixStream>,
    buffer: BytesMut,
}

/// Both ways of a socket.
pub(super) fn ends(stream: UnixStream) -> (Arc<Outbox>, Inbox) {
    let stream = Arc::new(stream);
    let waiting = Mutex::default();
    let outbox = Outbox { stream: stream.clone(), waiting, wake: Notify::new() };
    (Arc::new(outbox), Inbox { stream, buffer: BytesMut::new() })
}

impl Outbox {
    /// Sends a frame, and those that wait before it.
    pub(super) fn send(&self, frame: Vec<u8>) {
        let mut waiting = self.lock();
        waiting.push(frame);
        self.write(&mut waiting);
    }

    /// Sends a frame with the next one, or soon.
    pub(super) fn send_later(&self, frame: Vec<u8>) {
        let mut waiting = self.lock();
        waiting.push(frame);
        if waiting.frames.len() == 1 {
            self.wake.notify_one();
        }
    }

    /// Sends what waits.
    pub(super) fn flush(&self) {
        self.write(&mut self.lock());
    }

    /// The socket itself.
    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Bytes that wait.
    pub(super) fn bytes_waiting(&self) -> usize {
        self.lock().bytes
    }

    /// Writes what could not be written at once, until the other side has gone.
    pub(super) async fn run(&self) -> io::Result<()> {
        loop {
            self.wake.notified().await;
            if !self.lock().is_blocked {
                let _ = tokio::time::timeout(LATER, self.wake.notified()).await;
            }
            loop {
                {
                    let mut waiting = self.lock();
                    self.write(&mut waiting);
                    if waiting.is_closed {
                        return Err(ErrorKind::BrokenPipe.into());
                    }
                    if waiting.frames.is_empty() {
                        break;
                    }
                }
                self.stream.writable().await?;
            }
        }
    }

    fn write(&self, waiting: &mut Waiting) {
        waiting.is_blocked = false;
        while !waiting.frames.is_empty() {
            let written = {
                let mut slices = [IoSlice::new(&[]); SLICES_MAX];
                let mut skip = waiting.written;
                for (slice, frame) in slices.iter_mut().zip(&waiting.frames) {
                    *slice = IoSlice::new(frame.get(skip..).unwrap_or_default());
                    skip = 0;
                }
                self.stream.try_write_vectored(&slices)
            };
            match written {
                Ok(count) => waiting.advance(count),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    waiting.is_blocked = true;
                    self.wake.notify_one();
                    return;
                }
                Err(_) => {
                    *waiting = Waiting { is_closed: true, ..Waiting::default() };
                    self.wake.notify_one();
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn push(&mut self, frame: Vec<u8>) {
        if !self.is_closed {
            self.bytes += frame.len();
            self.frames.push_back(frame);
        }
    }

    fn advance(&mut self, count: usize) {
        self.written += count;
        while let Some(length) = self.frames.front().map(Vec::len)
            && self.written >= length
        {
            self.written -= length;
            self.bytes -= length;
            self.frames.pop_front();
        }
    }
}

impl Inbox {
    /// The next head; nothing when the other side has closed.
    pub(super) async fn head<K: Kind>(&mut self) -> io::Result<Option<Head<K>>> {
        while self.buffer.len() < HEAD_BYTES {
            if self.more().await? == 0 {
                return match self.buffer.is_empty() {
                    true => Ok(None),
                    false => Err(invalid("a frame breaks off")),
                };
            }
        }
        let mut head = [0; HEAD_BYTES];
        self.buffer.copy_to_slice(&mut head);
        Head::parse(&head).map(Some)
    }

    /// The body after a head. Memory is taken as bytes come, whatever the head says.
    pub(super) async fn body(&mut self, length: u32) -> io::Result<BytesMut> {
        let length = usize::try_from(length).map_err(io::Error::other)?;
        while self.buffer.len() < length {
            if self.more().await? == 0 {
                return Err(invalid("a frame breaks off"));
            }
        }
        Ok(self.buffer.split_to(length))
    }

    async fn more(&mut self) -> io::Result<usize> {
        self.buffer.reserve(READ_BYTES);
        loop {
            match self.stream.try_read_buf(&mut self.buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.stream.readable().await?;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => return read,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::{Ask, bare, frame};
    use super::*;

    #[tokio::test]
    async fn frames_arrive_in_order_however_slowly_they_are_taken() {
        const FRAMES: u32 = 300;
        let (here, there) = UnixStream::pair().unwrap();
        let (outbox, _inbox) = ends(here);
        let running = tokio::spawn({
            let outbox = outbox.clone();
            async move { outbox.run().await }
        });
        let body = "x".repeat(10_000);
        for call in 0..FRAMES {
            match call % 2 {
                0 => outbox.send(frame(Ask::Message, call, 0, &body).unwrap()),
                _ => outbox.send_later(bare(Ask::Taken, call, 0)),
            }
        }
        assert!(outbox.bytes_waiting() > 0);
        let (_outbox, mut inbox) = ends(there);
        for call in 0..FRAMES {
            let head = inbox.head::<Ask>().await.unwrap().unwrap();
            assert_eq!(head.call, call);
            inbox.body(head.length).await.unwrap();
        }
        assert_eq!(outbox.bytes_waiting(), 0);
        drop((_outbox, inbox));
        outbox.send(bare(Ask::Cancel, 0, 0));
        assert!(running.await.unwrap().is_err());
        assert_eq!(outbox.bytes_waiting(), 0);
    }
}
