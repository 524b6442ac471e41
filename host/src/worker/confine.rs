//! What a one-shot process does to itself before it reads anything.

use crate::limits::limit;
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
    let set = |resource, value: u64| {
        setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) })
    };
    set(Resource::Core, 0)?;
    // The first limit is told apart from other ends by its signal, SIGXCPU; whoever
    // gets past that is killed.
    let cpu_seconds = limit("compile_cpu", confinement.cpu_seconds);
    let maximum = Some(cpu_seconds.saturating_add(CPU_SECONDS_LEFT));
    setrlimit(Resource::Cpu, Rlimit { current: Some(cpu_seconds), maximum })?;
    set(Resource::Data, limit("compile_memory", confinement.data_bytes))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    /// In the process that is confined: who has started it.
    const PARENT: &str = "RINGFENCE_TEST_CONFINED_BY";

    /// PKG-07: the process is this very test, once more.
    #[test]
    fn a_process_has_the_memory_that_it_is_given_and_no_more() {
        if let Ok(parent) = std::env::var(PARENT) {
            let confinement = Confinement { cpu_seconds: 60, data_bytes: 128 << 20 };
            confine(confinement, parent.parse().unwrap()).unwrap();
            drop(std::hint::black_box(vec![1_u8; 256 << 20]));
            return;
        }
        let name = "worker::confine::tests::a_process_has_the_memory_that_it_is_given_and_no_more";
        let ended = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name])
            .env(PARENT, std::process::id().to_string())
            .output()
            .unwrap();
        // What std does where there is no memory.
        assert_eq!(ended.status.signal(), Some(Signal::ABORT.as_raw()), "{ended:?}");
    }
}
