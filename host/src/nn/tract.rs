//! tract: graphs on the CPU, in pure Rust, or on a device.

mod device;
mod kernels;
mod ledger;
mod value;

pub(super) use device::TractOn;
pub use kernels::{Kernel, KernelError, kernel, kernels};

use super::engine::{
    Beside, Cancel, Engine, Graph, LoadError, Means, Port, Ports, Run, RunError, reason,
};
use super::tensor::{ElementType, Elements, Tensor};
use bytes::Bytes;
use ledger::Ledger;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, LazyLock};
use tract_onnx::Onnx;
use tract_onnx::data_resolver::ModelDataResolver;
use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::{EvalContext, OpState, SymbolValues};
use tract_onnx::tract_core::ops::konst::Const;
use tract_onnx::tract_core::plan;

/// The engine. Keeps nothing between graphs.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tract;

const NAME: &str = "tract";

/// The operators of [`ONNX_ML`] that tract has. It tells operators apart by their
/// names alone.
const ML: [&str; 5] = [
    "CategoryMapper",
    "LinearClassifier",
    "LinearRegressor",
    "Normalizer",
    "TreeEnsembleClassifier",
];
const ONNX_ML: &str = "ai.onnx.ml";

/// The operators of [`MICROSOFT`] that tract has.
const CONTRIB: [&str; 12] = [
    "BiasGelu",
    "FastGelu",
    "GatherBlockQuantized",
    "Gelu",
    "GroupQueryAttention",
    "MatMulNBits",
    "MultiHeadAttention",
    "QuickGelu",
    "RotaryEmbedding",
    "SimplifiedLayerNormalization",
    "SkipLayerNormalization",
    "SkipSimplifiedLayerNormalization",
];
const MICROSOFT: &str = "com.microsoft";

static ONNX: LazyLock<Onnx> =
    LazyLock::new(|| Onnx { provider: Arc::new(NoFiles), ..tract_onnx::onnx() });

impl Engine for Tract {
    fn name(&self) -> &'static str {
        NAME
    }

    fn has(&self, domain: &str, operator: &str) -> bool {
        let is_of_domain = match domain {
            "" => true,
            ONNX_ML => ML.contains(&operator),
            MICROSOFT => CONTRIB.contains(&operator),
            _ => false,
        };
        is_of_domain && ONNX.op_register.0.contains_key(operator)
    }

    fn load(
        &self,
        name: &str,
        onnx: &[u8],
        beside: &dyn Beside,
        _: Means,
    ) -> Result<Arc<dyn Graph>, LoadError> {
        let failed = |error: TractError| load_error(name, &error);
        let Read { inferred, input_names, output_names } = read(name, onnx, beside)?;
        let typed = inferred.into_optimized().map_err(failed)?;
        let inputs = ports(&typed, input_names, &typed.inputs);
        let outputs = ports(&typed, output_names, &typed.outputs);
        let bytes = constants_bytes(&typed).max(onnx.len() as u64);
        let plan = typed.into_runnable().map_err(failed)?;
        let ledger = Ledger::of(&plan).map_err(failed)?;
        let ports = Ports { inputs, outputs };
        Ok(Arc::new(TractGraph { plan, ledger, ports, bytes }))
    }

    fn elements(&self, element: ElementType, shape: &[u32], data: &[u8]) -> Box<dyn Elements> {
        match value::of(element, shape, data) {
            Some(value) => Box::new(value),
            // A run says why.
            None => Box::new(Bytes::copy_from_slice(data)),
        }
    }
}

/// A graph as the file has it. The optimiser renames nodes, so the names are taken before it
/// runs.
struct Read {
    inferred: InferenceModel,
    input_names: Vec<String>,
    output_names: Vec<String>,
}

fn read(name: &str, onnx: &[u8], beside: &dyn Beside) -> Result<Read, LoadError> {
    let failed = |error: TractError| load_error(name, &error);
    let mut proto = ONNX.proto_model_for_read(&mut &*onnx).map_err(failed)?;
    if let Some(graph) = &mut proto.graph {
        super::onnx::external::bring(graph, name, beside)?;
    }
    let inferred = ONNX.model_for_proto_model(&proto).map_err(failed)?;
    let input_names = names(&inferred, &inferred.inputs);
    let output_names = names(&inferred, &inferred.outputs);
    Ok(Read { inferred, input_names, output_names })
}

fn load_error(name: &str, error: &TractError) -> LoadError {
    LoadError::Engine { engine: NAME, name: name.to_owned(), reason: causes(error) }
}

struct TractGraph {
    plan: Arc<TypedSimplePlan>,
    ledger: Ledger,
    ports: Ports,
    bytes: u64,
}

