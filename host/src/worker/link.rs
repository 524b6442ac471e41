//! One side of the socket between the host and a worker process: frames out, and
//! frames in.
//!
//! Owns that nobody waits for the other side who need not: a frame is written by whoever
//! has it, as far as the other side takes it, and the rest by one task. Whoever sends
//! what is large waits until it is gone; what is small may wait up to a bound, and what
//! has been given back is one sum.

use super::lock;
use super::message::{Ask, BESIDE_BYTES, HEAD_BYTES, Head, Kind, Whole, bare, invalid};
use super::socket::Socket;
use crate::limits::limit;
use bytes::{Buf, Bytes, BytesMut};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
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

/// Bytes that are read at a time.
const READ_BYTES: usize = 64 << 10;

/// The way out.
#[derive(Debug)]
pub(super) struct Outbox {
    socket: Arc<Socket>,
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
    frames: VecDeque<Piece>,
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
    /// Whether more is about to be sent with what is.
    is_held: bool,
    /// Whether the other side takes no more at the moment.
    is_blocked: bool,
    /// Whether there is nobody to write to.
    is_closed: bool,
}

/// A frame, or what is written after one as a part of it.
#[derive(Debug)]
enum Piece {
    /// One that nobody waits for.
    Small(Vec<u8>),
    Frame(Vec<u8>),
    Beside(Bytes),
}

impl Deref for Piece {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Small(frame) | Self::Frame(frame) => frame,
            Self::Beside(bytes) => bytes,
        }
    }
}

/// The way in.
#[derive(Debug)]
pub(super) struct Inbox {
    socket: Arc<Socket>,
    buffer: BytesMut,
}

/// Both ways of a socket, which does not block. Needs tokio's runtime.
pub(super) fn ends(stream: UnixStream) -> io::Result<(Arc<Outbox>, Inbox)> {
    let socket = Arc::new(Socket::of(stream)?);
    let waiting = Mutex::default();
    let (wake, later, gone) = (Notify::new(), Notify::new(), Notify::new());
    let outbox = Outbox { socket: socket.clone(), waiting, wake, later, gone };
    Ok((Arc::new(outbox), Inbox { socket, buffer: BytesMut::new() }))
}

impl Outbox {
    /// Sends a frame, and those that wait before it.
    pub(super) fn send(&self, frame: impl Into<Whole>) {
        let mut waiting = self.lock();
        waiting.push_small(frame.into());
        self.write_unless_held(&mut waiting);
    }

