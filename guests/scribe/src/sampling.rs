//! What the caller may choose, and the choice of the next byte.

use ringfence_guest::random::Random;
use ringfence_guest::{Error, Params};

const TEMPERATURE: f32 = 0.7;
const TEMPERATURE_MAX: f32 = 5.0;
const TOKENS: u32 = 256;
const TOKENS_MAX: u32 = 4096;

/// How a continuation is sampled, for one call.
pub(crate) struct Sampling {
    pub(crate) max_tokens: u32,
    choice: Choice,
}

enum Choice {
    Likeliest,
    Drawn { temperature: f32, random: Random },
}

impl Sampling {
    pub(crate) fn from_params(params: &Params) -> Result<Self, Error> {
        let temperature = params.f32("temperature")?.unwrap_or(TEMPERATURE);
        if !(0.0..=TEMPERATURE_MAX).contains(&temperature) {
            return Err(Error::invalid_argument(format!(
                "parameter `temperature`: expected a number from 0 to {TEMPERATURE_MAX}, got {temperature}"
            )));
        }
        let max_tokens = params.u32("max_tokens")?.unwrap_or(TOKENS);
        if !(1..=TOKENS_MAX).contains(&max_tokens) {
            return Err(Error::invalid_argument(format!(
                "parameter `max_tokens`: expected a whole number from 1 to {TOKENS_MAX}, got {max_tokens}"
            )));
        }
        // A seed is checked even where nothing is drawn.
        let random = Random::from_params(params)?;
        let choice = if temperature == 0.0 {
            Choice::Likeliest
        } else {
            Choice::Drawn { temperature, random }
        };
        Ok(Sampling { max_tokens, choice })
    }

    /// The next byte, given one score (a logit) for each byte.
    pub(crate) fn pick(&mut self, scores: &[f32]) -> Result<u8, Error> {
        let learnt = || {
            (0..=u8::MAX).zip(scores).filter(|(byte, score)| is_learnt(*byte) && score.is_finite())
        };
        let likeliest = learnt().max_by(|(_, a), (_, b)| a.total_cmp(b));
        let (likeliest, &highest) =
            likeliest.ok_or_else(|| Error::failed("the network's scores are not numbers"))?;
        match &mut self.choice {
            Choice::Likeliest => Ok(likeliest),
            Choice::Drawn { temperature, random } => {
                let (bytes, weights): (Vec<u8>, Vec<f32>) = learnt()
                    .map(|(byte, score)| (byte, ((score - highest) / *temperature).exp()))
                    .unzip();
                let index = random.pick(&weights);
                Ok(index.and_then(|index| bytes.get(index).copied()).unwrap_or(likeliest))
            }
        }
    }
}

/// The text that was learnt is ASCII. Scores of other bytes mean nothing, and
/// without them whatever is sampled is valid text at every byte.
fn is_learnt(byte: u8) -> bool {
    matches!(byte, b'\n' | b' '..=b'~')
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringfence_guest::ErrorCode;

    fn sampling(params: &str) -> Result<Sampling, Error> {
        Sampling::from_params(&Params::parse(params).unwrap())
    }

    fn scores(of: &[(u8, f32)]) -> Vec<f32> {
        let mut scores = vec![-20.0; 256];
        for &(byte, score) in of {
            scores[usize::from(byte)] = score;
        }
        scores
    }

    #[test]
    fn bad_parameters_are_named() {
        for (params, name) in [
            (r#"{"temperature":-0.1}"#, "temperature"),
            (r#"{"temperature":5.1}"#, "temperature"),
            (r#"{"temperature":1e300}"#, "temperature"),
            (r#"{"temperature":"hot"}"#, "temperature"),
            (r#"{"max_tokens":0}"#, "max_tokens"),
            (r#"{"max_tokens":4097}"#, "max_tokens"),
            (r#"{"max_tokens":2.5}"#, "max_tokens"),
            (r#"{"seed":-1}"#, "seed"),
            (r#"{"seed":"x","temperature":0}"#, "seed"),
        ] {
            let error = sampling(params).err().unwrap();
            assert_eq!(error.code(), ErrorCode::InvalidArgument);
            assert!(error.message().contains(&format!("`{name}`")), "{error}");
        }
    }

    #[test]
    fn temperature_zero_takes_the_likeliest() {
        let mut sampling = sampling(r#"{"temperature":0}"#).unwrap();
        let scores = scores(&[(b'a', 1.0), (b'b', 1.01)]);
        assert!((0..50).all(|_| sampling.pick(&scores).unwrap() == b'b'));
    }

    #[test]
    fn the_same_seed_draws_the_same_and_no_seed_does_not() {
        let scores = scores(&[(b'a', 1.0), (b'b', 1.0), (b'c', 1.0), (b'd', 1.0)]);
        let drawn = |params: &str| -> Vec<u8> {
            let mut sampling = sampling(params).unwrap();
            (0..64).map(|_| sampling.pick(&scores).unwrap()).collect()
        };
        assert_eq!(drawn(r#"{"seed":7}"#), drawn(r#"{"seed":7.0}"#));
        assert_ne!(drawn(r#"{"seed":7}"#), drawn(r#"{"seed":8}"#));
        assert_ne!(drawn(""), drawn(""));
    }

    #[test]
    fn draws_follow_the_temperature() {
        let scores = scores(&[(b'a', 0.0), (b'b', 2.0)]);
        let share = |params: &str| {
            let mut sampling = sampling(params).unwrap();
            let of = |_| u32::from(sampling.pick(&scores).unwrap() == b'a');
            (0..2000).map(of).sum::<u32>()
        };
        assert!(share(r#"{"temperature":0.001,"seed":1}"#) == 0);
        assert!((180..300).contains(&share(r#"{"temperature":1,"seed":1}"#)));
        assert!((450..620).contains(&share(r#"{"temperature":2,"seed":1}"#)));
    }

    #[test]
    fn only_learnt_bytes_and_numbers_are_taken() {
        let mut sampling = sampling(r#"{"temperature":0}"#).unwrap();
        let scores = scores(&[(0xc3, 9.0), (0, 9.0), (b'!', f32::NAN), (b'a', 1.0)]);
        assert_eq!(sampling.pick(&scores).unwrap(), b'a');
        assert!(sampling.pick(&[f32::NAN; 256]).is_err());
        assert!(sampling.pick(&[]).is_err());
    }
}
