//! The processes that a host starts of its own program: one compiles a component,
//! another is a replica, and the rest try whether the jail holds. Nobody calls them by
//! hand.
//!
//! Each enters its jail before it reads anything.

use super::{CallWorkerArgs, CompileWorkerArgs, ConfinementArgs, JailProofArgs};
use crate::package::admission;
use crate::sandbox::{Instrumented, Registers, compile};
use crate::worker::{self, Confinement, Frame};
use std::io::{self, Read};
use std::process::ExitCode;

/// Longest component that is read.
const INPUT_BYTES_MAX: u64 = 1 << 30;

/// Compiles a component.
pub(super) fn run_compile(args: &CompileWorkerArgs) -> anyhow::Result<()> {
    worker::enter_to_compute(&confinement(&args.confinement), args.confinement.parent)?;
    let component = input()?;
    let mut out = io::stdout().lock();
    let registers = match args.single_pass {
        true => Registers::SinglePass,
        false => Registers::Best,
    };
    let instrumented = match args.as_it_is {
        true => Instrumented::No,
        false => Instrumented::ForSnapshot,
    };
    let compiled = admission::admit(&component, args.memory_bytes_max)
        .map_err(|error| error.to_string())
        .and_then(|()| {
            compile(&component, instrumented, registers, args.confinement.cpus).map_err(|error| {
                format!("1/model.wasm is not a component that this host can run: {error}")
            })
        });
    match compiled {
        Ok(code) => Frame::Compiled(code).write(&mut out)?,
        Err(problem) => Frame::Refused(problem).write(&mut out)?,
    }
    Ok(())
}

/// Becomes a replica.
pub(super) fn run_calls(args: &CallWorkerArgs) -> anyhow::Result<()> {
    let library = args.onnxruntime.as_deref();
    worker::serve(&confinement(&args.confinement), args.confinement.parent, library)
}

/// Tries what the jail has to refuse.
pub(super) fn run_proof(args: &JailProofArgs) -> anyhow::Result<ExitCode> {
    let ConfinementArgs { parent, .. } = args.confinement;
    worker::serve_proof(&confinement(&args.confinement), parent, args.act.as_deref())
}

fn confinement(args: &ConfinementArgs) -> Confinement {
    let ConfinementArgs { jail, cpu_seconds, data_bytes, files_max, cpus, without, .. } = *args;
    Confinement { mode: jail, cpu_seconds, data_bytes, files_max, cpus, without }
}

fn input() -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io::stdin().lock().take(INPUT_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}
