//! Graphs behind a sandbox, a process and a socket against the same engine alone, in one
//! run and in turns.
//!
//! Prints medians and ratios; nothing is asserted, because the numbers belong to the machine
//! they are taken on. `SECONDS` sets the time of each figure; words choose parts: `conv`,
//! `decoder` or `device`. `RINGFENCE_BENCH_MODELS` is a folder with `conv.onnx` and
//! `decoder.onnx`; `RINGFENCE_TEST_ONNXRUNTIME` the library of ONNX Runtime, if that is
//! to be measured; `RINGFENCE_BENCH_PYTHON` a Python that has the package `onnxruntime`.
//!
//! `device` needs an accelerator, or one that this program pretends to have;
//! `RINGFENCE_TEST_PROGRAM` and `RINGFENCE_TEST_CUDA` are as for tests on one.
//! `RINGFENCE_BENCH_GUEST` names the component of `graphs`, if it is built already.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a benchmark prints, and stops where something is wrong"
)]

use ringfence::call::Holder;
use ringfence::devices::Devices;
use ringfence::limits::Accelerators;
use ringfence::nn::{
    Cancel, ElementType, Engine, Graph, Means, OnDevices, OnnxRuntimeLibrary, Run, Tensor, Tract,
    engine_on,
};
use ringfence::proto::clarifai::api;
use ringfence::sandbox::Account;
use ringfence_tests::device::cuda_args;
use ringfence_tests::measure::{self, Times};
use ringfence_tests::{Client, Host, HostOptions, params, request, text_input};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Turns of each side.
const ROUNDS: u32 = 3;
const MEANS: Means = Means { threads: 1, memory_bytes_max: 1 << 30 };
/// Tokens of each run of the decoder, on CPUs and on a device.
const TOKENS: usize = 64;
const TOKENS_ON_DEVICE: usize = 128;

/// Scores of a token.
const VOCABULARY: usize = 512;

/// Pictures or texts that a device is given at a time.
const BATCHES: [u32; 3] = [1, 8, 64];

/// Floats of a picture: 3x224x224.
const PICTURE_FLOATS: u32 = 3 * 224 * 224;

/// What the served model asks for of a device, and of the host beside it: a device that is
/// pretended computes there.
const DEVICE_MEMORY: &str = "8Gi";
const CPU_MEMORY_ON_DEVICE: &str = "4Gi";

/// Bytes that the engine alone may take.
const ALONE_BYTES_MAX: u64 = 4 << 30;

fn main() {
    let Some(models) = std::env::var_os("RINGFENCE_BENCH_MODELS").map(PathBuf::from) else {
        println!("SKIPPED: RINGFENCE_BENCH_MODELS names no folder with conv.onnx and decoder.onnx");
        return;
    };
    let library = std::env::var_os("RINGFENCE_TEST_ONNXRUNTIME").map(PathBuf::from);
    // Before there is another thread.
    let mut engines: Vec<Arc<dyn Engine>> = vec![Arc::new(Tract)];
    if let Some(library) = &library {
        engines.push(Arc::new(OnnxRuntimeLibrary::load(library).unwrap().engine()));
    }
    measure::run(5.0, async |asked| {
        let folder = built(&models);
        if asked.wants("conv") || asked.wants("decoder") {
            for engine in engines {
                let served = Served::start(folder.path(), engine.name(), library.as_deref());
                println!("{}", engine.name());
                if asked.wants("conv") {
                    served.conv(engine.as_ref(), &models, 1, asked.time).await;
                }
                if asked.wants("decoder") {
                    served.decoder(engine.as_ref(), &models, (1, TOKENS), asked.time).await;
                }
            }
            python(&models);
        }
        if asked.wants("device") {
            on_device(folder.path(), &models, asked.time).await;
        }
    });
}

/// The same on a device, in larger batches, and what was had of its memory.
async fn on_device(folder: &Path, models: &Path, time: Duration) {
    if std::env::var_os(ringfence_tests::device::DEVICES).is_some() {
        ringfence_tests::device::stand_in();
    }
    let devices = Devices::of_this_machine();
    let accelerators = Accelerators { count: 1, ..Accelerators::default() };
    let given = match devices.give(&accelerators) {
        Ok(given) => given,
        Err(none) => return println!("SKIPPED device: {none}"),
    };
    let engine = engine_on(&OnDevices::of(&accelerators, given.devices())).unwrap();
    let served = Served::start_on_device(folder, engine.name());
    println!("{} on {devices}", engine.name());
    for batch in BATCHES {
        served.conv(engine.as_ref(), models, batch, time).await;
        served.decoder(engine.as_ref(), models, (batch, TOKENS_ON_DEVICE), time).await;
    }
    let pids = ringfence_tests::children(served.host.pid());
    let held = pids.into_iter().filter_map(|pid| given.held_by(pid)).max();
    println!(
        "  device memory of the replica: {} MiB as the driver says; accelerator_memory is \
         {DEVICE_MEMORY}",
        held.map_or_else(|| "?".to_owned(), |bytes| (bytes >> 20).to_string())
    );
}

