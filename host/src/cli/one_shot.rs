//! The one-shot processes that a host starts of its own program: one compiles a
//! component, the other tries a package out. Nobody calls them by hand.
//!
//! Each gives up what it does not need before it reads anything.

use super::test;
use super::{AdmissionWorkerArgs, CompileWorkerArgs, ConfinementArgs};
use crate::package::admission;
use crate::package::folder::{self, Taking};
use crate::sandbox::{Compiled, compile};
use crate::worker::{Confinement, Frame, confine};
use anyhow::Context;
use std::io::{self, Read};

/// Longest component and longest machine code that is read.
const INPUT_BYTES_MAX: u64 = 1 << 30;

pub(super) fn run_compile(args: &CompileWorkerArgs) -> anyhow::Result<()> {
    give_up(&args.confinement)?;
    let component = input()?;
    let mut out = io::stdout().lock();
    let compiled = admission::admit(&component, args.memory_bytes_max)
        .map_err(|error| error.to_string())
        .and_then(|()| {
            compile(&component).map_err(|error| {
                format!("1/model.wasm is not a component that this host can run: {error}")
            })
        });
    match compiled {
        Ok(code) => Frame::Compiled(code).write(&mut out)?,
        Err(problem) => Frame::Refused(problem).write(&mut out)?,
    }
    Ok(())
}

pub(super) fn run_admission(args: &AdmissionWorkerArgs) -> anyhow::Result<()> {
    give_up(&args.confinement)?;
    let code = Compiled::trusted(input()?);
    let package = folder::open(&args.dir, &args.scratch, Taking::Link)?;
    let mut line = |text: String| Ok(Frame::Line(text).write(&mut io::stdout().lock())?);
    let tried = super::serve::runtime()?.block_on(test::try_out(args, package, code, &mut line));
    let mut out = io::stdout().lock();
    match tried {
        Ok(methods) => Frame::Done(methods).write(&mut out)?,
        Err(error) => Frame::Refused(format!("{error:#}")).write(&mut out)?,
    }
    Ok(())
}

fn give_up(args: &ConfinementArgs) -> anyhow::Result<()> {
    let confinement = Confinement { cpu_seconds: args.cpu_seconds, data_bytes: args.data_bytes };
    confine(confinement, args.parent).context("cannot give up what is not needed")
}

fn input() -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io::stdin().lock().take(INPUT_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}
