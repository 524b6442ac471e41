//! tract on a device, by a runtime of its own that computes there.
//!
//! Owns that a run launches nothing more once nobody wants it, which nodes are where, and that
//! whatever is begun there is waited for.

use super::{
    NAME, Read, Tract, caught, causes, computed, constants_bytes, ports, read, value, values_of,
};
use crate::call::Holder;
use crate::nn::devices::failure;
use crate::nn::engine::{
    Beside, Engine, Graph, LoadError, Means, OnDevices, Placement, Ports, Run, RunError, reason,
};
use crate::nn::runs::bytes_of;
use crate::nn::tensor::{ElementType, Elements, Tensor};
use crate::sandbox::Charge;
use std::sync::Arc;
use std::time::Instant;
use tract_cuda::utils::ensure_cuda_runtime_dependencies;
use tract_cuda::with_cuda_stream;
use tract_gpu::device::get_context;
use tract_gpu::fact::DeviceTypedFactExt;
use tract_gpu::sync::DeviceSync;
use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::{Runtime, runtime_for_name};
use tract_onnx::tract_core::ops::konst::Const;
use tract_onnx::tract_core::ops::source::TypedSource;
use tract_onnx::tract_core::plan;

/// The engine.
pub(in crate::nn) struct TractOn {
    devices: OnDevices,
    runtime: &'static dyn Runtime,
}

impl TractOn {
    /// By CUDA, where its libraries and a driver are there.
    pub(in crate::nn) fn cuda(devices: &OnDevices) -> Result<Self, String> {
        let begun = caught(|| {
            ensure_cuda_runtime_dependencies("CUDA is not there")?;
            // It begins, and finds its kernels.
            with_cuda_stream(|_| Ok(()))
        });
        begun.map_err(|error| causes(&error))?;
        Self::by("cuda", devices)
    }

    /// By what every machine has.
    #[cfg(test)]
    pub(in crate::nn) fn cpu(devices: &OnDevices) -> Result<Self, String> {
        Self::by("cpu", devices)
    }

    fn by(runtime: &str, devices: &OnDevices) -> Result<Self, String> {
        let found = runtime_for_name(runtime).map_err(|error| causes(&error))?;
        let runtime = found.ok_or_else(|| format!("it has no runtime {runtime}"))?;
        Ok(Self { devices: devices.clone(), runtime })
    }

    fn load_error(&self, name: &str, error: &TractError) -> LoadError {
        let (name, why) = (name.to_owned(), causes(error));
        match failure(why, &self.devices) {
            RunError::Memory(source) => LoadError::Memory { name, source },
            RunError::DeviceLost(reason) => LoadError::DeviceLost { name, reason },
            _ => super::load_error(&name, error),
        }
    }
}

impl Engine for TractOn {
    fn name(&self) -> &'static str {
        NAME
    }

    fn has(&self, domain: &str, operator: &str) -> bool {
        Tract.has(domain, operator)
    }

    /// It knows the first alone.
    fn devices_max(&self) -> Option<u32> {
        Some(1)
    }

    fn load(
        &self,
        name: &str,
        onnx: &[u8],
        beside: &dyn Beside,
        _: Means,
    ) -> Result<Arc<dyn Graph>, LoadError> {
        let Read { inferred, input_names, output_names } = read(name, onnx, beside)?;
        let failed = |error: TractError| self.load_error(name, &error);
        let typed = inferred.into_typed().and_then(TypedModel::into_decluttered).map_err(failed)?;
        let inputs = ports(&typed, input_names, &typed.inputs);
        let outputs = ports(&typed, output_names, &typed.outputs);
        let bytes = constants_bytes(&typed).max(onnx.len() as u64);
        let full = |source| LoadError::Memory { name: name.to_owned(), source };
        let held = self.devices.memory.charge(Holder::Device, bytes).map_err(full)?;
        // A device without room makes it panic.
        let prepared = caught(|| self.runtime.prepare(typed)).map_err(failed)?;
        let none = || failed(TractError::msg("its runtime has no plan"));
        let plan = prepared.typed_plan().cloned().ok_or_else(none)?;
        let placement = placed(plan.model());
        let (ports, devices) = (Ports { inputs, outputs }, self.devices.clone());
        Ok(Arc::new(GraphOn { plan, placement, ports, devices, _held: held }))
    }

    fn elements(&self, element: ElementType, shape: &[u32], data: &[u8]) -> Box<dyn Elements> {
        Tract.elements(element, shape, data)
    }

    fn together(&self, tensors: &[&Tensor]) -> Option<Result<Tensor, RunError>> {
        let parts = value::all_there(tensors)?;
        let bytes = tensors.iter().map(|tensor| tensor.bytes()).sum();
        let whole = self.made_there(bytes, || value::together(&parts));
        Some(whole.and_then(|whole| value::given(whole, "a batch")))
    }

    fn apart(&self, tensor: &Tensor, rows: &[u32]) -> Option<Result<Vec<Tensor>, RunError>> {
        let whole = value::large_there(tensor, rows)?;
        let parts = self.made_there(tensor.bytes(), || value::apart(whole, rows));
        let given = |part| value::given(part, "a batch");
        Some(parts.and_then(|parts| parts.into_iter().map(given).collect()))
    }
}