/// The model folder, with the graphs in it.
fn built(models: &Path) -> TempDir {
    let folder = TempDir::new().unwrap();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/graphs");
    // Another machine may have nothing to build with.
    let guest =
        std::env::var_os("RINGFENCE_BENCH_GUEST").map_or_else(|| built_guest(&from), PathBuf::from);
    let version = folder.path().join("1");
    std::fs::create_dir(&version).unwrap();
    std::fs::copy(guest, version.join("model.wasm")).unwrap();
    for graph in ["conv.onnx", "decoder.onnx"] {
        std::fs::copy(models.join(graph), version.join(graph)).unwrap();
    }
    std::fs::copy(from.join("config.yaml"), folder.path().join("config.yaml")).unwrap();
    folder
}

fn built_guest(from: &Path) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("graphs");
    let status = Command::new("cargo")
        .args(["build", "--quiet", "--release", "--target", "wasm32-wasip2", "--manifest-path"])
        .arg(from.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&target)
        .status();
    assert!(status.unwrap().success());
    target.join("wasm32-wasip2/release/graphs.wasm")
}

struct Served {
    host: Host,
    name: &'static str,
}

impl Served {
    fn start(folder: &Path, engine: &'static str, library: Option<&Path>) -> Self {
        let config = folder.join("config.yaml");
        let text = std::fs::read_to_string(&config).unwrap();
        let text = text.split("\nringfence:").next().unwrap();
        // One thread, as the engine alone has.
        let text = text.replace("cpu_limit: \"64\"", "cpu_limit: \"1900m\"");
        std::fs::write(&config, format!("{text}\nringfence: {{engine: {engine}}}\n")).unwrap();
        let args = library.map(|path| vec!["--onnxruntime".to_owned(), path.display().to_string()]);
        let models = vec![folder.to_owned()];
        let args = args.unwrap_or_default();
        let host = Host::start(HostOptions { models, args, ..HostOptions::default() });
        Self { host, name: engine }
    }

    fn start_on_device(folder: &Path, name: &'static str) -> Self {
        let config = folder.join("config.yaml");
        let text = std::fs::read_to_string(&config).unwrap();
        let text = text.split("\nringfence:").next().unwrap();
        let asks = format!("num_accelerators: 1\n  accelerator_memory: \"{DEVICE_MEMORY}\"");
        let text = text.replace("num_accelerators: 0", &asks);
        let text = text.replace("\"1Gi\"", &format!("\"{CPU_MEMORY_ON_DEVICE}\""));
        std::fs::write(&config, text).unwrap();
        let settings = folder.with_extension("host.yaml");
        std::fs::write(&settings, "message_bytes_max: 128Mi\n").unwrap();
        let settings = ["--host-config".to_owned(), settings.display().to_string()];
        let args = settings.into_iter().chain(cuda_args()).collect();
        let models = vec![folder.to_owned()];
        let host = Host::start(HostOptions { models, args, ..HostOptions::default() });
        Self { host, name }
    }

    /// Pictures of floats, of which each side computes one class.
    async fn conv(&self, engine: &dyn Engine, models: &Path, batch: u32, time: Duration) {
        let graph = loaded(engine, &models.join("conv.onnx"));
        let one: Vec<u8> =
            (0..PICTURE_FLOATS).flat_map(|place| (place as f32 * 1e-6).to_le_bytes()).collect();
        let picture = one.repeat(batch as usize);
        let client = Client::connect(self.host.base(), &self.host.pat()).await;
        let ask = || {
            let image = api::Image { url: String::new(), base64: picture.clone().into() };
            let data = api::Data { image: Some(image), ..api::Data::default() };
            request("graphs", vec![api::Input { data: Some(data), ..api::Input::default() }])
        };
        let (mut alone, mut served) = (Times::default(), Times::default());
        for _ in 0..ROUNDS {
            let started = Instant::now();
            while started.elapsed() < time / (2 * ROUNDS) {
                let began = Instant::now();
                let shape = vec![batch, 3, 224, 224];
                let elements = engine.elements(ElementType::F32, &shape, &picture);
                let input = Tensor::of(ElementType::F32, shape, elements).unwrap();
                run(graph.as_ref(), vec![input])[0].read().unwrap();
                alone.0.push(began.elapsed());
            }
            let started = Instant::now();
            while started.elapsed() < time / (2 * ROUNDS) {
                let asked = ask();
                let began = Instant::now();
                let answer = client.predict_request(asked).await;
                served.0.push(began.elapsed());
                assert_eq!(answer.status.code, 10000, "{answer:?}");
            }
        }
        alone.print(&format!("conv of {batch}, the engine alone"));
        served.print(&format!("conv of {batch}, a call over loopback, 600 KB of input each"));
        println!(
            "  {} conv of {batch}: served ÷ alone at the median {:.3}",
            self.name,
            served.median().as_secs_f64() / alone.median().as_secs_f64()
        );
    }

