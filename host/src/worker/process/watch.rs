//! That each call of a process ends: at its deadline, when nobody wants its outputs, and if
//! need be with its process.
//!
//! Owns how often that is looked after. A call that ends by itself is never looked at: no
//! task and no timer is made for it.

use super::{CANCEL_GRACE, DEADLINE_GRACE, Running, Shared};
use crate::call::{Deadline, End};
use crate::sandbox::{Answers, give_up_at};
use crate::worker::lock;
use crate::worker::message::{Ask, bare};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// How often it is looked whether a call is late, or is not wanted any more.
const SWEEP_PERIOD: Duration = Duration::from_millis(20);

/// A call whose end is seen to.
pub(super) struct Watched {
    pub(super) call: u32,
    pub(super) deadline: Deadline,
    /// When nothing may run for it any more. A caller's own deadline may be earlier, and
    /// is no reason to end the calls of others.
    pub(super) killed_at: Instant,
    /// Nobody wants its outputs.
    pub(super) stopped: CancellationToken,
    /// It has a verdict.
    pub(super) has_ended: oneshot::Receiver<()>,
    /// Nothing runs for it any more.
    pub(super) is_over: oneshot::Receiver<()>,
    /// And all that came out of it has come here.
    pub(super) is_done: oneshot::Receiver<Answers>,
}

/// What has come out of a call that is over, as long as somebody may read it.
#[derive(Debug)]
pub(super) struct Left {
    answers: Answers,
    stopped: CancellationToken,
}

impl Left {
    fn is_wanted(&self, now: Instant) -> bool {
        !self.stopped.is_cancelled() && now < self.answers.give_up_at()
    }
}

impl Shared {
    /// Looks after calls as long as there are any.
    pub(super) async fn sweep(self: &Arc<Self>) -> Infallible {
        loop {
            self.called.notified().await;
            self.sweep_to_the_end().await;
        }
    }

    /// The same until there are none.
    pub(super) async fn sweep_to_the_end(self: &Arc<Self>) {
        while self.has_calls() {
            tokio::time::sleep(SWEEP_PERIOD).await;
            self.sweep_once();
        }
    }

    fn has_calls(&self) -> bool {
        !self.calls().running.is_empty() || !lock(&self.left).is_empty()
    }

    pub(super) fn sweep_once(self: &Arc<Self>) {
        let now = Instant::now();
        let mut watched = Vec::new();
        for running in self.calls().running.values_mut() {
            watched.extend(running.watched.take_if(|watched| watched.is_due(now)));
        }
        for watched in watched {
            self.tasks.spawn(watched.watch(self.clone()));
        }
        let mut gone = Vec::new();
        {
            let mut left = lock(&self.left);
            while let Some(place) = left.iter().position(|left| !left.is_wanted(now)) {
                gone.push(left.swap_remove(place));
            }
        }
        // Nobody waits for the lock while it goes.
        gone.into_iter().for_each(|gone| gone.answers.discard());
    }

    /// Whoever has called wants no more.
    pub(super) fn unwanted(self: &Arc<Self>, call: u32) {
        let watched =
            self.calls().running.get_mut(&call).and_then(|running| running.watched.take());
        if let Some(watched) = watched {
            self.tasks.spawn(watched.watch(self.clone()));
        }
    }

    /// Keeps what has come out of a call as long as somebody may read it.
    pub(super) fn keep(&self, answers: Answers, stopped: CancellationToken) {
        let left = Left { answers, stopped };
        match left.is_wanted(Instant::now()) {
            true => lock(&self.left).push(left),
            false => left.answers.discard(),
        }
    }
}

impl Watched {
    fn is_due(&self, now: Instant) -> bool {
        self.stopped.is_cancelled() || now >= self.late_at()
    }

    fn late_at(&self) -> Instant {
        self.deadline.instant() + DEADLINE_GRACE
    }

    /// Sees to it that a call ends: when nobody wants its outputs, at its deadline, and,
    /// if need be, with its process.
    async fn watch(mut self, shared: Arc<Shared>) {
        let (deadline, late_at) = (self.deadline, self.late_at());
        let stopped = self.stopped.clone();
        let is_over = tokio::select! {
            _ = &mut self.is_over => true,
            () = stopped.cancelled() => false,
            () = tokio::time::sleep_until(late_at.into()) => {
                shared.change(self.call, Running::is_late);
                false
            }
        };
        if !is_over {
            // Its guest is told; what an engine does for it may take longer.
            let is_over = self.insist(&shared).await;
            let killed_at = self.killed_at.into();
            if !is_over && tokio::time::timeout_at(killed_at, &mut self.is_over).await.is_err() {
                shared.kill("it did not end a call within call_timeout");
            }
        }
        let done = tokio::select! {
            done = &mut self.is_done => done,
            () = stopped.cancelled() => self.given_up(&shared).await,
            () = tokio::time::sleep_until(give_up_at(deadline).into()) => {
                self.given_up(&shared).await
            }
        };
        if let Ok(answers) = done {
            answers.discarded(&self.stopped).await;
        }
    }

    /// Has the process end the call's guest. One that does not even say so hangs. Whether
    /// nothing runs for the call any more.
    async fn insist(&mut self, shared: &Shared) -> bool {
        shared.outbox.send(bare(Ask::Cancel, self.call, 0));
        let answered = async {
            tokio::select! {
                _ = &mut self.is_over => true,
                _ = &mut self.has_ended => false,
            }
        };
        match tokio::time::timeout(CANCEL_GRACE, answered).await {
            Ok(is_over) => is_over,
            Err(_) => {
                shared.change(self.call, |running| running.end_early(End::DeadlinePassed));
                shared.kill("it did not end a call that it was told to end");
                false
            }
        }
    }

    /// Has the process give up what nobody takes.
    async fn given_up(&mut self, shared: &Shared) -> Result<Answers, oneshot::error::RecvError> {
        shared.outbox.send(bare(Ask::Cancel, self.call, 0));
        if let Ok(done) = tokio::time::timeout(CANCEL_GRACE, &mut self.is_done).await {
            return done;
        }
        shared.kill("it did not give up the outputs of a call");
        (&mut self.is_done).await
    }
}
