//! How much of the CPUs a thread has beside others, and how soon.
//!
//! Guests and engines have little, so that the server has enough. That alone does not
//! make the server soon: niceness is how large a share is, and a thread that wakes goes
//! before one that runs only if it wants the CPU for shorter at a time. Else it waits
//! until the other's slice is over, which is looked at when the kernel's clock ticks,
//! every 4 ms on many machines (sched-eevdf in the kernel's documentation).
#![allow(unsafe_code, reason = "JUSTIFICATION: these system calls have no safe form")]

#[cfg(target_os = "linux")]
use linux::{set_niceness, set_slice};
#[cfg(not(target_os = "linux"))]
use std::io;

/// How much nicer guests and engines are than the server.
pub(crate) const NICE: i32 = 10;

/// What a prompt thread wants at a time, in nanoseconds. The least that Linux takes.
const PROMPT_SLICE_NS: u64 = 100_000;

/// Lowers the priority of the calling thread.
pub(crate) fn be_nice() {
    if let Err(error) = set_niceness(NICE) {
        tracing::warn!(%error, "cannot lower the priority of a thread that runs guests");
    }
}

/// Lets the calling thread run soon after it wakes, and no thread or process that it
/// makes. Before Linux 6.12 this changes nothing; nor does it where whoever started
/// the process has chosen how its threads are scheduled.
pub(crate) fn be_prompt() {
    if let Err(error) = set_slice(PROMPT_SLICE_NS) {
        tracing::debug!(%error, "cannot shorten the slice of a thread");
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use rustix::process::{getpriority_process, setpriority_process};
    use std::io;
    use std::mem::size_of;

    /// Of the calling thread, which is what "this process" means to this call.
    pub(super) fn set_niceness(nice: i32) -> io::Result<()> {
        Ok(setpriority_process(None, nice)?)
    }

    pub(super) fn set_slice(slice_ns: u64) -> io::Result<()> {
        // SAFETY: 0 is the calling thread, and nothing else is passed (sched_getscheduler(2)).
        let policy = unsafe { libc::sched_getscheduler(0) };
        if policy != libc::SCHED_OTHER {
            return Err(io::Error::other(format!("its policy is {policy}")));
        }
        let attributes = libc::sched_attr {
            size: u32::try_from(size_of::<libc::sched_attr>()).map_err(io::Error::other)?,
            sched_policy: 0,
            // Together with a policy that is to be kept, the kernel does not look at it.
            sched_flags: libc::SCHED_FLAG_RESET_ON_FORK as u64,
            sched_nice: getpriority_process(None)?,
            sched_priority: 0,
            sched_runtime: slice_ns,
            sched_deadline: 0,
            sched_period: 0,
        };
        // SAFETY: The kernel reads `size` bytes of what outlives the call (sched_setattr(2)).
        match unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Elsewhere a priority is one of the whole process, and the server keeps its own.
#[cfg(not(target_os = "linux"))]
fn set_niceness(_: i32) -> io::Result<()> {
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn set_slice(_: u64) -> io::Result<()> {
    Ok(())
}

/// CPUs that there are, as far as control groups leave them to this process; one where
/// that is not known. Looking takes a while.
pub(crate) fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// How many threads this process has; not known without /proc.
pub(crate) fn threads() -> Option<usize> {
    std::fs::read_dir("/proc/self/task").map(Iterator::count).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::getpriority_process;

    /// What this kernel says of the calling thread, which no manual describes; nothing
    /// where a thread has no slice of its own.
    fn slice_ns() -> Option<u64> {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
        if crate::doctor::kernel_version(&release)? < (6, 12) {
            return None;
        }
        let sched = std::fs::read_to_string("/proc/thread-self/sched").ok()?;
        let line = sched.lines().find(|line| line.starts_with("se.slice"))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    fn on_a_thread<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> T {
        std::thread::spawn(run).join().unwrap()
    }

    #[test]
    fn a_prompt_thread_keeps_its_niceness_and_makes_no_others_prompt() {
        let (before, slices, nices) = on_a_thread(|| {
            be_nice();
            let nice = getpriority_process(None).unwrap();
            let before = slice_ns();
            set_slice(PROMPT_SLICE_NS).unwrap();
            let nices = [nice, getpriority_process(None).unwrap()];
            (before, [slice_ns(), on_a_thread(slice_ns)], nices)
        });
        assert_eq!(nices[0], nices[1]);
        match before {
            Some(_) => assert_eq!(slices, [Some(PROMPT_SLICE_NS), before]),
            None => {
                #[allow(clippy::print_stderr, reason = "a test says what it did not look at")]
                {
                    eprintln!(
                        "the slice is not looked at: this kernel has none, or does not tell it"
                    );
                }
                assert!(std::env::var_os("CI").is_none());
            }
        }
    }
}