    /// Tokens of a decoder, each a pass that takes what the one before has given.
    async fn decoder(
        &self,
        engine: &dyn Engine,
        models: &Path,
        (batch, tokens): (u32, usize),
        time: Duration,
    ) {
        let graph = loaded(engine, &models.join("decoder.onnx"));
        let client = Client::connect(self.host.base(), &self.host.pat()).await;
        let asks = json!({ "count": tokens, "rows": batch });
        let ask = || params(request("graphs", vec![text_input("x")]), asks.clone());
        let (mut alone, mut served) = (Times::default(), Times::default());
        for _ in 0..ROUNDS {
            let started = Instant::now();
            while started.elapsed() < time / (2 * ROUNDS) {
                let began = Instant::now();
                decode(engine, graph.as_ref(), batch, tokens);
                alone.0.push(began.elapsed());
            }
            let started = Instant::now();
            while started.elapsed() < time / (2 * ROUNDS) {
                let asked = ask();
                let began = Instant::now();
                let answers = client.generate_all(asked).await;
                served.0.push(began.elapsed());
                assert_eq!(answers.len(), tokens);
            }
        }
        alone.print(&format!("{tokens} tokens of {batch}, the engine alone"));
        served.print(&format!("{tokens} tokens of {batch}, each an output over loopback"));
        println!(
            "  {} decoder of {batch}: served ÷ alone at the median {:.3}",
            self.name,
            served.median().as_secs_f64() / alone.median().as_secs_f64()
        );
    }
}

fn loaded(engine: &dyn Engine, path: &Path) -> Arc<dyn Graph> {
    engine.load("graph", &std::fs::read(path).unwrap(), &(), MEANS).unwrap()
}

fn run(graph: &dyn Graph, inputs: Vec<Tensor>) -> Vec<Tensor> {
    let account = Account::new(ALONE_BYTES_MAX);
    let mut scratch = account.charge(Holder::Engine, 0).unwrap();
    graph.run(inputs, &mut Run::new(&Cancel::default(), &mut scratch)).unwrap()
}

/// The same passes as the guest's.
fn decode(engine: &dyn Engine, graph: &dyn Graph, batch: u32, tokens: usize) {
    let mut cache: BTreeMap<String, Tensor> = BTreeMap::new();
    let made = |element, shape: Vec<u32>, data: &[u8]| {
        let elements = engine.elements(element, &shape, data);
        Tensor::of(element, shape, elements).unwrap()
    };
    let mut token = 1_i64;
    let rows = batch as usize;
    for position in 0..tokens {
        let seen = u32::try_from(position).unwrap() + 1;
        let input = |port: &ringfence::nn::Port| match port.name.as_str() {
            "input_ids" => {
                made(ElementType::I64, vec![batch, 1], &token.to_le_bytes().repeat(rows))
            }
            "position_ids" => {
                let position = (position as i64).to_le_bytes();
                made(ElementType::I64, vec![batch, 1], &position.repeat(rows))
            }
            "attention_bias" => {
                let bias = vec![0; rows * seen as usize * 4];
                made(ElementType::F32, vec![batch, 1, 1, seen], &bias)
            }
            name => cache
                .remove(name)
                .unwrap_or_else(|| made(ElementType::F32, vec![batch, 4, 0, 64], &[])),
        };
        let inputs = graph.inputs().iter().map(input).collect();
        for (port, output) in graph.outputs().iter().zip(run(graph, inputs)) {
            match port.name.strip_prefix("present_") {
                Some(what) => drop(cache.insert(format!("past_{what}"), output)),
                None => {
                    let data = output.read().unwrap();
                    let (scores, _) = data.as_chunks();
                    let scores = scores.iter().take(VOCABULARY).copied().map(f32::from_le_bytes);
                    let best = scores.enumerate().max_by(|(_, a), (_, b)| a.total_cmp(b));
                    token = best.map_or(0, |(place, _)| place as i64);
                }
            }
        }
    }
}

/// ONNX Runtime with one thread as a program in Python uses it.
fn python(models: &Path) {
    let Some(python) = std::env::var_os("RINGFENCE_BENCH_PYTHON") else { return };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/bench_onnxruntime.py");
    let status = Command::new(python).arg(script).arg(models).arg(TOKENS.to_string()).status();
    assert!(status.unwrap().success());
}
