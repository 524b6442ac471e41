//! Answers that a client does not take.
//!
//! Owns, for one connection, how long each of its answers may wait for the client yet, and
//! that answers leave in pieces, so that a client that takes one at all is seen to. The
//! library that sends them waits for ever, whatever the client's pings say. What an
//! answer holds is its version's until it has left, so a client that takes it slowly is
//! waited for no longer than one that keeps the pace.

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tonic::body::Body;

/// Bytes of a piece.
pub(super) const PIECE_BYTES: usize = 64 << 10;

/// Bytes that a client takes of an answer in a second, on average.
const PACE_BYTES: u64 = 32 << 10;

/// The answers of one connection; clones share it.
#[derive(Debug, Clone)]
pub(super) struct Untaken {
    waiting: Arc<Mutex<Waiting>>,
    /// How long a client may be behind its pace.
    patience: Duration,
    pace_bytes: u64,
}

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    /// Those that the client could take more of, and until when it may.
    due: HashMap<u64, Instant>,
}

impl Untaken {
    pub(super) fn new(patience: Duration) -> Self {
        Self { waiting: Arc::default(), patience, pace_bytes: PACE_BYTES }
    }

    /// The same answer, watched.
    pub(super) fn watch(&self, response: http::Response<Body>) -> http::Response<Body> {
        let mut waiting = self.lock();
        let number = waiting.next;
        waiting.next += 1;
        drop(waiting);
        response.map(|body| {
            let (untaken, left) = (self.clone(), self.patience);
            let mut watched =
                Watched { body, rest: Bytes::new(), number, untaken, left, offered: None };
            watched.wait_for_client(0);
            Body::new(watched)
        })
    }

    /// Resolves when an answer has waited for too long.
    pub(super) async fn stalled(&self) {
        loop {
            let first = self.lock().due.values().min().copied();
            // One that is due sooner and comes meanwhile is seen to that much later.
            let until = first.or_else(|| Instant::now().checked_add(self.patience));
            // A time that no clock reaches.
            let Some(until) = until else { return std::future::pending().await };
            if first.is_some_and(|first| first <= Instant::now()) {
                return;
            }
            tokio::time::sleep_until(until.into()).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The body of an answer. It is asked for more only when the client takes more.
struct Watched {
    body: Body,
    /// What has come of it and is still to leave.
    rest: Bytes,
    number: u64,
    untaken: Untaken,
    /// How much longer the client may be waited for.
    left: Duration,
    /// What was last offered to it, and when.
    offered: Option<(usize, Instant)>,
}

impl Watched {
    /// It is the client's turn to take a piece.
    fn wait_for_client(&mut self, bytes: usize) {
        let now = Instant::now();
        self.offered = Some((bytes, now));
        if let Some(due) = now.checked_add(self.left) {
            self.untaken.lock().due.insert(self.number, due);
        }
    }

    /// It has taken what it was offered, and asks for more.
    fn wait_for_answer(&mut self) {
        let Some((bytes, at)) = self.offered.take() else { return };
        self.untaken.lock().due.remove(&self.number);
        let nanos = bytes as u64 * 1_000_000_000 / self.untaken.pace_bytes;
        let made_up = self.left.saturating_add(Duration::from_nanos(nanos));
        self.left = made_up.saturating_sub(at.elapsed()).min(self.untaken.patience);
    }
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        self.wait_for_answer();
        if self.rest.is_empty() {
            let frame = match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => frame,
                other => return Poll::Ready(other),
            };
            match frame.into_data() {
                Ok(data) => self.rest = data,
                Err(frame) => return Poll::Ready(Some(Ok(frame))),
            }
        }
        let bytes = self.rest.len().min(PIECE_BYTES);
        let piece = self.rest.split_to(bytes);
        self.wait_for_client(bytes);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match self.rest.is_empty() {
            true => self.body.size_hint(),
            false => SizeHint::default(),
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.untaken.lock().due.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt, Full};

    const SHORT: Duration = Duration::from_millis(20);

    fn answer(bytes: usize) -> http::Response<Body> {
        http::Response::new(Body::new(Full::new(Bytes::from(vec![7; bytes]))))
    }

    async fn is_stalled(untaken: &Untaken) -> bool {
        tokio::time::timeout(10 * SHORT, untaken.stalled()).await.is_ok()
    }

    #[tokio::test]
    async fn an_answer_leaves_whole_and_in_pieces() {
        let untaken = Untaken::new(SHORT);
        let mut body = untaken.watch(answer(3 * PIECE_BYTES + 1)).into_body();
        let mut pieces = Vec::new();
        while let Some(frame) = body.frame().await {
            pieces.push(frame.unwrap().into_data().unwrap().len());
        }
        assert_eq!(pieces, [PIECE_BYTES, PIECE_BYTES, PIECE_BYTES, 1]);
        assert!(!is_stalled(&untaken).await, "it has been taken");
    }

    #[tokio::test]
    async fn an_answer_that_nobody_takes_is_known() {
        let untaken = Untaken::new(SHORT);
        let mut body = untaken.watch(answer(2 * PIECE_BYTES)).into_body();
        assert!(is_stalled(&untaken).await, "not even its beginning");
        drop(body.frame().await);
        assert!(is_stalled(&untaken).await, "nothing after its first piece");
        drop(body);
        assert!(!is_stalled(&untaken).await, "it has gone");
    }

    /// Each piece is taken well within what is left of the client's time, and costs it
    /// some.
    #[tokio::test]
    async fn an_answer_that_is_taken_too_slowly_is_known_at_last() {
        let pace_bytes = 1000 * PIECE_BYTES as u64;
        let untaken = Untaken { pace_bytes, ..Untaken::new(10 * SHORT) };
        let mut body = untaken.watch(answer(1000 * PIECE_BYTES)).into_body();
        let taking = async {
            while body.frame().await.is_some() {
                tokio::time::sleep(SHORT / 2).await;
            }
        };
        tokio::select! {
            () = untaken.stalled() => {}
            () = taking => panic!("it was waited for"),
        }
    }

    /// A stream whose guest thinks for long is not the client's fault.
    #[tokio::test]
    async fn an_answer_that_is_still_to_come_does_not_stall() {
        let untaken = Untaken::new(SHORT);
        let never = http_body_util::StreamBody::new(futures_util::stream::pending::<
            Result<Frame<Bytes>, tonic::Status>,
        >());
        let mut body = untaken.watch(http::Response::new(Body::new(never))).into_body();
        assert!(futures_util::poll!(Box::pin(body.frame())).is_pending());
        assert!(!is_stalled(&untaken).await);
    }
}
