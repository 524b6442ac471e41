//! Threads that help with a run.
//!
//! Owns what CPU time they have taken: they are the library's to use, and the replica's to
//! pay for.

use crate::nn::lock;
use ort::environment::ThreadManager;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// The helpers of a process.
#[derive(Default)]
pub(super) struct Helpers(Mutex<Taken>);

#[derive(Default)]
struct Taken {
    /// The clocks of their CPU time.
    clocks: Vec<clock::Id>,
    /// What somebody has heard of it.
    told: Duration,
}

/// Starts them.
pub(super) struct Manager(Arc<Helpers>);

impl Helpers {
    pub(super) fn manager(self: &Arc<Self>) -> Manager {
        Manager(self.clone())
    }

    /// CPU time that they have taken since this was asked last.
    pub(super) fn take(&self) -> Duration {
        let mut taken = lock(&self.0);
        let all = taken.clocks.iter().map(|clock| clock::read(*clock)).sum();
        all - std::mem::replace(&mut taken.told, all).min(all)
    }
}

impl ThreadManager for Manager {
    type Thread = JoinHandle<()>;

    fn create(&self, work: impl FnOnce() + Send + 'static) -> ort::Result<JoinHandle<()>> {
        let helpers = self.0.clone();
        let helping = move || {
            crate::sched::be_nice();
            let clock = clock::of_this_thread();
            lock(&helpers.0).clocks.extend(clock);
            work();
            lock(&helpers.0).clocks.retain(|other| Some(*other) != clock);
        };
        std::thread::Builder::new()
            .name("onnx-helper".to_owned())
            .spawn(helping)
            .map_err(|error| ort::Error::new(error.to_string()))
    }

    fn join(thread: JoinHandle<()>) -> ort::Result<()> {
        thread.join().map_err(|_| ort::Error::new("a thread panicked"))
    }
}

#[cfg(target_os = "linux")]
#[allow(
    unsafe_code,
    reason = "JUSTIFICATION: no crate has a safe name for the clock of another thread"
)]
mod clock {
    use std::time::Duration;

    pub(super) type Id = libc::clockid_t;

    /// pthread_getcpuclockid(3).
    pub(super) fn of_this_thread() -> Option<Id> {
        let mut id = 0;
        // SAFETY: this thread lives, and the pointer is to a place of this frame.
        let failed = unsafe { libc::pthread_getcpuclockid(libc::pthread_self(), &raw mut id) };
        (failed == 0).then_some(id)
    }

    /// clock_gettime(2). That of a thread that has ended stands at nothing.
    pub(super) fn read(id: Id) -> Duration {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the pointer is to a place of this frame.
        unsafe { libc::clock_gettime(id, &raw mut time) };
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
    }
}

/// Elsewhere there is no clock of another thread; helpers are not charged where nobody is
/// kept from anything.
#[cfg(not(target_os = "linux"))]
mod clock {
    use std::time::Duration;

    pub(super) type Id = ();

    pub(super) fn of_this_thread() -> Option<Id> {
        None
    }

    pub(super) fn read((): Id) -> Duration {
        Duration::ZERO
    }
}
