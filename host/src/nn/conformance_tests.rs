//! The same of every engine that there is: what it computes, and how it ends.
//!
//! ONNX Runtime is there where `RINGFENCE_TEST_ONNXRUNTIME` names its library. What is missing is
//! told, and fails where `CI=true`. `RINGFENCE_TEST_GPU` has them compute on a device, too.

use super::*;
use crate::nn::onnxruntime::OnnxRuntimeError;
use crate::sandbox::{Account, Charge};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::{Duration, Instant};
use tract::TractOn;
use tract::tests::{Axis, file, node, port};
use tract_onnx::pb;
use tract_onnx::pb::tensor_proto::DataType;

/// A process has one.
static ONNX_RUNTIME: LazyLock<Option<Arc<OnnxRuntime>>> = LazyLock::new(|| {
    let library = std::env::var_os("RINGFENCE_TEST_ONNXRUNTIME")?;
    let silent = std::env::var_os("ORT_DISABLE_TELEMETRY").is_some();
    assert!(silent, "set ORT_DISABLE_TELEMETRY=1: many threads run here");
    Some(Arc::new(OnnxRuntimeLibrary::load(library.as_ref()).unwrap().engine()))
});

const MEANS: Means = Means { threads: 2, memory_bytes_max: 1 << 30 };

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Tells that something cannot be tried here.
#[allow(clippy::print_stdout, reason = "what is skipped is seen")]
fn skipped(what: &str) {
    assert!(std::env::var("CI").map_or(true, |value| value != "true"), "{what} is not there");
    println!("SKIPPED: {what} is not there");
}

fn engines() -> Vec<Arc<dyn Engine>> {
    let mut engines: Vec<Arc<dyn Engine>> = vec![Arc::new(Tract)];
    match &*ONNX_RUNTIME {
        Some(engine) => {
            engines.push(engine.clone());
            // What a device takes is bound and stays there; this one is the CPU.
            engines.push(Arc::new(engine.as_if_on(&on_devices())));
        }
        None => skipped("ONNX Runtime"),
    }
    // By `just gpu`, where there is one.
    if std::env::var_os("RINGFENCE_TEST_GPU").is_some() {
        let tract = TractOn::cuda(&on_devices()).expect("CUDA, for tract");
        engines.push(Arc::new(tract));
        let on_cuda = |engine: &Arc<OnnxRuntime>| engine.on_cuda(&on_devices());
        if let Some(engine) = ONNX_RUNTIME.as_ref().and_then(on_cuda) {
            engines.push(Arc::new(engine));
        } else {
            skipped("ONNX Runtime with CUDA");
        }
    }
    engines
}

fn on_devices() -> OnDevices {
    OnDevices { memory: Account::new(1 << 30), no_kernels: None }
}

fn loaded(engine: &dyn Engine, onnx: &[u8], means: Means) -> Arc<dyn Graph> {
    onnx::scan(onnx, &|domain, operator| engine.has(domain, operator)).unwrap();
    engine.load("graph", onnx, &(), means).unwrap()
}

fn run(
    graph: &dyn Graph,
    inputs: Vec<Tensor>,
    cancel: &Cancel,
) -> Result<(Vec<Tensor>, Duration), RunError> {
    let mut scratch: Charge = Account::new(1 << 30).charge(Holder::Engine, 0).unwrap();
    let mut run = Run::new(cancel, &mut scratch);
    let outputs = graph.run(inputs, &mut run)?;
    Ok((outputs, run.cpu_beside))
}

fn numbers(value: &Value) -> Vec<u32> {
    let axes = value.as_array().unwrap().iter();
    axes.map(|axis| u32::try_from(axis.as_u64().unwrap()).unwrap()).collect()
}

