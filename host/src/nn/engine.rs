//! The seam behind which every engine stands.

use super::onnx::{External, ScanError};
use super::tensor::{ElementType, Elements, Tensor, TensorError, Unread};
use crate::devices::Device;
use crate::limits::{Accelerators, Limits, limit};
use crate::sandbox::{Account, Charge, OverLimit};
use std::fmt::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Bytes of what an engine says of a failure.
pub(super) const REASON_BYTES_MAX: usize = 1024;

/// Loads graphs.
pub trait Engine: Send + Sync {
    /// The word for it in `config.yaml` and in messages.
    fn name(&self) -> &'static str;

    /// Whether it has an operator of ONNX: the domain, empty for ONNX's own, and
    /// the operator's name.
    fn has(&self, domain: &str, operator: &str) -> bool;

    /// Of how many accelerators at most it computes a version's graphs on, if it does not do
    /// so on CPUs.
    fn devices_max(&self) -> Option<u32> {
        None
    }

    /// Loads and optimises an ONNX file that the scan has let pass. Takes seconds;
    /// blocks.
    fn load(
        &self,
        name: &str,
        onnx: &[u8],
        beside: &dyn Beside,
        means: Means,
    ) -> Result<Arc<dyn Graph>, LoadError>;

    /// Copies the elements of a tensor to where its graphs take them without another copy.
    /// Their number is what type and shape ask for. What it has no such place for stays
    /// bytes.
    fn elements(&self, element: ElementType, shape: &[u32], data: &[u8]) -> Box<dyn Elements>;

    /// The rows of several tensors, one after the other, as one that is made on the device which
    /// they are all on. They have one type, and the same axes but for the first. Nothing where
    /// they have to be read for that. Blocks.
    fn together(&self, _: &[&Tensor]) -> Option<Result<Tensor, RunError>> {
        None
    }

    /// The reverse: so many rows each of a tensor that has as many, likewise.
    fn apart(&self, _: &Tensor, _rows: &[u32]) -> Option<Result<Vec<Tensor>, RunError>> {
        None
    }
}

/// What the graphs of a version may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Means {
    /// Threads of one run.
    pub threads: usize,
    /// Bytes of memory that an engine has of its own, for constants and for runs.
    pub memory_bytes_max: u64,
}

impl Means {
    /// What `cpu_limit` and `cpu_memory` pay for.
    pub(crate) fn of(limits: &Limits, cpus: usize) -> Self {
        let threads = limits.engine_threads(cpus);
        Self { threads, memory_bytes_max: limits.memory_bytes_max }
    }
}

/// The accelerators of a version, which has them alone. The engines that compute on them are
/// made for it.
#[derive(Debug, Clone)]
pub struct OnDevices {
    /// What it has on all of them together, in bytes.
    pub memory: Account,
    /// Why there are no kernels for them, of those that the host compiles ahead.
    pub no_kernels: Option<String>,
}

impl OnDevices {
    /// These, and of their memory what was asked for.
    pub fn of<'a>(asked: &Accelerators, devices: impl IntoIterator<Item = &'a Device>) -> Self {
        let most = asked.memory_bytes.unwrap_or(u64::MAX);
        let each = devices.into_iter().map(|device| device.memory_bytes.min(most));
        let bytes = each.fold(0, u64::saturating_add);
        Self { memory: Account::new(limit("device_memory", bytes)), no_kernels: None }
    }
}

/// Where the nodes of a graph are computed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Placement {
    /// How many on a device.
    pub on_device: usize,
    /// The names of the others.
    pub on_cpu: Vec<String>,
}

/// What a run goes by, and what it takes.
#[derive(Debug)]
pub struct Run<'a> {
    /// Whether it should go on.
    pub cancel: &'a Cancel,
    /// What it holds beside its inputs and outputs, as far as the engine knows.
    pub scratch: &'a mut Charge,
    /// CPU time of other threads than the one that runs it.
    pub cpu_beside: Duration,
    /// Time in which a device has computed, waiting for the device included.
    pub device: Duration,
}

