//! Exactly what a guest may import, and nothing else.

use super::bindings::ringfence::model::{context, streams};
use super::bindings::wasi::nn::{errors, graph, inference};
use super::state::State;
use crate::nn::guest::link_tensors;
use wasmtime::component::{HasSelf, Linker};
use wasmtime_wasi::WasiView;
use wasmtime_wasi::cli::{WasiCli, WasiCliView};
use wasmtime_wasi::clocks::{WasiClocks, WasiClocksView};
use wasmtime_wasi::filesystem::WasiFilesystem;
use wasmtime_wasi::p2::bindings::{cli, clocks, filesystem, random as wasi_random};
use wasmtime_wasi::random::{WasiRandom, WasiRandomCtx};

fn random(state: &mut State) -> &mut WasiRandomCtx {
    state.ctx().ctx.random()
}

fn own(state: &mut State) -> &mut State {
    state
}

/// Links the world, wasi:nn and the parts of WASI that are safe to give.
pub(crate) fn linker(engine: &wasmtime::Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    link_world(&mut linker)?;
    link_wasi(&mut linker)?;
    Ok(linker)
}

fn link_world(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    let l = linker;
    context::add_to_linker::<State, HasSelf<State>>(l, own)?;
    streams::add_to_linker::<State, HasSelf<State>>(l, own)?;
    errors::add_to_linker::<State, HasSelf<State>>(l, own)?;
    graph::add_to_linker::<State, HasSelf<State>>(l, own)?;
    inference::add_to_linker::<State, HasSelf<State>>(l, own)?;
    link_tensors(l)
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
    filesystem::types::add_to_linker::<State, WasiFilesystem>(l, State::files)?;
    filesystem::preopens::add_to_linker::<State, WasiFilesystem>(l, State::files)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::package::admission;
    use wasmtime::component::Component;

    /// An item of each interface that is admitted. Interfaces that declare
    /// nothing but types have nothing to link.
    const ITEMS: &[(&str, &str)] = &[
        ("ringfence:model/context@0.1.0", "log"),
        ("ringfence:model/streams@0.1.0", "sink"),
        ("wasi:nn/tensor@0.2.0-rc-2024-10-28", "tensor"),
        ("wasi:nn/graph@0.2.0-rc-2024-10-28", "load-by-name"),
        ("wasi:nn/inference@0.2.0-rc-2024-10-28", "graph-execution-context"),
        ("wasi:nn/errors@0.2.0-rc-2024-10-28", "error"),
        ("wasi:cli/environment@0.2.0", "get-environment"),
        ("wasi:cli/exit@0.2.0", "exit"),
        ("wasi:cli/stderr@0.2.0", "get-stderr"),
        ("wasi:cli/stdin@0.2.0", "get-stdin"),
        ("wasi:cli/stdout@0.2.0", "get-stdout"),
        ("wasi:cli/terminal-input@0.2.0", "terminal-input"),
        ("wasi:cli/terminal-output@0.2.0", "terminal-output"),
        ("wasi:cli/terminal-stderr@0.2.0", "get-terminal-stderr"),
        ("wasi:cli/terminal-stdin@0.2.0", "get-terminal-stdin"),
        ("wasi:cli/terminal-stdout@0.2.0", "get-terminal-stdout"),
        ("wasi:clocks/monotonic-clock@0.2.0", "now"),
        ("wasi:clocks/wall-clock@0.2.0", "now"),
        ("wasi:filesystem/preopens@0.2.0", "get-directories"),
        ("wasi:filesystem/types@0.2.0", "descriptor"),
        ("wasi:io/error@0.2.0", "error"),
        ("wasi:io/poll@0.2.0", "poll"),
        ("wasi:io/streams@0.2.0", "input-stream"),
        ("wasi:random/insecure@0.2.0", "get-insecure-random-u64"),
        ("wasi:random/insecure-seed@0.2.0", "insecure-seed"),
        ("wasi:random/random@0.2.0", "get-random-u64"),
    ];

    const ONLY_TYPES: &[&str] = &["ringfence:model/types@0.1.0"];

    const ELSEWHERE: &[(&str, &str)] = &[
        ("wasi:sockets/instance-network@0.2.0", "instance-network"),
        ("wasi:sockets/network@0.2.0", "network"),
        ("wasi:sockets/tcp@0.2.0", "tcp-socket"),
        ("wasi:sockets/tcp-create-socket@0.2.0", "create-tcp-socket"),
        ("wasi:sockets/udp@0.2.0", "udp-socket"),
        ("wasi:sockets/udp-create-socket@0.2.0", "create-udp-socket"),
        ("wasi:sockets/ip-name-lookup@0.2.0", "resolve-addresses"),
        ("wasi:http/outgoing-handler@0.2.0", "handle"),
        ("wasi:clocks/timezone@0.2.0", "display"),
    ];

    /// Whether the linker has an item, whatever its type: a component that
    /// imports it as a function links, or fails of something else than that
    /// nothing is there.
    fn is_linked(linker: &Linker<State>, interface: &str, item: &str) -> bool {
        let imports = format!(r#"(import "{interface}" (instance (export "{item}" (func))))"#);
        let component = Component::new(linker.engine(), format!("(component {imports})")).unwrap();
        match linker.instantiate_pre(&component) {
            Ok(_) => true,
            Err(error) => !error.root_cause().to_string().contains("implementation is missing"),
        }
    }

    #[test]
    fn what_is_admitted_is_linked_and_the_network_is_not() {
        let engine = wasmtime::Engine::new(&crate::sandbox::engine::config(
            crate::sandbox::Diagnostics::Off,
        ))
        .unwrap();
        let linker = linker(&engine).unwrap();
        for interface in admission::admitted() {
            let item = ITEMS.iter().find(|(known, _)| *known == interface);
            match item {
                Some((_, item)) => assert!(is_linked(&linker, &interface, item), "{interface}"),
                None => assert!(ONLY_TYPES.contains(&interface.as_str()), "{interface}"),
            }
        }
        for (interface, item) in ELSEWHERE {
            assert!(!is_linked(&linker, interface, item), "{interface}");
        }
    }
}