/// As `tests/python/conformance.py` fills it.
fn filled(engine: &dyn Engine, spec: &Value) -> Tensor {
    let shape = numbers(&spec["shape"]);
    let count: u32 = shape.iter().product();
    let mut words = spec["fill"].as_str().unwrap().split(':');
    let how = words.next().unwrap();
    let mut number = || words.next().unwrap().parse::<u64>().unwrap();
    let (element, data): (_, Vec<u8>) = match how {
        "hash" => {
            let seed = number();
            let hashed = |index: u32| {
                let word = (u64::from(index) + seed).wrapping_mul(2_654_435_761) & 0xffff_ffff;
                (word as f64 / 4_294_967_296.0 - 0.5) as f32
            };
            (ElementType::F32, (0..count).flat_map(|index| hashed(index).to_le_bytes()).collect())
        }
        "ids" => {
            let vocabulary = number();
            let id = |index: u32| (u64::from(index) * 7 + 3) % vocabulary;
            (ElementType::I64, (0..count).flat_map(|index| id(index).to_le_bytes()).collect())
        }
        "from" => {
            let first = number();
            let place = |index: u32| first + u64::from(index);
            (ElementType::I64, (0..count).flat_map(|index| place(index).to_le_bytes()).collect())
        }
        "i32" => {
            let number = u32::try_from(number()).unwrap();
            (ElementType::I32, (0..count).flat_map(|_| number.to_le_bytes()).collect())
        }
        "causal" => {
            let (rows, columns) = (shape[shape.len() - 2], shape[shape.len() - 1]);
            let hidden = |index: u32| {
                let (row, column) = (index / columns % rows, index % columns);
                if column <= row + columns - rows { 0_f32 } else { -1e9 }
            };
            (ElementType::F32, (0..count).flat_map(|index| hidden(index).to_le_bytes()).collect())
        }
        other => panic!("{other}"),
    };
    let elements = engine.elements(element, &shape, &data);
    Tensor::of(element, shape, elements).unwrap()
}

fn path_of(graph: &str) -> PathBuf {
    match graph.split_once('/') {
        Some(("shared", file)) => repository().join("../shared/data/models").join(file),
        Some((_, guest)) => repository().join(format!("guests/{guest}/1/{guest}.onnx")),
        None => repository().join(format!("tests/fixtures/conformance/{graph}.onnx")),
    }
}

/// Within a thousandth of what ONNX Runtime itself has computed, or of 1 where that is less.
#[test]
fn each_engine_computes_what_onnx_runtime_does() {
    let reference = repository().join("tests/fixtures/conformance/reference.json");
    let reference: Value = serde_json::from_slice(&std::fs::read(reference).unwrap()).unwrap();
    for engine in engines() {
        for spec in reference["graphs"].as_array().unwrap() {
            let name = spec["graph"].as_str().unwrap();
            let Ok(onnx) = std::fs::read(path_of(name)) else {
                skipped(name);
                continue;
            };
            let graph = loaded(engine.as_ref(), &onnx, MEANS);
            let given = spec["inputs"].as_array().unwrap();
            let input = |port: &Port| {
                let spec = given.iter().find(|spec| spec["name"] == port.name.as_str()).unwrap();
                filled(engine.as_ref(), spec)
            };
            let inputs = graph.inputs().iter().map(input).collect();
            let (outputs, _) = run(graph.as_ref(), inputs, &Cancel::default()).unwrap();
            for expected in spec["outputs"].as_array().unwrap() {
                let place = graph.outputs().iter().position(|port| expected["name"] == *port.name);
                let output = &outputs[place.unwrap()];
                let at = format!("{} of {name} on {}", expected["name"], engine.name());
                assert_eq!(output.shape(), numbers(&expected["shape"]), "{at}");
                let (data, step) = (output.read().unwrap(), expected["step"].as_u64().unwrap());
                for (number, wanted) in expected["values"].as_array().unwrap().iter().enumerate() {
                    let start = number * usize::try_from(step).unwrap() * 4;
                    let told = f32::from_le_bytes(data[start..start + 4].try_into().unwrap());
                    let wanted = wanted.as_f64().unwrap();
                    let tolerance = 1e-3 * wanted.abs().max(1.0);
                    assert!((f64::from(told) - wanted).abs() <= tolerance, "{at}: {told} {wanted}");
                }
            }
        }
    }
}

