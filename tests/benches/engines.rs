//! Graphs behind a sandbox, a process and a socket against the same engine alone, in one
//! run and in turns.
//!
//! Prints medians and ratios; nothing is asserted, because the numbers belong to the machine
//! they are taken on. `SECONDS` sets the time of each figure; words choose parts: `conv`,
//! `decoder` or `copies`. `RINGFENCE_BENCH_MODELS` is a folder with `conv.onnx` and
//! `decoder.onnx`; `RINGFENCE_TEST_ONNXRUNTIME` the library of ONNX Runtime, if that is
//! to be measured; `RINGFENCE_BENCH_PYTHON` a Python that has the package `onnxruntime`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a benchmark prints, and stops where something is wrong"
)]

use ringfence::call::Holder;
use ringfence::nn::{
    Cancel, ElementType, Engine, Graph, Means, OnnxRuntimeLibrary, Run, Tensor, Tract,
};
use ringfence::proto::clarifai::api;
use ringfence::sandbox::Account;
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
/// Tokens of each run of the decoder.
const TOKENS: usize = 64;

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
        for engine in engines {
            let served = Served::start(folder.path(), engine.name(), library.as_deref());
            println!("{}", engine.name());
            if asked.wants("conv") {
                served.conv(engine.as_ref(), &models, asked.time).await;
            }
            if asked.wants("decoder") {
                served.decoder(engine.as_ref(), &models, asked.time).await;
            }
        }
        python(&models);
    });
}

/// The model folder, with the graphs in it.
fn built(models: &Path) -> TempDir {
    let folder = TempDir::new().unwrap();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/graphs");
    let status = Command::new("cargo")
        .args(["build", "--quiet", "--release", "--target", "wasm32-wasip2", "--manifest-path"])
        .arg(from.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(Path::new(env!("CARGO_TARGET_TMPDIR")).join("graphs"))
        .status();
    assert!(status.unwrap().success());
    let made = Path::new(env!("CARGO_TARGET_TMPDIR")).join("graphs/wasm32-wasip2/release");
    let version = folder.path().join("1");
    std::fs::create_dir(&version).unwrap();
    std::fs::copy(made.join("graphs.wasm"), version.join("model.wasm")).unwrap();
    for graph in ["conv.onnx", "decoder.onnx"] {
        std::fs::copy(models.join(graph), version.join(graph)).unwrap();
    }
    std::fs::copy(from.join("config.yaml"), folder.path().join("config.yaml")).unwrap();
    folder
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

    /// A picture of 3x224x224 floats, of which each side computes one class.
    async fn conv(&self, engine: &dyn Engine, models: &Path, time: Duration) {
        let graph = loaded(engine, &models.join("conv.onnx"));
        let picture: Vec<u8> =
            (0..3 * 224 * 224_u32).flat_map(|place| (place as f32 * 1e-6).to_le_bytes()).collect();
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
                let shape = vec![1, 3, 224, 224];
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
        alone.print("conv, the engine alone");
        served.print("conv, a call over loopback with 600 KB of input");
        println!(
            "  {} conv: served ÷ alone at the median {:.3}",
            self.name,
            served.median().as_secs_f64() / alone.median().as_secs_f64()
        );
    }

    /// Tokens of a decoder, each a pass that takes what the one before has given.
    async fn decoder(&self, engine: &dyn Engine, models: &Path, time: Duration) {
        let graph = loaded(engine, &models.join("decoder.onnx"));
        let client = Client::connect(self.host.base(), &self.host.pat()).await;
        let ask = || params(request("graphs", vec![text_input("x")]), json!({ "count": TOKENS }));
        let (mut alone, mut served) = (Times::default(), Times::default());
        for _ in 0..ROUNDS {
            let started = Instant::now();
            while started.elapsed() < time / (2 * ROUNDS) {
                let began = Instant::now();
                decode(engine, graph.as_ref());
                alone.0.push(began.elapsed());
            }
            let started = Instant::now();
            while started.elapsed() < time / (2 * ROUNDS) {
                let asked = ask();
                let began = Instant::now();
                let answers = client.generate_all(asked).await;
                served.0.push(began.elapsed());
                assert_eq!(answers.len(), TOKENS);
            }
        }
        alone.print(&format!("{TOKENS} tokens, the engine alone"));
        served.print(&format!("{TOKENS} tokens, each an output over loopback"));
        println!(
            "  {} decoder: served ÷ alone at the median {:.3}",
            self.name,
            served.median().as_secs_f64() / alone.median().as_secs_f64()
        );
    }
}

fn loaded(engine: &dyn Engine, path: &Path) -> Arc<dyn Graph> {
    engine.load("graph", &std::fs::read(path).unwrap(), &(), MEANS).unwrap()
}

fn run(graph: &dyn Graph, inputs: Vec<Tensor>) -> Vec<Tensor> {
    let account = Account::new(1 << 30);
    let mut scratch = account.charge(Holder::Engine, 0).unwrap();
    graph.run(inputs, &mut Run::new(&Cancel::default(), &mut scratch)).unwrap()
}

/// The same passes as the guest's.
fn decode(engine: &dyn Engine, graph: &dyn Graph) {
    let mut cache: BTreeMap<String, Tensor> = BTreeMap::new();
    let made = |element, shape: Vec<u32>, data: &[u8]| {
        let elements = engine.elements(element, &shape, data);
        Tensor::of(element, shape, elements).unwrap()
    };
    let mut token = 1_i64;
    for position in 0..TOKENS {
        let seen = u32::try_from(position).unwrap() + 1;
        let input = |port: &ringfence::nn::Port| match port.name.as_str() {
            "input_ids" => made(ElementType::I64, vec![1, 1], &token.to_le_bytes()),
            "position_ids" => made(ElementType::I64, vec![1, 1], &(position as i64).to_le_bytes()),
            "attention_bias" => {
                made(ElementType::F32, vec![1, 1, 1, seen], &vec![0; seen as usize * 4])
            }
            name => {
                cache.remove(name).unwrap_or_else(|| made(ElementType::F32, vec![1, 4, 0, 64], &[]))
            }
        };
        let inputs = graph.inputs().iter().map(input).collect();
        for (port, output) in graph.outputs().iter().zip(run(graph, inputs)) {
            match port.name.strip_prefix("present_") {
                Some(what) => drop(cache.insert(format!("past_{what}"), output)),
                None => {
                    let data = output.read().unwrap();
                    let (scores, _) = data.as_chunks();
                    let scores = scores.iter().copied().map(f32::from_le_bytes);
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
