//! The sandbox that waits for the next call, so that a caller does not wait for
//! `load-model`.
//!
//! Owns when one is made beforehand, and who gets it. One is made only after a
//! call, only one at a time, and only where it leaves half of `cpu_memory` to
//! the calls. A call that finds it still loading waits for it: two that load
//! beside each other could exceed a limit that one keeps.

use super::instance::Instance;
use super::program::Shared;
use crate::call::{Deadline, Receipt, Verdict};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;
use tokio::sync::{Semaphore, oneshot};

/// The place of that sandbox.
pub(super) struct Ready {
    place: Mutex<Place>,
    /// Held by whoever loads.
    loading: Semaphore,
    /// Linear memory that `load-model` left the last time, in bytes.
    load_bytes: AtomicU64,
}

/// A sandbox for a call, and whether the call had to wait for it.
pub(super) enum Taken {
    Ready(Box<Instance>),
    Awaited(Instance),
}

enum Place {
    Empty,
    Loading(oneshot::Receiver<Instance>),
    Loaded(Box<Instance>),
}

impl Ready {
    pub(super) fn new() -> Self {
        Self {
            place: Mutex::new(Place::Empty),
            loading: Semaphore::new(1),
            load_bytes: AtomicU64::new(0),
        }
    }

    /// The sandbox that waits or is about to; nothing if there is none, or not
    /// in time.
    pub(super) async fn take(&self, deadline: Instant) -> Option<Taken> {
        let place = std::mem::replace(&mut *self.lock(), Place::Empty);
        match place {
            Place::Empty => None,
            Place::Loaded(instance) => Some(Taken::Ready(instance)),
            Place::Loading(loaded) => {
                let loaded = tokio::time::timeout_at(deadline.into(), loaded).await.ok()?.ok()?;
                Some(Taken::Awaited(loaded))
            }
        }
    }

    /// Loads a first sandbox, so that a model that cannot load is known before
    /// it is called. Returns what loading took.
    pub(super) async fn warm(&self, shared: &Arc<Shared>) -> Result<Receipt, Box<Verdict>> {
        let instance = Instance::load(shared, load_deadline(shared)).await?;
        let receipt = instance.load_receipt();
        let kept = self.kept(instance, shared);
        *self.lock() = kept;
        Ok(receipt)
    }

    /// Loads the sandbox for the next call, unless there is one, there is no
    /// room, or the host is stopping.
    pub(super) async fn refill(&self, shared: &Arc<Shared>) {
        let Ok(_only_one) = self.loading.try_acquire() else { return };
        let (sender, receiver) = oneshot::channel();
        {
            let mut place = self.lock();
            if !matches!(*place, Place::Empty) || !self.has_room(shared) {
                return;
            }
            *place = Place::Loading(receiver);
        }
        let loaded = tokio::select! {
            biased;
            () = shared.runtime.stopping().cancelled() => None,
            loaded = Instance::load(shared, load_deadline(shared)) => loaded.ok(),
        };
        let mut place = self.lock();
        match (std::mem::replace(&mut *place, Place::Empty), loaded) {
            (Place::Loading(_), Some(instance)) => *place = self.kept(instance, shared),
            // A call waits for it, or has left meanwhile.
            (Place::Empty, Some(instance)) => {
                if let Err(instance) = sender.send(instance) {
                    *place = self.kept(instance, shared);
                }
            }
            // Whoever waits hears that the sender is gone, and loads.
            (Place::Loading(_) | Place::Empty, None) => {}
            // Only `warm` puts one here meanwhile.
            (there @ Place::Loaded(_), _) => *place = there,
        }
    }

    /// A sandbox that has loaded, if it leaves half of `cpu_memory` to the calls.
    fn kept(&self, instance: Instance, shared: &Shared) -> Place {
        self.load_bytes.store(instance.memory_bytes(), Ordering::Relaxed);
        match shared.account.bytes() <= shared.account.bytes_max() / 2 {
            true => Place::Loaded(Box::new(instance)),
            false => Place::Empty,
        }
    }

    fn has_room(&self, shared: &Shared) -> bool {
        let bytes = shared.account.bytes() + self.load_bytes.load(Ordering::Relaxed);
        bytes <= shared.account.bytes_max() / 2
    }

    fn lock(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// When what a guest does outside of a call must have ended.
pub(super) fn load_deadline(shared: &Shared) -> Instant {
    Deadline::after(shared.limits.call_timeout).instant()
}
