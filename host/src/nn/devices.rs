//! The engines that compute on accelerators.
//!
//! Owns what their failures mean, whoever words them: the driver's own words are in all.

use super::engine::{Engine, OnDevices, RunError};
use super::tract::TractOn;
use crate::call::Holder;
use crate::sandbox::OverLimit;
use std::sync::{Arc, OnceLock};

/// Makes an engine for devices that this host only pretends to have.
pub type StandIn = fn(&OnDevices) -> Arc<dyn Engine>;

static STAND_IN: OnceLock<StandIn> = OnceLock::new();

/// A part of what is said where an arena on the device is full, or the device.
const FULL: [&str; 6] = [
    "Failed to allocate memory for requested buffer",
    "is smaller than requested bytes",
    "out of memory",
    "OUT_OF_MEMORY",
    "STATUS_ALLOC_FAILED",
    "ALLOCATION_FAILED",
];

/// A part of what is said where the device, or all that this process has on it, is of no use
/// any more: by the names of CUDA's errors (`cuda.h`), and by their numbers, as ONNX Runtime
/// has them. Others say that one run was asked for what cannot be.
const FAILS: [&str; 25] = [
    "CUDA_ERROR_ILLEGAL_ADDRESS",
    "CUDA_ERROR_LAUNCH_FAILED",
    "CUDA_ERROR_LAUNCH_TIMEOUT",
    "CUDA_ERROR_ECC_UNCORRECTABLE",
    "CUDA_ERROR_HARDWARE_STACK_ERROR",
    "CUDA_ERROR_ILLEGAL_INSTRUCTION",
    "CUDA_ERROR_MISALIGNED_ADDRESS",
    "CUDA_ERROR_INVALID_ADDRESS_SPACE",
    "CUDA_ERROR_INVALID_PC",
    "CUDA_ERROR_ASSERT",
    "CUDA_ERROR_CONTEXT_IS_DESTROYED",
    "CUDA_ERROR_DEVICE_UNAVAILABLE",
    "CUDA_ERROR_NO_DEVICE",
    "CUDA_ERROR_DEINITIALIZED",
    "CUDA_ERROR_UNKNOWN",
    "STATUS_EXECUTION_FAILED",
    "CUDA failure 4:",
    "CUDA failure 46:",
    "CUDA failure 100:",
    "CUDA failure 214:",
    // 700 and what comes after it, to 719.
    "CUDA failure 70",
    "CUDA failure 71",
    "CUDA failure 999:",
    "CUDNN failure 5000",
    "CUBLAS failure 13",
];

/// Has this process compute by an engine of its own where the devices are stand-ins. The
/// product's program never does; the tests' own does. The first one stays.
pub fn stand_in(engine: StandIn) {
    STAND_IN.get_or_init(|| engine);
}

/// The first that a graph is offered to, for these devices, or why it is not there.
pub fn engine_on(devices: &OnDevices) -> Result<Arc<dyn Engine>, String> {
    if let Some(engine) = STAND_IN.get() {
        return Ok(engine(devices));
    }
    match &devices.no_kernels {
        Some(why) => Err(why.clone()),
        None => Ok(Arc::new(TractOn::cuda(devices)?)),
    }
}

/// What it means that a run or a graph has failed there for this reason.
pub(super) fn failure(why: String, on: &OnDevices) -> RunError {
    let says = |words: &[&str]| words.iter().any(|word| why.contains(word));
    if says(&FULL) {
        let (holder, memory_bytes_max) = (Holder::Device, on.memory.bytes_max());
        return RunError::Memory(OverLimit { holder, memory_bytes_max });
    }
    match says(&FAILS) {
        true => RunError::DeviceLost(why),
        false => RunError::Engine(why),
    }
}

#[cfg(test)]
mod tests {
    use super::super::engines::Engines;
    use super::*;
    use crate::limits::{Accelerators, Limits};
    use crate::package::{Content, GraphFile};
    use crate::sandbox::Account;

    #[test]
    fn without_kernels_nothing_is_computed_on_cpus_instead_and_it_says_why() {
        let no_kernels = Some("there are no headers".to_owned());
        let on = OnDevices { memory: Account::new(1 << 20), no_kernels };
        let engines = Engines::of_process(None, Some(&on));
        let content = Content::Bytes(vec![].into());
        let file = GraphFile { name: "g".into(), folder: String::new(), content };
        let accelerators = Accelerators { count: 1, ..Accelerators::default() };
        let limits = Limits { accelerators, ..Limits::default() };
        let why = engines.for_graph(&limits, &file, &[]).err().unwrap();
        assert_eq!(
            why.to_string(),
            "the graph g is to be computed on an accelerator, and tract would compute it on CPUs: \
             there are no headers"
        );
    }

    /// As the libraries word them.
    #[test]
    fn a_failure_is_a_full_device_a_lost_one_or_neither() {
        let on = OnDevices { memory: Account::new(1 << 20), no_kernels: None };
        let of = |text: &str| failure(text.to_owned(), &on);
        for full in [
            "/onnxruntime_src/bfc_arena.cc:376 Failed to allocate memory for requested buffer of \
             size 4294967296",
            "Available memory of 3670016 is smaller than requested bytes of 4194304",
            "CUDA failure 2: out of memory ; GPU=0 ; hostname=x ; expr=cudaMalloc((void**)&p, size);",
            "DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")",
        ] {
            let over = match of(full) {
                RunError::Memory(over) => over,
                other => panic!("{full}: {other}"),
            };
            assert_eq!((over.holder, over.memory_bytes_max), (Holder::Device, 1 << 20), "{full}");
        }
        for lost in [
            "CUDA failure 719: unspecified launch failure ; GPU=0 ; hostname=x",
            "DriverError(CUDA_ERROR_ILLEGAL_ADDRESS, \"an illegal memory access was encountered\")",
            "CudnnError(CUDNN_STATUS_EXECUTION_FAILED)",
        ] {
            assert!(matches!(of(lost), RunError::DeviceLost(_)), "{lost}");
        }
        for other in [
            "Non-zero status code returned while running Gather node",
            "DriverError(CUDA_ERROR_INVALID_VALUE, \"invalid argument\")",
            "CUDA failure 9: invalid configuration argument ; GPU=0 ; hostname=x",
        ] {
            assert!(matches!(of(other), RunError::Engine(_)), "{other}");
        }
    }
}
