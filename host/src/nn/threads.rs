//! The threads that compute.
//!
//! Owns as many threads as there are turns at a time, of which the one that has computed
//! last is given the next job: its caches are warm, and what libraries keep for a thread,
//! such as on a device, they keep for few. A job waits for its replica's turn before it has
//! a thread; one whose asker has gone is not started, and one that panics takes nothing
//! with it.

use super::engine::{Cancel, RunError};
use super::lock;
use super::tensor::Tensor;
use crate::sandbox::{Charge, Meters, Share, Turn, Waits};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use tokio::sync::oneshot;

/// Each with what it is charged.
type Outputs = Result<Vec<(Tensor, Charge)>, RunError>;
type Work = Box<dyn FnOnce(&Cancel) -> Outputs + Send>;

struct Job {
    turn: Turn,
    work: Work,
    cancel: Cancel,
    reply: oneshot::Sender<Outputs>,
}

/// The threads, and the way of a job to them.
pub(crate) struct Threads(Arc<Desk>);

/// Where jobs and threads meet.
struct Desk {
    /// Threads that there are. No more jobs wait: each has a turn, and there are as many of
    /// these.
    count: usize,
    at: Mutex<AtDesk>,
}

#[derive(Default)]
struct AtDesk {
    /// The way to each thread that has nothing to do, the one that came last at the end.
    idle: Vec<SyncSender<Job>>,
    /// Jobs that no thread was free for.
    waiting: VecDeque<Job>,
    is_closed: bool,
}

impl Desk {
    /// Gives a job to a thread. One that nobody can take is dropped, and not before the lock
    /// is: its turn may be another job's at once.
    fn put(&self, job: Job) {
        let idle = {
            let mut at = lock(&self.at);
            let idle = at.idle.pop();
            if idle.is_none() && !at.is_closed && at.waiting.len() < self.count {
                return at.waiting.push_back(job);
            }
            idle
        };
        if let Some(thread) = idle {
            // It waits for this alone.
            drop(thread.try_send(job));
        }
    }

    /// Where the thread that asks finds its next job, which it can be given from then on; none
    /// comes where there will be none.
    fn next(&self) -> Receiver<Job> {
        let (way, jobs) = sync_channel(1);
        let mut at = lock(&self.at);
        match at.waiting.pop_front() {
            // It has room for one.
            Some(job) => drop(way.try_send(job)),
            None if at.is_closed => {}
            None => at.idle.push(way),
        }
        jobs
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        let closed = AtDesk { is_closed: true, ..AtDesk::default() };
        // What waits is dropped when nothing is locked, and the idle hear of it.
        let last = std::mem::replace(&mut *lock(&self.0.at), closed);
        drop(last);
    }
}

impl Threads {
    pub(crate) fn start(count: usize) -> std::io::Result<Self> {
        let threads = Self(Arc::new(Desk { count, at: Mutex::default() }));
        for number in 0..count {
            let desk = threads.0.clone();
            std::thread::Builder::new().name(format!("engine-{number}")).spawn(move || {
                crate::sched::be_nice();
                work(&desk);
            })?;
        }
        Ok(threads)
    }

    /// Runs `work` on one of the threads. Waits without holding one for the
    /// replica's turn and for the outputs; if it is dropped meanwhile, the work is
    /// cancelled.
    pub(crate) async fn run(
        &self,
        share: &Arc<Share>,
        meters: &Arc<Meters>,
        cancel: Cancel,
        work: impl FnOnce(&Cancel) -> Outputs + Send + 'static,
    ) -> Outputs {
        let gone = |_| RunError::Engine("the engine's threads have ended".into());
        let (reply, outputs) = oneshot::channel();
        let (desk, cancelled) = (self.0.clone(), cancel.clone());
        let _cancel = CancelOnDrop(cancel);
        let mut waits = Waits::of(meters.clone());
        waits.begin();
        let _waiting = share.queue(move |turn| {
            // Here and not where the outputs are waited for: that takes a guest's turn.
            drop(waits);
            // Where it is dropped, whoever waits hears of it.
            desk.put(Job { turn, work: Box::new(work), cancel: cancelled, reply });
        });
        outputs.await.map_err(gone)?
    }
}

