//! One side of the socket between the host and a worker process: frames out, and
//! frames in.
//!
//! Owns that nobody waits for the other side who need not: a frame is written by whoever
//! has it, as far as the other side takes it, and the rest by one task. Whoever sends
//! what is large waits until it is gone; what is small may wait up to a bound, and what
//! has been given back is one sum.

use super::lock;
use super::message::{Ask, HEAD_BYTES, Head, Kind, bare, invalid};
use crate::limits::limit;
use bytes::{Buf, BytesMut};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::sync::Notify;

/// Frames that are written at once.
const SLICES_MAX: usize = 32;

/// How long a frame waits for another one to go with.
const LATER: Duration = Duration::from_millis(20);

/// Bytes of frames that wait with nobody waiting for them. A side that reads so little is
/// no side any more.
const WAITING_BYTES_MAX: usize = 8 << 20;

/// What only says something, as against what carries values.
const SMALL_FRAME_BYTES: usize = 4 << 10;

/// A larger buffer is not kept for the next frame.
const BUFFER_BYTES_MAX: usize = 1 << 20;

/// Bytes that are read at a time.
const READ_BYTES: usize = 64 << 10;

/// The way out.
#[derive(Debug)]
pub(super) struct Outbox {
    stream: Arc<UnixStream>,
    waiting: Mutex<Waiting>,
    /// Something waits for the other side to take more, or there is no such side.
    wake: Notify,
    /// Something waits for something else to go with.
    later: Notify,
    /// Something was written, or never will be.
    gone: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    frames: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Of frames that were pushed and written since the beginning.
    pushed: u64,
    written_in_all: u64,
    /// Bytes of outputs that have left since this was last said.
    released: u64,
    /// Those of frames that nobody waits for.
    small_bytes: usize,
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
    let (wake, later, gone) = (Notify::new(), Notify::new(), Notify::new());
    let outbox = Outbox { stream: stream.clone(), waiting, wake, later, gone };
    (Arc::new(outbox), Inbox { stream, buffer: BytesMut::new() })
}

impl Outbox {
    /// Sends a frame, and those that wait before it.
    pub(super) fn send(&self, frame: Vec<u8>) {
        let mut waiting = self.lock();
        waiting.push_small(frame);
        self.write(&mut waiting);
    }

    /// The same, and waits until the other side has it. Whoever stops waiting has sent it
    /// all the same.
    pub(super) async fn send_whole(&self, frame: Vec<u8>) {
        let end = {
            let mut waiting = self.lock();
            waiting.push(frame);
            let end = waiting.pushed;
            self.write(&mut waiting);
            end
        };
        loop {
            let gone = self.gone.notified();
            {
                let waiting = self.lock();
                if waiting.is_closed || waiting.written_in_all >= end {
                    return;
                }
            }
            gone.await;
        }
    }

    /// Says soon how many bytes of outputs have left.
    pub(super) fn release(&self, bytes: u64) {
        let mut waiting = self.lock();
        waiting.released = waiting.released.saturating_add(bytes);
        self.later.notify_one();
    }

    /// Sends a frame with the next one, or soon.
    pub(super) fn send_later(&self, frame: Vec<u8>) {
        let mut waiting = self.lock();
        waiting.push_small(frame);
        match waiting.is_closed {
            true => self.wake.notify_one(),
            false => self.later.notify_one(),
        }
    }

    /// Sends a frame with the next one, which is about to come.
    pub(super) fn send_with_next(&self, frame: Vec<u8>) {
        let mut waiting = self.lock();
        waiting.push_small(frame);
        if waiting.is_closed {
            self.wake.notify_one();
        }
    }

    /// Sends what waits.
    pub(super) fn flush(&self) {
        self.write(&mut self.lock());
    }

