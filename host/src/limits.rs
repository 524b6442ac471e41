//! Every limit of a call and of a version, with its unit in its name, and those
//! of uploads that their buffers are reserved by.
//!
//! Owns the numbers and their defaults; enforcing them is the sandbox's work.

mod lift;

pub use lift::lift;
pub(crate) use lift::{lifted, limit};

use crate::yaml::bytes_text;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// Fuel that the fastest mix of instructions burns in one second of CPU time, where
/// the machine was not measured, and the least where it was. 1.87e10 of a loop over
/// memory on x86-64, rounded up; bulk instructions burn several times that.
pub const FUEL_PER_CPU_SECOND: u64 = 20_000_000_000;

/// How much faster a machine may be than when it was measured: what ran beside that
/// is not known.
const FUEL_MARGIN: u128 = 2;

/// Stack that wasm itself may use.
pub const WASM_STACK_BYTES: usize = 512 << 10;

/// What each sandbox is charged for its stack: what wasm may use, and as much for
/// the host's functions. The rest of the fibre has no memory until it is used.
const STACK_BYTES: u64 = 2 * WASM_STACK_BYTES as u64;

/// What a replica may take of the CPUs at once: what its `cpu_limit` gives in this
/// time.
pub const CPU_BURST: Duration = Duration::from_millis(100);

/// Bytes of a JSON text of a guest that is taken apart for the client; a longer one
/// stays a text, since taken apart it is many times as large.
pub const JSON_BYTES_MAX: usize = 1 << 20;

/// Uploads and builds together, waiting ones included.
pub const UPLOADS_MAX: usize = 16;

/// Bytes of one message of an upload: clients send parts of 127 MiB.
pub const UPLOAD_MESSAGE_BYTES_MAX: usize = 130 << 20;

/// Who shares a sandbox. Two callers never do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Isolation {
    /// Nobody: each call has its own.
    Call,
    /// Calls of one caller, one after the other.
    Caller,
}

/// What runs graphs, as an author asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EngineName {
    /// tract, which is part of the host.
    Tract,
    /// ONNX Runtime, whose library the operator has.
    OnnxRuntime,
}

impl EngineName {
    /// The words of `config.yaml`.
    pub const WORDS: [&str; 2] = [Self::Tract.as_str(), Self::OnnxRuntime.as_str()];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tract => "tract",
            Self::OnnxRuntime => "onnxruntime",
        }
    }

    /// What a word stands for.
    pub fn of(word: &str) -> Option<Self> {
        [Self::Tract, Self::OnnxRuntime].into_iter().find(|name| name.as_str() == word)
    }
}

/// The accelerators that a model asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Accelerators {
    /// How many: `num_accelerators`.
    pub count: u32,
    /// Patterns for the device's name, such as `NVIDIA-*`, any of which will do:
    /// `accelerator_type`.
    pub types: Vec<String>,
    /// Bytes of memory of each: `accelerator_memory`. More is not used; all there is where
    /// absent.
    pub memory_bytes: Option<u64>,
    /// Names of how they have to be connected: `accelerator_topology`.
    pub topology: Vec<String>,
}

impl fmt::Display for Accelerators {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&accelerators_text(self.count))?;
        if !self.types.is_empty() {
            write!(f, " of type {}", self.types.join(" or "))?;
        }
        if let Some(bytes) = self.memory_bytes {
            write!(f, " with {}", bytes_text(bytes))?;
        }
        Ok(())
    }
}

/// So many of them, in words.
pub(crate) fn accelerators_text(count: u32) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} accelerator{plural}")
}

/// When computes of several calls on one graph become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batching {
    /// Most rows of the first axis together: `ringfence.batching.max_size`.
    pub rows_max: u32,
    /// How long the first of them waits for others: `ringfence.batching.max_wait`.
    pub wait_max: Duration,
}

