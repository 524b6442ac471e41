//! What a process of its own costs a replica, in one run.
//!
//! Prints figures and ratios; nothing is asserted, because the numbers belong to the
//! machine that they are taken on. `SECONDS` sets the time of each figure; words
//! choose parts: `calls`, `cold`, `memory` or `idle`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a benchmark prints, and stops where something is wrong"
)]

use ringfence_tests::measure::{self, Times, load, unlimited};
use ringfence_tests::{Client, Host, HostOptions, fill, guests, image_input, request, text_input};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const TEXT: &str = "thirty-two bytes of text no more";

fn main() {
    measure::run(3.0, async |asked| {
        if asked.wants("calls") {
            calls(asked.time).await;
        }
        if asked.wants("cold") {
            cold().await;
        }
        if asked.wants("memory") {
            memory().await;
        }
        if asked.wants("idle") {
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
        let (mut of_here, mut of_there) = (Times::default(), Times::default());
        for _ in 0..ROUNDS {
            for (host, times) in [(&here, &mut of_here), (&there, &mut of_there)] {
                let asked = request("echo", vec![text_input(TEXT)]);
                let (pat, time) = (host.pat(), time / ROUNDS);
                let loaded = load(host.base(), &pat, asked, concurrency, time).await;
                times.0.extend(loaded.0);
            }
        }
        println!("  {concurrency} at a time");
        of_here.print_load(time, "in the host's process");
        of_there.print_load(time, "in a process of its own");
        println!(
            "  calls a second, own process ÷ host's: {:.2}; at the median {:.1?} more",
            of_there.0.len() as f64 / of_here.0.len() as f64,
            of_there.median().saturating_sub(of_here.median()),
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
    let mut times = Times::default();
    for _ in 0..STARTS {
        host.operate(&["models", "stop", "local/main/echo"]);
        host.wait_until("the end of its process", |host| host.workers().is_empty());
        host.operate(&["models", "start", "local/main/echo"]);
        let began = Instant::now();
        let answer = client.predict("echo", vec![text_input(TEXT)]).await;
        times.0.push(began.elapsed());
        assert_eq!(answer.text(), TEXT, "{answer:?}");
    }
    println!("first answer of echo after a cold start, {STARTS} times");
    println!("  p50 {:.1?}  most {:.1?}", times.median(), times.quantile(1.));
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
    let mut times = Times::default();
    let mut most = 0;
    for model in &filled.models {
        let began = Instant::now();
        let answer = client.predict(model, vec![text_input(TEXT)]).await;
        times.0.push(began.elapsed());
        assert_eq!(answer.text(), TEXT, "{answer:?}");
        most = most.max(host.workers().len());
    }
    println!(
        "first answer of each: p50 {:.1?}  p99 {:.1?}  most {:.1?}; at most {most} processes at a time",
        times.median(),
        times.quantile(0.99),
        times.quantile(1.)
    );
}
