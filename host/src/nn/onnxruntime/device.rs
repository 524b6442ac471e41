//! Graphs on a device, by the library's provider for it.
//!
//! Owns how much of the device's memory sessions have, what of it stays there between runs,
//! and how the library says which nodes are there.

use crate::nn::devices::failure;
use crate::nn::engine::{OnDevices, Placement, RunError, reason};
use ort::AsPointer;
use ort::ep::{ArenaExtendStrategy, CUDA, ExecutionProvider};
use ort::memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType};
use ort::session::builder::SessionBuilder;
use ort::session::{IoBinding, Session};
use ort::value::DynTensor;
use std::ffi::CStr;
use std::ptr;

/// The device, among those that the process sees: the first, which is its only one.
const DEVICE: i32 = 0;

/// Has the library say, once a graph is loaded, what computes its nodes.
const RECORDS: (&str, &str) = ("session.record_ep_graph_assignment_info", "1");

/// What graphs are on: devices of one version, and the provider that computes there.
#[derive(Debug, Clone)]
pub(super) struct On {
    devices: OnDevices,
    provider: Provider,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Provider {
    Cuda,
    /// The library's own, in place of one that there is no device for.
    #[cfg(test)]
    Cpu,
}

impl Provider {
    fn name(self) -> &'static str {
        match self {
            Self::Cuda => CUDA::NAME,
            #[cfg(test)]
            Self::Cpu => ort::ep::CPU::NAME,
        }
    }

    fn memory(self) -> AllocationDevice<'static> {
        match self {
            Self::Cuda => AllocationDevice::CUDA,
            #[cfg(test)]
            Self::Cpu => AllocationDevice::CPU,
        }
    }
}

impl On {
    /// These, if the library that was loaded computes on such.
    pub(super) fn cuda(devices: &OnDevices) -> Option<Self> {
        let is_there = CUDA::is_available().unwrap_or(false);
        is_there.then(|| Self { devices: devices.clone(), provider: Provider::Cuda })
    }

    /// The same of what every library has.
    #[cfg(test)]
    pub(super) fn cpu(devices: &OnDevices) -> Self {
        Self { devices: devices.clone(), provider: Provider::Cpu }
    }

    /// Has a session compute there, on no more memory than that, and fail where it cannot.
    pub(super) fn configured(&self, builder: SessionBuilder) -> ort::Result<SessionBuilder> {
        let builder = builder.with_config_entry(RECORDS.0, RECORDS.1)?;
        let bytes = usize::try_from(self.devices.memory.bytes_max()).unwrap_or(usize::MAX);
        let provider = match self.provider {
            Provider::Cuda => CUDA::default()
                .with_device_id(DEVICE)
                .with_memory_limit(bytes)
                .with_arena_extend_strategy(ArenaExtendStrategy::SameAsRequested)
                // A search for what is fastest takes memory beside the arena.
                .with_conv_max_workspace(false)
                .build(),
            #[cfg(test)]
            Provider::Cpu => return Ok(builder),
        };
        Ok(builder.with_execution_providers([provider.error_on_failure()])?)
    }

    /// Binds the inputs of a run, which are copied to the device where they are not there
    /// yet, and has the outputs stay there.
    pub(super) fn bound<'a>(
        &self,
        session: &Session,
        inputs: impl Iterator<Item = (&'a str, &'a DynTensor)>,
        outputs: impl Iterator<Item = &'a str>,
    ) -> ort::Result<IoBinding> {
        let mut binding = session.create_binding()?;
        for (name, tensor) in inputs {
            binding.bind_input(name, tensor)?;
        }
        let (memory, kind) = (self.provider.memory(), AllocatorType::Device);
        let there = MemoryInfo::new(memory, DEVICE, kind, MemoryType::Default)?;
        for name in outputs {
            binding.bind_output_to_device(name, &there)?;
        }
        Ok(binding)
    }

    /// Where the nodes of a session's graph are computed: how many by this provider, and
    /// the names of the others, or of their operators where they have none.
    pub(super) fn placed(&self, session: &Session) -> ort::Result<Placement> {
        placed(session, self.provider.name())
    }

    /// What a failure means.
    pub(super) fn failure(&self, error: &ort::Error) -> RunError {
        failure(reason(error), &self.devices)
    }
}

