//! Random numbers for one call.
//!
//! Nothing may be drawn in [`Model::load`](crate::Model::load): a sandbox may
//! start from a copy of what `load` left, and all copies would go on with the
//! same numbers. Make a [`Random`] in the call that uses it.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::Error;
use crate::params::Params;

/// Set while `load` runs.
pub(crate) static LOADING: AtomicBool = AtomicBool::new(false);

/// A small generator for sampling (SplitMix64 by Steele, Lea and Flood, 2014);
/// not for secrets.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// The same numbers for the same seed.
    pub fn seeded(seed: u64) -> Self {
        Self { state: seed }
    }

    /// Other numbers in each call, seeded by the host. Fails in `load`.
    pub fn fresh() -> Result<Self, Error> {
        if LOADING.load(Ordering::Relaxed) {
            return Err(Error::failed(
                "random numbers drawn in load would be the same in every call; draw them in the call",
            ));
        }
        Ok(Self::seeded(getrandom::u64()?))
    }

    /// Seeded by the parameter `seed` if the caller gave one, else fresh.
    pub fn from_params(params: &Params) -> Result<Self, Error> {
        match params.u64("seed")? {
            Some(seed) => Ok(Self::seeded(seed)),
            None => Self::fresh(),
        }
    }

    /// The next 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number from 0 up to but not including 1.
    pub fn next_f32(&mut self) -> f32 {
        const BITS: u32 = f32::MANTISSA_DIGITS;
        (self.next_u64() >> (64 - BITS)) as f32 / (1_u32 << BITS) as f32
    }

    /// The index of one of the weights, drawn in proportion to them: how a
    /// language model picks a token. The weights need not sum to 1; those that
    /// are not above 0 are never picked. `None` if no weight can be.
    pub fn pick(&mut self, weights: &[f32]) -> Option<usize> {
        let usable = |weight: f32| weight > 0.0 && weight.is_finite();
        let total: f32 = weights.iter().copied().filter(|&weight| usable(weight)).sum();
        let mut left = self.next_f32() * total;
        let mut last = None;
        for (index, &weight) in weights.iter().enumerate() {
            if usable(weight) {
                last = Some(index);
                if left < weight {
                    break;
                }
                left -= weight;
            }
        }
        last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_numbers_are_those_of_the_published_generator() {
        let mut random = Random::seeded(1_234_567);
        assert_eq!(random.next_u64(), 6_457_827_717_110_365_317);
        assert_eq!(random.next_u64(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn picks_follow_the_weights() {
        let mut random = Random::seeded(7);
        let mut counts = [0_u32; 4];
        for _ in 0..10_000 {
            let index = random.pick(&[1.0, 0.0, 3.0, f32::NAN]).unwrap();
            *counts.get_mut(index).unwrap() += 1;
        }
        let [first, second, third, fourth] = counts;
        assert!((2_200..2_800).contains(&first), "{counts:?}");
        assert_eq!((second, fourth), (0, 0));
        assert_eq!(first + third, 10_000);
    }

    #[test]
    fn nothing_is_picked_from_nothing() {
        assert_eq!(Random::seeded(1).pick(&[]), None);
        assert_eq!(Random::seeded(1).pick(&[0.0, -1.0]), None);
    }

    #[test]
    fn numbers_stay_below_one() {
        let mut random = Random::seeded(3);
        assert!((0..10_000).all(|_| (0.0..1.0).contains(&random.next_f32())));
    }
}
