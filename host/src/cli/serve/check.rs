//! `ringfence serve --check`: whether a host could start like this.
//!
//! Reads and looks; makes nothing that stays.

use super::super::{ServeArgs, Usage, usage};
use super::{listen_setter, metrics_setter, refused_address, resolve};
use crate::package::{admission, folder};
use crate::store::{self, StoreError};
use crate::text::with_causes;
use std::io::Write;
use std::iter;
use std::path::Path;

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
    for path in &settings.models {
        if let Err(problem) = model(path) {
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

/// Whether a folder is one of a model, up to what compiling it would tell.
fn model(path: &Path) -> Result<(), String> {
    let scratch = tempfile::TempDir::new().map_err(|error| with_causes(&error))?;
    let package = folder::open(path, scratch.path(), folder::Taking::Nothing)
        .map_err(|error| with_causes(&error))?;
    admission::admit(&package.component, package.limits().memory_bytes_max)
        .map_err(|error| with_causes(&error))
}
