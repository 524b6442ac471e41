//! How a call ends, and what it took.

use super::{GuestError, HostCall, HostCalls};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// Who holds memory for a version; named when a limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Holder {
    /// Linear memories of its sandboxes.
    Memory,
    /// Tables of its sandboxes.
    Table,
    /// Stacks of its sandboxes.
    Stack,
    /// Tensors on their way to and from an engine.
    Tensor,
    /// Requests and outputs that wait for the other side.
    Message,
    /// Loaded graphs.
    Graph,
    /// Values inside graphs that compute.
    Engine,
    /// Graphs and tensors on accelerators. The memory is theirs, and counts towards
    /// `accelerator_memory` alone.
    Device,
}

impl Holder {
    /// Every kind, in the order of the discriminants.
    pub const ALL: [Self; 8] = [
        Self::Memory,
        Self::Table,
        Self::Stack,
        Self::Tensor,
        Self::Message,
        Self::Graph,
        Self::Engine,
        Self::Device,
    ];

    /// The word used in messages and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "linear memory",
            Self::Table => "tables",
            Self::Stack => "stacks",
            Self::Tensor => "tensors",
            Self::Message => "messages",
            Self::Graph => "graphs",
            Self::Engine => "values inside graphs",
            Self::Device => "device memory",
        }
    }

    /// The key of `config.yaml` that limits it.
    pub fn limit_name(self) -> &'static str {
        match self {
            Self::Memory
            | Self::Table
            | Self::Stack
            | Self::Tensor
            | Self::Message
            | Self::Graph
            | Self::Engine => "cpu_memory",
            Self::Device => "accelerator_memory",
        }
    }
}

/// Where in its life the sandbox was when the call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Instantiation and `load-model`.
    Load,
    /// The called function.
    Call,
}

/// Every way a call can end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// What the version makes the host hold would exceed `cpu_memory`, or what it has on
    /// its devices `accelerator_memory`.
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
    /// The client left outputs unread for too long.
    Unread {
        /// How long it may.
        within: Duration,
    },
    /// The client went away.
    Cancelled,
    /// An accelerator failed, and the process that had it ends. The text says why, for the
    /// log.
    DeviceLost(String),
    /// The process that ran the call ended. The text says why, for the log.
    WorkerDied(String),
    /// The host failed. The text is for the log, never for a caller.
    HostBug(String),
}

/// How a call ended and what it took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// How it ended.
    pub end: End,
    /// Where it ended.
    pub phase: Phase,
    /// What it took.
    pub receipt: Receipt,
    /// Where the guest was, if something stopped it and the runtime was started
    /// to tell its author. Never for a caller, and so for no other process.
    #[serde(skip)]
    pub trace: Option<Box<Trace>>,
}

impl fmt::Display for End {
    /// A few words for a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("it is done"),
            Self::GuestError(error) => write!(f, "its code says: {error}"),
            Self::Trap(trap) => write!(f, "its code trapped: {trap}"),
            Self::Panic(text) => write!(f, "its code panicked: {text}"),
            Self::Exit(code) => write!(f, "its code called exit({code})"),
            Self::Contract(text) => write!(f, "its code broke the contract of the world: {text}"),
            Self::FuelExhausted { fuel_max } => write!(f, "it burnt all of its {fuel_max} fuel"),
            Self::DeadlinePassed => f.write_str("the deadline passed"),
            Self::MemoryLimit { holder, memory_bytes_max } => {
                let (holder, limit) = (holder.as_str(), holder.limit_name());
                write!(f, "{holder} reached {limit}, which is {memory_bytes_max} bytes")
            }
            Self::HandleLimit { handles_max } => write!(f, "it holds over {handles_max} handles"),
            Self::OutputLimit { output_bytes_max } => {
                write!(f, "its outputs exceed {output_bytes_max} bytes")
            }
            Self::HostcallLimit { hostcall_bytes_max } => {
                write!(f, "it handed the host over {hostcall_bytes_max} bytes at once")
            }
            Self::Unread { within } => {
                write!(f, "nobody read its outputs within {} s", within.as_secs_f64())
            }
            Self::Cancelled => f.write_str("the client ended it"),
            Self::DeviceLost(why) => write!(f, "its accelerator failed: {why}"),
            Self::WorkerDied(why) => write!(f, "the process that ran it ended: {why}"),
            Self::HostBug(text) => write!(f, "the host failed: {text}"),
        }
    }
}

