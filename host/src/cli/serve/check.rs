//! `ringfence serve --check`: whether a host could start like this.
//!
//! Reads and looks; makes nothing that stays.

use super::super::{ServeArgs, Usage, usage};
use super::{listen_setter, metrics_setter, refused_address, resolve};
use crate::devices::{Devices, Given};
use crate::nn::{self, Engines, OnnxRuntimeElsewhere, OnnxRuntimeLibrary};
use crate::package::{admission, folder};
use crate::store::{self, StoreError};
use crate::text::with_causes;
use std::io::Write;
use std::iter;
use std::path::Path;
use std::sync::Arc;

/// Prints `ok`, or fails with everything that is wrong.
pub(super) fn run(args: &ServeArgs) -> anyhow::Result<()> {
    let settings = &resolve::unchecked(args).map_err(usage)?;
    let mut problems = resolve::refusals(args, settings);
    if let Some(tls) = &settings.tls
        && let Err(error) = tls.load()
    {
        problems.push(with_causes(&error));
    }
    // A host that runs has its address and its lock, and may be told to read
    // its files again.
    let running = match store::inspect(&settings.data_dir) {
        Ok(_) => false,
        Err(StoreError::InUse { .. }) => true,
        Err(error) => {
            problems.push(with_causes(&error));
            false
        }
    };
    let metrics_listen = settings.metrics_listen.map(|address| (address, metrics_setter(args)));
    for (address, setter) in
        iter::once((settings.listen, listen_setter(args))).chain(metrics_listen)
    {
        if !running && let Err(error) = std::net::TcpListener::bind(address) {
            problems.push(refused_address(address, &setter, &error));
        }
    }
    let mut engines = Engines::default();
    // What is no file has been refused above.
    if let Some(library) = settings.onnxruntime.as_deref().filter(|library| library.is_file()) {
        match OnnxRuntimeLibrary::load(library) {
            Ok(_) => engines = engines.and(Arc::new(OnnxRuntimeElsewhere)),
            Err(error) => problems.push(with_causes(&error)),
        }
    }
    let devices = Devices::of_this_machine();
    let mut given = Vec::new();
    for path in &settings.models {
        if let Err(problem) = model(path, &engines, &devices, &mut given) {
            problems.push(format!("cannot serve {}: {problem}", path.display()));
        }
    }
    match problems.as_slice() {
        [] => {
            let mut out = std::io::stdout().lock();
            if running {
                writeln!(
                    out,
                    "note: a host runs on {}, so its address was not tried",
                    settings.data_dir.display()
                )?;
            }
            Ok(writeln!(out, "ok")?)
        }
        [one] => Err(Usage(one.clone()).into()),
        _ => {
            let text = format!("{} problems\n{}", problems.len(), problems.join("\n"));
            Err(Usage(text).into())
        }
    }
}

/// Whether a folder is one of a model whose graphs one of these engines computes, and that
/// finds devices beside those before it, up to what compiling it would tell.
fn model(
    path: &Path,
    engines: &Engines,
    devices: &Devices,
    given: &mut Vec<Given>,
) -> Result<(), String> {
    let scratch = tempfile::TempDir::new().map_err(|error| with_causes(&error))?;
    let package = folder::open(path, scratch.path(), folder::Taking::Nothing)
        .map_err(|error| with_causes(&error))?;
    admission::admit(&package.component, package.limits().memory_bytes_max)
        .map_err(|error| with_causes(&error))?;
    let asked = &package.limits().accelerators;
    given.push(devices.give(asked).map_err(|none| none.to_string())?);
    for graph in &package.graphs {
        nn::look_at(engines, &package, graph).map_err(|error| with_causes(&error))?;
    }
    Ok(())
}
