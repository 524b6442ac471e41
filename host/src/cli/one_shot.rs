//! The processes that a host starts of its own program: some compile a component or kernels,
//! another is a replica, and the rest try whether the jail holds. Nobody calls them by
//! hand.
//!
//! Each enters its jail before it reads anything.

use super::{CallWorkerArgs, CompileWorkerArgs, ConfinementArgs, JailProofArgs, KernelWorkerArgs};
use crate::nn::{KernelError, kernel, kernels};
use crate::package::admission;
use crate::sandbox::{Instrumented, Registers, compile};
use crate::text::with_causes;
use crate::worker::{self, Confinement, Driver, Frame, KernelName, KernelTask};
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

/// Compiles kernels for a device.
pub(super) fn run_kernel(args: &KernelWorkerArgs) -> anyhow::Result<()> {
    worker::enter_to_compute(&confinement(&args.confinement), args.confinement.parent)?;
    let done = match postcard::from_bytes(&input()?)? {
        KernelTask::Name(capabilities) => {
            names(&capabilities).map(|names| postcard::to_stdvec(&names))
        }
        KernelTask::Compile(name, headers) => kernel(name.number, name.capability)
            .and_then(|kernel| kernel.compile(&headers))
            .map(|bytes| postcard::to_stdvec(&bytes)),
    };
    let mut out = io::stdout().lock();
    match done {
        Ok(done) => Frame::Compiled(done?).write(&mut out)?,
        Err(error) => Frame::Refused(with_causes(&error)).write(&mut out)?,
    }
    Ok(())
}

fn names(capabilities: &[(u32, u32)]) -> Result<Vec<KernelName>, KernelError> {
    let all = capabilities.iter().flat_map(|capability| {
        (0..kernels()).map(|number| {
            let path = kernel(number, *capability)?.path;
            Ok(KernelName { number, capability: *capability, path })
        })
    });
    all.collect()
}

/// Becomes a replica.
pub(super) fn run_calls(args: &CallWorkerArgs) -> anyhow::Result<()> {
    let (library, kernels) = (args.onnxruntime.as_deref(), args.kernels.as_deref());
    worker::serve(&confinement(&args.confinement), args.confinement.parent, library, kernels)
}

/// Tries what the jail has to refuse.
pub(super) fn run_proof(args: &JailProofArgs) -> anyhow::Result<ExitCode> {
    let ConfinementArgs { parent, .. } = args.confinement;
    worker::serve_proof(&confinement(&args.confinement), parent, args.act.as_deref())
}

fn confinement(args: &ConfinementArgs) -> Confinement {
    let ConfinementArgs { jail, cpu_seconds, data_bytes, files_max, cpus, without, .. } = *args;
    let (reads, nodes) = (args.driver_reads.clone(), args.driver_node.clone());
    let driver = args.driver.then_some(Driver { reads, nodes });
    Confinement { mode: jail, cpu_seconds, data_bytes, files_max, cpus, without, driver }
}

fn input() -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io::stdin().lock().take(INPUT_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}
