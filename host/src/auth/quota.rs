//! What a user may take of the host, and the calls and fuel that are taken.
//!
//! A call counts for whoever makes it, also where the model is somebody else's;
//! what a version may take altogether is its owner's limit, in its
//! configuration.

use crate::limits::limit;
use crate::store::QuotaRow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

const MINUTE: Duration = Duration::from_secs(60);

/// Users after which those are forgotten that take nothing.
const REMEMBERED: usize = 1024;

/// The limits of a user, the host's defaults filled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Calls at a time.
    pub calls_max: u64,
    /// Fuel of all calls of a minute.
    pub fuel_per_minute_max: u64,
    /// Bytes of all versions.
    pub stored_bytes_max: u64,
    /// Models.
    pub models_max: u64,
    /// Uploads that are compiled in an hour.
    pub compilations_per_hour_max: u64,
}

impl Quota {
    /// What is kept of a user, and the defaults for what is not.
    pub fn of(row: &QuotaRow) -> Self {
        Self {
            calls_max: row.calls_max.unwrap_or(256),
            fuel_per_minute_max: row.fuel_per_minute_max.unwrap_or(u64::MAX),
            stored_bytes_max: row.stored_bytes_max.unwrap_or(64 << 30),
            models_max: row.models_max.unwrap_or(1000),
            compilations_per_hour_max: row.compilations_per_hour_max.unwrap_or(120),
        }
    }
}

/// Which limit of a caller is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AllowanceError {
    /// Calls at a time.
    #[error("you have {max} calls running, which is your limit; wait for one to end")]
    Calls {
        /// The limit.
        max: u64,
    },
    /// Fuel of a minute.
    #[error(
        "your calls have burnt more fuel than {max} a minute, which is your limit; wait a moment"
    )]
    Fuel {
        /// The limit.
        max: u64,
    },
}

#[derive(Debug)]
struct Taken {
    calls: u64,
    /// What was burnt, less what the minutes since then allow.
    fuel: u64,
    fuel_per_minute_max: u64,
    minute_began: Instant,
}

impl Taken {
    /// Takes off what whole minutes have allowed: a call that burnt more than a
    /// minute's is made up for by the next ones, whenever it ended.
    fn pass(&mut self, now: Instant) {
        let since = now.saturating_duration_since(self.minute_began);
        let minutes = since.as_secs() / MINUTE.as_secs();
        if minutes > 0 {
            let allowed = self.fuel_per_minute_max.saturating_mul(minutes);
            self.fuel = self.fuel.saturating_sub(allowed);
            self.minute_began = now;
        }
    }
}

/// What every user takes now.
#[derive(Debug, Default)]
pub(super) struct Allowances(Mutex<HashMap<String, Taken>>);

/// One call of a user's; it counts as long as this lives.
#[derive(Debug)]
pub struct Allowance(Payer);

/// The user whom a call's fuel is charged to. Outlives the call: a guest may burn some
/// more after its call is over.
#[derive(Debug, Clone)]
pub struct Payer {
    all: Arc<Allowances>,
    user_id: String,
}

impl Allowances {
    pub(super) fn take(
        self: &Arc<Self>,
        user_id: &str,
        quota: Quota,
        now: Instant,
    ) -> Result<Allowance, AllowanceError> {
        let mut users = self.lock();
        if users.len() >= REMEMBERED {
            users.retain(|_, taken| {
                taken.pass(now);
                taken.calls > 0 || taken.fuel > 0
            });
        }
        let fuel_per_minute_max = quota.fuel_per_minute_max;
        let taken = users.entry(user_id.to_owned()).or_insert(Taken {
            calls: 0,
            fuel: 0,
            fuel_per_minute_max,
            minute_began: now,
        });
        taken.pass(now);
        taken.fuel_per_minute_max = fuel_per_minute_max;
        if taken.calls >= limit("quota_calls", quota.calls_max) {
            return Err(AllowanceError::Calls { max: quota.calls_max });
        }
        if taken.fuel >= limit("quota_fuel", fuel_per_minute_max) {
            return Err(AllowanceError::Fuel { max: fuel_per_minute_max });
        }
        taken.calls += 1;
        Ok(Allowance(Payer { all: self.clone(), user_id: user_id.to_owned() }))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Taken>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Allowance {
    /// Who pays for the call.
    pub fn payer(&self) -> &Payer {
        &self.0
    }
}

impl Payer {
    /// Notes what a call has burnt.
    pub fn charge(&self, fuel: u64) {
        self.change(|taken| taken.fuel = taken.fuel.saturating_add(fuel));
    }

    fn change(&self, change: impl FnOnce(&mut Taken)) {
        self.all.lock().get_mut(&self.user_id).map(change);
    }
}

impl Drop for Allowance {
    fn drop(&mut self) {
        self.0.change(|taken| taken.calls = taken.calls.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota(calls_max: u64, fuel_per_minute_max: u64) -> Quota {
        Quota { calls_max, fuel_per_minute_max, ..Quota::of(&QuotaRow::default()) }
    }

    #[test]
    fn calls_at_a_time_are_counted_by_user() {
        let all = Arc::new(Allowances::default());
        let now = Instant::now();
        let first = all.take("alice", quota(1, 10), now).unwrap();
        let second = all.take("alice", quota(1, 10), now);
        assert_eq!(second.unwrap_err(), AllowanceError::Calls { max: 1 });
        all.take("bob", quota(1, 10), now).unwrap();
        drop(first);
        all.take("alice", quota(1, 10), now).unwrap();
    }

    /// CPU-12.
    #[test]
    fn fuel_is_counted_by_the_minute() {
        let all = Arc::new(Allowances::default());
        let now = Instant::now();
        all.take("alice", quota(9, 10), now).unwrap().payer().charge(10);
        let refused = all.take("alice", quota(9, 10), now);
        assert_eq!(refused.unwrap_err(), AllowanceError::Fuel { max: 10 });
        all.take("alice", quota(9, 11), now).unwrap();
        all.take("alice", quota(9, 10), now + MINUTE).unwrap();
    }

    /// CPU-12: whoever calls for longer than a minute has no more than others.
    #[test]
    fn fuel_of_a_long_call_is_made_up_for() {
        let all = Arc::new(Allowances::default());
        let now = Instant::now();
        let long = all.take("alice", quota(9, 10), now).unwrap();
        long.payer().charge(45);
        drop(long);
        for minutes in 1..=3 {
            let refused = all.take("alice", quota(9, 10), now + minutes * MINUTE);
            assert_eq!(refused.unwrap_err(), AllowanceError::Fuel { max: 10 }, "{minutes}");
        }
        all.take("alice", quota(9, 10), now + 4 * MINUTE).unwrap();
    }

    #[test]
    fn users_that_take_nothing_are_forgotten() {
        let all = Arc::new(Allowances::default());
        let now = Instant::now();
        let running = all.take("running", quota(9, 9), now).unwrap();
        for number in 0..REMEMBERED {
            all.take(&number.to_string(), quota(9, 9), now).unwrap();
        }
        all.take("later", quota(9, 9), now + MINUTE).unwrap();
        let users = all.lock();
        assert!(users.contains_key("running") && users.len() < 4, "{}", users.len());
        drop(users);
        drop(running);
    }
}