impl TractOn {
    /// What is made on the device of what is there, if it has room for as much.
    fn made_there<T>(
        &self,
        bytes: usize,
        make: impl FnOnce() -> TractResult<T>,
    ) -> Result<T, RunError> {
        let _room = self.devices.memory.charge(Holder::Device, bytes as u64)?;
        waited_for(make).map_err(|error| run_error(&error, &self.devices))
    }
}

/// Which nodes give what is on a device. Constants and inputs are no work, nor is what goes
/// there or comes back.
fn placed(model: &TypedModel) -> Placement {
    let mut placement = Placement::default();
    for node in &model.nodes {
        let is_no_work =
            node.op_is::<Const>() || node.op_is::<TypedSource>() || node.op_is::<DeviceSync>();
        let is_there = node.outputs.iter().any(|output| output.fact.as_device_fact().is_some());
        match (is_no_work, is_there) {
            (true, _) => {}
            (false, true) => placement.on_device += 1,
            (false, false) => placement.on_cpu.push(node.name.clone()),
        }
    }
    placement
}

/// What something gives that this thread does there: whatever it has come to, nothing of it runs
/// on.
fn waited_for<T>(work: impl FnOnce() -> TractResult<T>) -> TractResult<T> {
    let (given, ended) = (caught(work), caught(wait_for_device));
    ended.and(given)
}

/// Waits until nothing of this thread runs there, where there is something to wait for.
fn wait_for_device() -> TractResult<()> {
    match get_context() {
        Ok(context) => context.synchronize(),
        // Nothing was ever there.
        Err(_) => Ok(()),
    }
}

/// A graph there.
struct GraphOn {
    plan: Arc<TypedSimplePlan>,
    placement: Placement,
    ports: Ports,
    devices: OnDevices,
    _held: Charge,
}

/// What a failure there means: the device's own words are the innermost, and the outermost are
/// told.
fn run_error(error: &TractError, devices: &OnDevices) -> RunError {
    match failure(causes(error), devices) {
        RunError::Engine(_) => RunError::Engine(reason(error)),
        other => other,
    }
}

impl Graph for GraphOn {
    fn ports(&self) -> &Ports {
        &self.ports
    }

    /// They are on the device.
    fn bytes(&self) -> u64 {
        0
    }

    fn placement(&self) -> Option<&Placement> {
        Some(&self.placement)
    }

    fn run(&self, inputs: Vec<Tensor>, run: &mut Run<'_>) -> Result<Vec<Tensor>, RunError> {
        let bytes = bytes_of(&inputs) as u64;
        let _inputs = self.devices.memory.charge(Holder::Device, bytes)?;
        let failed = |error: &TractError| run_error(error, &self.devices);
        let began = Instant::now();
        let inputs = values_of(inputs, failed)?;
        // Each thread has a queue of its own there, and what another one has made goes back by
        // that one's: not before this one's has come to its end.
        let held = inputs.clone();
        let (plan, outputs) = (&self.plan, self.outputs());
        let computed =
            waited_for(|| Ok(computed(plan, outputs, inputs, run.cancel, failed, plan::eval)));
        drop(held);
        run.device = began.elapsed();
        computed.map_err(|error| failed(&error))?
    }
}
