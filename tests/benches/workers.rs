//! What a process of its own costs a replica, in one run.
//!
//! Prints figures and ratios; nothing is asserted, because the numbers belong to the
//! machine that they are taken on. `SECONDS` sets the time of each figure; a word
//! chooses one part: `calls`, `cold`, `memory` or `idle`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a benchmark prints, and stops where something is wrong"
)]

use ringfence_tests::{
    Client, Host, HostOptions, Variant, fill, guests, image_input, request, text_input,
};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const TEXT: &str = "thirty-two bytes of text no more";

fn main() {
    let seconds = std::env::var("SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(3.0);
    let time = Duration::from_secs_f64(seconds);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let wanted =
            |part: &str| std::env::args().skip(1).all(|word| word.starts_with('-') || word == part);
        if wanted("calls") {
            calls(time).await;
        }
        if wanted("cold") {
            cold().await;
        }
        if wanted("memory") {
            memory().await;
        }
        if wanted("idle") {
            idle().await;
        }
    });
}

/// `echo` in the host's own process and in one of its own, in turns.
async fn calls(time: Duration) {
    const ROUNDS: u32 = 3;
    println!("echo of {} bytes: a fresh sandbox each", TEXT.len());
    let variant = unlimited(guests::ECHO);
    let host = |variables: &[(&str, &str)]| {
        let variables = variables.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned()));
        Host::start(HostOptions {
            models: vec![variant.path().into()],
            variables: variables.collect(),
            ..HostOptions::default()
        })
    };
    let (here, there) = (host(&[("RINGFENCE_LIFT", "processes")]), host(&[]));
    assert_eq!((here.workers().len(), there.workers().len()), (0, 1));
    for concurrency in [1, 16] {
        let (mut of_here, mut of_there) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            of_here.extend(load(&here, concurrency, time / ROUNDS).await);
            of_there.extend(load(&there, concurrency, time / ROUNDS).await);
        }
        let of_here = Times::of(of_here);
        let of_there = Times::of(of_there);
        println!("  {concurrency} at a time");
        of_here.print("in the host's process", time);
        of_there.print("in a process of its own", time);
        println!(
            "    calls a second, own process ÷ host's: {:.2}; at the median {:.1?} more",
            of_there.0.len() as f64 / of_here.0.len() as f64,
            of_there.quantile(0.5).saturating_sub(of_here.quantile(0.5)),
        );
    }
}

/// The first answer where no process runs, of a component that is compiled.
async fn cold() {
    const STARTS: usize = 30;
    let host = Host::start(HostOptions::default());
    assert!(host.ringfence(&["upload", guests::ECHO]).status.success());
    let client = Client::connect(host.base(), &host.pat()).await;
    client.predict("echo", vec![text_input(TEXT)]).await;
    let mut times = Vec::new();
    for _ in 0..STARTS {
        host.operate(&["models", "stop", "local/main/echo"]);
        host.wait_until("the end of its process", |host| host.workers().is_empty());
        host.operate(&["models", "start", "local/main/echo"]);
        let began = Instant::now();
        let answer = client.predict("echo", vec![text_input(TEXT)]).await;
        times.push(began.elapsed());
        assert_eq!(answer.text(), TEXT, "{answer:?}");
    }
    let times = Times::of(times);
    println!("first answer of echo after a cold start, {STARTS} times");
    println!("    p50 {:.1?}  most {:.1?}", times.quantile(0.5), times.quantile(1.));
}

