//! The host against the other platform's own server for models in Python, and how its costs
//! grow.
//!
//! Prints medians and ratios; nothing is asserted, because the numbers belong to the machine
//! they are taken on. `SECONDS` sets the time of each figure; words choose parts: `python`,
//! `callers` or `models`. `RINGFENCE_BENCH_PYTHON` is a Python that has `clarifai` 12.5.0,
//! without which there is no part `python`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a benchmark prints, and stops where something is wrong"
)]

use ringfence::proto::clarifai::api::v2_client::V2Client;
use ringfence_tests::measure::{self, Times, load, unlimited};
use ringfence_tests::{
    Client, Host, HostOptions, Variant, binary, fill, guests, request, text_input,
};
use std::ffi::OsString;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const TEXT: &str = "thirty-two bytes of text no more";

/// The same as the guest `echo`, in the other platform's way.
const MODEL: &str = r#"
from typing import Iterator

from clarifai.runners.models.model_class import ModelClass


class Echo(ModelClass):
    def load_model(self):
        pass

    @ModelClass.method
    def predict(self, text: str = "") -> str:
        return text

    @ModelClass.method
    def generate(self, text: str = "") -> Iterator[str]:
        for word in text.split():
            yield word + " "
"#;

const CONFIG: &str = r#"
model: {id: echo, user_id: local, app_id: main, model_type_id: any-to-any}
build_info: {python_version: "3.11"}
inference_compute_info: {cpu_limit: "2", cpu_memory: 1Gi, num_accelerators: 0}
"#;

fn main() {
    measure::run(5.0, async |asked| {
        if asked.wants("python") {
            match std::env::var_os("RINGFENCE_BENCH_PYTHON") {
                Some(python) => against_python(python, asked.time).await,
                None => println!("SKIPPED python: RINGFENCE_BENCH_PYTHON names no Python"),
            }
        }
        if asked.wants("callers") {
            callers(asked.time).await;
        }
        if asked.wants("models") {
            models(asked.time).await;
        }
    });
}

/// The Python server. Ends with this value.
struct Python {
    child: Child,
    base: String,
    _folder: TempDir,
}

impl Python {
    fn start(python: OsString) -> Self {
        let folder = TempDir::new().unwrap();
        std::fs::create_dir(folder.path().join("1")).unwrap();
        std::fs::write(folder.path().join("1/model.py"), MODEL).unwrap();
        std::fs::write(folder.path().join("config.yaml"), CONFIG).unwrap();
        std::fs::write(folder.path().join("requirements.txt"), "clarifai==12.5.0\n").unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new(python)
            .args(["-m", "clarifai.runners.server", "--grpc", "--health_check_port", "0"])
            .args(["--port", &port.to_string(), "--model_path"])
            .arg(folder.path())
            .env("CLARIFAI_PAT", "none")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, base: format!("http://127.0.0.1:{port}"), _folder: folder }
    }
}

/// Resident memory of these processes, in which what several share is counted once:
/// proc_pid_smaps(5), `Pss`.
fn proportional_bytes(pids: impl IntoIterator<Item = u32>) -> u64 {
    let of = |pid| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    };
    pids.into_iter().map(of).sum()
}