impl End {
    /// Whether something stopped the guest: what its owner wants to know of.
    pub fn is_kill(&self) -> bool {
        match self {
            Self::Trap(_)
            | Self::Panic(_)
            | Self::Exit(_)
            | Self::Contract(_)
            | Self::FuelExhausted { .. }
            | Self::DeadlinePassed
            | Self::MemoryLimit { .. }
            | Self::HandleLimit { .. }
            | Self::OutputLimit { .. }
            | Self::HostcallLimit { .. } => true,
            Self::Done
            | Self::GuestError(_)
            | Self::Unread { .. }
            | Self::Cancelled
            | Self::DeviceLost(_)
            | Self::WorkerDied(_)
            | Self::HostBug(_) => false,
        }
    }

    /// The same few words without any of the guest's own, and without a number that
    /// it chooses: either may tell what a caller sent.
    pub fn without_words(&self) -> String {
        let words = match self {
            Self::GuestError(_) => "its code returned an error",
            Self::Panic(_) => "its code panicked",
            // Handles, for one, are named by their numbers.
            Self::Trap(trap) if trap.contains(|c: char| c.is_ascii_digit()) => "its code trapped",
            Self::Exit(_) => "its code called exit",
            Self::Contract(_) => "its code broke the contract of the world",
            Self::Done
            | Self::Trap(_)
            | Self::FuelExhausted { .. }
            | Self::DeadlinePassed
            | Self::MemoryLimit { .. }
            | Self::HandleLimit { .. }
            | Self::OutputLimit { .. }
            | Self::HostcallLimit { .. }
            | Self::Unread { .. }
            | Self::Cancelled
            | Self::DeviceLost(_)
            | Self::WorkerDied(_)
            | Self::HostBug(_) => return self.to_string(),
        };
        words.to_owned()
    }
}

impl Verdict {
    /// The verdict of a call that ended before anything was counted.
    pub fn early(end: End, phase: Phase) -> Self {
        Self { end, phase, receipt: Receipt::default(), trace: None }
    }
}

/// What a call took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Receipt {
    /// Fuel burnt by the guest in the called function. After a trap this is a
    /// lower bound, because the runtime loses what was not yet written back.
    pub fuel: u64,
    /// Whether `fuel` is only a lower bound.
    pub fuel_is_lower_bound: bool,
    /// Largest sum of linear memory of the call's sandbox, in bytes.
    pub memory_bytes_peak: u64,
    /// CPU time of threads while they ran the guest and the host's functions
    /// for it, `load-model` not included.
    pub guest_cpu: Duration,
    /// CPU time of the engine's threads while they computed for the call.
    pub engine_cpu: Duration,
    /// Time in which accelerators computed for the call, by the wall clock: that of each
    /// graph, whatever it had of the device, from its first launch to its end.
    pub device: Duration,
    /// Time that the guest waited for a CPU: its replica had used up its
    /// `cpu_limit`, or others were to run first.
    pub cpu_wait: Duration,
    /// Time that the call waited for a sandbox that had run `load-model`, and
    /// before that for its replica to start; nothing where one was ready.
    pub load: Duration,
    /// Times that a graph was computed.
    pub computes: u64,
    /// Bytes of the requests that the guest was given.
    pub bytes_in: u64,
    /// Bytes of the outputs that the guest gave.
    pub bytes_out: u64,
    /// What it asked of the host. Random numbers are counted where they are made
    /// of a seed.
    pub host_calls: HostCalls,
}

impl fmt::Display for Receipt {
    /// The figures in a few words.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at_least = if self.fuel_is_lower_bound { "at least " } else { "" };
        write!(
            f,
            "{at_least}{} fuel, {:.3?} CPU, {:.3?} on engines, {} bytes of memory at most, {} bytes in, \
             {} bytes out",
            self.fuel,
            self.guest_cpu,
            self.engine_cpu,
            self.memory_bytes_peak,
            self.bytes_in,
            self.bytes_out
        )
    }
}

/// Where a guest was when it was stopped, for its author.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// The guest's stack, innermost first; empty if it waited in the host.
    pub frames: Vec<TraceFrame>,
    /// The last function of the world that the guest called.
    pub last_host_call: Option<HostCall>,
    /// Bytes of linear memory when the function was called.
    pub memory_bytes_start: u64,
    /// Times that linear memory has grown since the sandbox was made.
    pub memory_growths: u64,
}

/// One function on a guest's stack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceFrame {
    /// Its name, or `?`.
    pub function: String,
    /// File and line, where the component says them.
    pub place: Option<String>,
}
