//! The messages of a client have to come at a pace.
//!
//! The library waits for a message as long as its connection lives, and keeps
//! what has come of it. Here a message of which too little comes is given up, and
//! its call with it; so is a second one where there should be one. Whoever reads a
//! stream says how long its next message may take. What has come counts for its sender until a guest
//! has it.

use super::inbound::Received;
use bytes::{Buf, Bytes};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Sleep;
use tonic::Status;

/// What has to come of a message, or all of it, within the time for it.
const PACE_BYTES: u64 = 256 << 10;

/// Bytes before each message of gRPC: a flag for compression, and the length.
const PREFIX_BYTES: usize = 5;

/// The body of a request, which fails where it is too slow.
#[derive(Debug)]
pub(crate) struct Paced {
    body: Incoming,
    within: Duration,
    place: Place,
    /// Whether there is one message, whose end is the end of the body.
    is_unary: bool,
    /// Messages that have come to their end.
    messages: u32,
    /// What has come since the time began.
    came: u64,
    /// When it ends, while something is waited for.
    ends: Option<Pin<Box<Sleep>>>,
    /// Where what comes is counted, if it is.
    received: Option<Arc<Received>>,
}

/// Where in the messages of a body.
#[derive(Debug, Default)]
struct Place {
    prefix: [u8; PREFIX_BYTES],
    /// Bytes of it that have come.
    prefix_came: usize,
    /// Bytes of the message that have not.
    left: u64,
    /// Bytes of the message and its prefix.
    whole: u64,
}

impl Paced {
    pub(crate) fn new(
        body: Incoming,
        is_unary: bool,
        within: Duration,
        received: Option<Arc<Received>>,
    ) -> Self {
        Self {
            body,
            within,
            place: Place::default(),
            is_unary,
            messages: 0,
            came: 0,
            ends: None,
            received,
        }
    }

    /// Whether the client is in the middle of something.
    fn is_owed(&self) -> bool {
        self.is_unary || !self.place.is_between()
    }
}

impl Body for Paced {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        match Pin::new(&mut this.body).poll_frame(context) {
            Poll::Ready(frame) => {
                if let Some(data) = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref())
                {
                    let bytes = data.len() as u64;
                    this.came += bytes;
                    let ended = this.place.pass(data);
                    if let Some(received) = &this.received {
                        let more = match this.is_unary || ended == 0 {
                            true => bytes,
                            // Whoever reads the stream counts what is whole.
                            false => {
                                received.clear();
                                this.place.came()
                            }
                        };
                        if let Err(full) = received.grow(more) {
                            let status = Status::unavailable(full.to_string());
                            return Poll::Ready(Some(Err(status.into())));
                        }
                    }
                    this.messages = this.messages.saturating_add(ended);
                    if this.is_unary && this.messages > 1 {
                        let text = "the call takes one message, and another came";
                        let status = Status::invalid_argument(text);
                        return Poll::Ready(Some(Err(status.into())));
                    }
                    if this.came >= PACE_BYTES || ended > 0 {
                        (this.came, this.ends) = (0, None);
                    }
                }
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
            Poll::Pending if this.is_owed() => {
                let within = this.within;
                let ends = this.ends.get_or_insert_with(|| Box::pin(tokio::time::sleep(within)));
                ready!(ends.as_mut().poll(context));
                let text = "the message came too slowly, or not to its end";
                Poll::Ready(Some(Err(Status::deadline_exceeded(text).into())))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Place {
    fn is_between(&self) -> bool {
        self.prefix_came == 0 && self.left == 0
    }

    /// What has come of the message that is not whole.
    fn came(&self) -> u64 {
        match self.left {
            0 => self.prefix_came as u64,
            left => self.whole - left,
        }
    }

    /// Goes on by what has come. Returns how many messages have ended with it.
    fn pass(&mut self, mut data: &[u8]) -> u32 {
        let mut ended = 0_u32;
        while !data.is_empty() {
            if self.left > 0 {
                let part = data.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
                self.left -= part as u64;
                data.advance(part);
                ended += u32::from(self.left == 0);
                continue;
            }
            let place = self.prefix.iter_mut().skip(self.prefix_came);
            let part = place.zip(data).map(|(place, byte)| *place = *byte).count();
            self.prefix_came += part;
            data.advance(part);
            if self.prefix_came == PREFIX_BYTES {
                let [_, length @ ..] = self.prefix;
                (self.prefix_came, self.left) = (0, u32::from_be_bytes(length).into());
                self.whole = self.left + PREFIX_BYTES as u64;
                ended += u32::from(self.left == 0);
            }
        }
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_told_apart_however_they_are_cut() {
        let messages = [&b"\0\0\0\0\x03abc"[..], b"\0\0\0\0\0", b"\0\0\0\0\x01d"].concat();
        let ends = [8, 13, messages.len()];
        for cut in 1..=messages.len() {
            let (mut place, mut came, mut ended) = (Place::default(), 0, 0);
            for part in messages.chunks(cut) {
                ended += place.pass(part);
                came += part.len();
                let expected = ends.iter().filter(|end| **end <= came).count();
                assert_eq!(ended as usize, expected, "{came} in parts of {cut}");
                assert_eq!(place.is_between(), ends.contains(&came), "{came} in parts of {cut}");
                let begun = ends.iter().rev().find(|end| **end <= came).unwrap_or(&0);
                assert_eq!(place.came() as usize, came - begun, "{came} in parts of {cut}");
            }
        }
    }
}
