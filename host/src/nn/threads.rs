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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::ElementType;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    fn answer() -> Outputs {
        Ok(vec![Tensor::new(ElementType::U8, vec![1], vec![7]).unwrap()])
    }

    /// A job that runs until it is released.
    async fn held(threads: &Arc<Threads>) -> (SyncSender<()>, tokio::task::JoinHandle<Outputs>) {
        let (release, held) = sync_channel(0);
        let (began, begun) = oneshot::channel();
        let threads = threads.clone();
        let job = tokio::spawn(async move {
            let work = move |_: &Cancel| {
                began.send(()).unwrap();
                held.recv().unwrap();
                answer()
            };
            threads.run(work).await
        });
        begun.await.unwrap();
        (release, job)
    }

    #[tokio::test]
    async fn a_job_that_panics_takes_nothing_with_it() {
        let threads = Threads::start(1).unwrap();
        for _ in 0..3 {
            #[allow(clippy::panic, reason = "that is what is tested")]
            let outcome = threads.run(|_| panic!("in the engine")).await;
            assert!(matches!(outcome, Err(RunError::Panicked)), "{outcome:?}");
            assert_eq!(threads.run(|_| answer()).await.unwrap().len(), 1);
        }
    }

    /// One thread that a job holds, a full queue, and one job more, which waits
    /// outside until there is room.
    #[tokio::test]
    async fn a_job_beyond_the_queue_waits_and_is_not_lost() {
        let threads = Arc::new(Threads::start(1).unwrap());
        let (release, first) = held(&threads).await;
        let done = Arc::new(AtomicUsize::new(0));
        let mut jobs = tokio::task::JoinSet::new();
        let mut add = || {
            let (threads, done) = (threads.clone(), done.clone());
            jobs.spawn(async move {
                let outputs = threads.run(|_| answer()).await;
                done.fetch_add(1, Ordering::Relaxed);
                outputs
            });
        };
        for _ in 0..QUEUE_MAX {
            add();
        }
        while threads.room.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        add();
        let beyond = tokio::time::timeout(Duration::from_millis(50), jobs.join_next()).await;
        assert!(beyond.is_err() && done.load(Ordering::Relaxed) == 0, "{beyond:?}");

        release.send(()).unwrap();
        for outcome in jobs.join_all().await {
            assert!(outcome.is_ok(), "{outcome:?}");
        }
        assert!(first.await.unwrap().is_ok());
        assert_eq!(done.load(Ordering::Relaxed), QUEUE_MAX + 1);
    }

    #[tokio::test]
    async fn a_job_whose_asker_has_gone_is_skipped() {
        let threads = Arc::new(Threads::start(1).unwrap());
        let (release, holder) = held(&threads).await;
        let ran = Arc::new(AtomicUsize::new(0));
        let seen = ran.clone();
        let gone = threads.run(move |_| {
            seen.fetch_add(1, Ordering::Relaxed);
            answer()
        });
        let left = tokio::time::timeout(Duration::from_millis(20), gone).await;
        assert!(left.is_err());
        release.send(()).unwrap();
        assert!(holder.await.unwrap().is_ok());
        assert!(threads.run(|_| answer()).await.is_ok());
        assert_eq!(ran.load(Ordering::Relaxed), 0);
    }
}
