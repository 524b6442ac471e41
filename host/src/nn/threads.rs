//! The threads that compute.
//!
//! Owns a bounded queue and as many threads as it is given. A job whose asker
//! has gone is skipped; a job that panics takes nothing with it.

use super::engine::{Cancel, RunError};
use super::tensor::Tensor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// Jobs that may wait for a thread.
const QUEUE_MAX: usize = 256;

type Outputs = Result<Vec<Tensor>, RunError>;
type Work = Box<dyn FnOnce(&Cancel) -> Outputs + Send>;

struct Job {
    work: Work,
    cancel: Cancel,
    reply: oneshot::Sender<Outputs>,
    room: OwnedSemaphorePermit,
}

/// The threads and their queue.
pub(crate) struct Threads {
    jobs: SyncSender<Job>,
    room: Arc<Semaphore>,
}

impl Threads {
    pub(crate) fn start(count: usize) -> std::io::Result<Self> {
        let (jobs, queue) = sync_channel(QUEUE_MAX);
        let queue = Arc::new(Mutex::new(queue));
        for number in 0..count {
            let queue = queue.clone();
            std::thread::Builder::new().name(format!("engine-{number}")).spawn(move || {
                crate::sandbox::be_nice();
                work(&queue);
            })?;
        }
        Ok(Self { jobs, room: Arc::new(Semaphore::new(QUEUE_MAX)) })
    }

    /// Runs `work` on one of the threads. Waits without holding a thread for
    /// room in the queue and for the outputs; if it is dropped meanwhile, the
    /// work is cancelled.
    pub(crate) async fn run(
        &self,
        work: impl FnOnce(&Cancel) -> Outputs + Send + 'static,
    ) -> Outputs {
        let gone = |_| RunError::Engine("the engine's threads have ended".into());
        // A permit goes with its job until a thread takes it out, so there are
        // as many permits as places and sending never fails for want of one.
        let room = self.room.clone().acquire_owned().await.map_err(|_| RunError::Cancelled)?;
        let (reply, outputs) = oneshot::channel();
        let cancel = CancelOnDrop(Cancel::default());
        let job = Job { work: Box::new(work), cancel: cancel.0.clone(), reply, room };
        self.jobs.try_send(job).map_err(|_| RunError::Cancelled)?;
        outputs.await.map_err(gone)?
    }
}

struct CancelOnDrop(Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Ends when the sender of jobs is dropped.
fn work(queue: &Mutex<Receiver<Job>>) {
    loop {
        let next = match queue.lock() {
            Ok(queue) => queue.recv(),
            Err(poisoned) => poisoned.into_inner().recv(),
        };
        let Ok(Job { work, cancel, reply, room }) = next else { return };
        drop(room);
        if cancel.is_cancelled() {
            continue;
        }
        let outputs =
            catch_unwind(AssertUnwindSafe(|| work(&cancel))).unwrap_or(Err(RunError::Panicked));
        // Whoever asked may have gone meanwhile.
        let _ = reply.send(outputs);
    }
}
