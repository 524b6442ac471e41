//! The caller's side of a call in progress: messages in, events out.
//!
//! Owns what happens to outputs that nobody reads: they wait no longer than a little
//! beyond the call's deadline. Those that are read are charged to the version until
//! their reader gives them back.

use super::account::{Account, Charge, OverLimit};
use super::meters::Meters;
use super::size;
use super::streams::{Received, Sent};
use crate::call::{Deadline, End, Event, Holder, Phase, Receipt, Request, Verdict};
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Poll, ready};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_util::sync::DropGuard;

/// Time after the deadline in which a client may still read what there is.
const DELIVERY_GRACE: Duration = Duration::from_secs(2);

/// A call in progress. Dropping it stops the guest.
#[derive(Debug)]
pub struct Calling {
    events: Events,
    give_up_at: Instant,
    spent: Spent,
    /// What the last event makes the version hold.
    held: Option<Charge>,
    _stop: DropGuard,
}

/// What a call has taken so far. Outlives the call.
#[derive(Debug, Clone)]
pub struct Spent(Arc<Meters>);

impl Spent {
    /// The figures. Fuel and memory are known only at the end; they are 0 here.
    pub fn receipt(&self) -> Receipt {
        Receipt { fuel_is_lower_bound: true, ..self.0.receipt() }
    }
}

/// The way of a call's messages to its guest.
#[derive(Debug)]
pub struct Requests {
    pub(super) sender: mpsc::Sender<Received>,
    pub(super) account: Account,
}

/// Why a message did not reach the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The call is over; its events say how it ended.
    #[error("the call is over")]
    Over,
    /// Holding the message would exceed `cpu_memory`.
    #[error(transparent)]
    Memory(#[from] OverLimit),
}

/// Events that wait for the client. Both sides hold it, so that the guest's side
/// can throw them away when the client does not come for them.
#[derive(Debug, Clone)]
pub(super) struct Events(Arc<Mutex<Waiting>>);

#[derive(Debug)]
struct Waiting {
    events: mpsc::Receiver<Sent>,
    /// The end, where what came before it was thrown away.
    end: Option<Verdict>,
}

impl Events {
    pub(super) fn new(events: mpsc::Receiver<Sent>) -> Self {
        Self(Arc::new(Mutex::new(Waiting { events, end: None })))
    }

    /// Throws away what waits, and releases its charges.
    pub(super) fn discard(&self) {
        self.lock().discard();
    }

    /// The same, and says why.
    pub(super) fn give_up(&self, end: Verdict) {
        let mut waiting = self.lock();
        waiting.discard();
        waiting.end = Some(end);
    }

    async fn next(&self) -> Option<Sent> {
        poll_fn(|context| {
            let mut waiting = self.lock();
            let next = ready!(waiting.events.poll_recv(context));
            let end =
                || waiting.end.take().map(|end| Sent { event: Event::End(end), charge: None });
            Poll::Ready(next.or_else(end))
        })
        .await
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Waiting {
    fn discard(&mut self) {
        self.events.close();
        while self.events.try_recv().is_ok() {}
    }
}

/// When the outputs of a call are given up.
pub(super) fn give_up_at(deadline: Deadline) -> Instant {
    deadline.instant() + DELIVERY_GRACE
}

impl Calling {
    pub(super) fn new(
        events: Events,
        deadline: Deadline,
        stop: DropGuard,
        meters: Arc<Meters>,
    ) -> Self {
        let (give_up_at, spent) = (give_up_at(deadline), Spent(meters));
        Self { events, give_up_at, spent, held: None, _stop: stop }
    }

    /// What the call has taken so far.
    pub fn spent(&self) -> &Spent {
        &self.spent
    }

    /// The next event; nothing after the end. What the one before it made the
    /// version hold is given back, unless it was taken.
    ///
    /// Ends a call whose guest's executor does not answer in time: this waits
    /// on another runtime, so guests cannot starve it.
    pub async fn next(&mut self) -> Option<Event> {
        self.held = None;
        let next = tokio::time::timeout_at(self.give_up_at.into(), self.events.next());
        match next.await {
            Ok(Some(Sent { event, charge })) => {
                self.held = charge;
                Some(event)
            }
            Ok(None) if Instant::now() < self.give_up_at => None,
            Ok(None) | Err(_) => {
                let early = Verdict::early(End::DeadlinePassed, Phase::Call);
                Some(Event::End(Verdict { receipt: self.spent.receipt(), ..early }))
            }
        }
    }

    /// What the last event makes the version hold, for whoever keeps its output.
    pub fn held(&mut self) -> Option<Charge> {
        self.held.take()
    }
}

impl Requests {
    /// Sends a message to the guest and waits while the guest is slow.
    pub async fn send(&self, request: Request) -> Result<(), SendError> {
        let bytes = size::of_request(&request);
        let charge = self.account.charge(Holder::Message, bytes)?;
        self.sender.send(Received { request, charge }).await.map_err(|_| SendError::Over)
    }
}
