//! A bucket of CPU time, refilled at a replica's `cpu_limit`.

use crate::limits::CPU_BURST;
use std::time::{Duration, Instant};

const NS_PER_MS: u64 = 1_000_000;

/// CPU time that a replica may take now. Time that was taken is known only
/// afterwards, so there may be less than nothing in it.
#[derive(Debug)]
pub(super) struct Bucket {
    cpu_millis: u64,
    level_ns: i64,
    filled_at: Instant,
}

impl Bucket {
    /// A full one.
    pub(super) fn new(cpu_millis: u64, now: Instant) -> Self {
        let mut bucket = Self { cpu_millis: cpu_millis.max(1), level_ns: 0, filled_at: now };
        bucket.level_ns = bucket.level_ns_max();
        bucket
    }

    /// Whether there is anything in it.
    pub(super) fn has_credit(&mut self, now: Instant) -> bool {
        self.fill(now);
        self.level_ns > 0
    }

    /// Takes so much out.
    pub(super) fn take(&mut self, cpu_ns: u64) {
        self.level_ns = self.level_ns.saturating_sub(i64::try_from(cpu_ns).unwrap_or(i64::MAX));
    }

    /// When there will be something in it, if nothing more is taken.
    pub(super) fn credit_at(&self) -> Instant {
        let missing_ns = 1_i64.saturating_sub(self.level_ns.min(1)).unsigned_abs();
        let wait_ns = (u128::from(missing_ns) * 1000).div_ceil(u128::from(self.cpu_millis));
        let wait = Duration::from_nanos(u64::try_from(wait_ns).unwrap_or(u64::MAX));
        // Debts of centuries are never paid.
        self.filled_at.checked_add(wait).unwrap_or(self.filled_at + Duration::from_secs(1 << 31))
    }

    fn fill(&mut self, now: Instant) {
        let since = now.saturating_duration_since(self.filled_at).as_nanos();
        let more = since.saturating_mul(u128::from(self.cpu_millis));
        // What is not yet a nanosecond is not lost.
        if more < 1000 {
            return;
        }
        let more = i64::try_from(more / 1000).unwrap_or(i64::MAX);
        self.level_ns = self.level_ns.saturating_add(more).min(self.level_ns_max());
        self.filled_at = now;
    }

    fn level_ns_max(&self) -> i64 {
        let burst_ms = u64::try_from(CPU_BURST.as_millis()).unwrap_or(u64::MAX);
        let max = self.cpu_millis.saturating_mul(burst_ms).saturating_mul(NS_PER_MS / 1000);
        i64::try_from(max).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = NS_PER_MS;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_bucket_holds_what_its_limit_gives_in_a_tenth_of_a_second() {
        let now = Instant::now();
        let mut bucket = Bucket::new(500, now);
        bucket.take(49 * MS);
        assert!(bucket.has_credit(now));
        bucket.take(MS);
        assert!(!bucket.has_credit(now));
        assert!(bucket.has_credit(now + ms(3_600_000)));
        bucket.take(50 * MS);
        assert!(!bucket.has_credit(now + ms(3_600_000)), "an hour leaves no more than that");
    }

    #[test]
    fn what_was_taken_too_much_is_made_up_for() {
        let now = Instant::now();
        let mut bucket = Bucket::new(250, now);
        bucket.take((25 + 100) * MS);
        assert!(!bucket.has_credit(now + ms(399)));
        let at = bucket.credit_at();
        assert!(at > now + ms(399) && at <= now + ms(401), "{:?}", at - now);
        assert!(bucket.has_credit(at));
    }

    #[test]
    fn absurd_limits_and_debts_do_not_overflow() {
        let now = Instant::now();
        let mut rich = Bucket::new(u64::MAX, now);
        rich.take(u64::MAX);
        assert!(rich.has_credit(now + ms(10_000)));
        let mut poor = Bucket::new(0, now);
        poor.take(u64::MAX);
        assert!(!poor.has_credit(now + ms(10_000)));
        assert!(poor.credit_at() > now);
        // A clock that another thread has read a little earlier.
        assert!(!poor.has_credit(now));
    }

    /// Over any while it gives what the limit says and one burst.
    #[test]
    fn in_the_long_run_it_gives_the_limit() {
        let began = Instant::now();
        let mut bucket = Bucket::new(300, began);
        let (mut now, mut taken) = (began, 0);
        while now < began + ms(10_000) {
            match bucket.has_credit(now) {
                true => {
                    bucket.take(MS);
                    taken += MS;
                    now += ms(1);
                }
                false => now = bucket.credit_at(),
            }
        }
        assert!((3_000 * MS..=3_031 * MS).contains(&taken), "{taken}");
    }
}
