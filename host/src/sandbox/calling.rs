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
use tokio::sync::mpsc::error::TrySendError;
use tokio_util::sync::{CancellationToken, DropGuard};

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
struct Events(Arc<Mutex<Waiting>>);

#[derive(Debug)]
struct Waiting {
    events: mpsc::Receiver<Sent>,
    /// The end, where what came before it was thrown away.
    end: Option<Verdict>,
}

impl Events {
    fn new(events: mpsc::Receiver<Sent>) -> Self {
        Self(Arc::new(Mutex::new(Waiting { events, end: None })))
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

/// The guest's side of a call in progress: whoever runs it, or hears from where it
/// runs.
#[derive(Debug)]
pub(crate) struct Answers {
    events: mpsc::Sender<Sent>,
    /// One place more than for outputs, so that the end never waits.
    end: Option<mpsc::OwnedPermit<Sent>>,
    waiting: Events,
    pub(crate) meters: Arc<Meters>,
    give_up_at: Instant,
}

/// The two sides of a call that has so many places for outputs. It is stopped with
/// the second.
pub(crate) fn sides(places: usize, deadline: Deadline, stop: DropGuard) -> (Answers, Calling) {
    let (sender, receiver) = mpsc::channel(places + 1);
    let end = sender.clone().try_reserve_owned().ok();
    let (waiting, meters) = (Events::new(receiver), Arc::new(Meters::default()));
    let give_up_at = give_up_at(deadline);
    let calling = Calling {
        events: waiting.clone(),
        give_up_at,
        spent: Spent(meters.clone()),
        held: None,
        _stop: stop,
    };
    (Answers { events: sender, end, waiting, meters, give_up_at }, calling)
}

/// When the outputs of a call are given up.
pub(crate) fn give_up_at(deadline: Deadline) -> Instant {
    deadline.instant() + DELIVERY_GRACE
}

impl Answers {
    /// The way of outputs to the client.
    pub(super) fn sender(&self) -> mpsc::Sender<Sent> {
        self.events.clone()
    }

    /// An event that has come from elsewhere; whether there was a place for it, or
    /// nobody who wants it.
    pub(crate) fn event(&self, event: Event, charge: Option<Charge>) -> bool {
        match self.events.try_send(Sent { event, charge }) {
            Ok(()) | Err(TrySendError::Closed(_)) => true,
            Err(TrySendError::Full(_)) => false,
        }
    }

    /// How the call has ended. Whoever comes too late for outputs is told why there
    /// is no more.
    pub(crate) fn end(&mut self, verdict: Verdict) {
        let place = self.end.take();
        if matches!(verdict.end, End::Unread { .. }) {
            let mut waiting = self.waiting.lock();
            waiting.discard();
            waiting.end = Some(verdict);
        } else if let Some(place) = place {
            drop(place.send(Sent { event: Event::End(verdict), charge: None }));
        }
    }

    /// When they are given up.
    pub(crate) fn give_up_at(&self) -> Instant {
        self.give_up_at
    }

    /// Throws away what nobody reads any more.
    pub(crate) fn discard(self) {
        self.waiting.lock().discard();
    }

    /// Throws away what nobody has read soon after the deadline, or after `stopped`.
    pub(crate) async fn discarded(self, stopped: &CancellationToken) {
        tokio::select! {
            () = stopped.cancelled() => {}
            () = tokio::time::sleep_until(self.give_up_at.into()) => {}
        }
        self.discard();
    }
}

impl Calling {
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

    /// Bytes that the last event makes the version hold.
    pub(crate) fn held_bytes(&self) -> u64 {
        self.held.as_ref().map_or(0, Charge::bytes)
    }

    /// What the last event makes the version hold, for whoever keeps its output.
    pub fn held(&mut self) -> Option<Charge> {
        self.held.take()
    }
}

impl Requests {
    /// Gives the guest its first message, for which there is room.
    pub(crate) fn first(&self, request: Request) -> Result<(), SendError> {
        self.sender.try_send(self.charged(request)?).map_err(|_| SendError::Over)
    }

    /// Sends a message to the guest and waits while the guest is slow.
    pub async fn send(&self, request: Request) -> Result<(), SendError> {
        self.sender.send(self.charged(request)?).await.map_err(|_| SendError::Over)
    }

    fn charged(&self, request: Request) -> Result<Received, OverLimit> {
        let charge = self.account.charge(Holder::Message, size::of_request(&request))?;
        Ok(Received { request, charge })
    }
}
