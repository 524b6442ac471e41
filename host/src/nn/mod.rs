//! Tensor work for guests.
//!
//! Owns wasi-nn's host side, [`Tensor`], the [`Engine`] seam and the engines;
//! the only module that names an ML library. Never touches tonic, nor files
//! outside the package.

pub mod onnx;

mod beside;
mod engine;
mod tensor;
mod threads;
mod tract;

pub(crate) mod guest;

pub use engine::{Beside, Cancel, Engine, Graph, LoadError, Port, RunError};
pub use tensor::{ElementType, Tensor, TensorError};
pub use tract::Tract;

use crate::call::Holder;
use crate::package::{Assets, GraphFile, Package};
use crate::sandbox::{Account, Charge, Hold, Meters, OverLimit, Share};
use beside::BesideGraph;
use bytes::Bytes;
use onnx::Scan;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;
use threads::Threads;

/// The engines of a process and the threads they compute on.
pub(crate) struct Nn {
    engine: Arc<dyn Engine>,
    threads: Arc<Threads>,
}

impl Nn {
    pub(crate) fn start(threads: usize) -> std::io::Result<Self> {
        Ok(Self { engine: Arc::new(tract::Tract), threads: Arc::new(Threads::start(threads)?) })
    }
}

/// The graphs of a version, loaded once and shared by its sandboxes.
#[derive(Clone, Default)]
pub(crate) struct Graphs(Arc<BTreeMap<String, Arc<NamedGraph>>>);

impl Graphs {
    pub(crate) fn load(
        nn: &Nn,
        files: &[GraphFile],
        assets: &Assets,
        account: &Account,
    ) -> Result<Self, LoadError> {
        let engine = nn.engine.as_ref();
        let mut graphs = BTreeMap::new();
        for file in files {
            let name = file.name.clone();
            let full = |source| LoadError::Memory { name: name.clone(), source };
            // What does not fit is not read first.
            let mut charge = account.charge(Holder::Graph, file.content.len()).map_err(full)?;
            let content = read(file)?;
            let scanned = scan(engine, file, &content)?;
            let bytes = scanned.tensor_bytes.max(content.len() as u64);
            charge.resize(bytes).map_err(full)?;
            let graph = load(engine, assets, file, &content)?;
            drop(content);
            charge.resize(graph.bytes()).map_err(full)?;
            let (account, threads) = (account.clone(), nn.threads.clone());
            let named = NamedGraph { name: name.clone(), graph, account, threads, _charge: charge };
            graphs.insert(name, Arc::new(named));
        }
        Ok(Self(Arc::new(graphs)))
    }

    pub(crate) fn named(&self, name: &str) -> Option<Arc<NamedGraph>> {
        self.0.get(name).cloned()
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
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
}

/// A graph under its name, with the threads that run it.
pub(crate) struct NamedGraph {
    name: String,
    graph: Arc<dyn Graph>,
    /// Of whom it is.
    account: Account,
    threads: Arc<Threads>,
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
        let ports = self.graph.inputs();
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

    /// Computes on the engine's threads, when it is the replica's turn. Outputs come
    /// with their charges.
    pub(crate) async fn compute(
        &self,
        job: Compute,
        share: &Arc<Share>,
    ) -> Result<Vec<(String, Tensor, Charge)>, RunError> {
        let Compute { inputs, held, hold, meters, deadline } = job;
        let (graph, counted, account) = (self.graph.clone(), meters.clone(), self.account.clone());
        let work = move |cancel: &Cancel| {
            let mut scratch = account.charge(Holder::Engine, 0)?;
            let outputs = counted.time_engine(|| graph.run(inputs, cancel, &mut scratch))?;
            drop((held, scratch, hold));
            let charge = |tensor: Tensor| -> Result<_, OverLimit> {
                let charge = account.charge(Holder::Tensor, tensor.data().len() as u64)?;
                Ok((tensor, charge))
            };
            Ok(outputs.into_iter().map(charge).collect::<Result<_, _>>()?)
        };
        let outputs = self.threads.run(share, &meters, Cancel::at(deadline), work).await?;
        let names = self.graph.outputs().iter().map(|port| port.name.clone());
        Ok(names.zip(outputs).map(|(name, (tensor, charge))| (name, tensor, charge)).collect())
    }
}

impl std::fmt::Debug for NamedGraph {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("NamedGraph").field(&self.name).finish()
    }
}

/// A graph of a package, to look at.
pub fn graph_of(package: &Package, file: &GraphFile) -> Result<Arc<dyn Graph>, LoadError> {
    let content = read(file)?;
    scan(&Tract, file, &content)?;
    load(&Tract, &package.assets, file, &content)
}

fn read(file: &GraphFile) -> Result<Bytes, LoadError> {
    let unread = |source| LoadError::Read { name: file.name.clone(), source };
    file.content.read().map_err(unread)
}

fn scan(engine: &dyn Engine, file: &GraphFile, content: &[u8]) -> Result<Scan, LoadError> {
    onnx::scan(content, &|domain, operator| engine.has(domain, operator))
        .map_err(|why| LoadError::Refused { name: file.name.clone(), why })
}

/// Loads a graph. What makes an engine panic is a graph that it cannot load.
fn load(
    engine: &dyn Engine,
    assets: &Assets,
    file: &GraphFile,
    content: &[u8],
) -> Result<Arc<dyn Graph>, LoadError> {
    let beside = BesideGraph { assets, folder: &file.folder };
    let loading = AssertUnwindSafe(|| engine.load(&file.name, content, &beside));
    catch_unwind(loading).unwrap_or_else(|_| {
        Err(LoadError::Engine {
            engine: engine.name(),
            name: file.name.clone(),
            reason: "it panicked; the graph is broken, or uses what it cannot do".to_owned(),
        })
    })
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
