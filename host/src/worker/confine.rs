//! What a one-shot process does to itself before it reads anything.

use rustix::process::{
    Pid, Resource, Rlimit, Signal, getppid, set_parent_process_death_signal, setrlimit,
};
use std::io;

/// Limits that the kernel holds.
#[derive(Debug, Clone, Copy)]
pub struct Confinement {
    /// CPU time of all threads together; then the process is killed.
    pub cpu_seconds: u64,
    /// Memory that is not code, stacks aside.
    pub data_bytes: u64,
}

/// Gives up what the process does not need. `parent` is who has started it.
pub fn confine(confinement: Confinement, parent: i32) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // It may have ended before that was said.
    if getppid().map(Pid::as_raw_nonzero).is_none_or(|pid| pid.get() != parent) {
        return Err(io::Error::other("the process that started this one has gone"));
    }
    let limit = |resource, value: u64| {
        setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) })
    };
    limit(Resource::Core, 0)?;
    limit(Resource::Cpu, confinement.cpu_seconds)?;
    limit(Resource::Data, confinement.data_bytes)?;
    Ok(())
}
