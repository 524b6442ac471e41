//! What a run takes, node by node: memory for the values between nodes, and work
//! that cannot be interrupted.

use crate::limits::limit;
use crate::nn::engine::RunError;
use crate::sandbox::Charge;
use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::{EvalContext, SymbolValues, TypedNode};
use tract_onnx::tract_core::ops::array::{DynSlice, DynTile, Range, Topk};
use tract_onnx::tract_core::ops::cnn::{MaxPool, PoolSpec, SumPool};
use tract_onnx::tract_core::ops::logic::IfThenElse;
use tract_onnx::tract_core::ops::scan::{InputMapping, OptScan, Scan, iteration_count};
use tract_onnx::tract_core::ops::source::TypedSource;

/// Multiplications and additions of one node, which nothing stops: up to a minute.
pub(super) const NODE_WORK_MAX: u64 = 1_000_000_000_000;

/// What it takes to begin a node at all, in multiplications: a microsecond.
const STEP_WORK: u64 = 10_000;

/// The same of a branch, which the engine plans each time that it is taken.
const BRANCH_STEP_WORK: u64 = 1_000_000;

/// What is known of a plan before it runs.
#[derive(Debug)]
pub(super) struct Ledger {
    /// By node: the values that nothing needs once it has run.
    frees: Vec<Vec<usize>>,
    /// By node: its work, where that depends on the inputs.
    work: Vec<Option<TDim>>,
}

/// A node that would compute for too long.
#[derive(Debug, thiserror::Error)]
#[error(
    "node {node:?} computes {work} multiplications at once, over the {NODE_WORK_MAX} that one may"
)]
pub(super) struct TooMuchWork {
    node: String,
    work: u64,
}

impl Ledger {
    pub(super) fn of(plan: &TypedSimplePlan) -> TractResult<Self> {
        let model = plan.model();
        let mut last_use = vec![None; model.nodes.len()];
        for node in plan.order_without_consts() {
            for input in &model.node(*node).inputs {
                if let Some(place) = last_use.get_mut(input.node) {
                    *place = Some(*node);
                }
            }
        }
        for output in &model.outputs {
            if let Some(place) = last_use.get_mut(output.node) {
                *place = None;
            }
        }
        let mut frees = vec![Vec::new(); model.nodes.len()];
        for (value, user) in last_use.into_iter().enumerate() {
            if let Some(freed) = user.and_then(|user: usize| frees.get_mut(user)) {
                freed.push(value);
            }
        }
        let mut work = vec![None; model.nodes.len()];
        for (node, place) in model.nodes.iter().zip(&mut work) {
            if let Some(body) = Body::of(node) {
                let facts = model.node_input_facts(node.id)?;
                if let Some(work) = body.work(&facts, &SymbolValues::default()) {
                    check(node, work)?;
                }
                continue;
            }
            let work = work_of(model, node)?;
            match work.to_i64() {
                Ok(work) => check(node, work.unsigned_abs())?,
                Err(_) => *place = Some(work),
            }
        }
        Ok(Self { frees, work })
    }

    /// A run's own page.
    pub(super) fn begin<'a>(&'a self, scratch: &'a mut Charge) -> Run<'a> {
        Run { ledger: self, live: vec![0; self.frees.len()], scratch }
    }
}

/// What one run holds.
pub(super) struct Run<'a> {
    ledger: &'a Ledger,
    /// Bytes of each node's values that are still needed.
    live: Vec<u64>,
    scratch: &'a mut Charge,
}

impl Run<'_> {
    /// Before a node computes: what it is going to hold is charged, as far as its
    /// inputs say it.
    pub(super) fn before(
        &mut self,
        context: &EvalContext<'_>,
        node: &TypedNode,
        inputs: &[TValue],
    ) -> Result<(), RunError> {
        // The inputs are charged already, as tensors.
        if node.op_is::<TypedSource>() {
            return Ok(());
        }
        if let Some(Some(work)) = self.ledger.work.get(node.id) {
            // What cannot be told when its inputs are there is too much.
            let work = work.eval(context.symbols).to_i64().unwrap_or(i64::MAX);
            check(node, work.unsigned_abs())
                .map_err(|error| RunError::Engine(error.to_string()))?;
        }
        let mut inside = 0;
        if let Some(body) = Body::of(node) {
            let facts = inputs.iter().map(|input| input.datum_type().fact(input.shape()));
            let facts: Vec<TypedFact> = facts.collect();
            let facts: TVec<&TypedFact> = facts.iter().collect();
            let work = body.work(&facts, context.symbols).unwrap_or(u64::MAX);
            check(node, work).map_err(|error| RunError::Engine(error.to_string()))?;
            inside = body.bytes(context.symbols).unwrap_or(u64::MAX);
        }
        let facts = node.outputs.iter().map(|output| &output.fact);
        let known: Option<Vec<u64>> = facts.map(|fact| bytes(fact, context.symbols)).collect();
        let bytes = known.map_or_else(|| grown(node, inputs, context.symbols), saturating_sum);
        self.hold(node.id, bytes.saturating_add(inside))
    }

    /// After it: what it holds indeed, and what is not needed any more.
    pub(super) fn after(&mut self, node: &TypedNode, outputs: &[TValue]) -> Result<(), RunError> {
        // Packed values are not what their shape says; they stay what they were
        // charged as.
        let is_plain = node.outputs.iter().all(|output| output.fact.exotic_fact().is_none());
        if is_plain && !node.op_is::<TypedSource>() {
            let sizes = outputs.iter().map(|value| size(value.datum_type(), value.shape()));
            self.hold(node.id, saturating_sum(sizes))?;
        }
        let freed = self.ledger.frees.get(node.id).into_iter().flatten();
        for value in freed {
            if let Some(live) = self.live.get_mut(*value) {
                self.scratch.shrink(std::mem::take(live));
            }
        }
        Ok(())
    }

    /// Bytes of the node's values from now on.
    fn hold(&mut self, node: usize, bytes: u64) -> Result<(), RunError> {
        let Some(live) = self.live.get_mut(node) else { return Ok(()) };
        let others = self.scratch.bytes() - *live;
        self.scratch.resize(others.saturating_add(bytes))?;
        *live = bytes;
        Ok(())
    }
}