/// What a graph has made goes into the next run as it is, and what is taken is not needed
/// any more.
#[test]
fn outputs_go_back_where_they_came_from() {
    let onnx = std::fs::read(path_of("guests/scribe")).unwrap();
    for engine in engines() {
        let graph = loaded(engine.as_ref(), &onnx, MEANS);
        let mut cache: BTreeMap<String, Tensor> = BTreeMap::new();
        for pass in 0..3_u32 {
            let input = |port: &Port| match cache.remove(&port.name) {
                Some(tensor) => tensor,
                None => {
                    let shape = port.shape.iter().enumerate().map(|(number, axis)| match axis {
                        Some(length) => *length,
                        None if port.name.starts_with("past") && number == 2 => 0,
                        None if port.name == "attention_bias" && number == 3 => pass + 1,
                        None => 1,
                    });
                    let (shape, element) = (shape.collect::<Vec<_>>(), port.element.unwrap());
                    let bytes = shape.iter().product::<u32>() as usize * element.bytes();
                    let elements = engine.elements(element, &shape, &vec![0; bytes]);
                    Tensor::of(element, shape, elements).unwrap()
                }
            };
            let inputs: Vec<Tensor> = graph.inputs().iter().map(input).collect();
            let (outputs, _) = run(graph.as_ref(), inputs, &Cancel::default()).unwrap();
            for (port, output) in graph.outputs().iter().zip(outputs) {
                if let Some(what) = port.name.strip_prefix("present_") {
                    assert_eq!(output.shape(), [1, 4, pass + 1, 32], "{}", engine.name());
                    cache.insert(format!("past_{what}"), output);
                }
            }
        }
        // Who still reads has what he reads.
        let kept = cache.values().next().unwrap().read().unwrap();
        let before = kept.to_vec();
        drop(cache);
        assert_eq!(kept, before);
    }
}

/// Outputs of several runs, each on a thread of its own, go into one, of which each takes its
/// rows: on a device where that makes batches there.
#[test]
fn a_batch_is_made_where_its_rows_are() {
    const WIDTH: u32 = 1 << 15;
    let numbers = |name: &str| {
        port(name, DataType::Float, Some(&[Axis::Named("N"), Axis::Fixed(i64::from(WIDTH))]))
    };
    let onnx = file(pb::GraphProto {
        name: "twice".to_owned(),
        node: vec![node("Add", &["x", "x"], "y")],
        input: vec![numbers("x")],
        output: vec![numbers("y")],
        ..Default::default()
    });
    let rows = [1, 2, 1];
    let floats = |tensor: &Tensor| -> Vec<f32> {
        let bytes = tensor.read().unwrap();
        bytes.as_chunks().0.iter().copied().map(f32::from_le_bytes).collect()
    };
    for engine in engines() {
        let graph = loaded(engine.as_ref(), &onnx, MEANS);
        let graph = graph.as_ref();
        let twice = |input| run(graph, vec![input], &Cancel::default()).unwrap().0.remove(0);
        let made: Vec<Tensor> = std::thread::scope(|scope| {
            let each = rows.map(|rows| {
                let data = (0..rows * WIDTH).flat_map(|place| (place as f32).to_le_bytes());
                let data: Vec<u8> = data.collect();
                let input = Tensor::new(ElementType::F32, vec![rows, WIDTH], data).unwrap();
                scope.spawn(move || twice(input))
            });
            each.map(|thread| thread.join().unwrap()).into()
        });
        let together = std::thread::scope(|scope| {
            let all: Vec<&Tensor> = made.iter().collect();
            let engine = &engine;
            scope.spawn(move || engine.together(&all)).join().unwrap()
        });
        let Some(whole) = together else {
            // What is on no device, and ONNX Runtime's, is put together by whoever asks.
            assert!(engine.devices_max().is_none() || engine.name() != "tract");
            continue;
        };
        let whole = twice(whole.unwrap());
        let parts = engine.apart(&whole, &rows).unwrap().unwrap();
        for (part, rows) in parts.iter().zip(rows) {
            assert_eq!(part.shape(), [rows, WIDTH]);
            let expected: Vec<f32> = (0..rows * WIDTH).map(|place| place as f32 * 4.0).collect();
            assert_eq!(floats(part), expected);
        }
    }
}

/// `y` is `x` and one more; `x` is given as it is.
fn one_more() -> Vec<u8> {
    let numbers = |name: &str| port(name, DataType::Float, Some(&[Axis::Named("N")]));
    let one = pb::TensorProto {
        name: "one".to_owned(),
        dims: vec![1],
        data_type: DataType::Float as i32,
        float_data: vec![1.0],
        ..Default::default()
    };
    file(pb::GraphProto {
        name: "one more".to_owned(),
        node: vec![node("Add", &["x", "one"], "y")],
        initializer: vec![one],
        input: vec![numbers("x")],
        output: vec![numbers("y"), numbers("x")],
        ..Default::default()
    })
}

