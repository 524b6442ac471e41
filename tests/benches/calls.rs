//! What a call costs, with and without a sandbox, in one run.
//!
//! Prints medians and ratios; nothing is asserted, because the numbers belong
//! to the machine they are taken on. `SECONDS` sets the time of each figure; words
//! choose parts: `calls`, `sandboxes`, `scribe` or `digits`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a benchmark prints, and stops where something is wrong"
)]

use ringfence::call::{Deadline, Event, Function, Holder};
use ringfence::nn::{Cancel, ElementType, Engine, Run, Tensor, Tract};
use ringfence::package::folder;
use ringfence::sandbox::{Account, Code, Diagnostics, Program, Runtime, Surroundings};
use ringfence_tests::measure::{self, Times, load, unlimited};
use ringfence_tests::{Client, Host, guests, image_input, params, request, text_input};
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

mod bare;

const TEXT: &str = "thirty-two bytes of text no more";

fn main() {
    if std::env::args().nth(1).as_deref() == Some(bare::WORD) {
        return bare::serve();
    }
    measure::run(3.0, async |asked| {
        if asked.wants("calls") {
            calls(asked.time).await;
        }
        if asked.wants("sandboxes") {
            sandboxes(asked.time).await;
        }
        if asked.wants("scribe") {
            scribe().await;
        }
        if asked.wants("digits") {
            digits(asked.time).await;
        }
    });
}

/// `echo` over a socket: bare, through a fresh sandbox, through a used one.
async fn calls(time: Duration) {
    println!("echo of {} bytes over loopback", TEXT.len());
    let bare = bare::Process::start(None);
    let variant = unlimited(guests::ECHO);
    let host = Host::serve(&[variant.path()]);
    let ask = || request("echo", vec![text_input(TEXT)]);
    let mut singles = Vec::new();
    for concurrency in [1, 16] {
        let without = load(bare.base(), "", ask(), concurrency, time).await;
        without.print_load(time, &format!("bare tonic, {concurrency} at a time"));
        let fresh = load(host.base(), &host.pat(), ask(), concurrency, time).await;
        fresh.print_load(time, &format!("a fresh sandbox each, {concurrency} at a time"));
        println!("  fresh ÷ bare at the median: {:.2}", ratio(fresh.median(), without.median()));
        singles.push(fresh.median().saturating_sub(without.median()));
    }
    println!("  a fresh sandbox adds {:?} at the median, one at a time", singles[0]);

    let client = Client::connect(host.base(), &host.pat()).await;
    let (sender, requests) = mpsc::channel(1);
    sender.send(ask()).await.unwrap();
    let mut answers = client.stream(ReceiverStream::new(requests)).await;
    answers.message().await.unwrap().unwrap();
    let mut times = Times::default();
    let started = Instant::now();
    while started.elapsed() < time {
        let sent = Instant::now();
        sender.send(ask()).await.unwrap();
        answers.message().await.unwrap().unwrap();
        times.0.push(sent.elapsed());
    }
    times.print("a message of one open stream, so a sandbox used again");
    drop((sender, answers));

    let words = |count: usize| {
        let text = "word ".repeat(count);
        params(request("echo", vec![text_input(&text)]), json!({ "chunk": 1 }))
    };
    let mut cost = Vec::new();
    for count in [1, 1000] {
        let mut times = Times::default();
        let started = Instant::now();
        while started.elapsed() < time {
            let sent = Instant::now();
            assert_eq!(client.generate_all(words(count)).await.len(), count);
            times.0.push(sent.elapsed());
        }
        cost.push(times.median());
    }
    println!("  generate: {:?} for each further output", (cost[1] - cost[0]) / 999);
    println!("  resident memory of the host: {} MiB", host.resident_bytes() >> 20);
}

/// Sandboxes without a socket.
async fn sandboxes(time: Duration) {
    println!("sandboxes of echo, in this process");
    let scratch = tempfile::TempDir::new().unwrap();
    let runtime = Runtime::start(Diagnostics::Off).unwrap();
    let variant = unlimited(guests::ECHO);
    let package = folder::open(variant.folder(), scratch.path(), folder::Taking::Copy).unwrap();
    let program =
        Arc::new(Program::admit(&runtime, &package, &Code::Component, Surroundings::Real).unwrap());
    let mut times = Times::default();
    let started = Instant::now();
    while started.elapsed() < time {
        let began = Instant::now();
        program.warm().await.unwrap();
        times.0.push(began.elapsed());
    }
    times.print("make one, load-model, drop one");

    let mut times = Times::default();
    let started = Instant::now();
    while started.elapsed() < time {
        let began = Instant::now();
        let deadline = Deadline::after(Duration::from_secs(10));
        let (requests, mut calling) = program.call(Function::Predict, "test", deadline, ());
        requests.send(seam_request()).await.unwrap();
        while !matches!(calling.next().await, Some(Event::End(_)) | None) {}
        times.0.push(began.elapsed());
    }
    times.print("take a ready one, predict");

    // What is held for a call is let go right after its sandbox.
    let mut times = Times::default();
    let started = Instant::now();
    while started.elapsed() < time {
        let (hold, dropped) = tokio::sync::oneshot::channel();
        let deadline = Deadline::after(Duration::from_secs(10));
        let (requests, mut calling) =
            program.call(Function::Predict, "test", deadline, Dropped(Some(hold)));
        requests.send(seam_request()).await.unwrap();
        let mut ended = Instant::now();
        while let Some(event) = calling.next().await {
            ended = Instant::now();
            if matches!(event, Event::End(_)) {
                break;
            }
        }
        let dropped: Instant = dropped.await.unwrap();
        times.0.push(dropped.saturating_duration_since(ended));
    }
    times.print("drop a used one, from the verdict to the end");
    runtime.drain().await;
}

