//! What the kernel says of a process.
//!
//! It counts what no account of this program's sees: what is read here is held against
//! those.

use rustix::param::{clock_ticks_per_second, page_size};
use std::fs::read_to_string;
use std::time::Duration;

/// What processes have had, and have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Kernel {
    /// CPU time of all their threads.
    pub cpu: Duration,
    /// Bytes of memory.
    pub resident_bytes: u64,
    /// Those of them that no other process has.
    pub private_bytes: u64,
}

impl Kernel {
    /// Of one process; nothing of one that has gone.
    pub(super) fn of(pid: u32) -> Self {
        Self::read(pid).unwrap_or_default()
    }

    /// proc(5): fields 14 and 15 of `stat`, and the second and third of `statm`.
    fn read(pid: u32) -> Option<Self> {
        let stat = read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, rest) = stat.rsplit_once(')')?;
        let ticks = rest.split_ascii_whitespace().skip(11).take(2);
        let ticks: u64 = ticks.map(|ticks| ticks.parse().unwrap_or(0)).sum();
        let nanoseconds = ticks.saturating_mul(1_000_000_000 / clock_ticks_per_second().max(1));
        let statm = read_to_string(format!("/proc/{pid}/statm")).ok()?;
        let mut pages = statm.split(' ').skip(1).map(|pages| pages.parse::<u64>().unwrap_or(0));
        let (resident, shared) = (pages.next()?, pages.next()?);
        let bytes = |pages: u64| pages.saturating_mul(page_size() as u64);
        Some(Self {
            cpu: Duration::from_nanos(nanoseconds),
            resident_bytes: bytes(resident),
            private_bytes: bytes(resident.saturating_sub(shared)),
        })
    }

    /// The sum of both.
    pub fn plus(self, other: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_add(other.cpu),
            resident_bytes: self.resident_bytes.saturating_add(other.resident_bytes),
            private_bytes: self.private_bytes.saturating_add(other.private_bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_one_that_is_none_has_nothing() {
        let own = Kernel::of(std::process::id());
        assert!(own.resident_bytes > own.private_bytes && own.private_bytes > 0, "{own:?}");
        assert_eq!(Kernel::of(u32::MAX), Kernel::default());
    }
}