/// The limits of one version and of each of its calls.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Thousandths of a CPU that a replica may use: `cpu_limit`.
    pub cpu_millis: u64,
    /// Fuel that the fastest mix burns in a second of this machine's CPU time.
    pub fuel_per_cpu_second: u64,
    /// Bytes that a version may make the host hold: `cpu_memory`.
    pub memory_bytes_max: u64,
    /// Longest time of a call, waiting included: `ringfence.call_timeout`.
    pub call_timeout: Duration,
    /// Time that a client may leave its place for outputs full while the guest has
    /// more.
    pub unread_timeout: Duration,
    /// Lower ceiling of fuel than `cpu_limit` gives: `ringfence.max_fuel_per_call`.
    pub fuel_per_call_max: Option<u64>,
    /// Calls of one version at a time: `ringfence.max_concurrency`.
    pub concurrency_max: usize,
    /// Calls of one version that may wait for their turn.
    pub queue_max: usize,
    /// Bytes of all outputs of a call together: `ringfence.max_output_bytes`.
    pub output_bytes_max: u64,
    /// Bytes of one tensor that a guest hands to the host.
    pub tensor_bytes_max: u64,
    /// Handles that a guest may hold.
    pub handles_max: usize,
    /// Handles of WASI that a guest may hold: files, directories, streams,
    /// waits. Some make the host hold memory that no account sees.
    pub wasi_handles_max: usize,
    /// Linear memories of one sandbox.
    pub memories_max: usize,
    /// Tables of one sandbox.
    pub tables_max: usize,
    /// Core instances of one sandbox.
    pub instances_max: usize,
    /// Elements of all tables of one sandbox.
    pub table_elements_max: usize,
    /// Who shares a sandbox: `ringfence.isolation`.
    pub isolation: Isolation,
    /// What runs the graphs; the host's order decides where absent: `ringfence.engine`.
    pub engine: Option<EngineName>,
    /// Whether computes wait for each other: `ringfence.batching`.
    pub batching: Option<Batching>,
    /// What graphs are computed on; CPUs where `count` is 0.
    pub accelerators: Accelerators,
    /// Nodes of graphs that may be computed on the CPU all the same:
    /// `ringfence.accelerator_cpu_nodes`.
    pub accelerator_cpu_nodes: Vec<String>,
    /// Bytes that a sandbox is charged for its stack.
    pub stack_bytes: u64,
    /// Bytes of one request for random numbers.
    pub random_bytes_max: u64,
    /// Bytes of a log line; the rest is cut off and marked.
    pub log_line_bytes_max: usize,
    /// Bytes of all log lines of one call; the rest is dropped and counted.
    pub log_bytes_per_call_max: usize,
    /// Log lines of one call; the rest is dropped and counted.
    pub log_lines_per_call_max: u32,
    /// Bytes of a guest's error message or panic text.
    pub error_text_bytes_max: usize,
    /// Messages between the guest and the client that may wait for the other
    /// side, each way.
    pub messages_buffered_max: usize,
    /// Outputs on their way from a replica to the client, of up to 8 KiB each; larger ones
    /// count for more of them, of which each is at most an eighth of all.
    pub outputs_buffered_max: usize,
}

impl Limits {
    /// Threads that one run of a graph may have: whole CPUs of `cpu_limit`, of those that
    /// there are.
    pub fn engine_threads(&self, cpus: usize) -> usize {
        let paid = usize::try_from(self.cpu_millis / 1000).unwrap_or(usize::MAX);
        paid.min(cpus).max(1)
    }

    /// The fuel ceiling of one call: `cpu_limit` × twice the fuel per CPU-second × call
    /// timeout and the time that a burst makes up for, or less where the author
    /// asked for less.
    pub fn fuel_per_call(&self) -> u64 {
        let fuel_per_cpu_second = FUEL_MARGIN * u128::from(self.fuel_per_cpu_second);
        let cpu_fuel = u128::from(self.cpu_millis) * fuel_per_cpu_second / 1000;
        let time = self.call_timeout.saturating_add(CPU_BURST);
        let ceiling = cpu_fuel.saturating_mul(time.as_millis()) / 1000;
        // wasmtime keeps fuel in an i64.
        let ceiling = u64::try_from(ceiling).unwrap_or(u64::MAX).min(i64::MAX as u64);
        self.fuel_per_call_max.map_or(ceiling, |max| max.min(ceiling))
    }
}

