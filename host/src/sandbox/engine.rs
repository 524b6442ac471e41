//! wasmtime as this host sets it up, and the thread that interrupts guests.

use super::Diagnostics;
use super::cpu::Cpus;
use super::fuel::prices;
use crate::limits::{Limits, WASM_STACK_BYTES, lifted};
use crate::sched::be_prompt;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;
use wasmtime::{
    Config, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig, ResourcesRequired,
    Strategy, WasmBacktraceDetails,
};

/// How long an epoch lasts. A guest yields at the end of one if it has run for as
/// long since it last did, so its turns are between one and two epochs: a time slice
/// of at most a millisecond.
pub(super) const EPOCH: Duration = Duration::from_micros(500);

/// Epochs without a guest after which the ticker sleeps. Calls in quick
/// succession should not pay for waking it each time.
const IDLE_EPOCHS: u32 = 200;

/// Frames of a guest's stack that its author is shown.
const FRAMES_MAX: usize = 32;

/// Whole stack of a fibre; what wasm does not use is for the host's functions, which an
/// engine may be one of: as much as a thread has.
pub(crate) const FIBRE_STACK_BYTES: usize = 5 << 19;

/// Of a place for a table, and of one for a stack: bytes that are zeroed after each sandbox
/// rather than given back to the system, which takes longer.
const KEPT_BYTES: usize = 32 << 10;

/// Every setting that an untrusted component meets.
pub(crate) fn config(diagnostics: Diagnostics) -> Config {
    let mut config = Config::new();
    config
        .consume_fuel(true)
        .operator_cost(prices())
        .epoch_interruption(true)
        .max_wasm_stack(WASM_STACK_BYTES)
        .async_stack_size(FIBRE_STACK_BYTES)
        .async_stack_zeroing(true)
        .wasm_threads(false)
        .shared_memory(false)
        .wasm_memory64(false)
        .wasm_multi_memory(false)
        .wasm_reference_types(true)
        .wasm_function_references(false)
        .wasm_gc(false)
        .gc_support(false)
        .wasm_exceptions(false)
        .wasm_tail_call(false)
        .wasm_relaxed_simd(false)
        .wasm_wide_arithmetic(false)
        .wasm_stack_switching(false)
        .wasm_component_model_async(false)
        .concurrency_support(false)
        .cranelift_nan_canonicalization(true)
        .native_unwind_info(false)
        .cranelift_opt_level(OptLevel::Speed)
        .strategy(Strategy::Cranelift)
        .cache(None);
    match diagnostics {
        Diagnostics::Off => config
            .wasm_backtrace_details(WasmBacktraceDetails::Disable)
            .wasm_backtrace_max_frames(None),
        Diagnostics::On => config
            .wasm_backtrace_details(WasmBacktraceDetails::Enable)
            .wasm_backtrace_max_frames(NonZeroUsize::new(FRAMES_MAX)),
    };
    config
}

/// The same in a process that runs sandboxes of one component alone, which takes these:
/// their memories, tables and stacks have places that are made once and used again. No
/// other version's sandboxes ever have them.
pub(super) fn pooled(mut config: Config, limits: &Limits, each: &ResourcesRequired) -> Config {
    let count = u32::try_from(limits.sandboxes_max()).unwrap_or(u32::MAX);
    let instances = u32::try_from(limits.instances_max).unwrap_or(u32::MAX);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(count)
        .total_core_instances(count.saturating_mul(instances))
        .max_core_instances_per_component(instances)
        .total_memories(count.saturating_mul(each.num_memories))
        .total_tables(count.saturating_mul(each.num_tables))
        .table_elements(limits.table_elements_max)
        .table_keep_resident(KEPT_BYTES)
        .total_stacks(count)
        .async_stack_keep_resident(KEPT_BYTES);
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    config
}

/// Ends an epoch twice a millisecond while a guest runs, and looks who has
/// credit for the CPUs again and who has had one for long, from a thread of its own: a task could be starved by
/// the very guests that it must interrupt.
#[derive(Debug)]
pub(crate) struct Ticker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    running: AtomicUsize,
    stop: AtomicBool,
    asleep: AtomicBool,
    lock: Mutex<()>,
    wake: Condvar,
}

impl Ticker {
    pub(crate) fn start(engine: &wasmtime::Engine, cpus: &Arc<Cpus>) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let cpus = cpus.clone();
        let ends_epochs = lifted() != "epoch";
        let thread = std::thread::Builder::new().name("epoch".into()).spawn({
            let shared = shared.clone();
            let engine = engine.weak();
            move || {
                be_prompt();
                let mut idle_epochs = 0;
                while !shared.stop.load(Ordering::Acquire) {
                    match shared.running.load(Ordering::Acquire) {
                        0 if idle_epochs == IDLE_EPOCHS => {
                            shared.sleep();
                            idle_epochs = 0;
                        }
                        0 => idle_epochs += 1,
                        _ => idle_epochs = 0,
                    }
                    std::thread::sleep(EPOCH);
                    let Some(engine) = engine.upgrade() else { return };
                    if ends_epochs {
                        engine.increment_epoch();
                    }
                    cpus.tick();
                }
            }
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Keeps the epoch going as long as the answer lives.
    pub(crate) fn running(&self) -> Running {
        if self.shared.running.fetch_add(1, Ordering::SeqCst) == 0
            && self.shared.asleep.load(Ordering::SeqCst)
        {
            self.shared.wake();
        }
        Running(self.shared.clone())
    }
}

impl Shared {
    fn sleep(&self) {
        let guard = self.lock.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let idle = |_: &mut ()| {
            self.running.load(Ordering::SeqCst) == 0 && !self.stop.load(Ordering::Acquire)
        };
        // Set before `running` is looked at again, so that whoever starts to run
        // meanwhile either is seen or sees that it has to wake.
        self.asleep.store(true, Ordering::SeqCst);
        drop(self.wake.wait_while(guard, idle));
        self.asleep.store(false, Ordering::SeqCst);
    }

    fn wake(&self) {
        let _guard = self.lock.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        self.wake.notify_one();
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.wake();
        if let Some(thread) = self.thread.take() {
            // The thread cannot panic; there would be nobody left to tell.
            let _ = thread.join();
        }
    }
}

/// A guest is running.
#[derive(Debug)]
pub(crate) struct Running(Arc<Shared>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
