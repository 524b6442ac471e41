//! What each replica gets of the CPUs, against what its `cpu_limit` says.
//!
//! Each figure is a guest's own count of steps a second, divided by that of the
//! same guest alone and unlimited in the same run; so it is a share of a CPU that
//! the guest itself has measured. On a machine whose CPUs are not always equally
//! fast that says as much of the machine, so the CPU time that the host has counted,
//! divided by what the limit allows, stands beside it. Nothing is asserted: the
//! numbers belong to the machine. `SECONDS` sets the time of each figure; words
//! choose the mixes.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a benchmark prints, and stops where something is wrong"
)]

use ringfence_tests::measure::{self, Times};
use ringfence_tests::{Client, Host, HostOptions, Variant, guests, params, request, text_input};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Three that want more than they may have.
const LIMITS: [u64; 3] = [250, 500, 500];
const LIMITED: [&str; 3] = ["limited-0", "limited-1", "limited-2"];

/// What a replica that was idle may have taken beforehand.
const BURST: Duration = Duration::from_millis(100);

/// One that wants all there is, by so many calls at a time.
const GREEDY_MILLIS: u64 = 2000;
const GREEDY_CALLS: usize = 4;

const UNLIMITED_MILLIS: u64 = 64_000;

/// Time that passes before anything is counted: bursts are over then.
const SETTLING: Duration = Duration::from_millis(1500);

/// What a guest does all the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mix {
    Integer,
    Fill,
    Division,
    Calls,
    Pages,
    Engine,
}

impl Mix {
    const ALL: [Self; 6] =
        [Self::Integer, Self::Fill, Self::Division, Self::Calls, Self::Pages, Self::Engine];

    fn word(self) -> &'static str {
        match self {
            Self::Integer => "integer",
            Self::Fill => "fill",
            Self::Division => "division",
            Self::Calls => "calls",
            Self::Pages => "pages",
            Self::Engine => "engine",
        }
    }

    fn variant(self, id: &str, cpu_millis: u64) -> Variant {
        let limit = format!("cpu_limit: \"{cpu_millis}m\"");
        let named = format!("  id: {id}\n");
        let calls = if self == Self::Pages { 1 } else { GREEDY_CALLS };
        match self {
            Self::Engine => Variant::of(
                guests::SCRIBE,
                &[
                    ("  id: scribe\n", &named),
                    ("cpu_limit: \"1\"", &limit),
                    ("model:", "ringfence:\n  call_timeout: 1h\nmodel:"),
                ],
            ),
            Self::Integer | Self::Fill | Self::Division | Self::Calls | Self::Pages => Variant::of(
                guests::CPU_MIXES,
                &[
                    ("  id: cpu-mixes\n", &named),
                    ("cpu_limit: \"200m\"", &limit),
                    ("cpu_memory: \"64Mi\"", "cpu_memory: \"512Mi\""),
                    ("call_timeout: 2s", "call_timeout: 1h\n  max_output_bytes: 1073741824"),
                    ("ringfence:\n", &format!("ringfence:\n  max_concurrency: {calls}\n")),
                ],
            ),
        }
    }

    /// Steps that a model makes while `time` passes, after it has settled.
    async fn count(self, client: Client, model: String, time: Duration) -> u64 {
        let from = Instant::now() + SETTLING;
        let until = from + time;
        let mut steps = 0;
        let mut step = || {
            let now = Instant::now();
            steps += u64::from(now >= from && now < until);
            now < until
        };
        match self {
            // The next call is there when one ends: it is the guest that is counted,
            // and not the way to it.
            Self::Pages => {
                let mut calls = JoinSet::new();
                let call = || {
                    let (client, model) = (client.clone(), model.clone());
                    async move { client.predict(&model, vec![text_input("x")]).await }
                };
                (0..3).for_each(|_| drop(calls.spawn(call())));
                while let Some(answer) = calls.join_next().await {
                    let answer = answer.unwrap();
                    assert_eq!(answer.text(), "4096", "{answer:?}");
                    if step() {
                        calls.spawn(call());
                    }
                }
            }
            Self::Engine => loop {
                let asked = params(
                    request(&model, vec![text_input("It was not in her power to ")]),
                    json!({ "max_tokens": 200 }),
                );
                let mut tokens = client.generate(asked).await;
                while tokens.message().await.unwrap().is_some() {
                    if !step() {
                        return steps;
                    }
                }
            },
            Self::Integer | Self::Fill | Self::Division | Self::Calls => {
                let asked =
                    params(request(&model, vec![text_input("x")]), json!({ "mix": self.word() }));
                let mut counts = client.generate(asked).await;
                while counts.message().await.unwrap().is_some() && step() {}
            }
        }
        steps
    }
}

fn main() {
    measure::run(10.0, async |asked| {
        for mix in Mix::ALL {
            if asked.wants(mix.word()) {
                shares(mix, asked.time).await;
            }
        }
    });
}

