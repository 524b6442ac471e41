//! Limits that the kernel counts for one process. Threads are not limited here: that
//! limit counts all processes of a user together, and belongs to the control group.

use super::{Hold, Jail};
use rustix::io;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// CPU time between the signal that ends a process and the one that kills it.
const CPU_SECONDS_LEFT: u64 = 1;

pub(super) fn set(jail: &Jail<'_>) -> Hold {
    match try_set(jail) {
        Ok(()) if jail.data_bytes.is_none() => {
            Hold::Partly("a driver maps more memory than it uses, so that has none here".to_owned())
        }
        Ok(()) => Hold::Held,
        Err((name, error)) => Hold::Missing(format!("{name}: {error}")),
    }
}

fn try_set(jail: &Jail<'_>) -> Result<(), (&'static str, io::Errno)> {
    let named = |name| move |error| (name, error);
    // Where a program takes dumps, the kernel asks for none of a process whose limit is 1, but
    // for one whose limit is 0, unless it is of the kind that nobody may trace.
    let core_bytes = u64::from(jail.driver.is_some());
    at_most(Resource::Core, core_bytes, 0).map_err(named("core dumps"))?;
    at_most(Resource::Nofile, jail.files_max, 0).map_err(named("descriptors"))?;
    at_most(Resource::Fsize, jail.file_bytes_max, 0).map_err(named("size of a file"))?;
    if let Some(bytes) = jail.data_bytes {
        at_most(Resource::Data, bytes, 0).map_err(named("memory"))?;
    }
    if let Some(seconds) = jail.cpu_seconds {
        at_most(Resource::Cpu, seconds, CPU_SECONDS_LEFT).map_err(named("CPU time"))?;
    }
    Ok(())
}

/// Nobody but root may raise a limit, so one that is already lower stays.
fn at_most(resource: Resource, value: u64, grace: u64) -> io::Result<()> {
    let there = getrlimit(resource).maximum.unwrap_or(u64::MAX);
    let maximum = value.saturating_add(grace).min(there);
    setrlimit(resource, Rlimit { current: Some(value.min(maximum)), maximum: Some(maximum) })
}
