//! Answers that a client does not take.
//!
//! Owns, for one connection, since when each of its answers waits for the client, and
//! that answers leave in pieces, so that a client that takes one at all is seen to. The
//! library that sends them waits for ever, whatever the client's pings say.

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tonic::body::Body;

/// Bytes of a piece: so much at least a client takes in the time that it has.
const PIECE_BYTES: usize = 64 << 10;

/// The answers of one connection; clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Untaken(Arc<Mutex<Waiting>>);

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    /// Those that the client could take more of, since it last took some.
    since: HashMap<u64, Instant>,
}

impl Untaken {
    /// The same answer, watched.
    pub(super) fn watch(&self, response: http::Response<Body>) -> http::Response<Body> {
        let mut waiting = self.lock();
        let number = waiting.next;
        waiting.next += 1;
        waiting.since.insert(number, Instant::now());
        drop(waiting);
        let untaken = self.clone();
        response.map(|body| Body::new(Watched { body, rest: Bytes::new(), number, untaken }))
    }

    /// Resolves when an answer has waited for so long.
    pub(super) async fn stalled(&self, timeout: Duration) {
        loop {
            let oldest = self.lock().since.values().min().copied();
            let until = oldest.unwrap_or_else(Instant::now).checked_add(timeout);
            // A time that no clock reaches.
            let Some(until) = until else { return std::future::pending().await };
            if until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until.into()).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The body of an answer. It is asked for more only when the client takes more.
struct Watched {
    body: Body,
    /// What has come of it and is still to leave.
    rest: Bytes,
    number: u64,
    untaken: Untaken,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        let number = self.number;
        // From here on it is the answer that is waited for.
        self.untaken.lock().since.remove(&number);
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
        self.untaken.lock().since.insert(number, Instant::now());
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
        self.untaken.lock().since.remove(&self.number);
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
        tokio::time::timeout(10 * SHORT, untaken.stalled(SHORT)).await.is_ok()
    }

    #[tokio::test]
    async fn an_answer_leaves_whole_and_in_pieces() {
        let untaken = Untaken::default();
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
        let untaken = Untaken::default();
        let mut body = untaken.watch(answer(2 * PIECE_BYTES)).into_body();
        assert!(is_stalled(&untaken).await, "not even its beginning");
        drop(body.frame().await);
        assert!(is_stalled(&untaken).await, "nothing after its first piece");
        drop(body);
        assert!(!is_stalled(&untaken).await, "it has gone");
    }

    /// A stream whose guest thinks for long is not the client's fault.
    #[tokio::test]
    async fn an_answer_that_is_still_to_come_does_not_stall() {
        let untaken = Untaken::default();
        let never = http_body_util::StreamBody::new(futures_util::stream::pending::<
            Result<Frame<Bytes>, tonic::Status>,
        >());
        let mut body = untaken.watch(http::Response::new(Body::new(never))).into_body();
        assert!(futures_util::poll!(Box::pin(body.frame())).is_pending());
        assert!(!is_stalled(&untaken).await);
    }
}