/// What a warm process has.
async fn memory() {
    for (guest, model) in [(guests::ECHO, "echo"), (guests::DIGITS, "digits")] {
        let host = crate_host(guest);
        let client = Client::connect(host.base(), &host.pat()).await;
        for _ in 0..50 {
            let input = match model {
                "echo" => text_input(TEXT),
                _ => {
                    let scans =
                        concat!(env!("CARGO_MANIFEST_DIR"), "/../guests/digits/held-out/three.png");
                    image_input(std::fs::read(scans).unwrap())
                }
            };
            client.predict(model, vec![input]).await;
        }
        let graphs =
            format!("ringfence_memory_bytes{{model=\"local/main/{model}\",kind=\"graphs\"}}");
        let pid = host.workers()[0];
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
        let kib = |text: &str, field: &str| -> f64 {
            let line = text.lines().find_map(|line| line.strip_prefix(field)).unwrap();
            line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().unwrap()
        };
        println!(
            "a warm process with {model}: resident {:.1} MiB, of which its own {:.1} MiB and the \
             program's file {:.1} MiB, proportional {:.1} MiB; its graphs {:.2} MiB",
            kib(&status, "VmRSS") / 1024.,
            kib(&status, "RssAnon") / 1024.,
            kib(&status, "RssFile") / 1024.,
            kib(&rollup, "Pss") / 1024.,
            host.metric(&graphs) / f64::from(1 << 20),
        );
    }
}

fn crate_host(guest: &str) -> Host {
    Host::start(HostOptions {
        models: vec![guest.into()],
        args: ["--metrics-listen", "127.0.0.1:0"].map(str::to_owned).into(),
        ..HostOptions::default()
    })
}

/// Versions that nobody calls have no process.
async fn idle() {
    const VERSIONS: usize = 500;
    let scratch = TempDir::new().unwrap();
    let data_dir = scratch.path().join("data");
    let options = || HostOptions { data_dir: Some(data_dir.clone()), ..HostOptions::default() };
    let host = Host::start(options());
    assert!(host.ringfence(&["upload", guests::ECHO]).status.success());
    let few = host.resident_bytes();
    assert!(host.terminate().success());
    let filled = fill(&data_dir, guests::ECHO, VERSIONS);
    let host = Host::start(options());
    assert!(host.workers().is_empty());
    println!(
        "{VERSIONS} versions, none called: the host has {} MiB, with one {} MiB",
        host.resident_bytes() >> 20,
        few >> 20
    );
    let client = Client::connect(host.base(), &host.pat()).await;
    let mut times = Vec::new();
    let mut most = 0;
    for model in &filled.models {
        let began = Instant::now();
        let answer = client.predict(model, vec![text_input(TEXT)]).await;
        times.push(began.elapsed());
        assert_eq!(answer.text(), TEXT, "{answer:?}");
        most = most.max(host.workers().len());
    }
    let times = Times::of(times);
    println!(
        "first answer of each: p50 {:.1?}  p99 {:.1?}  most {:.1?}; at most {most} processes at a time",
        times.quantile(0.5),
        times.quantile(0.99),
        times.quantile(1.)
    );
}

/// What a call costs is one thing, and what `cpu_limit` leaves of it another.
fn unlimited(guest: &str) -> Variant {
    let config = std::fs::read_to_string(format!("{guest}/config.yaml")).unwrap();
    let limit = config.lines().find(|line| line.trim().starts_with("cpu_limit:")).unwrap();
    Variant::of(guest, &[(limit, "  cpu_limit: \"64\"")])
}

/// Calls a host for a while from several connections.
async fn load(host: &Host, concurrency: usize, time: Duration) -> Vec<Duration> {
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..concurrency {
        let client = Client::connect(host.base(), &host.pat()).await;
        callers.spawn(async move {
            let mut times = Vec::new();
            let started = Instant::now();
            while started.elapsed() < time {
                let sent = Instant::now();
                let asked = request("echo", vec![text_input(TEXT)]);
                let answer = client.predict_request(asked).await;
                times.push(sent.elapsed());
                assert_eq!(answer.status.code, 10000, "{answer:?}");
            }
            times
        });
    }
    callers.join_all().await.concat()
}

/// What single calls took, in order.
struct Times(Vec<Duration>);

impl Times {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    fn quantile(&self, part: f64) -> Duration {
        self.0[((self.0.len() - 1) as f64 * part) as usize]
    }

    fn print(&self, what: &str, time: Duration) {
        println!(
            "    {:>8.0} calls a second  p50 {:>8.1?}  p99 {:>8.1?}  {what}",
            self.0.len() as f64 / time.as_secs_f64(),
            self.quantile(0.5),
            self.quantile(0.99)
        );
    }
}
