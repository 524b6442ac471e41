//! Backends that are written for the crate `wasmtime-wasi-nn`, as engines of ours.
//!
//! Owns the way between its traits and the seam. What these do not say is taken from the
//! graph's file: which inputs and outputs there are. A backend cannot be interrupted in a
//! run, and says nothing of what it holds meanwhile: the process it is in has limits for
//! both.

use super::engine::{Beside, Engine, Graph, LoadError, Means, Port, Ports, Run, RunError, reason};
use super::lock;
use super::onnx::ports;
use super::tensor::{ElementType, Elements, Tensor};
use bytes::Bytes;
use std::sync::{Arc, Mutex};
use wasmtime_wasi_nn::backend::{BackendError, BackendInner, NamedTensor};
use wasmtime_wasi_nn::wit::{ExecutionTarget, TensorType};

/// A backend as an engine.
pub struct Backend {
    name: &'static str,
    inner: Mutex<Box<dyn BackendInner>>,
    has: fn(&str, &str) -> bool,
}

impl Backend {
    /// This backend under a name. `has` says which operators of ONNX it has: the domain,
    /// empty for ONNX's own, and the operator's name.
    pub fn new(
        name: &'static str,
        backend: impl BackendInner + 'static,
        has: fn(&str, &str) -> bool,
    ) -> Self {
        Self { name, inner: Mutex::new(Box::new(backend)), has }
    }
}

impl Engine for Backend {
    fn name(&self) -> &'static str {
        self.name
    }

    fn has(&self, domain: &str, operator: &str) -> bool {
        (self.has)(domain, operator)
    }

    fn load(
        &self,
        name: &str,
        onnx: &[u8],
        beside: &dyn Beside,
        _: Means,
    ) -> Result<Arc<dyn Graph>, LoadError> {
        let failed =
            |reason| LoadError::Engine { engine: self.name, name: name.to_owned(), reason };
        let mut file = ports::read(onnx, name)?;
        let whole = ports::whole(&mut file, name, beside)?;
        let content = whole.as_deref().unwrap_or(onnx);
        let ports = ports::of(&file).map_err(failed)?;
        drop(file);
        let mut inner = lock(&self.inner);
        let graph = inner.load(&[content], ExecutionTarget::Cpu);
        let graph = graph.map_err(|error| failed(short(&error)))?;
        Ok(Arc::new(BackendGraph { graph, ports, bytes: content.len() as u64 }))
    }

    fn elements(&self, _: ElementType, _: &[u32], data: &[u8]) -> Box<dyn Elements> {
        Box::new(Bytes::copy_from_slice(data))
    }
}

struct BackendGraph {
    graph: wasmtime_wasi_nn::Graph,
    ports: Ports,
    bytes: u64,
}

impl Graph for BackendGraph {
    fn ports(&self) -> &Ports {
        &self.ports
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn run(&self, inputs: Vec<Tensor>, run: &mut Run<'_>) -> Result<Vec<Tensor>, RunError> {
        let failed = |error: BackendError| match run.cancel.is_cancelled() {
            true => RunError::Cancelled,
            false => RunError::Engine(short(&error)),
        };
        let named = self.inputs().iter().zip(inputs).map(|(port, tensor)| taken(port, tensor));
        let named = named.collect::<Result<_, _>>()?;
        let mut context = self.graph.init_execution_context().map_err(failed)?;
        let mut made = context.compute_with_io(named).map_err(failed)?;
        let mut outputs = Vec::with_capacity(self.outputs().len());
        for port in self.outputs() {
            let place = made.iter().position(|named| named.name == port.name);
            let missing = || RunError::Engine(format!("there is no output {:?}", port.name));
            outputs.push(given(made.swap_remove(place.ok_or_else(missing)?))?);
        }
        Ok(outputs)
    }
}

fn taken(port: &Port, tensor: Tensor) -> Result<NamedTensor, RunError> {
    let (element, shape) = (tensor.element(), tensor.shape().to_vec());
    let data = tensor.read()?;
    // Nobody else has them now, so they are not copied.
    drop(tensor);
    let tensor = wasmtime_wasi_nn::Tensor::new(shape, type_of(element), data.into());
    Ok(NamedTensor { name: port.name.clone(), tensor })
}

fn given(named: NamedTensor) -> Result<Tensor, RunError> {
    let wasmtime_wasi_nn::Tensor { dimensions, ty, data } = named.tensor;
    Tensor::new(element_of(ty), dimensions, data)
        .map_err(|error| RunError::Engine(format!("output {:?}: {error}", named.name)))
}

fn type_of(element: ElementType) -> TensorType {
    match element {
        ElementType::F16 => TensorType::Fp16,
        ElementType::F32 => TensorType::Fp32,
        ElementType::F64 => TensorType::Fp64,
        ElementType::Bf16 => TensorType::Bf16,
        ElementType::U8 => TensorType::U8,
        ElementType::I32 => TensorType::I32,
        ElementType::I64 => TensorType::I64,
    }
}

fn element_of(ty: TensorType) -> ElementType {
    match ty {
        TensorType::Fp16 => ElementType::F16,
        TensorType::Fp32 => ElementType::F32,
        TensorType::Fp64 => ElementType::F64,
        TensorType::Bf16 => ElementType::Bf16,
        TensorType::U8 => ElementType::U8,
        TensorType::I32 => ElementType::I32,
        TensorType::I64 => ElementType::I64,
    }
}

fn short(error: &BackendError) -> String {
    match error {
        BackendError::BackendAccess(cause) => reason(&format!("{error}: {cause}")),
        other => reason(other),
    }
}
