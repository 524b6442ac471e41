//! One call in one fresh wasmtime store, under limits.
//!
//! Owns wasmtime's configuration, the linker, fuel, time and memory limits, and
//! every way a call can end. Never touches tonic, tokens or the store.

mod engine;
mod executor;

mod bindings;
mod compiled;
mod linker;

mod kept;
mod program;
mod ready;
mod snapshot;

mod calling;

mod instance;
mod state;
mod streams;

mod bucket;
mod calibration;
mod cpu;
mod fuel;

mod account;
mod ambient;
mod context;
mod limiter;
mod log;
mod meters;
mod size;
mod stdio;
mod stop;
mod thread_cpu;
mod trace;
#[doc(hidden)]
pub mod types;
pub(crate) mod wire;

pub use account::{Account, Charge, OverLimit};
pub use calibration::{calibrate, calibration_id};
pub use calling::{Calling, Requests, SendError, Spent};
pub use compiled::{Beginning, Compiled, Instrumented, Registers, compile, compiler_id};
pub use fuel::FUEL_VERSION;
pub use log::Lines;
pub use program::{AdmitError, Code, MethodsError, Program, Surroundings};
pub use snapshot::{Copied, SNAPSHOT_BYTES_MAX, Snapshot, Unfit, form};

pub(crate) use bindings::wasi::nn as nn_bindings;
pub(crate) use calling::{Answers, give_up_at, sides};
pub(crate) use cpu::{Cpus, ENGINE_SLOT, Share, Turn};
pub(crate) use instance::Hold;
pub(crate) use log::{rate, shown};
pub(crate) use meters::{Meters, Waits};
pub(crate) use state::State;
pub(crate) use stop::Stop;
pub(crate) use thread_cpu::thread_has_waited;

use crate::limits::{self, FUEL_PER_CPU_SECOND, Limits};
use crate::nn::{Engines, Nn};
pub(crate) use engine::FIBRE_STACK_BYTES;
use engine::Ticker;
use executor::Executor;
pub(crate) use executor::is_here as is_guests_thread;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use wasmtime::component::Linker;

/// What all programs of a process share: wasmtime's engine, the linker, the
/// guests' executor, the epoch, the CPUs and the engines for graphs.
pub struct Runtime {
    engine: wasmtime::Engine,
    linker: Linker<State>,
    executor: Executor,
    ticker: Ticker,
    cpus: Arc<Cpus>,
    fuel_per_cpu_second: u64,
    nn: Nn,
    stopping: CancellationToken,
    diagnostics: Diagnostics,
}

/// Whether calls that are stopped tell where the guest was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Diagnostics {
    /// They do not: who calls is not the author, and a stack takes time.
    Off,
    /// They do, in [`crate::call::Verdict::trace`].
    On,
}

/// The runtime cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// wasmtime refuses its configuration.
    #[error("wasmtime does not start: {0}")]
    Wasmtime(String),
    /// A thread cannot be started.
    #[error("cannot start a thread")]
    Thread(#[from] std::io::Error),
}

/// Bytes of an output itself.
pub(crate) fn bytes_of(output: &crate::call::Output) -> u64 {
    size::of_output(output)
}

/// Bytes that a version is charged for an output until it has left the host.
pub(crate) fn held_by(output: &crate::call::Output) -> u64 {
    streams::held_by(output)
}

impl Runtime {
    /// Starts with as many guest threads and engine threads as there are CPUs.
    pub fn start(diagnostics: Diagnostics) -> Result<Arc<Self>, StartError> {
        Self::start_with(diagnostics, FUEL_PER_CPU_SECOND)
    }

    /// The same on a machine that burns so much fuel in a second.
    pub fn start_with(
        diagnostics: Diagnostics,
        fuel_per_cpu_second: u64,
    ) -> Result<Arc<Self>, StartError> {
        Self::start_on(Engines::default(), diagnostics, fuel_per_cpu_second)
    }

    /// The same with these engines for graphs.
    pub fn start_on(
        engines: Engines,
        diagnostics: Diagnostics,
        fuel_per_cpu_second: u64,
    ) -> Result<Arc<Self>, StartError> {
        let cpus = std::thread::available_parallelism()?.get();
        let config = engine::config(diagnostics);
        Self::start_as(&config, diagnostics, fuel_per_cpu_second, cpus, engines)
    }

    /// The same for what was compiled elsewhere: it has no compiler.
    pub(crate) fn of_compiled(
        fuel_per_cpu_second: u64,
        cpus: usize,
        of_version: &Limits,
        compiled: &Compiled,
        engines: Engines,
    ) -> Result<Arc<Self>, StartError> {
        let mut config = engine::config(Diagnostics::Off);
        config.enable_compiler(false);
        // One of many tables would take more room for places than they are worth; its
        // sandboxes are mapped anew each time.
        if let Some(each) = compiled::resources(&config, compiled)
            && each.num_tables <= limits::POOLED_TABLES_MAX
        {
            config = engine::pooled(config, of_version, &each);
        }
        Self::start_as(&config, Diagnostics::Off, fuel_per_cpu_second, cpus, engines)
    }

    fn start_as(
        config: &wasmtime::Config,
        diagnostics: Diagnostics,
        fuel_per_cpu_second: u64,
        threads: usize,
        engines: Engines,
    ) -> Result<Arc<Self>, StartError> {
        let wasmtime = |error: wasmtime::Error| StartError::Wasmtime(format!("{error:#}"));
        let engine = wasmtime::Engine::new(config).map_err(wasmtime)?;
        let linker = linker::linker(&engine).map_err(wasmtime)?;
        let cpus = Cpus::new(threads);
        let ticker = Ticker::start(&engine, &cpus)?;
        let executor = Executor::start(threads)?;
        let nn = Nn::start(threads, engines)?;
        let stopping = CancellationToken::new();
        Ok(Arc::new(Self {
            engine,
            linker,
            executor,
            ticker,
            cpus,
            fuel_per_cpu_second,
            nn,
            stopping,
            diagnostics,
        }))
    }

    /// Waits until no guest runs any more. Whoever drains has stopped calls
    /// from starting.
    pub async fn drain(&self) {
        self.stopping.cancel();
        self.executor.drain().await;
    }

    pub(crate) fn engine(&self) -> &wasmtime::Engine {
        &self.engine
    }

    pub(crate) fn linker(&self) -> &Linker<State> {
        &self.linker
    }

    pub(crate) fn executor(&self) -> &Executor {
        &self.executor
    }

    pub(crate) fn ticker(&self) -> &Ticker {
        &self.ticker
    }

    /// Fuel that the fastest mix burns in a second of this machine's CPU time.
    pub fn fuel_per_cpu_second(&self) -> u64 {
        self.fuel_per_cpu_second
    }

    pub(crate) fn cpus(&self) -> &Arc<Cpus> {
        &self.cpus
    }

    /// Cancelled when nothing new should start.
    pub(crate) fn stopping(&self) -> &CancellationToken {
        &self.stopping
    }

    pub(crate) fn diagnoses(&self) -> bool {
        self.diagnostics == Diagnostics::On
    }

    pub(crate) fn nn(&self) -> &Nn {
        &self.nn
    }
}

impl std::fmt::Debug for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runtime").finish_non_exhaustive()
    }
}
