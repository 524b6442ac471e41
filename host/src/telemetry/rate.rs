//! How often something may be told.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// A bucket of lines: so many at once, and so many a second in the long run.
#[derive(Debug)]
pub struct Rate {
    per_second: f64,
    burst: f64,
    bucket: Mutex<(f64, Instant)>,
}

impl Rate {
    /// A full one.
    pub fn new(per_second: f64, burst: f64) -> Self {
        Self { per_second, burst, bucket: Mutex::new((burst, Instant::now())) }
    }

    /// Whether a line more may be told.
    pub fn take(&self) -> bool {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let (tokens, at) = *bucket;
        let now = Instant::now();
        let refill = now.duration_since(at).as_secs_f64() * self.per_second;
        let tokens = (tokens + refill).min(self.burst);
        let is_told = tokens >= 1.0;
        *bucket = (if is_told { tokens - 1.0 } else { tokens }, now);
        is_told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_told_than_the_bucket_has() {
        let rate = Rate::new(1e-9, 3.0);
        assert_eq!((0..100).filter(|_| rate.take()).count(), 3);
        let rate = Rate::new(1e12, 3.0);
        assert_eq!((0..100).filter(|_| rate.take()).count(), 100);
    }
}
