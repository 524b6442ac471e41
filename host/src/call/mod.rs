//! The seam that everything respects: a call is a stream of requests in and a
//! stream of outputs out, ended by one verdict.
//!
//! Owns the words of a call and nothing that acts. Knows neither the wire above
//! nor the sandbox below, so either side can change without the other. Its values are
//! laid out for guests as the world's `types` are, so that what crosses into a sandbox or
//! out of it is copied there once.

mod end;
mod host_calls;
mod signature;
mod value;

pub use end::{End, Holder, Phase, Receipt, Trace, TraceFrame, Verdict};
pub use host_calls::{HostCall, HostCalls};
pub use signature::{Field, Kind, Method, Methods, SignatureError};
pub use value::{BoundingBox, Concept, Frame, NdArray, Point, Region, Value};

use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::{Duration, Instant};
use wasmtime::component::{ComponentType, Lift, Lower};

/// Which of the guest's functions a call runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Function {
    /// One request, one result for each of its inputs.
    Predict,
    /// One request of one input, any number of outputs.
    Generate,
    /// Any number of requests of one input each, any number of outputs.
    Stream,
}

impl Function {
    /// Every function, in the order of the discriminants.
    pub const ALL: [Self; 3] = [Self::Predict, Self::Generate, Self::Stream];

    /// The word used in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Predict => "predict",
            Self::Generate => "generate",
            Self::Stream => "stream",
        }
    }
}

/// Where a call comes from, for logs. A guest is never told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// What the call is known by.
    pub call: Arc<str>,
    /// The user who made it, or nothing where that is not known.
    pub user: Arc<str>,
}

impl From<&str> for Origin {
    /// A call of nobody in particular.
    fn from(call: &str) -> Self {
        Self { call: call.into(), user: "".into() }
    }
}

/// When a call must have ended, wherever it is by then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// A deadline that lies `timeout` from now.
    pub fn after(timeout: Duration) -> Self {
        let now = Instant::now();
        // An absurd timeout must not overflow; a day is as good as for ever.
        Self(now.checked_add(timeout).unwrap_or(now + Duration::from_secs(86_400)))
    }

    /// The earlier of the two.
    pub fn min(self, other: Self) -> Self {
        Self(self.0.min(other.0))
    }

    /// How long it is until then.
    pub fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// The moment itself.
    pub fn instant(self) -> Instant {
        self.0
    }
}

/// A named value; the name is a path such as `text` or `images/0`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ComponentType, Lift, Lower)]
#[component(record)]
pub struct Part {
    /// The path.
    pub name: String,
    /// What is there.
    pub value: Value,
}

/// One of the inputs of a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ComponentType, Lift, Lower)]
#[component(record)]
pub struct Input {
    /// The caller's identifier; may be empty.
    pub id: String,
    /// Its parts, in the caller's order.
    pub parts: Vec<Part>,
}

/// What the caller asks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ComponentType, Lift, Lower)]
#[component(record)]
pub struct Request {
    /// The typed method's name, empty for a plain call.
    pub method: String,
    /// At least one.
    pub inputs: Vec<Input>,
    /// A JSON object of inference parameters.
    pub params: String,
}

/// What a language model counted.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ComponentType, Lift, Lower,
)]
#[component(record)]
pub struct Usage {
    /// Tokens read.
    #[component(name = "prompt-tokens")]
    pub prompt_tokens: u32,
    /// Tokens written.
    #[component(name = "completion-tokens")]
    pub completion_tokens: u32,
    /// Tokens read from a cache.
    #[component(name = "cached-tokens")]
    pub cached_tokens: u32,
}

/// The answer to one input, or one piece of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ComponentType, Lift, Lower)]
#[component(record)]
pub struct Output {
    /// The values, in the guest's order.
    pub parts: Vec<Part>,
    /// Token counts, where the model has tokens.
    pub usage: Option<Usage>,
    /// A JSON object, or empty.
    pub info: String,
}

/// The failures a guest may report. Whether the caller may call and whether
/// the host is well are not for a guest to say, so no code says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ComponentType, Lift, Lower)]
#[component(enum)]
#[repr(u8)]
pub enum GuestErrorCode {
    /// The input makes no sense to the model.
    #[component(name = "invalid-argument")]
    InvalidArgument,
    /// The input is outside what the model covers.
    #[component(name = "out-of-range")]
    OutOfRange,
    /// Something has to be done first.
    #[component(name = "failed-precondition")]
    FailedPrecondition,
    /// The model has no such function or method.
    #[component(name = "unsupported")]
    Unsupported,
    /// Anything else.
    #[component(name = "failed")]
    Failed,
}

/// A failure that the guest itself reports.
#[derive(
    Debug,
    Clone,
    PartialEq,
    Eq,
    thiserror::Error,
    Serialize,
    Deserialize,
    ComponentType,
    Lift,
    Lower,
)]
#[component(record)]
#[error("{message}")]
pub struct GuestError {
    /// Its kind.
    pub code: GuestErrorCode,
    /// The guest's own words, cut to a limit.
    pub message: String,
    /// A JSON object, or empty.
    pub info: String,
}

/// What comes out of a call, in order; `End` is always the last.
#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "a call has one end, for which a box would be one allocation more"
)]
pub enum Event {
    /// One output.
    Output(Output),
    /// Of `predict` only: the input at this place in the order failed alone.
    InputFailed(GuestError),
    /// The call is over.
    End(Verdict),
}
