//! What a one-shot process does to itself before it reads anything.

use rustix::process::{
    Pid, Resource, Rlimit, Signal, getppid, set_parent_process_death_signal, setrlimit,
};
use std::io;

/// CPU time between the signal that ends a process and the one that kills it.
const CPU_SECONDS_LEFT: u64 = 1;

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
    // The first limit is told apart from other ends by its signal, SIGXCPU; whoever
    // gets past that is killed.
    let cpu_seconds = confinement.cpu_seconds;
    let maximum = Some(cpu_seconds.saturating_add(CPU_SECONDS_LEFT));
    setrlimit(Resource::Cpu, Rlimit { current: Some(cpu_seconds), maximum })?;
    limit(Resource::Data, confinement.data_bytes)?;
    Ok(())
}
