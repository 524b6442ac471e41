//! What has been received of requests and is no guest's yet, in bytes of the
//! wire: of everybody, and of each user.

use crate::limits::limit;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Longest messages of a client's that all users together, and one of them, may
/// have on their way.
const MESSAGES_MAX: u64 = 64;
const MESSAGES_PER_USER_MAX: u64 = 16;

/// The sums and their ceilings.
#[derive(Debug)]
pub(crate) struct Inbound {
    bytes_max: u64,
    bytes_per_user_max: u64,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    bytes: u64,
    by_user: HashMap<String, u64>,
}

/// There is too much on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the host has as many requests on their way as it takes; try again in a moment")]
pub(crate) struct Full;

/// What one request has brought so far; it is given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Received {
    inbound: Arc<Inbound>,
    user_id: String,
    bytes: AtomicU64,
}

impl Inbound {
    /// For messages of at most so many bytes.
    pub(crate) fn new(message_bytes_max: usize) -> Arc<Self> {
        let message = message_bytes_max as u64;
        Arc::new(Self {
            bytes_max: message.saturating_mul(MESSAGES_MAX),
            bytes_per_user_max: message.saturating_mul(MESSAGES_PER_USER_MAX),
            held: Mutex::default(),
        })
    }

    /// A request of a user's, of which nothing has come.
    pub(crate) fn of(self: &Arc<Self>, user_id: &str) -> Arc<Received> {
        let (inbound, user_id) = (self.clone(), user_id.to_owned());
        Arc::new(Received { inbound, user_id, bytes: AtomicU64::new(0) })
    }

    fn take(&self, user_id: &str, bytes: u64) -> Result<(), Full> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let of_user = held.by_user.get(user_id).copied().unwrap_or(0).saturating_add(bytes);
        let of_all = held.bytes.saturating_add(bytes);
        if of_all > limit("inbound_bytes", self.bytes_max)
            || of_user > limit("inbound_bytes_of_user", self.bytes_per_user_max)
        {
            return Err(Full);
        }
        held.bytes = of_all;
        match held.by_user.get_mut(user_id) {
            Some(there) => *there = of_user,
            None => drop(held.by_user.insert(user_id.to_owned(), of_user)),
        }
        Ok(())
    }

    fn give(&self, user_id: &str, bytes: u64) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.bytes = held.bytes.saturating_sub(bytes);
        if let Some(of_user) = held.by_user.get_mut(user_id) {
            *of_user = of_user.saturating_sub(bytes);
            if *of_user == 0 {
                held.by_user.remove(user_id);
            }
        }
    }
}

impl Received {
    /// More has come.
    pub(crate) fn grow(&self, bytes: u64) -> Result<(), Full> {
        self.inbound.take(&self.user_id, bytes)?;
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// A guest has it now, or nobody.
    pub(crate) fn clear(&self) {
        match self.bytes.swap(0, Ordering::Relaxed) {
            0 => {}
            bytes => self.inbound.give(&self.user_id, bytes),
        }
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_a_share_and_all_together_a_limit() {
        let inbound = Inbound::new(10);
        let users: Vec<_> = (0..5).map(|user| inbound.of(&user.to_string())).collect();
        let (first, others) = users.split_first().unwrap();
        first.grow(160).unwrap();
        assert_eq!(first.grow(1), Err(Full));
        assert_eq!(inbound.of("0").grow(1), Err(Full), "another request of the same user");
        for user in &others[..3] {
            user.grow(160).unwrap();
        }
        assert_eq!(others[3].grow(1), Err(Full), "all have as much as there is");
        first.clear();
        first.clear();
        others[3].grow(160).unwrap();
        drop(users);
        let held = inbound.held.lock().unwrap();
        assert!(held.bytes == 0 && held.by_user.is_empty(), "{held:?}");
    }
}