impl<'a> Run<'a> {
    /// One that goes by this, and has taken nothing.
    pub fn new(cancel: &'a Cancel, scratch: &'a mut Charge) -> Self {
        Self { cancel, scratch, cpu_beside: Duration::ZERO, device: Duration::ZERO }
    }
}

/// The files of a package that a graph may keep data in.
pub trait Beside {
    /// Reads a tensor's data. The error is a sentence without a path of the host.
    fn read(&self, external: &External) -> Result<Vec<u8>, String>;
}

/// A loaded graph; several threads may run it at once.
pub trait Graph: Send + Sync {
    /// What it takes and gives.
    fn ports(&self) -> &Ports;

    /// What it takes, in its own order.
    fn inputs(&self) -> &[Port] {
        &self.ports().inputs
    }

    /// What it gives, in its own order.
    fn outputs(&self) -> &[Port] {
        &self.ports().outputs
    }

    /// Bytes of its constants.
    fn bytes(&self) -> u64;

    /// Where its nodes are computed, if that is not the CPU alone.
    fn placement(&self) -> Option<&Placement> {
        None
    }

    /// Whether a run would begin at once.
    fn is_free(&self) -> bool {
        true
    }

    /// Runs it on inputs in the order of [`Graph::inputs`], which the caller
    /// has checked against their ports. Blocks.
    fn run(&self, inputs: Vec<Tensor>, run: &mut Run<'_>) -> Result<Vec<Tensor>, RunError>;
}

/// The inputs and outputs of a graph, each in its own order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ports {
    /// What it takes.
    pub inputs: Vec<Port>,
    /// What it gives.
    pub outputs: Vec<Port>,
}

/// An input or output of a graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Its name in the graph.
    pub name: String,
    /// Its element type, where the graph fixes one that wasi-nn knows.
    pub element: Option<ElementType>,
    /// Length of each axis; `None` where it is free.
    pub shape: Vec<Option<u32>>,
}

/// No file is beside it.
impl Beside for () {
    fn read(&self, _: &External) -> Result<Vec<u8>, String> {
        Err("there is no file beside the graph".to_owned())
    }
}

/// Whether a run should go on: whoever asked for it has not gone, and its time is
/// not over.
#[derive(Debug, Clone, Default)]
pub struct Cancel {
    asked: Arc<AtomicBool>,
    deadline: Option<Instant>,
    call: Option<CancellationToken>,
}

impl Cancel {
    /// Of a run that must have ended by then.
    pub fn at(deadline: Instant) -> Self {
        Self { deadline: Some(deadline), ..Self::default() }
    }

    /// Of a run for a call, which stops with it.
    pub(crate) fn of(call: CancellationToken, deadline: Instant) -> Self {
        Self { call: Some(call), ..Self::at(deadline) }
    }

    /// Asks the run to stop.
    pub fn cancel(&self) {
        self.asked.store(true, Ordering::Relaxed);
    }

    /// Whether the run should stop.
    pub fn is_cancelled(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
            || self.call.as_ref().is_some_and(CancellationToken::is_cancelled)
            || self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }
}