struct CancelOnDrop(Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Ends when the threads are dropped.
fn work(desk: &Desk) {
    let mut next = desk.next();
    while let Ok(Job { turn, work, cancel, reply }) = next.recv() {
        if cancel.is_cancelled() {
            // What it has is given back before anybody hears of it.
            drop(work);
            next = desk.next();
            // Whoever asked may have gone.
            let _ = reply.send(Err(RunError::Cancelled));
            continue;
        }
        let turn = turn.begin();
        let outputs =
            catch_unwind(AssertUnwindSafe(|| work(&cancel))).unwrap_or(Err(RunError::Panicked));
        // Whoever has the turn next, or hears of the outputs, may have a job at once: it is
        // this thread's.
        next = desk.next();
        drop(turn);
        // Whoever asked may have gone meanwhile.
        let _ = reply.send(outputs);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::Holder;
    use crate::nn::ElementType;
    use crate::sandbox::{Account, Cpus};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    /// One thread and one CPU.
    fn one() -> (Arc<Threads>, Arc<Share>) {
        (Arc::new(Threads::start(1).unwrap()), Share::new(&Cpus::new(1), 64_000))
    }

    fn answer() -> Outputs {
        let charge = Account::new(1).charge(Holder::Tensor, 1)?;
        Ok(vec![(Tensor::new(ElementType::U8, vec![1], vec![7]).unwrap(), charge)])
    }

    /// A job that runs until it is released.
    async fn held(
        threads: &Arc<Threads>,
        share: &Arc<Share>,
    ) -> (SyncSender<()>, tokio::task::JoinHandle<Outputs>) {
        let (release, held) = sync_channel(0);
        let (began, begun) = oneshot::channel();
        let (threads, share) = (threads.clone(), share.clone());
        let job = tokio::spawn(async move {
            let work = move |_: &Cancel| {
                began.send(()).unwrap();
                held.recv().unwrap();
                answer()
            };
            threads.run(&share, &Arc::default(), Cancel::default(), work).await
        });
        begun.await.unwrap();
        (release, job)
    }

    /// NN-19: nothing that others need is left locked or lost.
    #[tokio::test]
    async fn a_job_that_panics_takes_nothing_with_it() {
        let (threads, share) = one();
        for _ in 0..3 {
            #[allow(clippy::panic, reason = "that is what is tested")]
            let outcome = threads
                .run(&share, &Arc::default(), Cancel::default(), |_| panic!("in the engine"))
                .await;
            assert!(matches!(outcome, Err(RunError::Panicked)), "{outcome:?}");
            assert_eq!(
                threads
                    .run(&share, &Arc::default(), Cancel::default(), |_| answer())
                    .await
                    .unwrap()
                    .len(),
                1
            );
        }
    }

    /// One thread that a job holds, and many more, which wait for their turn.
    #[tokio::test]
    async fn jobs_beyond_the_threads_wait_and_are_not_lost() {
        const JOBS: usize = 300;
        let (threads, share) = one();
        let (release, first) = held(&threads, &share).await;
        let done = Arc::new(AtomicUsize::new(0));
        let mut jobs = tokio::task::JoinSet::new();
        for _ in 0..JOBS {
            let (threads, share, done) = (threads.clone(), share.clone(), done.clone());
            jobs.spawn(async move {
                let outputs =
                    threads.run(&share, &Arc::default(), Cancel::default(), |_| answer()).await;
                done.fetch_add(1, Ordering::Relaxed);
                outputs
            });
        }
        let early = tokio::time::timeout(Duration::from_millis(50), jobs.join_next()).await;
        assert!(early.is_err() && done.load(Ordering::Relaxed) == 0, "{early:?}");
        release.send(()).unwrap();
        for outcome in jobs.join_all().await {
            assert!(outcome.is_ok(), "{outcome:?}");
        }
        assert!(first.await.unwrap().is_ok());
        assert_eq!(done.load(Ordering::Relaxed), JOBS);
    }

    /// Waits for what other threads bring about.
    fn until(is_so: impl Fn() -> bool) {
        let began = std::time::Instant::now();
        while !is_so() {
            assert!(began.elapsed() < Duration::from_secs(30));
            std::thread::yield_now();
        }
    }

    /// Whatever is kept for a thread is kept for one where one is enough: for jobs that follow
    /// each other, and for those that wait for a turn.
    #[tokio::test]
    async fn the_thread_that_computed_last_computes_next() {
        const JOBS: usize = 50;
        for (cpus, at_a_time) in [(4, 1), (1, JOBS)] {
            let threads = Arc::new(Threads::start(4).unwrap());
            let share = Share::new(&Cpus::new(cpus), 64_000);
            until(|| lock(&threads.0.at).idle.len() == 4);
            let (tell, told) = sync_channel(JOBS);
            for _ in 0..JOBS / at_a_time {
                let mut jobs = tokio::task::JoinSet::new();
                for _ in 0..at_a_time {
                    let (threads, share, tell) = (threads.clone(), share.clone(), tell.clone());
                    let work = move |_: &Cancel| {
                        tell.send(std::thread::current().id()).unwrap();
                        answer()
                    };
                    jobs.spawn(async move {
                        threads.run(&share, &Arc::default(), Cancel::default(), work).await
                    });
                }
                assert!(jobs.join_all().await.iter().all(Result::is_ok));
            }
            drop(tell);
            let ids: Vec<_> = told.into_iter().collect();
            assert_eq!(ids.len(), JOBS);
            assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
        }
    }

    #[test]
    fn threads_end_with_what_they_are_of() {
        let threads = Threads::start(3).unwrap();
        let desk = Arc::downgrade(&threads.0);
        drop(threads);
        until(|| desk.upgrade().is_none());
    }

    /// A deadline is looked at before a job starts and, by the engine, before each
    /// of its nodes.
    #[tokio::test]
    async fn a_job_whose_time_is_over_is_not_started() {
        let (threads, share) = one();
        let over = Cancel::at(std::time::Instant::now());
        let outcome = threads.run(&share, &Arc::default(), over, |_| answer()).await;
        assert!(matches!(outcome, Err(RunError::Cancelled)), "{outcome:?}");
        let later = Cancel::at(std::time::Instant::now() + Duration::from_secs(3600));
        assert!(threads.run(&share, &Arc::default(), later, |_| answer()).await.is_ok());
    }

    #[tokio::test]
    async fn a_job_whose_asker_has_gone_is_not_started() {
        let (threads, share) = one();
        let (release, holder) = held(&threads, &share).await;
        let ran = Arc::new(AtomicUsize::new(0));
        let seen = ran.clone();
        let meters = Arc::default();
        let gone = threads.run(&share, &meters, Cancel::default(), move |_| {
            seen.fetch_add(1, Ordering::Relaxed);
            answer()
        });
        let left = tokio::time::timeout(Duration::from_millis(20), gone).await;
        assert!(left.is_err());
        release.send(()).unwrap();
        assert!(holder.await.unwrap().is_ok());
        assert!(
            threads.run(&share, &Arc::default(), Cancel::default(), |_| answer()).await.is_ok()
        );
        assert_eq!(ran.load(Ordering::Relaxed), 0);
    }
}
