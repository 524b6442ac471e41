//! The memory of ONNX Runtime: one arena for all sessions, of so many bytes.

use ort::AsPointer;
use ort::environment::Environment;
use ort::memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType};
use std::ptr;

/// `kSameAsRequested` of `ArenaExtendStrategy`: it grows by what is needed, and not to the
/// next power of two.
const GROWS_AS_NEEDED: i32 = 1;

/// The library's own choice for the other numbers of an arena.
const DEFAULT: i32 = -1;

/// The arena that sessions take memory from. It stays as large as it was at most.
pub(super) struct Arena {
    environment: Environment,
    info: MemoryInfo<'static>,
    bytes_max: u64,
}

impl Arena {
    /// Makes one that has so many bytes at most, beyond which a session or a run fails.
    pub(super) fn of(environment: &Environment, bytes_max: u64) -> ort::Result<Self> {
        let (device, kind) = (AllocationDevice::CPU, AllocatorType::Arena);
        let info = MemoryInfo::new(device, 0, kind, MemoryType::Default)?;
        register(environment, &info, bytes_max)?;
        Ok(Self { environment: environment.clone(), info, bytes_max })
    }

    pub(super) fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// Makes one of another size in its place. Sessions that have the old one keep it.
    pub(super) fn replace(&mut self, bytes_max: u64) -> ort::Result<()> {
        // Should nothing come after it, the next graph tries again.
        let old = std::mem::replace(&mut self.bytes_max, 0);
        if old > 0 {
            unregister(&self.environment, &self.info)?;
        }
        register(&self.environment, &self.info, bytes_max)?;
        self.bytes_max = bytes_max;
        Ok(())
    }
}

#[allow(
    unsafe_code,
    reason = "JUSTIFICATION: the crate has no safe name for the functions that make an arena"
)]
fn register(
    environment: &Environment,
    info: &MemoryInfo<'static>,
    bytes_max: u64,
) -> ort::Result<()> {
    let bytes = usize::try_from(bytes_max).unwrap_or(usize::MAX);
    let api = ort::api();
    let mut config = ptr::null_mut();
    // SAFETY: the pointer is to a place of this frame.
    let made =
        unsafe { (api.CreateArenaCfg)(bytes, GROWS_AS_NEEDED, DEFAULT, DEFAULT, &raw mut config) };
    // SAFETY: what comes back is a status, which is looked at once.
    unsafe { ort::Error::result_from_status(made) }?;
    // SAFETY: the environment and the description live; the library copies what they say.
    let registered = unsafe {
        (api.CreateAndRegisterAllocator)(environment.ptr().cast_mut(), info.ptr(), config)
    };
    // SAFETY: it was made above, and nobody has it now.
    unsafe { (api.ReleaseArenaCfg)(config) };
    // SAFETY: as above.
    unsafe { ort::Error::result_from_status(registered) }
}

#[allow(unsafe_code, reason = "JUSTIFICATION: as above")]
fn unregister(environment: &Environment, info: &MemoryInfo<'static>) -> ort::Result<()> {
    // SAFETY: both live. Whoever has the arena keeps it.
    let status =
        unsafe { (ort::api().UnregisterAllocator)(environment.ptr().cast_mut(), info.ptr()) };
    // SAFETY: what comes back is a status, which is looked at once.
    unsafe { ort::Error::result_from_status(status) }
}