/// Tables of a component for which there are places that are used again.
pub const POOLED_TABLES_MAX: u32 = 4;

/// Callers at a time whose sandboxes are kept for them. The one that called longest ago
/// makes room.
pub const KEPT_CALLERS_MAX: usize = 64;

impl Limits {
    /// Sandboxes of a replica that there may be at once: one for each call, one that is
    /// being dropped for each, the one for the next call, one that is asked for its methods,
    /// and those that are kept.
    pub fn sandboxes_max(&self) -> usize {
        let kept = match self.isolation {
            Isolation::Call => 0,
            Isolation::Caller => KEPT_CALLERS_MAX,
        };
        self.concurrency_max.saturating_mul(2).saturating_add(2).saturating_add(kept)
    }

    /// Bytes that one call from the guest to the host, or one result back, may
    /// carry: the largest output or tensor, and a little for what is around it; but no
    /// more than the version may hold at all.
    pub fn hostcall_bytes(&self) -> usize {
        let largest = self.output_bytes_max.max(self.tensor_bytes_max).saturating_add(1 << 20);
        let bytes = usize::try_from(largest.min(self.memory_bytes_max)).unwrap_or(usize::MAX);
        limit("hostcall_bytes", bytes)
    }
}

impl Default for Limits {
    fn default() -> Self {
        let output_bytes_max = 16 << 20;
        Self {
            cpu_millis: 1000,
            fuel_per_cpu_second: FUEL_PER_CPU_SECOND,
            memory_bytes_max: 1 << 30,
            call_timeout: Duration::from_secs(60),
            unread_timeout: Duration::from_secs(30),
            fuel_per_call_max: None,
            concurrency_max: 16,
            queue_max: 64,
            output_bytes_max,
            tensor_bytes_max: 64 << 20,
            handles_max: 4096,
            wasi_handles_max: 64,
            memories_max: 4,
            tables_max: 32,
            instances_max: 32,
            table_elements_max: 100_000,
            isolation: Isolation::Call,
            engine: None,
            batching: None,
            accelerators: Accelerators::default(),
            accelerator_cpu_nodes: Vec::new(),
            stack_bytes: STACK_BYTES,
            random_bytes_max: 64 << 10,
            log_line_bytes_max: 4 << 10,
            log_bytes_per_call_max: 64 << 10,
            log_lines_per_call_max: 256,
            error_text_bytes_max: 4 << 10,
            messages_buffered_max: 8,
            outputs_buffered_max: 64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halving_cpu_limit_halves_the_fuel_ceiling() {
        let whole = Limits { cpu_millis: 1000, ..Limits::default() };
        let half = Limits { cpu_millis: 500, ..Limits::default() };
        assert_eq!(whole.fuel_per_call(), 2 * half.fuel_per_call());
    }

    #[test]
    fn the_author_can_only_lower_the_fuel_ceiling() {
        let lower = Limits { fuel_per_call_max: Some(7), ..Limits::default() };
        let higher = Limits { fuel_per_call_max: Some(u64::MAX), ..Limits::default() };
        assert_eq!(lower.fuel_per_call(), 7);
        assert_eq!(higher.fuel_per_call(), Limits::default().fuel_per_call());
    }

    #[test]
    fn one_call_of_the_host_carries_no_more_than_the_version_may_hold() {
        let of = |memory_bytes_max, output_bytes_max| {
            Limits { memory_bytes_max, output_bytes_max, ..Limits::default() }.hostcall_bytes()
        };
        assert_eq!(of(1 << 30, 16 << 20), 65 << 20);
        assert_eq!(of(16 << 20, 1 << 30), 16 << 20);
    }

    #[test]
    fn absurd_limits_do_not_overflow() {
        let absurd =
            Limits { cpu_millis: u64::MAX, call_timeout: Duration::MAX, ..Limits::default() };
        assert!(absurd.fuel_per_call() <= i64::MAX as u64);
    }
}