async fn shares(mix: Mix, time: Duration) {
    println!("{}: shares of a CPU, and of the limit", mix.word());
    let alone_variant = mix.variant("alone", UNLIMITED_MILLIS);
    let alone_host = Host::serve(&[alone_variant.path()]);
    // Before, between and after what is compared with it.
    let alone = async || {
        let client = Client::connect(alone_host.base(), &alone_host.pat()).await;
        mix.count(client, "alone".to_owned(), time / 3).await
    };
    let mut alone_steps = alone().await;
    let mut measured = Vec::new();
    let mut variants: Vec<Variant> = LIMITS
        .iter()
        .enumerate()
        .map(|(number, limit)| mix.variant(LIMITED[number], *limit))
        .collect();
    variants.push(Mix::Integer.variant("greedy", GREEDY_MILLIS));
    let mut folders: Vec<&str> = variants.iter().map(Variant::path).collect();
    folders.push(guests::ECHO);
    let host = Host::start(HostOptions {
        models: folders.into_iter().map(Into::into).collect(),
        args: vec!["--metrics-listen".into(), "127.0.0.1:0".into()],
        ..HostOptions::default()
    });
    let client = Client::connect(host.base(), &host.pat()).await;
    let quiet = echo(&client, time / 4, &AtomicBool::new(false)).await;
    println!("  echo alone: p50 {:?}, p99 {:?}", quiet.0, quiet.1);
    for greedy in [false, true] {
        let cpu_before = LIMITED.map(|model| cpu_seconds(&host, model));
        let began = Instant::now();
        let over = Arc::new(AtomicBool::new(false));
        let mut spinners = JoinSet::new();
        for _ in 0..if greedy { GREEDY_CALLS } else { 0 } {
            let client = Client::connect(host.base(), &host.pat()).await;
            spinners.spawn(Mix::Integer.count(client, "greedy".to_owned(), time));
        }
        let mut counting = JoinSet::new();
        for (number, limit) in LIMITS.into_iter().enumerate() {
            let client = Client::connect(host.base(), &host.pat()).await;
            let model = LIMITED[number].to_owned();
            counting.spawn(async move { (number, limit, mix.count(client, model, time).await) });
        }
        let beside = tokio::spawn({
            let (client, over) = (client.clone(), over.clone());
            async move { echo(&client, Duration::from_secs(3600), &over).await }
        });
        let mut counted = counting.join_all().await;
        let allowed_for = began.elapsed() + BURST;
        over.store(true, Ordering::Relaxed);
        let beside = beside.await.unwrap();
        let greedy_steps: u64 = spinners.join_all().await.into_iter().sum();
        counted.sort_unstable();
        // Calls are broken off, and have to come to their end.
        tokio::time::sleep(SETTLING).await;
        let by_clock = counted.iter().map(|(number, limit, _)| {
            let had = cpu_seconds(&host, LIMITED[*number]) - cpu_before[*number];
            had / (allowed_for.as_secs_f64() * *limit as f64 / 1000.0)
        });
        let by_clock: Vec<f64> = by_clock.collect();
        alone_steps += alone().await;
        measured.push((greedy, counted, by_clock, greedy_steps, beside));
    }
    for (greedy, counted, by_clock, greedy_steps, beside) in measured {
        let with = if greedy { ", beside one that wants everything" } else { "" };
        for ((_, limit, steps), clock) in counted.into_iter().zip(by_clock) {
            let share = steps as f64 / alone_steps as f64;
            let of_limit = share * 1000.0 / limit as f64;
            println!(
                "  {limit:>4}m: {share:.3}, {of_limit:.2} of its limit, by CPU time {clock:.2}{with}"
            );
        }
        if greedy && mix == Mix::Integer {
            println!("  {GREEDY_MILLIS:>4}m: {:.3}", greedy_steps as f64 / alone_steps as f64);
        }
        println!(
            "  echo: p50 {:?}, p99 {:?}, {:.1} times its p99 alone{with}",
            beside.0,
            beside.1,
            beside.1.as_secs_f64() / quiet.1.as_secs_f64()
        );
    }
}

/// CPU time that a model's calls that have ended have taken.
fn cpu_seconds(host: &Host, model: &str) -> f64 {
    ["guest", "tensor"]
        .iter()
        .map(|of| {
            let series = format!("ringfence_{of}_cpu_seconds_total");
            host.metric(&format!("{series}{{model=\"local/main/{model}\"}}"))
        })
        .sum()
}

/// The median and the 99th percentile of calls, one each few milliseconds.
async fn echo(client: &Client, time: Duration, over: &AtomicBool) -> (Duration, Duration) {
    let began = Instant::now();
    let mut times = Times::default();
    while began.elapsed() < time && !over.load(Ordering::Relaxed) {
        let sent = Instant::now();
        let answer = client.predict("echo", vec![text_input("x")]).await;
        times.0.push(sent.elapsed());
        assert_eq!(answer.text(), "x", "{answer:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    (times.median(), times.quantile(0.99))
}
