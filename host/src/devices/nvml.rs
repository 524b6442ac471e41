//! What NVIDIA's driver says, by its management library. That is loaded where it is there;
//! the program is linked with none of it.

use super::Device;
use super::cuda::DRIVER as DRIVER_FOLDERS;
use nvml_wrapper::Nvml;
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::structs::device::CudaComputeCapability;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// Nodes by which each device is reached beside its own, and one that the driver makes where
/// it is missing.
const SHARED_NODES: [&str; 2] = ["/dev/nvidiactl", "/dev/nvidia-uvm"];
#[cfg(target_os = "linux")]
const TOOLS_NODE: &str = "/dev/nvidia-uvm-tools";

static NVML: LazyLock<Result<Nvml, NvmlError>> = LazyLock::new(|| {
    let found = Nvml::init();
    match &found {
        // Containers have it where the loader does not look by itself.
        Err(NvmlError::LibloadingError(_)) => {
            let paths = DRIVER_FOLDERS.iter().map(|folder| Path::new(folder).join(LIBRARY));
            let mut there = paths.filter(|path| path.exists());
            let begun =
                there.find_map(|path| Nvml::builder().lib_path(path.as_os_str()).init().ok());
            begun.map_or(found, Ok)
        }
        Ok(_) | Err(_) => found,
    }
});

/// Its library.
const LIBRARY: &str = "libnvidia-ml.so.1";

/// The devices in the driver's order. The error is why there are none, in a few words.
pub(super) fn devices() -> Result<Vec<Device>, String> {
    let nvml = NVML.as_ref().map_err(words)?;
    let count = nvml.device_count().map_err(|error| words(&error))?;
    let described = |index| {
        let device = nvml.device_by_index(index)?;
        let memory = device.memory_info()?;
        // Without it there are no kernels, but other engines.
        let capability = device.cuda_compute_capability().ok();
        let capability = capability.and_then(|CudaComputeCapability { major, minor }| {
            Some((major.try_into().ok()?, minor.try_into().ok()?))
        });
        let named = Device::named(device.uuid()?, &device.name()?, memory.total);
        Ok(Device { capability, nodes: nodes(&device)?, ..named })
    };
    let found = (0..count).filter_map(|index| {
        let described: Result<_, NvmlError> = described(index);
        // One that is broken takes nothing away from the others.
        let told = |error: &NvmlError| tracing::warn!(index, "an accelerator is left out: {error}");
        described.inspect_err(told).ok()
    });
    Ok(found.collect())
}

#[cfg(target_os = "linux")]
fn nodes(device: &nvml_wrapper::Device<'_>) -> Result<Vec<PathBuf>, NvmlError> {
    let own = format!("/dev/nvidia{}", device.minor_number()?);
    let tools = Path::new(TOOLS_NODE).exists().then_some(TOOLS_NODE);
    let all = SHARED_NODES.into_iter().chain([own.as_str()]).chain(tools);
    Ok(all.map(PathBuf::from).collect())
}

/// Its numbers are Linux's, and so is the jail.
#[cfg(not(target_os = "linux"))]
fn nodes(_: &nvml_wrapper::Device<'_>) -> Result<Vec<PathBuf>, NvmlError> {
    Ok(SHARED_NODES.map(PathBuf::from).to_vec())
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