impl Graph for TractGraph {
    fn ports(&self) -> &Ports {
        &self.ports
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn run(&self, inputs: Vec<Tensor>, run: &mut Run<'_>) -> Result<Vec<Tensor>, RunError> {
        let mut holds = self.ledger.begin(run.scratch);
        let outputs = self.outputs();
        let failed = |error: &TractError| RunError::Engine(reason(error));
        let inputs = values_of(inputs, failed)?;
        computed(
            &self.plan,
            outputs,
            inputs,
            run.cancel,
            failed,
            |context, op_state, node, inputs| {
                holds.before(context, node, &inputs)?;
                let outputs = plan::eval(context, op_state, node, inputs)?;
                holds.after(node, &outputs)?;
                Ok(outputs)
            },
        )
    }
}

/// Tensors as tract takes them.
fn values_of(
    tensors: Vec<Tensor>,
    failed: impl Fn(&TractError) -> RunError,
) -> Result<TVec<TValue>, RunError> {
    let values = tensors.into_iter().map(value::taken).collect::<TractResult<_>>();
    values.map_err(|error| error.downcast().unwrap_or_else(|error: TractError| failed(&error)))
}

/// Runs a plan, each node by `eval`, as long as somebody wants it: a node cannot be
/// interrupted, but the next one need not start. `failed` says what an error of tract's
/// means.
fn computed<E>(
    plan: &Arc<TypedSimplePlan>,
    outputs: &[Port],
    inputs: TVec<TValue>,
    cancel: &Cancel,
    failed: impl Fn(&TractError) -> RunError,
    mut eval: E,
) -> Result<Vec<Tensor>, RunError>
where
    E: FnMut(
        &EvalContext<'_>,
        Option<&mut (dyn OpState + 'static)>,
        &TypedNode,
        TVec<TValue>,
    ) -> TractResult<TVec<TValue>>,
{
    // The outermost cause is told: what lies deeper names the host's sources and files.
    let engine = |error: TractError| match cancel.is_cancelled() {
        true => RunError::Cancelled,
        false => error.downcast().unwrap_or_else(|error: TractError| failed(&error)),
    };
    let mut state = plan.spawn().map_err(engine)?;
    let values = state.run_plan_with_eval(inputs, |context, op_state, node, inputs| {
        match cancel.is_cancelled() {
            true => Err(TractError::msg("cancelled")),
            false => eval(context, op_state, node, inputs),
        }
    });
    let values = values.map_err(engine)?.into_iter().zip(outputs);
    values.map(|(value, port)| value::given(value, &port.name)).collect()
}

/// Refuses every file: a graph is all in its own bytes.
struct NoFiles;

impl ModelDataResolver for NoFiles {
    fn read_bytes_from_path(
        &self,
        _: &mut Vec<u8>,
        path: &Path,
        _: usize,
        _: Option<usize>,
    ) -> TractResult<()> {
        Err(TractError::msg(format!("the graph asks for the file {}", path.display())))
    }
}

fn names(model: &InferenceModel, outlets: &[OutletId]) -> Vec<String> {
    outlets
        .iter()
        .map(|outlet| match model.outlet_label(*outlet) {
            Some(label) => label.to_owned(),
            None => model.node(outlet.node).name.clone(),
        })
        .collect()
}

fn ports(model: &TypedModel, names: Vec<String>, outlets: &[OutletId]) -> Vec<Port> {
    names
        .into_iter()
        .zip(outlets)
        .map(|(name, outlet)| {
            let fact = model.outlet_fact(*outlet).ok();
            let axis = |axis: &TDim| axis.to_i64().ok().and_then(|axis| u32::try_from(axis).ok());
            Port {
                name,
                element: fact.and_then(|fact| value::element(fact.datum_type)),
                shape: fact.map_or_else(Vec::new, |fact| fact.shape.iter().map(axis).collect()),
            }
        })
        .collect()
}

/// Bytes of the weights as the optimiser has left them, packed ones included.
fn constants_bytes(model: &TypedModel) -> u64 {
    model
        .nodes
        .iter()
        .filter(|node| node.op_is::<Const>())
        .flat_map(|node| &node.outputs)
        .filter_map(|output| ledger::bytes(&output.fact, &SymbolValues::default()))
        .sum()
}

/// What something gives that may panic, which is then told as an error is.
fn caught<T>(work: impl FnOnce() -> TractResult<T>) -> TractResult<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(TractError::msg(text.unwrap_or("it panicked").to_owned()))
    })
}

/// All causes but those that name the engine's own sources.
fn causes(error: &TractError) -> String {
    let causes = error.chain().map(ToString::to_string);
    let told: Vec<String> = causes.filter(|cause| !cause.contains(".rs:")).collect();
    if told.is_empty() {
        return "it does not say why".to_owned();
    }
    reason(&told.join(": "))
}

#[cfg(test)]
#[path = "tract_tests.rs"]
pub(super) mod tests;
