//! What a host holds once an attack is over: no more than before.

use crate::Host;
use std::fs::{read_dir, read_to_string};
use std::time::{Duration, Instant};

/// What the allocator may keep.
const RESIDENT_MORE_MAX: u64 = 32 << 20;
/// Threads for what blocks stay as long as they have something to do now and then;
/// there are as many as did something at the same time.
const THREADS_MORE_MAX: usize = 8;
/// Mappings come and go with sandboxes that are made beforehand, and each thread has
/// its stack, the allocator's part for it, and what guards both.
const MAPS_MORE_MAX: usize = 16 + 4 * THREADS_MORE_MAX;
/// A connection of a client's that is not seen to be closed yet.
const FILES_MORE_MAX: usize = 2;
/// How long it may take: what is thrown away goes a moment later.
const BOUND: Duration = Duration::from_secs(20);

/// What a host holds at rest.
#[derive(Debug, Clone, Copy)]
pub struct Calm {
    pid: u32,
    resident_bytes: u64,
    files: usize,
    threads: usize,
    maps: usize,
    /// Processes of its own, those that have ended and that it has not looked at
    /// included.
    children: usize,
}

impl Calm {
    /// What it holds now.
    pub fn of(host: &Host) -> Self {
        let pid = host.pid();
        let count = |folder: &str| read_dir(format!("/proc/{pid}/{folder}")).unwrap().count();
        Self {
            pid,
            resident_bytes: host.resident_bytes(),
            files: count("fd"),
            threads: count("task"),
            maps: read_to_string(format!("/proc/{pid}/maps")).unwrap().lines().count(),
            children: children(pid),
        }
    }

    /// Waits until it is as calm as it was before something.
    pub async fn comes_back(&self, host: &Host, after: &str) {
        let began = Instant::now();
        loop {
            let now = Self::of(host);
            let is_calm = now.pid == self.pid
                && now.resident_bytes <= self.resident_bytes + RESIDENT_MORE_MAX
                && now.files <= self.files + FILES_MORE_MAX
                && now.threads <= self.threads + THREADS_MORE_MAX
                && now.maps <= self.maps + MAPS_MORE_MAX
                && now.children <= self.children;
            if is_calm {
                return;
            }
            assert!(began.elapsed() < BOUND, "after {after}: {now:?}, where it was {self:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// How many processes a process has begun that are still there.
fn children(pid: u32) -> usize {
    let of = |thread: &str| {
        let pids = read_to_string(format!("/proc/{pid}/task/{thread}/children"));
        pids.map(|pids| pids.split_whitespace().count())
    };
    assert!(of(&pid.to_string()).is_ok(), "the system does not tell children");
    let threads = read_dir(format!("/proc/{pid}/task")).unwrap().filter_map(Result::ok);
    // Others may end meanwhile.
    threads.filter_map(|thread| of(thread.file_name().to_str()?).ok()).sum()
}
