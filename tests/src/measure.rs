//! What the benchmarks have in common: which parts are asked for, and for how long; a
//! load of calls, and what single calls took.

#![allow(clippy::print_stdout, reason = "a benchmark prints")]

use crate::{Client, Variant};
use ringfence::proto::clarifai::api::PostModelOutputsRequest;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// What is asked of a benchmark: `SECONDS` sets the time of each figure, and words
/// choose parts.
pub struct Asked {
    /// The time of each figure.
    pub time: Duration,
    words: Vec<String>,
}

impl Asked {
    /// Whether a part is wanted: where no word is given, all are.
    pub fn wants(&self, part: &str) -> bool {
        self.words.is_empty() || self.words.iter().any(|word| word == part)
    }
}

/// Runs a benchmark, of so many seconds for each figure where nothing else is said.
pub fn run(seconds: f64, benchmark: impl AsyncFnOnce(Asked)) {
    let said = std::env::var("SECONDS").ok().and_then(|text| text.parse().ok());
    let time = Duration::from_secs_f64(said.unwrap_or(seconds));
    // Cargo says something of its own.
    let words = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(benchmark(Asked { time, words }));
}

/// What a call costs is one thing, and what `cpu_limit` leaves of it another.
pub fn unlimited(guest: &str) -> Variant {
    let config = std::fs::read_to_string(format!("{guest}/config.yaml")).unwrap();
    let limit = config.lines().find(|line| line.trim().starts_with("cpu_limit:")).unwrap();
    Variant::of(guest, &[(limit, "  cpu_limit: \"64\"")])
}

/// Calls a server for a while from several connections.
pub async fn load(
    base: &str,
    pat: &str,
    asked: PostModelOutputsRequest,
    concurrency: usize,
    time: Duration,
) -> Times {
    let mut callers = JoinSet::new();
    for _ in 0..concurrency {
        let client = Client::connect(base, pat).await;
        let asked = asked.clone();
        callers.spawn(async move {
            let mut times = Vec::new();
            let started = Instant::now();
            while started.elapsed() < time {
                let sent = Instant::now();
                let answer = client.predict_request(asked.clone()).await;
                times.push(sent.elapsed());
                assert_eq!(answer.status.code, 10000, "{answer:?}");
            }
            times
        });
    }
    Times(callers.join_all().await.concat())
}

/// What single calls took, in whichever order.
#[derive(Default)]
pub struct Times(pub Vec<Duration>);

impl Times {
    /// What such a part of them took at most.
    pub fn quantile(&self, part: f64) -> Duration {
        let mut times = self.0.clone();
        times.sort_unstable();
        times[((times.len() - 1) as f64 * part) as usize]
    }

    pub fn median(&self) -> Duration {
        self.quantile(0.5)
    }

    pub fn print(&self, what: &str) {
        println!("  p50 {:>9.1?}  p99 {:>9.1?}  {what}", self.median(), self.quantile(0.99));
    }

    /// The same, of calls that were all there were in this time.
    pub fn print_load(&self, time: Duration, what: &str) {
        print!("  {:>8.0} calls a second", self.0.len() as f64 / time.as_secs_f64());
        self.print(what);
    }
}
