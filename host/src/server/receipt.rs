//! The usage receipt of a call: what its client and the log are told it took.
//!
//! Owns the receipt's figures and how they become trailers. They come after the
//! last message, when a call's figures are known.

use crate::auth::Allowance;
use crate::call::Receipt;
use crate::worker::Held;
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tonic::body::Body;

/// Everything that is told of a call that has ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Usage {
    /// The call's id: the `req_id` of its status.
    pub(crate) call_id: String,
    /// The version that was called; empty if none was.
    pub(crate) version: String,
    /// Time from the first message to the end.
    pub(crate) wall: Duration,
    /// Time in the queue.
    pub(crate) queue: Duration,
    /// Time to the first output; nothing if there was none.
    pub(crate) first_output: Option<Duration>,
    /// What the guest took.
    pub(crate) receipt: Receipt,
}

/// Where a call leaves its usage for the trailers of its response, and what it goes on
/// holding until they leave. Travels among the response's extensions.
#[derive(Debug, Clone, Default)]
pub(crate) struct Slot(Arc<Left>);

#[derive(Debug, Default)]
struct Left {
    usage: OnceLock<Usage>,
    kept: Mutex<Kept>,
}

/// What an answer that has not left yet stands for.
#[derive(Debug, Default)]
struct Kept {
    allowance: Option<Allowance>,
    outputs: Vec<Held>,
}

impl Slot {
    /// Leaves it; a call has one end.
    pub(crate) fn leave(&self, usage: Usage) {
        let _ = self.0.usage.set(usage);
    }

    /// Keeps what a call counts for until its answer has left: it holds memory.
    pub(crate) fn keep_allowance(&self, allowance: Option<Allowance>) {
        self.kept().allowance = allowance;
    }

    /// Keeps what the outputs in the answer make their version hold.
    pub(crate) fn keep_outputs(&self, outputs: Vec<Held>) {
        self.kept().outputs = outputs;
    }

    /// The answer has left, and its client may call again.
    fn let_go(&self) {
        *self.kept() = Kept::default();
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Milliseconds to the microsecond.
pub(crate) fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

impl Usage {
    /// The trailers, by their names without what they all begin with.
    fn trailers(&self) -> [(&'static str, String); 16] {
        let Self { call_id, version, wall, queue, first_output, receipt } = self;
        let milliseconds = |time| milliseconds(time).to_string();
        [
            ("ringfence-call-id", call_id.clone()),
            ("ringfence-version", version.clone()),
            ("ringfence-fuel", receipt.fuel.to_string()),
            ("ringfence-fuel-is-lower-bound", receipt.fuel_is_lower_bound.to_string()),
            ("ringfence-cpu-ms", milliseconds(receipt.guest_cpu)),
            ("ringfence-cpu-wait-ms", milliseconds(receipt.cpu_wait)),
            ("ringfence-tensor-ms", milliseconds(receipt.engine_cpu)),
            ("ringfence-device-ms", milliseconds(receipt.device)),
            ("ringfence-computes", receipt.computes.to_string()),
            ("ringfence-memory-bytes-peak", receipt.memory_bytes_peak.to_string()),
            ("ringfence-bytes-in", receipt.bytes_in.to_string()),
            ("ringfence-bytes-out", receipt.bytes_out.to_string()),
            ("ringfence-queue-ms", milliseconds(*queue)),
            ("ringfence-load-ms", milliseconds(receipt.load)),
            ("ringfence-first-output-ms", first_output.map(milliseconds).unwrap_or_default()),
            ("ringfence-wall-ms", milliseconds(*wall)),
        ]
    }

    fn add_to(&self, trailers: &mut HeaderMap) {
        for (name, value) in self.trailers() {
            // What says nothing is left out, and none of it has other characters.
            if let Ok(mut value) = HeaderValue::from_str(&value)
                && !value.is_empty()
            {
                // Each call has its own. A table of what comes again (RFC 7541, section
                // 6.2.3) would be searched for them, and have room for little else.
                value.set_sensitive(true);
                trailers.insert(HeaderName::from_static(name), value);
            }
        }
    }
}

/// The response, with the usage of its call in its trailers, if it is one.
pub(crate) fn with_receipt(mut response: Response<Body>) -> Response<Body> {
    match response.extensions_mut().remove::<Slot>() {
        Some(slot) => response.map(|body| Body::new(WithReceipt { body, slot })),
        None => response,
    }
}

struct WithReceipt {
    body: Body,
    slot: Slot,
}

impl HttpBody for WithReceipt {
    type Data = bytes::Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        Poll::Ready(frame.map(|frame| {
            let mut frame = frame?;
            if let Some(trailers) = frame.trailers_mut() {
                if let Some(usage) = self.slot.0.usage.get() {
                    usage.add_to(trailers);
                }
                self.slot.let_go();
            }
            Ok(frame)
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt, StreamBody};

    fn usage() -> Usage {
        Usage {
            call_id: "c".into(),
            version: String::new(),
            wall: Duration::from_micros(2500),
            queue: Duration::ZERO,
            first_output: None,
            receipt: Receipt { fuel: 7, ..Receipt::default() },
        }
    }

    #[test]
    fn a_receipt_is_added_to_the_trailers_and_what_is_not_known_is_left_out() {
        let slot = Slot::default();
        let mut response =
            Response::new(Body::new(StreamBody::new(tokio_stream::once(Ok::<_, tonic::Status>(
                Frame::<bytes::Bytes>::trailers(HeaderMap::from_iter([(
                    HeaderName::from_static("grpc-status"),
                    HeaderValue::from_static("0"),
                )])),
            )))));
        response.extensions_mut().insert(slot.clone());
        let response = with_receipt(response);
        slot.leave(usage());
        let collected = futures_util::FutureExt::now_or_never(response.into_body().collect());
        let collected = collected.unwrap().unwrap();
        let trailers = collected.trailers().unwrap();
        let value = |name: &str| trailers.get(name).map(|value| value.to_str().unwrap());
        assert_eq!(value("grpc-status"), Some("0"));
        assert_eq!(value("ringfence-call-id"), Some("c"));
        assert_eq!(value("ringfence-fuel"), Some("7"));
        assert_eq!(value("ringfence-wall-ms"), Some("2.5"));
        assert_eq!((value("ringfence-version"), value("ringfence-first-output-ms")), (None, None));
    }
    /// What differs from call to call would be all that the table of what comes again has
    /// room for.
    #[test]
    fn the_figures_of_a_receipt_are_in_no_table_of_headers() {
        let mut trailers = HeaderMap::new();
        usage().add_to(&mut trailers);
        assert!(trailers.len() >= 12, "{trailers:?}");
        for (name, value) in &trailers {
            assert!(value.is_sensitive(), "{name}");
        }
    }
}
