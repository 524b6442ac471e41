//! What waits for the one caller whose calls it has served.
//!
//! Owns who gets it: nobody else, ever. There is one for each caller, so many
//! callers, and only where half of `cpu_memory` stays for calls.

use crate::limits::{KEPT_CALLERS_MAX as CALLERS_MAX, limit};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Sandboxes by caller, the one that called longest ago first.
#[derive(Debug)]
pub(super) struct Kept<T>(Mutex<VecDeque<(Arc<str>, T)>>);

impl<T> Kept<T> {
    pub(super) fn new() -> Self {
        Self(Mutex::default())
    }

    /// The caller's own.
    pub(super) fn take(&self, caller: &str) -> Option<T> {
        let mut kept = self.lock();
        let place = kept.iter().position(|(of, _)| &**of == caller)?;
        kept.remove(place).map(|(_, sandbox)| sandbox)
    }

    /// Keeps one for its caller, and drops what there is no room for: this one
    /// where the caller has another already.
    pub(super) fn put(&self, caller: Arc<str>, sandbox: T, has_room: impl Fn() -> bool) {
        let mut kept = self.lock();
        if kept.iter().any(|(of, _)| *of == caller) {
            drop(kept);
            return drop(sandbox);
        }
        kept.push_back((caller, sandbox));
        while kept.len() > limit("kept_callers", CALLERS_MAX) || (!has_room() && !kept.is_empty()) {
            let dropped = kept.pop_front();
            // Others need not wait for that.
            drop(kept);
            drop(dropped);
            kept = self.lock();
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(Arc<str>, T)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn a_caller_gets_its_own_and_nobody_elses() {
        let kept = Kept::new();
        kept.put("alice".into(), 1, || true);
        kept.put("bob".into(), 2, || true);
        kept.put("alice".into(), 3, || true);
        assert_eq!((kept.take("alice"), kept.take("alice")), (Some(1), None));
        assert_eq!((kept.take("carol"), kept.take("bob")), (None, Some(2)));
    }

    #[test]
    fn who_called_longest_ago_makes_room() {
        let kept = Kept::new();
        for caller in 0..=CALLERS_MAX {
            kept.put(caller.to_string().into(), caller, || true);
        }
        assert_eq!((kept.take("0"), kept.take("1")), (None, Some(1)));
        let left = AtomicUsize::new(kept.lock().len() + 1);
        // Each that goes makes room for one.
        kept.put("last".into(), 99, || left.fetch_sub(1, Ordering::Relaxed) <= 3);
        assert_eq!(kept.lock().len(), 3);
        assert_eq!(kept.take("last"), Some(99));
        kept.put("none".into(), 7, || false);
        assert!(kept.lock().is_empty());
    }
}