/// Why a graph cannot be loaded. The operator and the author read this.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Not a graph that the engine understands.
    #[error("{engine} cannot load the graph {name}: {reason}")]
    Engine {
        /// The engine.
        engine: &'static str,
        /// The graph.
        name: String,
        /// What the engine says.
        reason: String,
    },
    /// The file cannot be read.
    #[error("cannot read the graph {name}")]
    Read {
        /// The graph.
        name: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Not a file of ONNX.
    #[error("the graph {name} is no ONNX file: {reason}")]
    Unread {
        /// The graph.
        name: String,
        /// Where it is not.
        reason: String,
    },
    /// This host has no such engine.
    #[error(
        "the graph {name} asks for the engine {asked}; this host has {there} (--onnxruntime and \
         `onnxruntime` of host.yaml name a library of ONNX Runtime)"
    )]
    NoEngine {
        /// The graph.
        name: String,
        /// What `ringfence.engine` says.
        asked: &'static str,
        /// The engines that there are.
        there: String,
    },
    /// No engine of this host computes on accelerators, or none that is asked for.
    #[error(
        "the graph {name} is to be computed on an accelerator, and {engine} would compute it on \
         CPUs{}",
        why.as_ref().map_or_else(String::new, |why| format!(": {why}"))
    )]
    OnCpu {
        /// The graph.
        name: String,
        /// What was asked for, or all that there are.
        engine: String,
        /// Why there is none on accelerators, as far as somebody knows.
        why: Option<String>,
    },
    /// The engine computes on fewer devices than the version has.
    #[error(
        "the graph {name} is to be computed on {count} accelerators, and {engine} computes on \
         {most} at most; lower num_accelerators"
    )]
    Devices {
        /// The graph.
        name: String,
        /// The engine.
        engine: &'static str,
        /// How many there are.
        count: u32,
        /// How many it takes.
        most: u32,
    },
    /// The engine leaves nodes on the CPU that the author has not listed.
    #[error(
        "{engine} computes these nodes of the graph {name} on the CPU: {}; list them in \
         ringfence.accelerator_cpu_nodes if that is what you want, or ask for another engine with \
         ringfence.engine",
        shown(nodes)
    )]
    CpuNodes {
        /// The graph.
        name: String,
        /// The engine.
        engine: &'static str,
        /// Their names.
        nodes: Vec<String>,
    },
    /// The graph needs a device that fails.
    #[error("the accelerator of the graph {name} fails: {reason}")]
    DeviceLost {
        /// The graph.
        name: String,
        /// What the engine says.
        reason: String,
    },
    /// The file is refused before an engine sees it.
    #[error("cannot load the graph {name}: {why}")]
    Refused {
        /// The graph.
        name: String,
        /// Why.
        why: ScanError,
    },
    /// The graph refers to data in another file, which is not there.
    #[error("the graph {name} keeps data in {location:?}: {problem}")]
    External {
        /// The graph.
        name: String,
        /// The other file.
        location: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The graph does not fit into `cpu_memory`, or `accelerator_memory`.
    #[error("the graph {name} does not fit into {}", source.holder.limit_name())]
    Memory {
        /// The graph.
        name: String,
        /// The limit.
        #[source]
        source: OverLimit,
    },
}

/// Why a run gave no outputs.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Inputs that the graph cannot take together.
    #[error("the graph cannot compute this: {0}")]
    Engine(String),
    /// An output has a type that wasi-nn does not know.
    #[error("output {name} has the type {element}, which wasi-nn does not know")]
    OutputType {
        /// The output.
        name: String,
        /// The engine's word for its type.
        element: String,
    },
    /// It would hold more than `cpu_memory` allows, or on a device more than
    /// `accelerator_memory` does.
    #[error(transparent)]
    Memory(#[from] OverLimit),
    /// The device failed, and may be of no use any more.
    #[error("the accelerator failed: {0}")]
    DeviceLost(String),
    /// Whoever asked has gone.
    #[error("cancelled")]
    Cancelled,
    /// The engine panicked.
    #[error("the engine panicked")]
    Panicked,
}

impl From<Unread> for RunError {
    fn from(Unread(why): Unread) -> Self {
        Self::DeviceLost(why)
    }
}

impl From<TensorError> for RunError {
    fn from(error: TensorError) -> Self {
        Self::Engine(error.to_string())
    }
}

/// The first of many names.
fn shown(names: &[String]) -> String {
    const SHOWN: usize = 8;
    let mut shown = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        let _ = write!(shown, " and {} more", names.len() - SHOWN);
    }
    shown
}

/// What an engine says of a failure, as long as anybody reads it.
pub(super) fn reason(error: &impl fmt::Display) -> String {
    let mut text = error.to_string();
    crate::text::cut(&mut text, REASON_BYTES_MAX);
    text
}

/// The shape of an output whose axes an engine counts in another way.
pub(super) fn shape_of<T>(axes: &[T], output: &str) -> Result<Vec<u32>, RunError>
where
    T: Copy,
    u32: TryFrom<T>,
{
    let shape = axes.iter().map(|axis| u32::try_from(*axis)).collect::<Result<_, _>>();
    shape.map_err(|_| RunError::Engine(format!("output {output} is too large")))
}
