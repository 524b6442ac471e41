//! The seam that everything respects: a call is a stream of requests in and a
//! stream of outputs out, ended by one verdict.
//!
//! Owns the words of a call and nothing that acts. Knows neither the wire above
//! nor the sandbox below, so either side can change without the other.

use std::fmt;
use std::time::{Duration, Instant};

/// Which of the guest's functions a call runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Function {
    /// One request, one result for each of its inputs.
    Predict,
    /// One request of one input, any number of outputs.
    Generate,
    /// Any number of requests of one input each, any number of outputs.
    Stream,
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

    /// The moment itself.
    pub fn instant(self) -> Instant {
        self.0
    }
}

/// A label with a score.
#[derive(Debug, Clone, PartialEq)]
pub struct Concept {
    /// Stable identifier, unique in its model.
    pub id: String,
    /// What people read.
    pub name: String,
    /// Usually a probability, 0 to 1.
    pub value: f32,
}

/// Edges as fractions of the image's height and width, 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BoundingBox {
    /// Upper edge.
    pub top: f32,
    /// Left edge.
    pub left: f32,
    /// Lower edge.
    pub bottom: f32,
    /// Right edge.
    pub right: f32,
}

/// A place in an image: column `x`, row `y`, as fractions, 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Column.
    pub x: f32,
    /// Row.
    pub y: f32,
}

/// A part of an image and what is seen there.
#[derive(Debug, Clone, PartialEq)]
pub struct Region {
    /// Identifier within its output; may be empty.
    pub id: String,
    /// Where it is.
    pub bounds: Option<BoundingBox>,
    /// Corners of a polygon, or keypoints.
    pub points: Vec<Point>,
    /// A PNG of one channel, as large as the image.
    pub mask: Option<Vec<u8>>,
    /// What it shows.
    pub concepts: Vec<Concept>,
    /// What is written there.
    pub text: Option<String>,
    /// The same for one object through all frames of a video.
    pub track_id: String,
    /// How sure the model is, 0 to 1.
    pub value: f32,
}

/// One moment of a video.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    /// Number of the frame, from 0.
    pub index: u32,
    /// Milliseconds from the video's start.
    pub time_ms: u64,
    /// What it shows as a whole.
    pub concepts: Vec<Concept>,
    /// What it shows in places.
    pub regions: Vec<Region>,
}

/// A dense array, row-major, little-endian.
#[derive(Clone, PartialEq)]
pub struct NdArray {
    /// NumPy's name of the element type.
    pub dtype: String,
    /// Length of each axis.
    pub shape: Vec<u32>,
    /// The elements.
    pub data: Vec<u8>,
}

impl fmt::Debug for NdArray {
    /// Shape and type only: the elements are the caller's.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:?}", self.dtype, self.shape)
    }
}

/// Everything a part can be. Images, audio and video are whole encoded files.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Plain text.
    Text(String),
    /// An image file.
    Image(Vec<u8>),
    /// An audio file.
    Audio(Vec<u8>),
    /// A video file.
    Video(Vec<u8>),
    /// Bytes of no declared kind.
    Bytes(Vec<u8>),
    /// A whole number.
    Integer(i64),
    /// A number.
    Float(f64),
    /// True or false.
    Boolean(bool),
    /// A JSON text.
    Json(String),
    /// Scored labels.
    Concepts(Vec<Concept>),
    /// Parts of an image.
    Regions(Vec<Region>),
    /// Moments of a video.
    Frames(Vec<Frame>),
    /// A vector.
    Embedding(Vec<f32>),
    /// An array.
    NdArray(NdArray),
}

/// A named value; the name is a path such as `text` or `images/0`.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// The path.
    pub name: String,
    /// What is there.
    pub value: Value,
}

/// One of the inputs of a request.
#[derive(Debug, Clone, PartialEq)]
pub struct Input {
    /// The caller's identifier; may be empty.
    pub id: String,
    /// Its parts, in the caller's order.
    pub parts: Vec<Part>,
}

