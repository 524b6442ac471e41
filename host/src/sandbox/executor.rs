//! The runtime on which guests run, apart from the server's.
//!
//! A spinning guest yields after a millisecond at most; with tokio's default of looking
//! at I/O and at the global queue only every 61 tasks, its neighbours would
//! wait for many such slices. Both intervals are therefore 1, and the threads
//! are nicer than the server's.

use super::thread_cpu::thread_has_waited;
use crate::sched::be_nice;
use std::cell::Cell;
use std::future::Future;
use tokio_util::task::TaskTracker;

/// Threads for what blocks. Guests' reads of files do not come here: they are a part
/// of their turns.
const BLOCKING_THREADS_MAX: usize = 8;

thread_local! {
    static IS_HERE: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is one on which guests run. Elsewhere they may begin, and must not
/// keep the thread.
pub(crate) fn is_here() -> bool {
    IS_HERE.get()
}

/// Threads that run guests.
#[derive(Debug)]
pub(crate) struct Executor {
    runtime: Option<tokio::runtime::Runtime>,
    tasks: TaskTracker,
}

impl Executor {
    pub(crate) fn start(threads: usize) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .max_blocking_threads(BLOCKING_THREADS_MAX)
            .event_interval(1)
            .global_queue_interval(1)
            .thread_name("guest")
            .on_thread_start(|| {
                be_nice();
                IS_HERE.set(true);
            })
            .on_thread_unpark(thread_has_waited)
            .enable_time()
            .build()?;
        Ok(Self { runtime: Some(runtime), tasks: TaskTracker::new() })
    }

    /// Runs a future to its end; `drain` waits for it.
    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        if let Some(runtime) = &self.runtime {
            self.tasks.spawn_on(future, runtime.handle());
        }
    }

    /// Waits until nothing runs any more.
    pub(crate) async fn drain(&self) {
        self.tasks.close();
        self.tasks.wait().await;
        self.tasks.reopen();
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Dropping a runtime blocks, which tokio forbids inside another one.
            runtime.shutdown_background();
        }
    }
}