/// Multiplications and additions of a node, as far as they are known: those of
/// products, convolutions, sums, functions of each element, and pools.
fn work_of(model: &TypedModel, node: &TypedNode) -> TractResult<TDim> {
    let pool = node.op_as::<MaxPool>().map(|pool| &pool.pool_spec);
    let pool: Option<&PoolSpec> = pool.or(node.op_as::<SumPool>().map(|pool| &pool.pool_spec));
    if let Some(pool) = pool {
        let kernel = i64::try_from(product(&pool.kernel_shape)).unwrap_or(i64::MAX);
        let made = node.outputs.first().map(|output| output.fact.shape.volume());
        return Ok(made.unwrap_or_default() * kernel);
    }
    let costs = node.op.cost(&model.node_input_facts(node.id)?)?;
    let sum = costs.into_iter().filter(|(cost, _)| cost.is_compute());
    Ok(sum.fold(TDim::from(0), |sum, (_, count)| sum + count))
}

/// Graphs that a node runs by itself, which no hook sees.
enum Body<'a> {
    /// One, in steps.
    Steps(&'a TypedModel, &'a [InputMapping]),
    /// One of two.
    Branches(&'a TypedModel, &'a TypedModel),
}

impl<'a> Body<'a> {
    fn of(node: &'a TypedNode) -> Option<Self> {
        if let Some(scan) = node.op_as::<OptScan>() {
            return Some(Self::Steps(scan.plan.model(), &scan.input_mapping));
        }
        if let Some(scan) = node.op_as::<Scan>() {
            return Some(Self::Steps(&scan.body, &scan.input_mapping));
        }
        let choice = node.op_as::<IfThenElse>()?;
        Some(Self::Branches(&choice.then_body, &choice.else_body))
    }

    /// Its work, as far as it is known: each step, or both branches.
    fn work(&self, inputs: &[&TypedFact], symbols: &SymbolValues) -> Option<u64> {
        match self {
            Self::Steps(model, mapping) => {
                let steps = iteration_count(mapping, inputs)?.eval(symbols).to_i64().ok()?;
                let each = work_of_graph(model, STEP_WORK, symbols)?;
                Some(steps.unsigned_abs().saturating_mul(each))
            }
            Self::Branches(then, otherwise) => {
                let then = work_of_graph(then, BRANCH_STEP_WORK, symbols)?;
                let otherwise = work_of_graph(otherwise, BRANCH_STEP_WORK, symbols)?;
                Some(then.saturating_add(otherwise))
            }
        }
    }

    /// Bytes of its values, all of them at once: none is known to be there no longer
    /// than another.
    fn bytes(&self, symbols: &SymbolValues) -> Option<u64> {
        match self {
            Self::Steps(model, _) => bytes_of_graph(model, symbols),
            Self::Branches(then, otherwise) => {
                Some(bytes_of_graph(then, symbols)?.max(bytes_of_graph(otherwise, symbols)?))
            }
        }
    }
}

fn work_of_graph(model: &TypedModel, step: u64, symbols: &SymbolValues) -> Option<u64> {
    let each = model.nodes.iter().map(|node| match Body::of(node) {
        Some(body) => body.work(&model.node_input_facts(node.id).ok()?, symbols),
        None => {
            let work = work_of(model, node).ok()?.eval(symbols).to_i64().ok()?;
            Some(work.unsigned_abs())
        }
    });
    each.map(|work| Some(work?.saturating_add(step)))
        .try_fold(0, |sum: u64, work| Some(sum.saturating_add(work?)))
}

