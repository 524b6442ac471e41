//! What NVIDIA's driver says, by its management library. That is loaded where it is there;
//! the program is linked with none of it.

use super::Device;
use nvml_wrapper::Nvml;
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::error::NvmlError;
use std::sync::LazyLock;

static NVML: LazyLock<Result<Nvml, NvmlError>> = LazyLock::new(Nvml::init);

/// The devices in the driver's order. The error is why there are none, in a few words.
pub(super) fn devices() -> Result<Vec<Device>, String> {
    let nvml = NVML.as_ref().map_err(words)?;
    let count = nvml.device_count().map_err(|error| words(&error))?;
    let described = |index| {
        let device = nvml.device_by_index(index)?;
        let memory = device.memory_info()?;
        Ok(Device::named(device.uuid()?, &device.name()?, memory.total))
    };
    let found = (0..count).filter_map(|index| {
        let described: Result<_, NvmlError> = described(index);
        // One that is broken takes nothing away from the others.
        let told = |error: &NvmlError| tracing::warn!(index, "an accelerator is left out: {error}");
        described.inspect_err(told).ok()
    });
    Ok(found.collect())
}

/// Bytes that a process has of a device's memory, by its id; nothing where the driver does
/// not tell, as in a container that sees other ids.
pub(super) fn held_by(device: &str, pid: u32) -> Option<u64> {
    let device = NVML.as_ref().ok()?.device_by_uuid(device).ok()?;
    let processes = device.running_compute_processes().ok()?;
    let held = processes.into_iter().filter(|process| process.pid == pid);
    let held = held.map(|process| match process.used_gpu_memory {
        UsedGpuMemory::Used(bytes) => Some(bytes),
        UsedGpuMemory::Unavailable => None,
    });
    held.reduce(|sum, bytes| Some(sum?.saturating_add(bytes?))).flatten()
}

fn words(error: &NvmlError) -> String {
    match error {
        NvmlError::LibloadingError(_) => "no driver of NVIDIA's is installed".to_owned(),
        NvmlError::DriverNotLoaded => "NVIDIA's driver is not loaded".to_owned(),
        error => format!("NVIDIA's driver says: {error}"),
    }
}
