//! What a user may store and have compiled.

use crate::auth::Quota;
use crate::limits::limit;
use crate::package::config::ModelName;
use crate::store::{Store, StoreError};
use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const HOUR: Duration = Duration::from_secs(3600);

/// Which limit of a user is reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuotaError {
    /// Bytes of all versions.
    #[error(
        "your versions have {stored} bytes, and {asked} more are over your {max}; delete some, \
         or ask the operator for more (`ringfence users quota`)"
    )]
    Stored {
        /// What there is.
        stored: u64,
        /// What should come.
        asked: u64,
        /// The limit.
        max: u64,
    },
    /// Models.
    #[error("you have {max} models, which is your limit; delete one, or ask the operator for more")]
    Models {
        /// The limit.
        max: u64,
    },
    /// Compilations.
    #[error("{max} uploads of yours were compiled in the last hour, which is your limit")]
    Compilations {
        /// The limit.
        max: u64,
    },
}

/// Whether a user may store so much more, in a model that may be new.
pub(super) fn may_store(
    store: &Store,
    name: &ModelName,
    bytes: u64,
) -> Result<(), super::UploadError> {
    let quota = quota_of(store, name.user_id())?;
    let usage = store.usage(name.user_id())?;
    let models_max = limit("quota_models", quota.models_max);
    if usage.models >= models_max && store.model(name)?.is_none() {
        return Err(QuotaError::Models { max: quota.models_max }.into());
    }
    let stored = usage.bytes;
    if stored.saturating_add(bytes) > limit("quota_stored_bytes", quota.stored_bytes_max) {
        let max = quota.stored_bytes_max;
        return Err(QuotaError::Stored { stored, asked: bytes, max }.into());
    }
    Ok(())
}

pub(super) fn quota_of(store: &Store, user_id: &str) -> Result<Quota, StoreError> {
    let user = store.user(user_id)?;
    Ok(Quota::of(&user.map(|user| user.quota).unwrap_or_default()))
}

/// When uploads of each user were compiled, in the last hour.
#[derive(Debug, Default)]
pub(super) struct Compilations(Mutex<HashMap<String, VecDeque<Instant>>>);

impl Compilations {
    /// Notes one, unless it is one too many.
    pub(super) fn note(&self, user_id: &str, max: u64, now: Instant) -> Result<(), QuotaError> {
        let mut users = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        users.retain(|_, times| {
            times.retain(|time| now.saturating_duration_since(*time) < HOUR);
            !times.is_empty()
        });
        let times = users.entry(user_id.to_owned()).or_default();
        if times.len() as u64 >= limit("quota_compilations", max) {
            return Err(QuotaError::Compilations { max });
        }
        times.push_back(now);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compilations_are_counted_over_an_hour() {
        let compilations = Compilations::default();
        let now = Instant::now();
        for _ in 0..2 {
            compilations.note("alice", 2, now).unwrap();
        }
        let refused = compilations.note("alice", 2, now);
        assert_eq!(refused, Err(QuotaError::Compilations { max: 2 }));
        compilations.note("bob", 2, now).unwrap();
        compilations.note("alice", 2, now + HOUR).unwrap();
        assert_eq!(compilations.0.lock().unwrap().len(), 1, "bob's are over");
    }
}