/// It outlives what it was given as. tract takes no such graph.
#[test]
fn an_input_that_is_given_back_is_the_same() {
    assert!(Tract.load("graph", &one_more(), &(), MEANS).is_err());
    if let Some(engine) = &*ONNX_RUNTIME {
        let graph = loaded(engine.as_ref(), &one_more(), MEANS);
        let numbers = |from: u16| -> Vec<u8> {
            (from..from + 1000).flat_map(|number| f32::from(number).to_le_bytes()).collect()
        };
        let mut kept = Vec::new();
        for round in 0..20 {
            let elements = engine.elements(ElementType::F32, &[1000], &numbers(round));
            let input = Tensor::of(ElementType::F32, vec![1000], elements).unwrap();
            let (outputs, _) = run(graph.as_ref(), vec![input], &Cancel::default()).unwrap();
            kept.push(outputs);
        }
        for (round, outputs) in (0..).zip(&kept) {
            assert_eq!(outputs[1].read().unwrap(), numbers(round), "{}", engine.name());
            assert_eq!(outputs[0].read().unwrap(), numbers(round + 1), "{}", engine.name());
        }
    } else {
        skipped("ONNX Runtime");
    }
}

/// What begins like ONNX Runtime's own format, which nobody has scanned, is read as what
/// was scanned.
#[test]
fn another_format_than_onnx_is_not_read() {
    let Some(engine) = &*ONNX_RUNTIME else { return skipped("ONNX Runtime") };
    // A name of a producer whose first letters are those of that format.
    let mut disguised = b"\x12\x84\x80\x00ORTM".to_vec();
    disguised.extend(one_more());
    let graph = loaded(engine.as_ref(), &disguised, MEANS);
    let input = Tensor::new(ElementType::F32, vec![1], 1_f32.to_le_bytes().to_vec()).unwrap();
    let (outputs, _) = run(graph.as_ref(), vec![input], &Cancel::default()).unwrap();
    assert_eq!(outputs[0].read().unwrap(), 2_f32.to_le_bytes().to_vec());
}

#[test]
fn a_run_that_is_cancelled_is_not_computed() {
    let onnx = std::fs::read(path_of("guests/digits")).unwrap();
    for engine in engines() {
        let graph = loaded(engine.as_ref(), &onnx, MEANS);
        let (cancel, shape) = (Cancel::default(), vec![1, 1, 8, 8]);
        cancel.cancel();
        let input = Tensor::new(ElementType::F32, shape, vec![0; 256]).unwrap();
        let refused = run(graph.as_ref(), vec![input], &cancel).unwrap_err();
        assert!(matches!(refused, RunError::Cancelled), "{}: {refused:?}", engine.name());
    }
}

/// A library that is none, and one that is something else.
#[test]
fn what_is_no_library_of_onnx_runtime_is_told() {
    for path in ["/nowhere/libonnxruntime.so", "/proc/self/exe"] {
        let Err(refused) = OnnxRuntimeLibrary::load(path.as_ref()) else { panic!("{path}") };
        assert!(matches!(refused, OnnxRuntimeError::Library { .. }), "{refused}");
    }
}

/// A long run ends between two nodes, soon after whoever asked has gone.
#[test]
fn onnx_runtime_stops_when_it_is_cancelled() {
    let Some(engine) = &*ONNX_RUNTIME else { return skipped("ONNX Runtime") };
    let Ok(onnx) = std::fs::read(path_of("shared/conv.onnx")) else {
        return skipped("conv.onnx");
    };
    let graph = loaded(engine.as_ref(), &onnx, MEANS);
    let input = |rows: u32| {
        let bytes = rows as usize * 3 * 224 * 224 * 4;
        Tensor::new(ElementType::F32, vec![rows, 3, 224, 224], vec![0; bytes]).unwrap()
    };
    let began = Instant::now();
    run(graph.as_ref(), vec![input(16)], &Cancel::default()).unwrap();
    let whole = began.elapsed();
    // Another test's graph may have told of the time of the same threads.
    let has_helped = |_| {
        let (_, beside) = run(graph.as_ref(), vec![input(2)], &Cancel::default()).unwrap();
        !beside.is_zero()
    };
    assert!((0..50).any(has_helped), "nobody has helped, or it was not counted");
    let began = Instant::now();
    let cancel = Cancel::at(began + whole / 8);
    let stopped = run(graph.as_ref(), vec![input(64)], &cancel).unwrap_err();
    assert!(matches!(stopped, RunError::Cancelled), "{stopped:?}");
    assert!(began.elapsed() < whole * 3 / 4 + Duration::from_secs(1), "{:?}", began.elapsed());
}

