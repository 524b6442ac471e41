//! Tensor work for guests.
//!
//! Owns wasi-nn's host side, [`Tensor`], the [`Engine`] seam and the engines;
//! the only module that names an ML library. Never touches tonic, nor files
//! outside the package.

pub mod onnx;

#[cfg(test)]
#[path = "conformance_tests.rs"]
mod conformance;

mod batch;
mod beside;
mod engine;
mod engines;
mod runs;
mod tensor;
mod threads;

mod backend;
mod devices;
mod onnxruntime;
mod tract;

pub(crate) mod guest;

pub use backend::Backend;
pub use devices::{StandIn, engine_on, stand_in};
pub use engine::{
    Beside, Cancel, Engine, Graph, LoadError, Means, OnDevices, Placement, Port, Ports, Run,
    RunError,
};
pub use engines::Engines;
pub use onnxruntime::{OnnxRuntime, OnnxRuntimeElsewhere, OnnxRuntimeError, OnnxRuntimeLibrary};
pub use tensor::{ElementType, Elements, Tensor, TensorError, Unread};
pub use tract::{Kernel, KernelError, Tract, kernel, kernels};

use crate::call::Holder;
use crate::limits::{Accelerators, Limits};
use crate::package::{Assets, GraphFile, Package};
use crate::sandbox::{Account, Charge, Hold, Meters, Share};
use batch::Batches;
use bytes::Bytes;
use runs::Runs;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use threads::Threads;
use tokio_util::sync::CancellationToken;

/// The engines of a process and the threads they compute on.
pub(crate) struct Nn {
    engines: Engines,
    threads: Arc<Threads>,
    cpus: usize,
}

impl Nn {
    pub(crate) fn start(cpus: usize, engines: Engines) -> std::io::Result<Self> {
        Ok(Self { engines, threads: Arc::new(Threads::start(cpus)?), cpus })
    }

    /// What is computed on beside CPUs.
    pub(crate) fn devices(&self) -> Option<&OnDevices> {
        self.engines.devices()
    }
}

/// The graphs of a version, loaded once and shared by its sandboxes.
#[derive(Clone)]
pub(crate) struct Graphs {
    named: Arc<BTreeMap<String, Arc<NamedGraph>>>,
    /// What tensors are made for.
    engine: Arc<dyn Engine>,
}

impl Graphs {
    pub(crate) fn load(
        nn: &Nn,
        files: &[GraphFile],
        assets: &Assets,
        account: &Account,
        limits: &Limits,
    ) -> Result<Self, LoadError> {
        let means = Means::of(limits, nn.cpus);
        let mut named = BTreeMap::new();
        let mut first = None;
        for file in files {
            let name = file.name.clone();
            let full = |source| LoadError::Memory { name: name.clone(), source };
            // What does not fit is not read first.
            let mut charge = account.charge(Holder::Graph, file.content.len()).map_err(full)?;
            let content = read(file)?;
            let (engine, scanned) = nn.engines.for_graph(limits, file, &content)?;
            let bytes = scanned.tensor_bytes.max(content.len() as u64);
            charge.resize(bytes).map_err(full)?;
            let graph = engines::load(engine.as_ref(), assets, file, &content, means)?;
            may_be_where_it_is(graph.as_ref(), engine.name(), file, limits)?;
            drop(content);
            charge.resize(graph.bytes()).map_err(full)?;
            first.get_or_insert(engine.clone());
            let (engine, account, threads) = (engine.clone(), account.clone(), nn.threads.clone());
            let runs = Arc::new(Runs::new(graph, engine, account, threads));
            let batches = Batches::of(limits.batching, &runs);
            let graph = NamedGraph { name: name.clone(), runs, batches, _charge: charge };
            named.insert(name, Arc::new(graph));
        }
        // Without a graph nobody takes a tensor.
        let engine = first.unwrap_or_else(|| Arc::new(Tract));
        Ok(Self { named: Arc::new(named), engine })
    }

