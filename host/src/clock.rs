//! The time of day, which may jump: for what people read, and for what ends on a
//! day. Owns that no clock makes the host fail.
//!
//! How long something takes is measured with `Instant`, which does not jump, and what it
//! takes of the CPUs with a clock of theirs.

use rustix::time::{ClockId, clock_gettime};
use std::time::{Duration, SystemTime};

/// Time since 1970; none on a machine whose clock is before that.
pub(crate) fn since_1970() -> Duration {
    since_1970_until(SystemTime::now())
}

fn since_1970_until(at: SystemTime) -> Duration {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// Milliseconds since 1970.
pub fn now_ms() -> i64 {
    milliseconds(since_1970())
}

/// Seconds since 1970.
pub fn now() -> i64 {
    now_ms() / 1000
}

/// CPU time by one of its clocks: clock_gettime(2).
pub(crate) fn cpu_time(of: ClockId) -> Duration {
    let time = clock_gettime(of);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn milliseconds(since: Duration) -> i64 {
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

    /// OPS-11.
    #[test]
    fn a_clock_before_1970_or_far_ahead_is_no_reason_to_fail() {
        let at = |time: Option<SystemTime>| milliseconds(since_1970_until(time.unwrap()));
        let epoch = SystemTime::UNIX_EPOCH;
        assert_eq!(at(epoch.checked_sub(Duration::from_nanos(1))), 0);
        assert_eq!(at(epoch.checked_sub(100 * YEAR)), 0);
        assert_eq!(at(Some(epoch)), 0);
        assert_eq!(at(epoch.checked_add(Duration::from_millis(1999))), 1999);
        assert_eq!(milliseconds(Duration::MAX), i64::MAX);
        let (now, today) = (SystemTime::now(), now_ms());
        assert!(at(now.checked_sub(YEAR)) < today && today < at(now.checked_add(YEAR)));
    }
}