fn placed(session: &Session, provider: &str) -> ort::Result<Placement> {
    let mut placement = Placement::default();
    for part in parts(session)? {
        let nodes = part.nodes()?;
        if part.provider()? == provider {
            placement.on_device += nodes.len();
        } else {
            placement.on_cpu.extend(nodes);
        }
    }
    Ok(placement)
}

/// Nodes that one provider computes, as long as the session lives.
struct Part<'a> {
    part: *const ort::sys::OrtEpAssignedSubgraph,
    _session: &'a Session,
}

#[allow(
    unsafe_code,
    reason = "JUSTIFICATION: the crate has no safe name for the functions that say where a node is"
)]
fn parts(session: &Session) -> ort::Result<Vec<Part<'_>>> {
    let (mut all, mut count) = (ptr::null(), 0);
    // SAFETY: the session lives, and the places are of this frame.
    let status = unsafe {
        (ort::api().Session_GetEpGraphAssignmentInfo)(session.ptr(), &raw mut all, &raw mut count)
    };
    // SAFETY: what comes back is a status, which is looked at once.
    unsafe { ort::Error::result_from_status(status) }?;
    if all.is_null() {
        return Ok(Vec::new());
    }
    // SAFETY: these are so many, which the session keeps.
    let all = unsafe { std::slice::from_raw_parts(all, count) };
    Ok(all.iter().map(|part| Part { part: *part, _session: session }).collect())
}

#[allow(unsafe_code, reason = "JUSTIFICATION: as above")]
impl Part<'_> {
    fn provider(&self) -> ort::Result<String> {
        let mut name = ptr::null();
        // SAFETY: the session keeps the part, and the place is of this frame.
        let status = unsafe { (ort::api().EpAssignedSubgraph_GetEpName)(self.part, &raw mut name) };
        // SAFETY: as above.
        unsafe { ort::Error::result_from_status(status) }?;
        Ok(text(name))
    }

    fn nodes(&self) -> ort::Result<Vec<String>> {
        let (mut all, mut count) = (ptr::null(), 0);
        // SAFETY: as above.
        let status = unsafe {
            (ort::api().EpAssignedSubgraph_GetNodes)(self.part, &raw mut all, &raw mut count)
        };
        // SAFETY: as above.
        unsafe { ort::Error::result_from_status(status) }?;
        if all.is_null() {
            return Ok(Vec::new());
        }
        // SAFETY: these are so many, which the session keeps.
        let all = unsafe { std::slice::from_raw_parts(all, count) };
        all.iter().map(|node| name_of(*node)).collect()
    }
}

#[allow(unsafe_code, reason = "JUSTIFICATION: as above")]
fn name_of(node: *const ort::sys::OrtEpAssignedNode) -> ort::Result<String> {
    let api = ort::api();
    let mut name = ptr::null();
    // SAFETY: the session keeps the node, and the place is of this frame.
    let status = unsafe { (api.EpAssignedNode_GetName)(node, &raw mut name) };
    // SAFETY: as above.
    unsafe { ort::Error::result_from_status(status) }?;
    let told = text(name);
    if !told.is_empty() {
        return Ok(told);
    }
    // SAFETY: as above.
    let status = unsafe { (api.EpAssignedNode_GetOperatorType)(node, &raw mut name) };
    // SAFETY: as above.
    unsafe { ort::Error::result_from_status(status) }?;
    Ok(text(name))
}

#[allow(unsafe_code, reason = "JUSTIFICATION: as above")]
fn text(name: *const std::ffi::c_char) -> String {
    match name.is_null() {
        true => String::new(),
        // SAFETY: the library gives texts that end, which the session keeps.
        false => unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned(),
    }
}
