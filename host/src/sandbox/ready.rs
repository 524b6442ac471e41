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
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;
use tokio::sync::{Semaphore, oneshot};

/// The place of that sandbox.
pub(super) struct Ready {
    place: Mutex<Place>,
    /// Held by whoever loads.
    loading: Semaphore,
    /// Calls that load their own.
    own_loads: AtomicUsize,
    /// Linear memory that `load-model` left the last time, in bytes.
    load_bytes: AtomicU64,
}

/// A sandbox for a call, and whether the call had to wait for it.
pub(super) enum Taken<'a> {
    Ready(Box<Instance>),
    Awaited(Instance),
    /// There is none; the call loads its own while it has this.
    Own(OwnLoad<'a>),
}

/// A call loads a sandbox of its own: none is made beside it.
pub(super) struct OwnLoad<'a>(&'a AtomicUsize);

impl Drop for OwnLoad<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
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
            own_loads: AtomicUsize::new(0),
            load_bytes: AtomicU64::new(0),
        }
    }

    /// The sandbox that waits or is about to, if it comes in time. A copy is made sooner
    /// than waited for, where there is room for both.
    pub(super) async fn take(&self, deadline: Instant, shared: &Shared) -> Taken<'_> {
        let loading = {
            let mut place = self.lock();
            match std::mem::replace(&mut *place, Place::Empty) {
                Place::Empty => return self.own(),
                Place::Loaded(instance) => return Taken::Ready(instance),
                Place::Loading(loading) if shared.copied.is_some() && self.has_room(shared) => {
                    *place = Place::Loading(loading);
                    return self.own();
                }
                Place::Loading(loading) => loading,
            }
        };
        match tokio::time::timeout_at(deadline.into(), loading).await {
            Ok(Ok(loaded)) => Taken::Awaited(loaded),
            Ok(Err(_)) | Err(_) => self.own(),
        }
    }

    fn own(&self) -> Taken<'_> {
        self.own_loads.fetch_add(1, Ordering::AcqRel);
        Taken::Own(OwnLoad(&self.own_loads))
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
            let is_alone = self.own_loads.load(Ordering::Acquire) == 0;
            if !matches!(*place, Place::Empty) || !is_alone || !self.has_room(shared) {
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
