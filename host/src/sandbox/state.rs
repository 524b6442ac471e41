//! What a sandbox's store holds on the host's side.

use super::clock::{Monotonic, Wall};
use super::limiter::Limiter;
use super::log::GuestLog;
use super::program::Shared;
use super::stdio::LogStream;
use super::stop::Stop;
use crate::limits::Limits;
use crate::nn::guest::NnState;
use std::sync::Arc;
use std::time::Instant;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::filesystem::FsPerms;
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

/// The data of one store.
pub(crate) struct State {
    pub(crate) shared: Arc<Shared>,
    pub(crate) limiter: Limiter,
    pub(crate) log: GuestLog,
    pub(crate) table: ResourceTable,
    pub(crate) nn: NnState,
    /// When what runs now must have ended.
    pub(crate) deadline: Instant,
    wasi: WasiCtx,
}

impl State {
    pub(crate) fn new(shared: &Arc<Shared>, deadline: Instant) -> Result<Self, Stop> {
        let limits: &Limits = &shared.limits;
        let limiter = Limiter::new(&shared.account, limits)?;
        let log = GuestLog::new(shared.label.clone(), shared.log_rate.clone(), limits);
        let mut table = ResourceTable::new();
        table.set_max_capacity(limits.handles_max);

        let mut wasi = WasiCtxBuilder::new();
        wasi.stdout(LogStream(log.clone()))
            .stderr(LogStream(log.clone()))
            .monotonic_clock(Monotonic(Instant::now()))
            .wall_clock(Wall)
            .max_random_size(limits.random_bytes_max)
            .allow_tcp(false)
            .allow_udp(false)
            .preopened_dir(shared.assets.path(), "/model", FsPerms::ReadOnly)
            .map_err(|error| Stop::HostBug(format!("cannot open the assets: {error:#}")))?;

        Ok(Self {
            limiter,
            log,
            table,
            nn: NnState::new(&shared.graphs, &shared.account),
            deadline,
            wasi: wasi.build(),
            shared: shared.clone(),
        })
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}