/// What the arena has no room for fails a run, and no other one.
#[test]
fn onnx_runtime_has_so_much_memory_and_no_more() {
    let Some(engine) = &*ONNX_RUNTIME else { return skipped("ONNX Runtime") };
    let Ok(onnx) = std::fs::read(path_of("shared/conv.onnx")) else {
        return skipped("conv.onnx");
    };
    let means = Means { memory_bytes_max: 64 << 20, ..MEANS };
    let graph = loaded(engine.as_ref(), &onnx, means);
    let input = |rows: u32| {
        let bytes = rows as usize * 3 * 224 * 224 * 4;
        Tensor::new(ElementType::F32, vec![rows, 3, 224, 224], vec![0; bytes]).unwrap()
    };
    run(graph.as_ref(), vec![input(1)], &Cancel::default()).unwrap();
    let refused = run(graph.as_ref(), vec![input(64)], &Cancel::default()).unwrap_err();
    assert!(matches!(refused, RunError::Engine(_)), "{refused:?}");
    run(graph.as_ref(), vec![input(1)], &Cancel::default()).unwrap();
}

/// By tract's own runtime, which is not on a device either: what a graph gives there is the
/// same, and each of its nodes is one that is on the CPU.
#[test]
fn tract_says_which_nodes_are_on_no_device() {
    let onnx = std::fs::read(path_of("guests/digits")).unwrap();
    let on = TractOn::cpu(&on_devices()).unwrap();
    let graph = loaded(&on, &onnx, MEANS);
    let placement = graph.placement().unwrap();
    assert!(placement.on_device == 0 && placement.on_cpu.len() > 3, "{placement:?}");
    let input = || Tensor::new(ElementType::F32, vec![1, 1, 8, 8], vec![0; 256]).unwrap();
    let (there, _) = run(graph.as_ref(), vec![input()], &Cancel::default()).unwrap();
    let here = loaded(&Tract, &onnx, MEANS);
    let (here, _) = run(here.as_ref(), vec![input()], &Cancel::default()).unwrap();
    assert_eq!(there, here);
    let cancel = Cancel::default();
    cancel.cancel();
    let refused = run(graph.as_ref(), vec![input()], &cancel).unwrap_err();
    assert!(matches!(refused, RunError::Cancelled), "{refused:?}");
}

/// Those of a graph that is on a device and those that are not are told by their names.
#[test]
fn onnx_runtime_says_where_nodes_are() {
    let Some(engine) = &*ONNX_RUNTIME else { return skipped("ONNX Runtime") };
    let onnx = std::fs::read(path_of("guests/digits")).unwrap();
    assert_eq!(loaded(engine.as_ref(), &onnx, MEANS).placement(), None);
    let on_device = loaded(&engine.as_if_on(&on_devices()), &onnx, MEANS);
    let placement = on_device.placement().unwrap();
    assert!(placement.on_device > 3 && placement.on_cpu.is_empty(), "{placement:?}");
    let input = Tensor::new(ElementType::F32, vec![1, 1, 8, 8], vec![0; 256]).unwrap();
    let mut scratch = Account::new(1 << 30).charge(Holder::Engine, 0).unwrap();
    let cancel = Cancel::default();
    let mut run = Run::new(&cancel, &mut scratch);
    on_device.run(vec![input], &mut run).unwrap();
    assert!(!run.device.is_zero());
}

/// EPContext reads files.
#[test]
fn an_operator_of_onnx_runtime_that_reads_files_is_not_offered() {
    let Some(engine) = &*ONNX_RUNTIME else { return skipped("ONNX Runtime") };
    assert!(engine.has("com.microsoft", "GroupQueryAttention") && engine.has("", "Conv"));
    assert!(!engine.has("com.microsoft", "EPContext"));
    assert!(!engine.has("com.example", "Conv"));
}
