//! Why wasmtime's functions fail, as one of the ends of a call.

use super::account::OverLimit;
use super::state::State;
use crate::call::End;
use crate::limits::Limits;
use crate::text::{cut, escape_controls};
use wasmtime::component::ResourceTableError;
use wasmtime::{Store, Trap};
use wasmtime_wasi::I32Exit;

/// What a host function tells wasmtime so that the guest stops here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Stop {
    #[error("the deadline has passed")]
    DeadlinePassed,
    #[error("the outputs exceed their limit")]
    OutputLimit,
    #[error("nobody reads the outputs")]
    Unread,
    #[error(transparent)]
    Memory(#[from] OverLimit),
    #[error("the guest holds too many handles")]
    HandleLimit,
    #[error("a device is lost: {0}")]
    DeviceLost(String),
    #[error("{0}")]
    Contract(String),
    #[error("{0}")]
    HostBug(String),
}

impl From<ResourceTableError> for Stop {
    fn from(error: ResourceTableError) -> Self {
        match error {
            ResourceTableError::Full => Self::HandleLimit,
            // wasmtime checks handles before a host function sees them.
            ResourceTableError::NotPresent
            | ResourceTableError::WrongType
            | ResourceTableError::HasChildren => Self::Contract(error.to_string()),
        }
    }
}

/// The end of a call whose guest did not return.
pub(crate) fn end_of(error: &wasmtime::Error, store: &mut Store<State>, limits: &Limits) -> End {
    let state = store.data_mut();
    let denied = state.limiter.denied();
    let last_words = state.log.lock().take_last_words();

    if let Some(stop) = error.downcast_ref::<Stop>() {
        return match stop {
            Stop::DeadlinePassed => End::DeadlinePassed,
            Stop::OutputLimit => End::OutputLimit { output_bytes_max: limits.output_bytes_max },
            Stop::Unread => End::Unread { within: limits.unread_timeout },
            Stop::Memory(over) => memory(*over),
            Stop::HandleLimit => End::HandleLimit { handles_max: limits.handles_max },
            Stop::DeviceLost(why) => End::DeviceLost(why.clone()),
            Stop::Contract(text) => End::Contract(text.clone()),
            Stop::HostBug(text) => End::HostBug(text.clone()),
        };
    }
    if let Some(ResourceTableError::Full) = error.downcast_ref::<ResourceTableError>() {
        // Ours come as `Stop`; this is WASI's table.
        return End::HandleLimit { handles_max: limits.wasi_handles_max };
    }
    if let Some(I32Exit(code)) = error.downcast_ref::<I32Exit>() {
        return End::Exit(*code);
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::OutOfFuel) => End::FuelExhausted { fuel_max: limits.fuel_per_call() },
        Some(Trap::Interrupt) => End::DeadlinePassed,
        Some(trap) => match (last_words, denied) {
            (Some(panic), _) => End::Panic(escape_controls(&panic)),
            // A guest that cannot grow its memory aborts, which is a trap.
            (None, Some(over)) => memory(over),
            (None, None) => End::Trap(trap.to_string()),
        },
        None => without_trap(error, denied, limits),
    }
}

pub(super) fn memory(over: OverLimit) -> End {
    End::MemoryLimit { holder: over.holder, memory_bytes_max: over.memory_bytes_max }
}

/// Whether the system, and not the guest, is why a function failed.
fn is_of_the_system(error: &wasmtime::Error) -> bool {
    error.chain().any(|cause| {
        cause.is::<std::io::Error>()
            || cause.is::<rustix::io::Errno>()
            || cause.is::<wasmtime::error::OutOfMemory>()
    })
}

/// Errors that wasmtime gives no type; two of them can only be told by their
/// text, which the guests `handle-leak` and `alias-lists` hold it to.
fn without_trap(error: &wasmtime::Error, denied: Option<OverLimit>, limits: &Limits) -> End {
    let mut text = error.root_cause().to_string();
    cut(&mut text, limits.error_text_bytes_max);
    let text = escape_controls(&text);
    if text.contains("store handle limit exceeded") {
        return End::HandleLimit { handles_max: limits.handles_max };
    }
    if text.contains("fuel allocated for hostcalls") {
        return End::HostcallLimit { hostcall_bytes_max: limits.hostcall_bytes() };
    }
    match denied {
        Some(over) => memory(over),
        None if is_of_the_system(error) => End::HostBug(format!("{error:#}")),
        None => End::Trap(text),
    }
}