fn bytes_of_graph(model: &TypedModel, symbols: &SymbolValues) -> Option<u64> {
    model.nodes.iter().try_fold(0, |sum: u64, node| {
        let mut values = node.outputs.iter().map(|output| bytes(&output.fact, symbols));
        let made = values.try_fold(0, |made: u64, value| Some(made.saturating_add(value?)))?;
        let inside = Body::of(node).map_or(Some(0), |body| body.bytes(symbols))?;
        Some(sum.saturating_add(made).saturating_add(inside))
    })
}

fn check(node: &TypedNode, work: u64) -> Result<(), TooMuchWork> {
    match work > limit("node_work", NODE_WORK_MAX) {
        true => Err(TooMuchWork { node: node.name.clone(), work }),
        false => Ok(()),
    }
}

/// Bytes of a value of this type and shape.
fn size(datum: DatumType, shape: &[usize]) -> u64 {
    product(shape).saturating_mul(datum.size_of() as u64)
}

/// Bytes of a value that is still to be made, where the inputs' shapes say it. A
/// packed one has a buffer in the place of each element.
pub(super) fn bytes(fact: &TypedFact, symbols: &SymbolValues) -> Option<u64> {
    let shape = fact.shape.eval_to_usize(symbols).ok()?;
    let plain = size(fact.datum_type, &shape);
    let Some(packed) = fact.exotic_fact() else { return Some(plain) };
    let mut buffers = 0_u64;
    for buffer in packed.buffer_sizes() {
        let bytes = buffer.eval(symbols).to_i64().ok()?;
        buffers = buffers.saturating_add(bytes.unsigned_abs());
    }
    Some(plain.saturating_add(product(shape.iter()).saturating_mul(buffers)))
}

/// The same of a node whose output is as large as its inputs' content says.
fn grown(node: &TypedNode, inputs: &[TValue], symbols: &SymbolValues) -> u64 {
    const INDEX_BYTES: u64 = 8;
    const AXES_MIN: u64 = 3;
    if node.op_is::<Range>() {
        let mut numbers = inputs.iter().map(|input| number(input, symbols));
        let mut next = || numbers.next().flatten();
        let (Some(start), Some(end), Some(step)) = (next(), next(), next()) else {
            return u64::MAX;
        };
        // A float beyond what a number of bytes can be becomes the largest one.
        return (((end - start) / step).abs().ceil() as u64).saturating_mul(INDEX_BYTES);
    }
    let of = |input: &TValue| size(input.datum_type(), input.shape());
    if node.op_is::<DynTile>() {
        let (Some(tiled), Some(times)) = (inputs.first(), inputs.get(1)) else { return u64::MAX };
        let times = times.cast_to::<TDim>().ok();
        let times =
            times.as_ref().and_then(|times| times.try_as_plain_ram().ok()?.as_slice::<TDim>().ok());
        let Some(times) = times else { return u64::MAX };
        let times = times.iter().map(|time| time.eval(symbols).to_i64().unwrap_or(i64::MAX));
        return times.fold(of(tiled), |bytes, time| bytes.saturating_mul(time.unsigned_abs()));
    }
    if let Some(topk) = node.op_as::<Topk>() {
        let (Some(input), Some(k)) = (inputs.first(), inputs.get(1)) else { return u64::MAX };
        let k = k.cast_to_scalar::<i64>().ok().and_then(|k| u64::try_from(k).ok());
        let others = input.shape().iter().enumerate().filter(|(axis, _)| *axis != topk.axis);
        let rows = product(others.map(|(_, axis)| axis));
        let element = input.datum_type().size_of() as u64 + INDEX_BYTES;
        return rows.saturating_mul(k.unwrap_or(u64::MAX)).saturating_mul(element);
    }
    let picks = ["NonZero", "NonMaxSuppression"].contains(&&*node.op.name());
    if node.op.mints_runtime_symbols() && !picks && !node.op_is::<DynSlice>() {
        // A length of its own making, of which nothing is known.
        return u64::MAX;
    }
    // Places of some elements of the inputs, or some of them.
    let places = inputs.iter().map(|input| {
        let axes = (input.shape().len() as u64).max(AXES_MIN);
        product(input.shape()).saturating_mul(axes).saturating_mul(INDEX_BYTES)
    });
    saturating_sum(places)
}

/// One number of a tensor that has one.
fn number(value: &TValue, symbols: &SymbolValues) -> Option<f64> {
    if value.datum_type() == TDim::datum_type() {
        let number = value.try_as_plain_ram().ok()?.to_scalar::<TDim>().ok()?.eval(symbols);
        return number.to_i64().ok().map(|number| number as f64);
    }
    value.cast_to_scalar::<f64>().ok()
}

/// The product of the lengths of axes.
fn product<'a>(axes: impl IntoIterator<Item = &'a usize>) -> u64 {
    axes.into_iter().fold(1, |product: u64, axis| product.saturating_mul(*axis as u64))
}

fn saturating_sum(bytes: impl IntoIterator<Item = u64>) -> u64 {
    bytes.into_iter().fold(0, u64::saturating_add)
}
