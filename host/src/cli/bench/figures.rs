//! What calls took: counts, and how times are spread.
//!
//! Times are kept in nanoseconds with three digits, as HdrHistogram does.

use super::target::Seen;
use anyhow::Context;
use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::time::Duration;

/// Digits that are kept of a time.
const DIGITS: u8 = 3;

/// Reasons of failures that are told apart.
const ERRORS_MAX: usize = 8;

/// Bytes of one.
const ERROR_BYTES_MAX: usize = 300;

/// Of calls that were made in some time.
#[derive(Debug)]
pub(super) struct Figures {
    calls: u64,
    outputs: u64,
    unsent: u64,
    took: Duration,
    errors: BTreeMap<String, u64>,
    pub(super) whole: Times,
    pub(super) first: Times,
    pub(super) each: Times,
    pub(super) late: Times,
}

/// How times of one kind are spread.
#[derive(Debug)]
pub(super) struct Times(Histogram<u64>);

impl Times {
    fn new() -> anyhow::Result<Self> {
        Ok(Self(Histogram::new(DIGITS).context("no histogram")?))
    }

    fn record(&mut self, time: Duration) -> anyhow::Result<()> {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).max(1);
        self.0.record(nanoseconds).context("a call took too long to be counted")
    }

    fn add(&mut self, other: &Self) -> anyhow::Result<()> {
        self.0.add(&other.0).context("times cannot be added")
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What such a part of them took at most, from 0 to 1.
    pub(super) fn quantile(&self, part: f64) -> Duration {
        Duration::from_nanos(self.0.value_at_quantile(part))
    }

    pub(super) fn mean(&self) -> Duration {
        Duration::from_nanos(self.0.mean() as u64)
    }
}

impl Figures {
    pub(super) fn new() -> anyhow::Result<Self> {
        Ok(Self {
            calls: 0,
            outputs: 0,
            unsent: 0,
            took: Duration::ZERO,
            errors: BTreeMap::new(),
            whole: Times::new()?,
            first: Times::new()?,
            each: Times::new()?,
            late: Times::new()?,
        })
    }

    /// Counts a call, and how late it was sent where it had a time. One that failed has no
    /// times that mean anything.
    pub(super) fn call(&mut self, seen: &Seen, late: Option<Duration>) -> anyhow::Result<()> {
        if let Some(late) = late {
            self.late.record(late)?;
        }
        if let Some(error) = &seen.error {
            self.error(error, 1);
            return Ok(());
        }
        self.calls += 1;
        self.outputs += seen.outputs;
        self.whole.record(seen.whole)?;
        if let Some(first) = seen.first {
            self.first.record(first)?;
        }
        for each in &seen.each {
            self.each.record(*each)?;
        }
        Ok(())
    }

    /// A call was due that nobody was free to make.
    pub(super) fn unsent(&mut self) {
        self.unsent += 1;
    }

    /// These were all in this time, but for so many more that nobody was free to make.
    pub(super) fn over(&mut self, took: Duration, unsent: u64) {
        self.took = took;
        self.unsent += unsent;
    }

    fn error(&mut self, text: &str, count: u64) {
        let mut text = text.to_owned();
        crate::text::cut(&mut text, ERROR_BYTES_MAX);
        if !self.errors.contains_key(&text) && self.errors.len() >= ERRORS_MAX {
            text = "others".to_owned();
        }
        *self.errors.entry(text).or_default() += count;
    }

    /// Adds those of another time.
    pub(super) fn add(&mut self, other: &Self) -> anyhow::Result<()> {
        self.calls += other.calls;
        self.outputs += other.outputs;
        self.unsent += other.unsent;
        self.took += other.took;
        for (text, count) in &other.errors {
            self.error(text, *count);
        }
        self.whole.add(&other.whole)?;
        self.first.add(&other.first)?;
        self.each.add(&other.each)?;
        self.late.add(&other.late)
    }

    /// Calls that succeeded.
    pub(super) fn calls(&self) -> u64 {
        self.calls
    }

    pub(super) fn outputs(&self) -> u64 {
        self.outputs
    }

    pub(super) fn calls_per_second(&self) -> f64 {
        per_second(self.calls, self.took)
    }

    pub(super) fn outputs_per_second(&self) -> f64 {
        per_second(self.outputs, self.took)
    }

    /// Calls that were due and not made.
    pub(super) fn not_made(&self) -> u64 {
        self.unsent
    }

    /// Why calls failed, and how many of each.
    pub(super) fn errors(&self) -> impl Iterator<Item = (&str, u64)> {
        self.errors.iter().map(|(text, count)| (text.as_str(), *count))
    }

    pub(super) fn failed(&self) -> u64 {
        self.errors.values().sum()
    }
}

fn per_second(count: u64, time: Duration) -> f64 {
    match time.is_zero() {
        true => 0.,
        false => count as f64 / time.as_secs_f64(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn seen(whole_us: u64, error: Option<&str>) -> Seen {
        Seen {
            began: Instant::now(),
            first: Some(Duration::from_micros(whole_us / 2)),
            each: vec![Duration::from_micros(1); 2],
            whole: Duration::from_micros(whole_us),
            outputs: 3,
            error: error.map(str::to_owned),
        }
    }

    #[test]
    fn calls_of_several_times_are_counted_together_and_failures_apart() {
        let mut all = Figures::new().unwrap();
        for round in 0..2 {
            let mut figures = Figures::new().unwrap();
            for call in 1..=100 {
                figures.call(&seen(call * 10, None), Some(Duration::ZERO)).unwrap();
            }
            for number in 0..20 {
                let error = format!("{round} {number}");
                figures.call(&seen(1_000_000, Some(&error)), None).unwrap();
            }
            figures.over(Duration::from_secs(2), 1);
            all.add(&figures).unwrap();
        }
        assert_eq!((all.calls(), all.outputs(), all.failed(), all.not_made()), (200, 600, 40, 2));
        assert!((all.calls_per_second() - 50.).abs() < 1e-9);
        let micros = |time: Duration| time.as_micros();
        assert_eq!(micros(all.whole.quantile(0.5)), 500);
        assert_eq!(micros(all.whole.quantile(1.)), 1000);
        assert_eq!(micros(all.first.quantile(1.)), 500);
        assert!(all.errors().count() <= ERRORS_MAX + 1);
    }
}