/// Says when it was dropped.
struct Dropped(Option<tokio::sync::oneshot::Sender<Instant>>);

impl Drop for Dropped {
    fn drop(&mut self) {
        if let Some(hold) = self.0.take() {
            let _ = hold.send(Instant::now());
        }
    }
}

fn seam_request() -> ringfence::call::Request {
    use ringfence::call::{Input, Part, Request, Value};
    let part = Part { name: "text".into(), value: Value::Text(TEXT.into()) };
    let input = Input { id: String::new(), parts: vec![part] };
    Request { method: String::new(), inputs: vec![input], params: "{}".into() }
}

/// `digits` over a socket against tract alone and against tract behind a bare
/// server, which decodes the same picture natively.
async fn digits(time: Duration) {
    println!("digits, one 8x8 PNG");
    let onnx_path = format!("{}/1/digits.onnx", guests::DIGITS);
    let onnx = std::fs::read(&onnx_path).unwrap();
    let graph = Tract.load("digits", &onnx, &(), bare::MEANS).unwrap();
    let account = Account::new(1 << 30);
    let mut scratch = account.charge(Holder::Engine, 0).unwrap();
    let pixels = vec![0; 64 * 4];
    let mut times = Times::default();
    let started = Instant::now();
    while started.elapsed() < time {
        let input = Tensor::new(ElementType::F32, vec![1, 1, 8, 8], pixels.clone()).unwrap();
        let began = Instant::now();
        graph.run(vec![input], &mut Run::new(&Cancel::default(), &mut scratch)).unwrap();
        times.0.push(began.elapsed());
    }
    times.print("tract alone, in this process");

    let scans = concat!(env!("CARGO_MANIFEST_DIR"), "/../guests/digits/held-out/three.png");
    let ask = || request("digits", vec![image_input(std::fs::read(scans).unwrap())]);
    let bare = bare::Process::start(Some(&onnx_path));
    let variant = unlimited(guests::DIGITS);
    let host = Host::serve(&[variant.path()]);
    for concurrency in [1, 16] {
        let without = load(bare.base(), "", ask(), concurrency, time).await;
        without.print_load(time, &format!("bare tonic and tract, {concurrency} at a time"));
        let sandboxed = load(host.base(), &host.pat(), ask(), concurrency, time).await;
        sandboxed.print_load(time, &format!("sandboxed digits, {concurrency} at a time"));
        let ratio = ratio(sandboxed.median(), without.median());
        println!("  sandboxed ÷ bare at the median: {ratio:.2}");
    }
    let host = Host::serve(&[guests::ECHO, guests::DIGITS, guests::SCRIBE]);
    println!("idle host with echo, digits, scribe: {} MiB", host.resident_bytes() >> 20);
}

/// What the cache of `scribe` is worth: a late token against an early one.
async fn scribe() {
    /// How many calls, and how many tokens on both sides of the one asked for.
    const CALLS: u64 = 10;
    const AROUND: usize = 5;
    println!("scribe, 220 tokens a call");
    let variant = unlimited(guests::SCRIBE);
    let host = Host::serve(&[variant.path()]);
    let client = Client::connect(host.base(), &host.pat()).await;
    let (mut early, mut late) = (Times::default(), Times::default());
    for seed in 0..CALLS {
        let asked = params(
            request("scribe", vec![text_input("It was not in her power to ")]),
            json!({ "max_tokens": 220, "seed": seed }),
        );
        let mut answers = client.generate(asked).await;
        let mut times = Vec::new();
        let mut last = Instant::now();
        while answers.message().await.unwrap().is_some() {
            times.push(last.elapsed());
            last = Instant::now();
        }
        early.0.extend(&times[20 - AROUND..20 + AROUND]);
        late.0.extend(&times[200 - AROUND..200 + AROUND]);
    }
    early.print("around token 20");
    late.print("around token 200");
    println!("  token 200 ÷ token 20 at the median: {:.2}", ratio(late.median(), early.median()));
}

fn ratio(a: Duration, b: Duration) -> f64 {
    a.as_secs_f64() / b.as_secs_f64()
}
