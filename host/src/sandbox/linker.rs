//! Exactly what a guest may import, and nothing else.

use super::bindings::ModelRunner;
use super::state::State;
use wasmtime::component::{HasSelf, Linker};
use wasmtime_wasi::WasiView;
use wasmtime_wasi::cli::{WasiCli, WasiCliView};
use wasmtime_wasi::clocks::{WasiClocks, WasiClocksView};
use wasmtime_wasi::filesystem::{WasiFilesystem, WasiFilesystemView};
use wasmtime_wasi::p2::bindings::{cli, clocks, filesystem, random as wasi_random};
use wasmtime_wasi::random::{WasiRandom, WasiRandomCtx};

impl wasmtime_wasi_io::IoView for State {
    fn table(&mut self) -> &mut wasmtime::component::ResourceTable {
        &mut self.table
    }
}

fn random(state: &mut State) -> &mut WasiRandomCtx {
    state.ctx().ctx.random()
}

/// Links the world, wasi:nn and the parts of WASI that are safe to give.
pub(crate) fn linker(engine: &wasmtime::Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    ModelRunner::add_to_linker::<State, HasSelf<State>>(&mut linker, |state| state)?;
    link_wasi(&mut linker)?;
    Ok(linker)
}

/// Sockets, HTTP and everything that writes files stay out: what is not linked
/// cannot be reached, whatever its implementation does.
fn link_wasi(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    let l = linker;
    wasmtime_wasi_io::add_to_linker_async(l)?;
    clocks::wall_clock::add_to_linker::<State, WasiClocks>(l, State::clocks)?;
    clocks::monotonic_clock::add_to_linker::<State, WasiClocks>(l, State::clocks)?;
    wasi_random::random::add_to_linker::<State, WasiRandom>(l, random)?;
    wasi_random::insecure::add_to_linker::<State, WasiRandom>(l, random)?;
    wasi_random::insecure_seed::add_to_linker::<State, WasiRandom>(l, random)?;
    cli::environment::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::exit::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::stdin::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::stdout::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::stderr::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::terminal_input::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::terminal_output::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::terminal_stdin::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::terminal_stdout::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::terminal_stderr::add_to_linker::<State, WasiCli>(l, State::cli)?;
    filesystem::types::add_to_linker::<State, WasiFilesystem>(l, State::filesystem)?;
    filesystem::preopens::add_to_linker::<State, WasiFilesystem>(l, State::filesystem)?;
    Ok(())
}