impl Drop for Python {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Asks until there is an answer.
async fn first_answer(base: &str, pat: &str) {
    loop {
        if let Ok(v2) = V2Client::connect(base.to_owned()).await {
            let client = Client::of(v2, pat);
            let asked = client.with_token(request("echo", vec![text_input(TEXT)]));
            if client.v2().post_model_outputs(asked).await.is_ok() {
                return;
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn against_python(python: OsString, time: Duration) {
    println!("echo: this host against clarifai's runner server in Python");
    let variant = unlimited(guests::ECHO);
    let scratch = TempDir::new().unwrap();
    let host = || {
        Host::start(HostOptions {
            models: vec![variant.path().into()],
            data_dir: Some(scratch.path().join("data")),
            ..HostOptions::default()
        })
    };
    // What is compiled once is compiled.
    drop(host());
    let began = Instant::now();
    let ours = host();
    first_answer(ours.base(), &ours.pat()).await;
    let our_start = began.elapsed();
    let began = Instant::now();
    let theirs = Python::start(python);
    first_answer(&theirs.base, "none").await;
    let their_start = began.elapsed();
    println!(
        "  from start to first answer: {our_start:.1?}, {their_start:.1?}: {:.1} times faster",
        their_start.as_secs_f64() / our_start.as_secs_f64()
    );
    for (function, words, callers) in
        [("predict", 1, 1), ("predict", 1, 16), ("generate", 16, 1), ("generate", 256, 1)]
    {
        let text = match function {
            "predict" => TEXT.to_owned(),
            _ => "word ".repeat(words),
        };
        println!("{function}, {callers} at a time, {words} outputs: A is this host, B Python");
        compare(&ours, &theirs.base, function, &text, callers, time);
    }
    let our_bytes = proportional_bytes(ours.workers().into_iter().chain([ours.pid()]));
    let their_bytes = proportional_bytes([theirs.child.id()]);
    println!(
        "  resident memory after that: {} MiB with its replica, {} MiB: {:.2} of it",
        our_bytes >> 20,
        their_bytes >> 20,
        our_bytes as f64 / their_bytes as f64
    );
}

/// `ringfence bench`, which is what an operator has.
fn compare(ours: &Host, theirs: &str, function: &str, text: &str, callers: usize, time: Duration) {
    let pat = ours.data_dir().join("admin.pat");
    let status = Command::new(binary())
        .args(["bench", "echo", "--function", function, "--text", text, "--rounds", "3"])
        .args(["--concurrency", &callers.to_string()])
        .args(["--duration", &format!("{}ms", time.as_millis())])
        .arg("--pat-file")
        .arg(pat)
        .args(["--compare", ours.base(), theirs])
        .status();
    assert!(status.unwrap().success());
}

/// More callers at a time.
async fn callers(time: Duration) {
    println!("echo: more callers at a time");
    let many = "ringfence: {max_concurrency: 128}\ninference_compute_info:";
    let limit = ("cpu_limit: \"500m\"", "cpu_limit: \"64\"");
    // A stack for each call.
    let memory = ("cpu_memory: \"64Mi\"", "cpu_memory: \"1Gi\"");
    let variant = Variant::of(guests::ECHO, &[("inference_compute_info:", many), limit, memory]);
    let host = Host::serve(&[variant.path()]);
    host.operate(&["users", "quota", "local", "--calls", "256"]);
    let mut alone = None;
    for concurrency in [1, 16, 128] {
        let asked = request("echo", vec![text_input(TEXT)]);
        let times = load(host.base(), &host.pat(), asked, concurrency, time).await;
        times.print_load(time, &format!("{concurrency} at a time"));
        let each = times.0.len() as f64 / time.as_secs_f64();
        let alone = *alone.get_or_insert(each);
        println!(
            "    {:.2} of the calls a second of one; resident {} MiB",
            each / alone,
            host.resident_bytes() >> 20
        );
    }
}

/// More models that run.
async fn models(time: Duration) {
    const MODELS: usize = 100;
    println!("echo: more models that run");
    let scratch = TempDir::new().unwrap();
    let data_dir = scratch.path().join("data");
    let options = || HostOptions { data_dir: Some(data_dir.clone()), ..HostOptions::default() };
    let host = Host::start(options());
    assert!(host.ringfence(&["upload", guests::ECHO]).status.success());
    assert!(host.terminate().success());
    let filled = fill(&data_dir, guests::ECHO, MODELS);
    let host = Host::start(options());
    let client = Client::connect(host.base(), &host.pat()).await;
    let mut first = None;
    for running in [1, MODELS] {
        for model in &filled.models[..running] {
            client.predict(model, vec![text_input(TEXT)]).await;
        }
        let mut times = Times::default();
        let started = Instant::now();
        while started.elapsed() < time {
            for model in &filled.models[..running] {
                let began = Instant::now();
                client.predict(model, vec![text_input(TEXT)]).await;
                times.0.push(began.elapsed());
            }
        }
        times.print(&format!("{running} models, each called in its turn"));
        let bytes = host.resident_bytes();
        let (median, alone) = *first.get_or_insert((times.median(), bytes));
        println!(
            "    {:.2} of the median of one; {} processes; resident {} MiB{}",
            times.median().as_secs_f64() / median.as_secs_f64(),
            host.workers().len(),
            bytes >> 20,
            match running {
                1 => String::new(),
                _ => format!(
                    ", {:.1} MiB for each further model",
                    (bytes - alone) as f64 / (1 << 20) as f64 / (running - 1) as f64
                ),
            }
        );
    }
}
