//! The sandbox that waits for the next call, so that a caller does not wait for
//! `load-model`.
//!
//! Owns when one is made beforehand, and who gets it. One is made only after a
//! call, only one at a time, and only where it leaves half of `cpu_memory` to
//! the calls. Its place is taken before the call's verdict is told, and a call
//! that comes meanwhile waits for it: two beside each other could exceed a limit
//! that one keeps, so calls one after the other never have two.

use super::instance::Instance;
use super::program::Shared;
use crate::call::{Deadline, Receipt, Verdict};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;
use tokio::sync::oneshot;

/// The place of that sandbox.
pub(super) struct Ready {
    place: Mutex<Place>,
    /// Whether somebody has promised one.
    is_promised: AtomicBool,
    /// Calls whose sandboxes run.
    calls: AtomicUsize,
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
    Own(Counted<'a>),
}

/// One of those that are counted, as long as it lives.
pub(super) struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn among(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Whoever has this makes the next sandbox.
pub(super) struct Promise<'a> {
    ready: &'a Ready,
    /// The way to the call that waits for it.
    sender: Option<oneshot::Sender<Instance>>,
}

impl Drop for Promise<'_> {
    fn drop(&mut self) {
        let mut place = self.ready.lock();
        if let Place::Loading(_) = *place {
            *place = Place::Empty;
        }
        // Whoever waits hears that the sender is gone, and loads.
        self.ready.is_promised.store(false, Ordering::Release);
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
            is_promised: AtomicBool::new(false),
            calls: AtomicUsize::new(0),
            own_loads: AtomicUsize::new(0),
            load_bytes: AtomicU64::new(0),
        }
    }

    /// A call begins: it lasts as long as what this returns.
    pub(super) fn call(&self) -> Counted<'_> {
        Counted::among(&self.calls)
    }

    /// The sandbox that waits or is about to, if it comes in time. Where several calls run
    /// and there is room, a copy is made sooner than waited for.
    pub(super) async fn take(&self, deadline: Instant, shared: &Shared) -> Taken<'_> {
        let is_copied_soon = || {
            shared.copied.is_some()
                && self.calls.load(Ordering::Acquire) > 1
                && self.has_room(shared)
        };
        let loading = {
            let mut place = self.lock();
            match std::mem::replace(&mut *place, Place::Empty) {
                Place::Empty => return self.own(),
                Place::Loaded(instance) => return Taken::Ready(instance),
                Place::Loading(loading) if is_copied_soon() => {
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
        Taken::Own(Counted::among(&self.own_loads))
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

    /// Takes the place of the sandbox for the next call, unless there is one, somebody
    /// else makes one, or there is no room.
    pub(super) fn promise(&self, shared: &Shared) -> Option<Promise<'_>> {
        let mut place = self.lock();
        let is_alone = self.own_loads.load(Ordering::Acquire) == 0;
        if !matches!(*place, Place::Empty)
            || !is_alone
            || !self.has_room(shared)
            || self.is_promised.swap(true, Ordering::AcqRel)
        {
            return None;
        }
        let (sender, receiver) = oneshot::channel();
        *place = Place::Loading(receiver);
        Some(Promise { ready: self, sender: Some(sender) })
    }

    /// What waits for a call is dropped, and its room is somebody else's.
    pub(super) fn clear(&self) {
        let mut place = self.lock();
        if let Place::Loaded(_) = *place {
            *place = Place::Empty;
        }
    }

    /// Whether a call's sandbox leaves room for the next one beside what is left of it.
    pub(super) fn has_room(&self, shared: &Shared) -> bool {
        shared.account.leaves_half_beside(self.load_bytes.load(Ordering::Relaxed))
    }

    /// A sandbox that has loaded, if it leaves half of `cpu_memory` to the calls.
    fn kept(&self, instance: Instance, shared: &Shared) -> Place {
        self.load_bytes.store(instance.memory_bytes(), Ordering::Relaxed);
        match shared.account.leaves_half_beside(0) {
            true => Place::Loaded(Box::new(instance)),
            false => Place::Empty,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Promise<'_> {
    /// Makes it, unless the host is stopping.
    pub(super) async fn keep(mut self, shared: &Arc<Shared>) {
        let loaded = tokio::select! {
            biased;
            () = shared.runtime.stopping().cancelled() => None,
            loaded = Instance::load(shared, load_deadline(shared)) => loaded.ok(),
        };
        let Some(instance) = loaded else { return };
        let mut place = self.ready.lock();
        let left = match (&*place, self.sender.take()) {
            // A call waits for it, or has left meanwhile.
            (Place::Empty, Some(sender)) => sender.send(instance).err(),
            (Place::Loading(_), _) => Some(instance),
            // Only `warm` puts one here meanwhile.
            (Place::Empty | Place::Loaded(_), _) => None,
        };
        if let Some(instance) = left {
            *place = self.ready.kept(instance, shared);
        }
    }
}

/// When what a guest does outside of a call must have ended.
pub(super) fn load_deadline(shared: &Shared) -> Instant {
    Deadline::after(shared.limits.call_timeout).instant()
}