    pub(crate) fn named(&self, name: &str) -> Option<Arc<NamedGraph>> {
        self.named.get(name).cloned()
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.named.keys().map(String::as_str)
    }

    /// Each graph that is on a device: its name, its engine, and where its nodes are.
    pub(crate) fn placements(&self) -> impl Iterator<Item = (&str, &'static str, &Placement)> {
        self.named.iter().filter_map(|(name, graph)| {
            let Runs { graph, engine, .. } = &*graph.runs;
            Some((name.as_str(), engine.name(), graph.placement()?))
        })
    }

    /// What tensors are made for, before it is known which graph takes them: what runs the
    /// first one.
    pub(crate) fn engine(&self) -> &Arc<dyn Engine> {
        &self.engine
    }
}

/// What is computed, and for whom.
pub(crate) struct Compute {
    pub(crate) inputs: Vec<Tensor>,
    /// The inputs' charges, which last as long as the engine has the inputs, whoever
    /// still waits.
    pub(crate) held: Vec<Charge>,
    /// What lasts as long as the call.
    pub(crate) hold: Option<Hold>,
    /// Those of the call.
    pub(crate) meters: Arc<Meters>,
    pub(crate) deadline: Instant,
    /// Cancelled with the call.
    pub(crate) stopped: CancellationToken,
}

/// What a run gives, each with what it is charged.
type Outputs = Vec<(Tensor, Charge)>;

/// A graph under its name, with what it runs on.
pub(crate) struct NamedGraph {
    name: String,
    runs: Arc<Runs>,
    /// Where computes wait for each other.
    batches: Option<Batches>,
    _charge: Charge,
}

impl NamedGraph {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Puts named tensors into the graph's order and checks each against its
    /// port. The error is a sentence for the model's author.
    pub(crate) fn arrange(
        &self,
        mut named: Vec<(String, Result<Tensor, TensorError>)>,
    ) -> Result<Vec<Tensor>, String> {
        let ports = self.runs.graph.inputs();
        let mut ordered = Vec::with_capacity(ports.len());
        for port in ports {
            let place = named.iter().position(|(name, _)| *name == port.name);
            let Some(place) = place else {
                return Err(format!("graph {} misses its input {:?}", self.name, port.name));
            };
            let (name, tensor) = named.swap_remove(place);
            let tensor = tensor.map_err(|error| format!("input {name:?}: {error}"))?;
            check(port, &tensor)?;
            ordered.push(tensor);
        }
        match named.first() {
            None => Ok(ordered),
            Some((name, _)) => {
                let mut shown = name.clone();
                crate::text::cut(&mut shown, 128);
                let names: Vec<_> = ports.iter().map(|port| port.name.as_str()).collect();
                Err(format!(
                    "graph {} has no further input {shown:?}; it takes {}",
                    self.name,
                    names.join(", ")
                ))
            }
        }
    }

    /// Computes on the engine's threads, when it is the replica's turn, and with others
    /// where these are waited for. Outputs come with their charges.
    pub(crate) async fn compute(
        &self,
        job: Compute,
        share: &Arc<Share>,
    ) -> Result<Vec<(String, Tensor, Charge)>, RunError> {
        let outputs = match &self.batches {
            Some(batches) => match batches.compute(job, share).await {
                Ok(outputs) => outputs,
                Err(job) => self.runs.alone(job, share).await,
            },
            None => self.runs.alone(job, share).await,
        };
        let names = self.runs.graph.outputs().iter().map(|port| port.name.clone());
        let outputs = names.zip(outputs?);
        Ok(outputs.map(|(name, (tensor, charge))| (name, tensor, charge)).collect())
    }
}

impl std::fmt::Debug for NamedGraph {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("NamedGraph").field(&self.name).finish()
    }
}

/// What is known of a graph without running it.
#[derive(Debug)]
pub struct Looked {
    /// The engine that would run it.
    pub engine: &'static str,
    /// What it takes and gives.
    pub ports: Ports,
}