    /// There is nobody to write to any more, and whoever waits need not.
    pub(super) fn close(&self) {
        self.lock().close();
        self.wake.notify_one();
        self.gone.notify_waiters();
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
            tokio::select! {
                biased;
                () = self.wake.notified() => {}
                () = self.later.notified() => {
                    // Most often something goes before that.
                    let _ = tokio::time::timeout(LATER, self.wake.notified()).await;
                }
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
        let was_blocked = std::mem::replace(&mut waiting.is_blocked, false);
        waiting.push_released();
        while !waiting.frames.is_empty() {
            let written = {
                let mut slices = [IoSlice::new(&[]); SLICES_MAX];
                let mut skip = waiting.written;
                let mut count = 0;
                for (slice, frame) in slices.iter_mut().zip(&waiting.frames) {
                    *slice = IoSlice::new(frame.get(skip..).unwrap_or_default());
                    skip = 0;
                    count += 1;
                }
                self.stream.try_write_vectored(slices.get(..count).unwrap_or_default())
            };
            match written {
                Ok(count) => {
                    waiting.advance(count);
                    self.gone.notify_waiters();
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    waiting.is_blocked = true;
                    if !was_blocked {
                        self.wake.notify_one();
                    }
                    return;
                }
                Err(_) => waiting.close(),
            }
        }
        if waiting.is_closed {
            self.wake.notify_one();
            self.gone.notify_waiters();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        lock(&self.waiting)
    }
}

impl Waiting {
    /// What has left is said before what may need the room.
    fn push(&mut self, frame: Vec<u8>) {
        self.push_released();
        self.push_alone(frame);
    }

    /// One at a time: more is added to it as long as it waits.
    fn push_released(&mut self) {
        if self.released > 0 && self.frames.len() < SLICES_MAX {
            let released = std::mem::take(&mut self.released);
            self.push_alone(bare(Ask::Released, 0, released));
        }
    }

    fn push_alone(&mut self, frame: Vec<u8>) {
        self.pushed += frame.len() as u64;
        if !self.is_closed {
            self.bytes += frame.len();
            self.frames.push_back(frame);
        }
    }

    /// Nobody waits for this one.
    fn push_small(&mut self, frame: Vec<u8>) {
        if frame.len() <= SMALL_FRAME_BYTES {
            self.small_bytes += frame.len();
        }
        self.push(frame);
        if self.small_bytes > limit("worker_outbox", WAITING_BYTES_MAX) {
            self.close();
        }
    }

    /// There is nobody to write to.
    fn close(&mut self) {
        *self = Self { is_closed: true, ..Self::default() };
    }

    fn advance(&mut self, count: usize) {
        self.written += count;
        self.written_in_all += count as u64;
        while let Some(length) = self.frames.front().map(Vec::len)
            && self.written >= length
        {
            self.written -= length;
            self.bytes -= length;
            if length <= SMALL_FRAME_BYTES {
                self.small_bytes = self.small_bytes.saturating_sub(length);
            }
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
        let body = self.buffer.split_to(length);
        if length > BUFFER_BYTES_MAX {
            // What follows is small, and the large buffer goes with its body.
            self.buffer = BytesMut::from(self.buffer.as_ref());
        }
        Ok(body)
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
    use super::super::message::frame;
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

    /// Whoever has it does not let go of it before.
    #[tokio::test]
    async fn what_is_large_is_waited_for_until_it_has_gone() {
        let (here, there) = UnixStream::pair().unwrap();
        let (outbox, _inbox) = ends(here);
        let (sending, running) = (outbox.clone(), outbox.clone());
        let running = tokio::spawn(async move { running.run().await });
        let body = "x".repeat(4 << 20);
        let sent = tokio::spawn(async move {
            sending.send_whole(frame(Ask::Message, 1, 0, &body).unwrap()).await;
        });
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(!sent.is_finished());
        let (_outbox, mut inbox) = ends(there);
        let head = inbox.head::<Ask>().await.unwrap().unwrap();
        inbox.body(head.length).await.unwrap();
        sent.await.unwrap();
        running.abort();
    }

    #[tokio::test]
    async fn a_side_that_reads_nothing_is_given_up() {
        let (here, _there) = UnixStream::pair().unwrap();
        let (outbox, _inbox) = ends(here);
        let running = tokio::spawn({
            let outbox = outbox.clone();
            async move { outbox.run().await }
        });
        for call in 0..2_000_000 {
            outbox.send_later(bare(Ask::Taken, call, 1));
            outbox.release(1);
        }
        assert!(outbox.bytes_waiting() <= WAITING_BYTES_MAX);
        let ended = tokio::time::timeout(Duration::from_secs(20), running).await;
        assert!(ended.expect("an end").unwrap().is_err());
    }
}
