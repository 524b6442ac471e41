//! Slows down whoever tries one bad token after the other.
//!
//! A token cannot be guessed however fast one tries; what is bounded here is
//! the work and the noise that trying makes. A good token is never slowed down.

use crate::limits::limit;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Bad tokens of one address that are answered at once, in a window.
const FREE: u32 = 50;
const WINDOW: Duration = Duration::from_secs(60);
/// What each further one waits for.
const DELAY: Duration = Duration::from_millis(500);
/// Addresses that are remembered at a time.
const ADDRESSES_MAX: usize = 4096;

/// Bad tokens, counted by address.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    seen: Mutex<HashMap<IpAddr, (Instant, u32)>>,
}

impl Throttle {
    /// Notes a bad token; returns how long its refusal should take.
    pub(super) fn bad(&self, address: IpAddr, now: Instant) -> Duration {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let is_old = |began: Instant| now.saturating_duration_since(began) > WINDOW;
        if seen.len() >= ADDRESSES_MAX && !seen.contains_key(&address) {
            seen.retain(|_, (began, _)| !is_old(*began));
            if seen.len() >= ADDRESSES_MAX {
                // So many at once are one attacker.
                return DELAY;
            }
        }
        let (began, count) = seen.entry(address).or_insert((now, 0));
        if is_old(*began) {
            (*began, *count) = (now, 0);
        }
        *count = count.saturating_add(1);
        if *count > limit("token_throttle", FREE) { DELAY } else { Duration::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u32) -> IpAddr {
        std::net::Ipv4Addr::from(number).into()
    }

    /// CLI-19.
    #[test]
    fn many_bad_tokens_of_one_address_are_slowed_down_and_no_others() {
        let throttle = Throttle::default();
        let now = Instant::now();
        for _ in 0..FREE {
            assert_eq!(throttle.bad(address(1), now), Duration::ZERO);
        }
        assert_eq!(throttle.bad(address(1), now), DELAY);
        assert_eq!(throttle.bad(address(2), now), Duration::ZERO);
        let later = now + WINDOW + Duration::from_secs(1);
        assert_eq!(throttle.bad(address(1), later), Duration::ZERO);
    }

    #[test]
    fn the_addresses_that_are_remembered_are_bounded() {
        let throttle = Throttle::default();
        let now = Instant::now();
        for number in 0..2 * ADDRESSES_MAX as u32 {
            throttle.bad(address(number), now);
        }
        assert_eq!(throttle.seen.lock().unwrap().len(), ADDRESSES_MAX);
        let later = now + WINDOW + Duration::from_secs(1);
        throttle.bad(address(u32::MAX), later);
        assert_eq!(throttle.seen.lock().unwrap().len(), 1);
    }
}