/// Looks at a graph of a package, with tract where that would run it. Another engine is
/// given nothing: what there is to know is what the file says.
pub fn look_at(
    engines: &Engines,
    package: &Package,
    file: &GraphFile,
) -> Result<Looked, LoadError> {
    let content = read(file)?;
    let limits = package.limits();
    // Where it would run is asked of no device.
    let on_cpu = Limits { accelerators: Accelerators::default(), ..limits.clone() };
    let (engine, _) = engines.for_graph(&on_cpu, file, &content)?;
    let engine = engine.name();
    let ports = if engine == Tract.name() {
        let means = Means::of(limits, 1);
        engines::load(&Tract, &package.assets, file, &content, means)?.ports().clone()
    } else {
        let written = onnx::ports::read(&content, &file.name)?;
        let unread = |reason| LoadError::Unread { name: file.name.clone(), reason };
        onnx::ports::of(&written).map_err(unread)?
    };
    Ok(Looked { engine, ports })
}

/// The engine that runs a graph of a package on devices, and where the nodes are then. Loads
/// it there.
pub fn place(
    engines: &Engines,
    package: &Package,
    file: &GraphFile,
) -> Result<(&'static str, Placement), LoadError> {
    let content = read(file)?;
    let limits = package.limits();
    let (engine, _) = engines.for_graph(limits, file, &content)?;
    let means = Means::of(limits, 1);
    let graph = engines::load(engine.as_ref(), &package.assets, file, &content, means)?;
    let name = engine.name();
    let on_cpu =
        || LoadError::OnCpu { name: file.name.clone(), engine: name.to_owned(), why: None };
    Ok((name, graph.placement().cloned().ok_or_else(on_cpu)?))
}

fn read(file: &GraphFile) -> Result<Bytes, LoadError> {
    let unread = |source| LoadError::Read { name: file.name.clone(), source };
    file.content.read().map_err(unread)
}

/// Whoever panicked has left nothing half done in what these guard.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// No node of a graph that is to be on a device is elsewhere, but those that the author has
/// listed.
fn may_be_where_it_is(
    graph: &dyn Graph,
    engine: &'static str,
    file: &GraphFile,
    limits: &Limits,
) -> Result<(), LoadError> {
    if limits.accelerators.count == 0 {
        return Ok(());
    }
    let on_cpu = || {
        let (name, engine) = (file.name.clone(), engine.to_owned());
        LoadError::OnCpu { name, engine, why: None }
    };
    let placement = graph.placement().ok_or_else(on_cpu)?;
    if placement.on_device == 0 && placement.on_cpu.is_empty() {
        return Err(on_cpu());
    }
    let is_listed = |node: &&String| limits.accelerator_cpu_nodes.contains(node);
    let nodes: Vec<String> =
        placement.on_cpu.iter().filter(|node| !is_listed(node)).cloned().collect();
    match nodes.is_empty() {
        true => Ok(()),
        false => Err(LoadError::CpuNodes { name: file.name.clone(), engine, nodes }),
    }
}

fn check(port: &Port, tensor: &Tensor) -> Result<(), String> {
    if let Some(element) = port.element
        && element != tensor.element()
    {
        return Err(format!(
            "input {:?} takes {}, not {}",
            port.name,
            element.as_str(),
            tensor.element().as_str()
        ));
    }
    let fits = port.shape.len() == tensor.shape().len()
        && port
            .shape
            .iter()
            .zip(tensor.shape())
            .all(|(axis, length)| axis.is_none_or(|axis| axis == *length));
    if fits {
        return Ok(());
    }
    let axes: Vec<_> = port
        .shape
        .iter()
        .map(|axis| axis.map_or_else(|| "any".to_owned(), |axis| axis.to_string()))
        .collect();
    Err(format!(
        "input {:?} takes the shape [{}], not {:?}",
        port.name,
        axes.join(", "),
        tensor.shape()
    ))
}