/// What the caller asks.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The typed method's name, empty for a plain call.
    pub method: String,
    /// At least one.
    pub inputs: Vec<Input>,
    /// A JSON object of inference parameters.
    pub params: String,
}

/// What a language model counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Tokens read.
    pub prompt_tokens: u32,
    /// Tokens written.
    pub completion_tokens: u32,
    /// Tokens read from a cache.
    pub cached_tokens: u32,
}

/// The answer to one input, or one piece of it.
#[derive(Debug, Clone, PartialEq)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestErrorCode {
    /// The input makes no sense to the model.
    InvalidArgument,
    /// The input is outside what the model covers.
    OutOfRange,
    /// Something has to be done first.
    FailedPrecondition,
    /// The model has no such function or method.
    Unsupported,
    /// Anything else.
    Failed,
}

/// A failure that the guest itself reports.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
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
pub enum Event {
    /// One output.
    Output(Output),
    /// Of `predict` only: the input at this place in the order failed alone.
    InputFailed(GuestError),
    /// The call is over.
    End(Verdict),
}

/// Who holds memory for a version; named when a limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// Linear memories of its sandboxes.
    Memory,
    /// Tables of its sandboxes.
    Table,
    /// Tensors on their way to and from an engine.
    Tensor,
    /// Requests and outputs that wait for the other side.
    Message,
    /// Loaded graphs.
    Graph,
}

impl Holder {
    /// Every kind, in the order of the discriminants.
    pub const ALL: [Self; 5] =
        [Self::Memory, Self::Table, Self::Tensor, Self::Message, Self::Graph];

    /// The word used in messages and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "linear memory",
            Self::Table => "tables",
            Self::Tensor => "tensors",
            Self::Message => "messages",
            Self::Graph => "graphs",
        }
    }
}

/// Where in its life the sandbox was when the call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Instantiation and `load-model`.
    Load,
    /// The called function.
    Call,
}

/// Every way a call can end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The guest's function returned.
    Done,
    /// The guest's function returned its own error.
    GuestError(GuestError),
    /// The guest trapped; the text is the trap's standard name.
    Trap(String),
    /// The guest panicked; its message, cut to a limit, if it told one.
    Panic(String),
    /// The guest asked to end the process it thinks it is.
    Exit(i32),
    /// The guest broke the contract of its world, for instance with fewer
    /// results than inputs.
    Contract(String),
    /// The call's fuel is gone.
    FuelExhausted {
        /// The ceiling.
        fuel_max: u64,
    },
    /// The deadline passed.
    DeadlinePassed,
    /// What the version makes the host hold would exceed `cpu_memory`.
    MemoryLimit {
        /// What asked for more.
        holder: Holder,
        /// The limit.
        memory_bytes_max: u64,
    },
    /// The guest held too many handles.
    HandleLimit {
        /// The limit.
        handles_max: usize,
    },
    /// The outputs of the call are larger than allowed together, or one of
    /// them is.
    OutputLimit {
        /// The limit.
        output_bytes_max: u64,
    },
    /// One function of the host was given more than it takes at a time.
    HostcallLimit {
        /// The limit.
        hostcall_bytes_max: usize,
    },
    /// The client went away.
    Cancelled,
    /// The host failed. The text is for the log, never for a caller.
    HostBug(String),
}

/// How a call ended and what it took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// How it ended.
    pub end: End,
    /// Where it ended.
    pub phase: Phase,
    /// What it took.
    pub receipt: Receipt,
}

/// What a call took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Receipt {
    /// Fuel burnt by the guest in the called function. After a trap this is a
    /// lower bound, because the runtime loses what was not yet written back.
    pub fuel: u64,
    /// Whether `fuel` is only a lower bound.
    pub fuel_is_lower_bound: bool,
    /// Largest sum of linear memory of the call's sandbox, in bytes.
    pub memory_bytes_peak: u64,
}
