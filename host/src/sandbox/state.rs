//! What a sandbox's store holds on the host's side.

use super::ambient::{Ambient, Counting, Monotonic, Seeded, Wall};
use super::instance::Hold;
use super::limiter::Limiter;
use super::log::GuestLog;
use super::meters::Meters;
use super::program::Shared;
use super::program::Surroundings;
use super::snapshot::Unfit;
use super::stdio::LogStream;
use super::stop::Stop;
use crate::call::{HostCall, HostCalls};
use crate::limits::Limits;
use crate::nn::guest::NnState;
use crate::package::Assets;
use std::sync::Arc;
use std::time::Instant;
use tokio_util::sync::CancellationToken;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::filesystem::{FsPerms, WasiFilesystemCtx, WasiFilesystemCtxView};
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

/// The data of one store.
pub(crate) struct State {
    pub(crate) shared: Arc<Shared>,
    pub(crate) limiter: Limiter,
    pub(crate) log: GuestLog,
    /// Handles of the world and of wasi:nn.
    pub(crate) table: ResourceTable,
    /// Handles of WASI, of which there are fewer.
    wasi_table: ResourceTable,
    pub(crate) nn: NnState,
    /// Of the call, for whatever runs for it elsewhere.
    pub(crate) hold: Option<Hold>,
    /// Cancelled when nobody wants the call any more.
    pub(crate) stopped: CancellationToken,
    /// What the call takes.
    pub(crate) meters: Arc<Meters>,
    /// The last function of the world that the guest called.
    pub(crate) last_host_call: Option<HostCall>,
    host_calls: HostCalls,
    ambient: Arc<Ambient>,
    /// When what runs now must have ended.
    pub(crate) deadline: Instant,
    wasi: WasiCtx,
    /// The folder of assets, which is open once for all sandboxes.
    files: WasiFilesystemCtx,
}

/// What guests may open: the assets, read-only, at `/model`.
pub(super) fn files_of(assets: &Assets) -> wasmtime::Result<WasiFilesystemCtx> {
    let mut wasi = WasiCtxBuilder::new();
    // On the guest's own thread and in its turn, so that it is charged.
    wasi.allow_blocking_current_thread(true);
    wasi.preopened_dir(assets.path(), "/model", FsPerms::ReadOnly)?;
    Ok(wasi.build().filesystem().clone())
}

impl State {
    pub(crate) fn new(
        shared: &Arc<Shared>,
        deadline: Instant,
        surroundings: Surroundings,
    ) -> Result<Self, Stop> {
        let limits: &Limits = &shared.limits;
        let limiter = Limiter::new(&shared.account, limits)?;
        let rate = shared.log_rate.clone();
        let log = GuestLog::new(shared.label.clone(), shared.log.clone(), rate, limits);
        let mut table = ResourceTable::new();
        table.set_max_capacity(limits.handles_max);
        let mut wasi_table = ResourceTable::new();
        wasi_table.set_max_capacity(limits.wasi_handles_max);

        let ambient = Arc::new(Ambient::default());
        let mut wasi = WasiCtxBuilder::new();
        wasi.stdout(LogStream(log.clone()))
            .stderr(LogStream(log.clone()))
            .max_random_size(limits.random_bytes_max)
            .allow_tcp(false)
            .allow_udp(false);
        match surroundings {
            Surroundings::Real => {
                wasi.monotonic_clock(Monotonic::new(&ambient)).wall_clock(Wall::new(&ambient));
            }
            Surroundings::Watched => {
                let seed = || getrandom::u64().map_err(|error| Stop::HostBug(error.to_string()));
                wasi.monotonic_clock(Monotonic::new(&ambient))
                    .wall_clock(Wall::new(&ambient))
                    .secure_random(Seeded::new(seed()?, &ambient))
                    .insecure_random(Seeded::new(seed()?, &ambient));
            }
            Surroundings::Seeded(seed) => {
                wasi.monotonic_clock(Counting::new(&ambient))
                    .wall_clock(Counting::new(&ambient))
                    .secure_random(Seeded::new(seed, &ambient))
                    .insecure_random(Seeded::new(!seed, &ambient))
                    .insecure_random_seed(u128::from(seed));
            }
        }

        Ok(Self {
            limiter,
            log,
            table,
            wasi_table,
            nn: NnState::new(&shared.graphs, &shared.account),
            hold: None,
            stopped: CancellationToken::new(),
            meters: Arc::default(),
            last_host_call: None,
            host_calls: HostCalls::default(),
            ambient,
            deadline,
            wasi: wasi.build(),
            files: shared.files.clone(),
            shared: shared.clone(),
        })
    }
}

impl State {
    /// Remembers that the guest called a function of the world.
    pub(crate) fn note(&mut self, call: HostCall) {
        self.last_host_call = Some(call);
        self.host_calls.add(call, 1);
    }

    /// Forgets what `load-model` called.
    pub(crate) fn forget_host_calls(&mut self) {
        self.last_host_call = None;
        self.host_calls = HostCalls::default();
        self.ambient.clock_reads.reset();
        self.ambient.random_draws.reset();
    }

    /// Whether a copy of the guest's memory is all that a sandbox needs to go on as this
    /// one would.
    pub(super) fn is_whole_in_memory(&mut self) -> Result<(), Unfit> {
        let of = |count: usize, kind: &str| match count {
            0 => None,
            1 => Some(format!("a handle of {kind}")),
            count => Some(format!("{count} handles of {kind}")),
        };
        let kinds = [
            of(self.table.iter_mut().count(), "wasi:nn"),
            of(self.wasi_table.iter_mut().count(), "WASI"),
        ];
        let open: Vec<_> = kinds.into_iter().flatten().collect();
        if !open.is_empty() {
            return Err(Unfit::Handles(open.join(" and ")));
        }
        if self.ambient.random_draws.value() > 0 {
            return Err(Unfit::Random);
        }
        match self.ambient.clock_reads.value() {
            0 => Ok(()),
            _ => Err(Unfit::Clock),
        }
    }

    /// What the guest has asked of the host.
    pub(crate) fn host_calls(&self) -> HostCalls {
        let mut calls = self.host_calls;
        calls.add(HostCall::Clock, self.ambient.clock_reads.value());
        calls.add(HostCall::Random, self.ambient.random_draws.value());
        calls
    }
}

impl wasmtime_wasi_io::IoView for State {
    fn table(&mut self) -> &mut ResourceTable {
        &mut self.wasi_table
    }
}

impl State {
    pub(super) fn files(&mut self) -> WasiFilesystemCtxView<'_> {
        WasiFilesystemCtxView { ctx: &mut self.files, table: &mut self.wasi_table }
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.wasi_table }
    }
}