    /// The same, and waits until the other side has it. Whoever stops waiting has sent it
    /// all the same.
    pub(super) async fn send_whole(&self, frame: impl Into<Whole>) {
        let end = {
            let mut waiting = self.lock();
            waiting.push(frame.into());
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
    pub(super) fn send_later(&self, frame: impl Into<Whole>) {
        let mut waiting = self.lock();
        waiting.push_small(frame.into());
        match waiting.is_closed {
            true => self.wake.notify_one(),
            false => self.later.notify_one(),
        }
    }

    /// Sends a frame with the next one, which is about to come.
    pub(super) fn send_with_next(&self, frame: impl Into<Whole>) {
        let mut waiting = self.lock();
        waiting.push_small(frame.into());
        if waiting.is_closed {
            self.wake.notify_one();
        }
    }

    /// Sends what waits.
    pub(super) fn flush(&self) {
        self.write_unless_held(&mut self.lock());
    }

    /// Keeps what is sent until it is told not to, or sent with something large: whoever
    /// holds it has more to do that is soon done, and of which more comes.
    pub(super) fn hold(&self) {
        self.lock().is_held = true;
    }

    /// Lets what is sent next leave at once, with what was kept.
    pub(super) fn let_go(&self) {
        self.lock().is_held = false;
    }

    /// There is nobody to write to any more, and whoever waits need not.
    pub(super) fn close(&self) {
        self.lock().close();
        self.wake.notify_one();
        self.gone.notify_waiters();
    }

    /// The socket itself.
    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
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
                self.socket.writable().await?;
            }
        }
    }

    fn write_unless_held(&self, waiting: &mut Waiting) {
        if !waiting.is_held || waiting.is_closed {
            self.write(waiting);
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
                let slices = slices.get(..count).unwrap_or_default();
                self.socket.write(slices)
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
    fn push(&mut self, whole: Whole) {
        self.push_released();
        self.push_pieces(Piece::Frame(whole.frame), whole.beside);
    }

    fn push_pieces(&mut self, frame: Piece, beside: Vec<Bytes>) {
        self.push_piece(frame);
        beside.into_iter().for_each(|bytes| self.push_piece(Piece::Beside(bytes)));
    }

    /// One at a time: more is added to it as long as it waits.
    fn push_released(&mut self) {
        if self.released > 0 && self.frames.len() < SLICES_MAX {
            let released = std::mem::take(&mut self.released);
            self.push_piece(Piece::Frame(bare(Ask::Released, 0, released)));
        }
    }

    fn push_piece(&mut self, piece: Piece) {
        self.pushed += piece.len() as u64;
        if !self.is_closed {
            self.bytes += piece.len();
            self.frames.push_back(piece);
        }
    }

    /// Nobody waits for this one.
    fn push_small(&mut self, whole: Whole) {
        self.push_released();
        let frame = match whole.frame {
            frame if frame.len() <= SMALL_FRAME_BYTES => {
                self.small_bytes += frame.len();
                Piece::Small(frame)
            }
            frame => Piece::Frame(frame),
        };
        self.push_pieces(frame, whole.beside);
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
        while let Some(first) = self.frames.front()
            && self.written >= first.len()
        {
            self.written -= first.len();
            self.bytes -= first.len();
            if let Piece::Small(frame) = first {
                self.small_bytes -= frame.len();
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

    /// Whether the next frame is here as a whole.
    pub(super) fn has_frame<K: Kind>(&self) -> bool {
        let Some((head, body)) = self.buffer.split_first_chunk() else { return false };
        // What is no frame is an error whenever it is read.
        Head::<K>::parse(head).is_ok_and(|head| body.len() as u64 >= head.length.into())
    }

    /// The body after a head. A large one is read to a place of its own, which is as large as
    /// it: a part of it that somebody keeps keeps nothing else. Whoever asks for it has looked
    /// at its length.
    pub(super) async fn body(&mut self, length: u32) -> io::Result<BytesMut> {
        let length = usize::try_from(length).map_err(io::Error::other)?;
        if length < BESIDE_BYTES {
            while self.buffer.len() < length {
                if self.more().await? == 0 {
                    return Err(invalid("a frame breaks off"));
                }
            }
            return Ok(self.buffer.split_to(length));
        }
        let mut body = BytesMut::with_capacity(length);
        let here = self.buffer.len().min(length);
        body.extend_from_slice(&self.buffer.split_to(here));
        while let left @ 1.. = length - body.len() {
            if self.socket.read(&mut body, left).await? == 0 {
                return Err(invalid("a frame breaks off"));
            }
        }
        Ok(body)
    }

    async fn more(&mut self) -> io::Result<usize> {
        self.buffer.reserve(READ_BYTES);
        self.socket.read(&mut self.buffer, usize::MAX).await
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::frame;
    use super::*;
    use std::io::Read;

    fn pair() -> (UnixStream, UnixStream) {
        let (here, there) = UnixStream::pair().unwrap();
        here.set_nonblocking(true).unwrap();
        there.set_nonblocking(true).unwrap();
        (here, there)
    }

    #[tokio::test]
    async fn frames_arrive_in_order_however_slowly_they_are_taken() {
        const FRAMES: u32 = 300;
        let (here, there) = pair();
        let (outbox, _inbox) = ends(here).unwrap();
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
        let (_outbox, mut inbox) = ends(there).unwrap();
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

    #[tokio::test]
    async fn what_is_held_leaves_with_what_comes_after_it() {
        let (here, there) = pair();
        let (outbox, _inbox) = ends(here).unwrap();
        let came = || {
            let mut bytes = [0; 4 * HEAD_BYTES];
            (&there).read(&mut bytes).map_or(0, |count| count / HEAD_BYTES)
        };
        outbox.hold();
        outbox.send(bare(Ask::Taken, 0, 1));
        outbox.flush();
        outbox.send(bare(Ask::Taken, 1, 1));
        assert_eq!(came(), 0);
        outbox.let_go();
        assert_eq!(came(), 0, "it is about to be flushed");
        outbox.send(bare(Ask::Taken, 2, 1));
        assert_eq!(came(), 3);
        outbox.hold();
        outbox.send_whole(bare(Ask::Message, 3, 0)).await;
        assert_eq!(came(), 1, "somebody waits for it");
    }

    /// What is kept of a body keeps no more than that.
    #[tokio::test]
    async fn a_large_body_has_a_place_of_its_own() {
        let (here, there) = pair();
        let (outbox, _inbox) = ends(here).unwrap();
        let (_outbox, mut inbox) = ends(there).unwrap();
        let running = tokio::spawn({
            let outbox = outbox.clone();
            async move { outbox.run().await }
        });
        let body = "x".repeat(3 * BESIDE_BYTES);
        for call in 0..4 {
            outbox.send(frame(Ask::Message, call, 0, &body).unwrap());
            outbox.send(bare(Ask::Taken, call, 0));
        }
        for call in 0..4 {
            let head = inbox.head::<Ask>().await.unwrap().unwrap();
            let read = inbox.body(head.length).await.unwrap();
            assert_eq!((head.call, read.len()), (call, head.length as usize));
            assert!(read.capacity() < read.len() + 4096, "{}", read.capacity());
            let head = inbox.head::<Ask>().await.unwrap().unwrap();
            assert_eq!((head.kind, head.call), (Ask::Taken, call));
        }
        running.abort();
    }

    /// Whoever has it does not let go of it before.
    #[tokio::test]
    async fn what_is_large_is_waited_for_until_it_has_gone() {
        let (here, there) = pair();
        let (outbox, _inbox) = ends(here).unwrap();
        let (sending, running) = (outbox.clone(), outbox.clone());
        let running = tokio::spawn(async move { running.run().await });
        let body = "x".repeat(4 << 20);
        let sent = tokio::spawn(async move {
            sending.send_whole(frame(Ask::Message, 1, 0, &body).unwrap()).await;
        });
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(!sent.is_finished());
        let (_outbox, mut inbox) = ends(there).unwrap();
        let head = inbox.head::<Ask>().await.unwrap().unwrap();
        inbox.body(head.length).await.unwrap();
        sent.await.unwrap();
        running.abort();
    }

    #[tokio::test]
    async fn a_side_that_reads_nothing_is_given_up() {
        let (here, _there) = pair();
        let (outbox, _inbox) = ends(here).unwrap();
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
