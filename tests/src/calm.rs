//! What a host holds once an attack is over: no more than before.

use crate::Host;
use crate::host::children;
use std::fs::{read_dir, read_to_string};
use std::time::{Duration, Instant};

/// What the allocator may keep.
const OWN_MORE_MAX: u64 = 32 << 20;
/// And that of each replica's process.
const OWN_MORE_OF_CHILD_MAX: u64 = 4 << 20;
/// Threads for what blocks stay as long as they have something to do now and then;
/// there are as many as did something at the same time.
const THREADS_MORE_MAX: usize = 8;
/// Mappings come and go with sandboxes that are made beforehand, and each thread has
/// its stack, the allocator's part for it, and what guards both.
const MAPS_MORE_MAX: usize = 16 + 4 * THREADS_MORE_MAX;
/// Connections of clients that are not seen to be closed yet, and one more to the
/// database.
const FILES_MORE_MAX: usize = 5;
/// How long it may take: what is thrown away goes a moment later.
const BOUND: Duration = Duration::from_secs(20);

/// What a host holds at rest.
#[derive(Debug, Clone, Copy)]
pub struct Calm {
    pid: u32,
    own_bytes: u64,
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
            own_bytes: host.own_bytes(),
            files: count("fd"),
            threads: count("task"),
            maps: read_to_string(format!("/proc/{pid}/maps")).unwrap().lines().count(),
            children: children(pid).len(),
        }
    }

    /// Waits until it is as calm as it was before something.
    pub async fn comes_back(&self, host: &Host, after: &str) {
        let began = Instant::now();
        loop {
            let now = Self::of(host);
            let more_max = OWN_MORE_MAX + OWN_MORE_OF_CHILD_MAX * now.children as u64;
            let is_calm = now.pid == self.pid
                && now.own_bytes <= self.own_bytes + more_max
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
