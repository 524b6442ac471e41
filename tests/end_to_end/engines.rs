//! Engines that are not part of the host: what stands behind the seam, and what a backend
//! that knows nothing of this host is under.

use crate::author::{ringfence, text};
use crate::snapshots::{asked, call};
use ringfence::call::{End, Function, Value};
use ringfence::limits::FUEL_PER_CPU_SECOND;
use ringfence::nn::{
    Backend, Beside, ElementType, Elements, Engine, Engines, Graph, LoadError, Means, Ports, Run,
    RunError, Tensor, Tract, Unread,
};
use ringfence::package::folder;
use ringfence::sandbox::{Code, Diagnostics, Program, Runtime, Surroundings};
use ringfence_tests::{
    Client, Host, HostOptions, Variant, block_on, guests, image_input, params, refused_start,
    request, skip, text_input,
};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;
use wasmtime_wasi_nn::backend::{
    BackendError, BackendExecutionContext, BackendFromDir, BackendGraph, BackendInner, Id,
    NamedTensor,
};
use wasmtime_wasi_nn::wit::{ExecutionTarget, GraphEncoding, TensorType};

/// A backend that is written for `wasmtime-wasi-nn` alone: whatever the graph, the picture
/// is a seven; one that is all white it cannot see.
struct Sevens;

impl BackendInner for Sevens {
    fn encoding(&self) -> GraphEncoding {
        GraphEncoding::Onnx
    }

    fn load(
        &mut self,
        builders: &[&[u8]],
        target: ExecutionTarget,
    ) -> Result<wasmtime_wasi_nn::Graph, BackendError> {
        assert!(matches!(target, ExecutionTarget::Cpu));
        match builders {
            [_] => Ok((Box::new(Sevens) as Box<dyn BackendGraph>).into()),
            many => Err(BackendError::InvalidNumberOfBuilders(1, many.len())),
        }
    }

    fn as_dir_loadable(&mut self) -> Option<&mut dyn BackendFromDir> {
        None
    }
}

impl BackendGraph for Sevens {
    fn init_execution_context(&self) -> Result<wasmtime_wasi_nn::ExecutionContext, BackendError> {
        Ok((Box::new(Sevens) as Box<dyn BackendExecutionContext>).into())
    }
}

impl BackendExecutionContext for Sevens {
    /// Modules set inputs one by one, and this host runs components.
    fn set_input(&mut self, _: Id, _: &wasmtime_wasi_nn::Tensor) -> Result<(), BackendError> {
        Err(BackendError::UnsupportedTensorType("of a module".to_owned()))
    }

    fn get_output(&mut self, _: Id) -> Result<wasmtime_wasi_nn::Tensor, BackendError> {
        Err(BackendError::UnsupportedTensorType("of a module".to_owned()))
    }

    fn compute(
        &mut self,
        inputs: Option<Vec<NamedTensor>>,
    ) -> Result<Option<Vec<NamedTensor>>, BackendError> {
        let inputs = inputs.unwrap();
        let [NamedTensor { name, tensor }] = inputs.as_slice() else { panic!("one input") };
        assert_eq!((name.as_str(), tensor.ty), ("image", TensorType::Fp32));
        if tensor.data.iter().all(|byte| *byte == 0) {
            return Err(BackendError::UnsupportedTensorType("nothing".to_owned()));
        }
        let rows = tensor.dimensions[0];
        let seven = (0..rows * 10).map(|place| f32::from(u8::from(place % 10 == 7)));
        let data = seven.flat_map(f32::to_le_bytes).collect();
        let tensor = wasmtime_wasi_nn::Tensor::new(vec![rows, 10], TensorType::Fp32, data);
        Ok(Some(vec![NamedTensor { name: "probabilities".to_owned(), tensor }]))
    }
}

fn picture(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../guests/digits/held-out");
    std::fs::read(folder.join(name)).unwrap()
}

fn admitted(
    engines: Engines,
    path: &str,
    scratch: &TempDir,
) -> (Arc<Runtime>, Result<Program, String>) {
    let runtime = Runtime::start_on(engines, Diagnostics::Off, FUEL_PER_CPU_SECOND).unwrap();
    let package = folder::open(path.as_ref(), scratch.path(), folder::Taking::Copy).unwrap();
    let seeded = Surroundings::Seeded(7);
    let program = Program::admit(&runtime, &package, &Code::Component, seeded);
    (runtime, program.map_err(|error| error.to_string()))
}

#[test]
fn a_backend_that_knows_nothing_of_this_host_answers_a_guest() {
    let scratch = TempDir::new().unwrap();
    let engines = || {
        Engines::of([Arc::new(Backend::new("sevens", Sevens, |domain, _| domain.is_empty()))
            as Arc<dyn Engine>])
    };
    block_on(async {
        let (runtime, program) = admitted(engines(), guests::DIGITS, &scratch);
        let program = Arc::new(program.unwrap());
        let image = || asked(Value::Image(picture("two.png").into()), "image", "{}");
        let (outputs, verdict) = call(&program, Function::Predict, image()).await;
        assert_eq!((verdict.end, verdict.receipt.computes), (End::Done, 1));
        assert!(format!("{outputs:?}").contains("\"7\""), "{outputs:?}");
        // Nothing of it stays.
        let graphs = std::fs::metadata(Path::new(guests::DIGITS).join("1/digits.onnx")).unwrap();
        drop(outputs);
        runtime.drain().await;
        let holders = ringfence::call::Holder::ALL;
        let tensors = holders.iter().filter(|holder| holder.as_str() == "tensors");
        assert!(tensors.clone().all(|holder| program.account().bytes_of(*holder) == 0));
        let of_graphs = program.account().bytes_of(ringfence::call::Holder::Graph);
        assert_eq!(of_graphs, graphs.len());
    });
    // What it does not have is refused before it sees the file.
    let (_, refused) = admitted(
        Engines::of([Arc::new(Backend::new("none", Sevens, |_, _| false)) as Arc<dyn Engine>]),
        guests::DIGITS,
        &scratch,
    );
    let refused = refused.err().unwrap();
    assert!(refused.contains("cannot load the graph digits"), "{refused}");
    // And so is what it is not.
    let asks = Variant::of(
        guests::DIGITS,
        &[("inference_compute_info:", "ringfence: {engine: tract}\ninference_compute_info:")],
    );
    let (_, refused) = admitted(engines(), asks.path(), &scratch);
    let refused = refused.err().unwrap();
    assert!(refused.contains("asks for the engine tract; this host has sevens"), "{refused}");
}

/// tract, with every copy counted that leaves a guest's memory or goes there.
#[derive(Clone, Default)]
struct Copies(Arc<Mutex<Counted>>);

#[derive(Default)]
struct Counted {
    /// Shapes of what guests have handed over.
    taken: Vec<Vec<u32>>,
    /// Bytes of what guests have asked to see.
    read: Vec<usize>,
    /// Tensors that an engine had to copy because they were not its own.
    foreign: usize,
    passes: usize,
}

struct CountedElements(Box<dyn Elements>, Copies);

impl Elements for CountedElements {
    fn bytes(&self) -> usize {
        self.0.bytes()
    }

    fn read(&self) -> Result<bytes::Bytes, Unread> {
        self.1.0.lock().unwrap().read.push(self.0.bytes());
        self.0.read()
    }
}

impl Engine for Copies {
    fn name(&self) -> &'static str {
        "copies"
    }

    fn has(&self, domain: &str, operator: &str) -> bool {
        Tract.has(domain, operator)
    }

    fn load(
        &self,
        name: &str,
        onnx: &[u8],
        beside: &dyn Beside,
        means: Means,
    ) -> Result<Arc<dyn Graph>, LoadError> {
        Ok(Arc::new(CountedGraph(Tract.load(name, onnx, beside, means)?, self.clone())))
    }

    fn elements(&self, element: ElementType, shape: &[u32], data: &[u8]) -> Box<dyn Elements> {
        self.0.lock().unwrap().taken.push(shape.to_vec());
        Box::new(CountedElements(Tract.elements(element, shape, data), self.clone()))
    }
}

struct CountedGraph(Arc<dyn Graph>, Copies);

impl Graph for CountedGraph {
    fn ports(&self) -> &Ports {
        self.0.ports()
    }

    fn bytes(&self) -> u64 {
        self.0.bytes()
    }

    fn run(&self, inputs: Vec<Tensor>, run: &mut Run<'_>) -> Result<Vec<Tensor>, RunError> {
        self.1.0.lock().unwrap().passes += 1;
        let own = |tensor: Tensor| {
            let (element, shape) = (tensor.element(), tensor.shape().to_vec());
            match tensor.into_elements::<CountedElements>() {
                Ok(counted) => Tensor::of(element, shape, counted.0).unwrap(),
                Err(data) => {
                    self.1.0.lock().unwrap().foreign += 1;
                    Tensor::new(element, shape, data.unwrap()).unwrap()
                }
            }
        };
        let outputs = self.0.run(inputs.into_iter().map(own).collect(), run)?;
        let counted = |tensor: Tensor| {
            let (element, shape, elements) = tensor.into_parts();
            let elements = Box::new(CountedElements(elements, self.1.clone()));
            Tensor::of(element, shape, elements).unwrap()
        };
        Ok(outputs.into_iter().map(counted).collect())
    }
}

/// A decoder's keys and values go from one pass into the next where they are: of each pass
/// the guest hands over what is new, and is handed the scores.
#[test]
fn what_goes_from_one_compute_into_the_next_is_not_copied() {
    let scratch = TempDir::new().unwrap();
    let copies = Copies::default();
    block_on(async {
        let engines = Engines::of([Arc::new(copies.clone()) as Arc<dyn Engine>]);
        let (runtime, program) = admitted(engines, guests::SCRIBE, &scratch);
        let program = Arc::new(program.unwrap());
        let asked = asked(
            Value::Text("It is a truth".to_owned()),
            "text",
            "{\"max_tokens\":24,\"seed\":3}",
        );
        let (outputs, verdict) = call(&program, Function::Generate, asked).await;
        assert_eq!(verdict.end, End::Done);
        assert!(outputs.len() > 8, "{}", outputs.len());
        runtime.drain().await;
    });
    let counted = copies.0.lock().unwrap();
    let passes = counted.passes;
    assert!(passes > 8, "{passes}");
    assert_eq!(counted.foreign, 0);
    // The cache is handed over once, while it is empty; then three tensors a pass.
    let (empty, new): (Vec<_>, Vec<_>) = counted.taken.iter().partition(|shape| shape.contains(&0));
    assert_eq!((empty.len(), new.len()), (8, 3 * passes), "{:?}", counted.taken);
    assert!(new.iter().all(|shape| shape.get(1) != Some(&4)), "{new:?}");
    // Scores of one pass each, and nothing else.
    assert_eq!(counted.read.len(), passes, "{:?}", counted.read);
    assert!(counted.read.iter().all(|bytes| bytes % (256 * 4) == 0), "{:?}", counted.read);
}

fn library(test: &str) -> Option<PathBuf> {
    let library = std::env::var_os("RINGFENCE_TEST_ONNXRUNTIME").map(PathBuf::from);
    if library.is_none() {
        skip(test, "RINGFENCE_TEST_ONNXRUNTIME does not name the library of ONNX Runtime");
    }
    library
}

fn with_engine(guest: &str, engine: &str, name: &str) -> Variant {
    let ringfence = format!("ringfence: {{engine: {engine}}}\ninference_compute_info:");
    let (id, guest_id) = (format!("id: {name}"), Path::new(guest).file_name().unwrap());
    let guest_id = format!("id: {}", guest_id.to_str().unwrap());
    Variant::of(guest, &[("inference_compute_info:", &ringfence), (&guest_id, &id)])
}

/// Whatever keeps a host from starting is found by whoever only asks.
#[test]
fn a_check_finds_a_graph_that_no_engine_computes_and_a_library_that_is_none() {
    let asks = "  num_accelerators: 0\n\nringfence:\n  engine: onnxruntime\n";
    let asks = Variant::of(guests::DIGITS, &[("  num_accelerators: 0\n", asks)]);
    for check in [&["--check"][..], &[]] {
        let args = ["--listen", "127.0.0.1:0", "--model", asks.path()];
        let (code, told) = refused_start(&[&args[..], check].concat());
        assert_eq!(code, Some(2), "{told}");
        assert!(told.contains("asks for the engine onnxruntime"), "{told}");
        assert!(told.contains("--onnxruntime"), "{told}");
    }
    let args = ["--check", "--listen", "127.0.0.1:0", "--onnxruntime", "/proc/self/exe"];
    let (code, told) = refused_start(&args);
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("cannot load ONNX Runtime"), "{told}");
}

/// In jailed workers, over real sockets: both engines say the same of the same picture and
/// go on with a text in the same words.
#[test]
fn a_host_with_onnx_runtime_answers_as_one_without() {
    let Some(library) = library("a_host_with_onnx_runtime_answers_as_one_without") else { return };
    let models: Vec<Variant> = ["tract", "onnxruntime"]
        .iter()
        .flat_map(|engine| {
            [guests::DIGITS, guests::SCRIBE].map(|guest| {
                let name = Path::new(guest).file_name().unwrap().to_str().unwrap();
                with_engine(guest, engine, &format!("{name}-{engine}"))
            })
        })
        .collect();
    let host = Host::start(HostOptions {
        models: models.iter().map(|variant| variant.path().to_owned().into()).collect(),
        args: vec!["--onnxruntime".to_owned(), library.display().to_string()],
        ..HostOptions::default()
    });
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let mut said = Vec::new();
        for engine in ["tract", "onnxruntime"] {
            let picture = vec![image_input(picture("seven.png"))];
            let digit = client.predict(&format!("digits-{engine}"), picture).await;
            let text = vec![text_input("It is a truth")];
            // The likeliest byte each time.
            let likeliest = serde_json::json!({ "temperature": 0, "max_tokens": 48 });
            let asked = params(request(&format!("scribe-{engine}"), text), likeliest);
            let written = client.predict_request(asked).await;
            let concepts = digit.outputs[0].data.as_ref().unwrap().concepts.clone();
            said.push((concepts[0].name.clone(), written.text()));
        }
        assert_eq!(said[0].0, "seven");
        assert_eq!(said[0], said[1]);
    });
}

#[test]
fn a_model_whose_engine_a_host_lacks_is_refused_with_what_there_is() {
    let model = with_engine(guests::DIGITS, "onnxruntime", "digits");
    let host = Host::start(HostOptions::default());
    let refused = host.ringfence(&["upload", model.path()]);
    let said = text(&refused);
    assert!(!refused.status.success(), "{said}");
    assert!(said.contains("asks for the engine onnxruntime; this host has tract"), "{said}");
    let sheet = ringfence(&["inspect", guests::DIGITS]);
    assert!(text(&sheet).contains("runs on tract"), "{}", text(&sheet));
    let sheet = ringfence(&["inspect", model.path()]);
    assert!(!sheet.status.success(), "{}", text(&sheet));
}

#[test]
fn a_library_that_is_not_there_is_no_start() {
    let refused = ringfence(&["serve", "--check", "--onnxruntime", "/nowhere/libonnxruntime.so"]);
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused));
    assert!(text(&refused).contains("there is no library /nowhere"), "{}", text(&refused));
}

#[test]
fn an_author_sees_and_tries_the_engine() {
    let Some(library) = library("an_author_sees_and_tries_the_engine") else { return };
    let library = library.to_str().unwrap();
    let model = with_engine(guests::DIGITS, "onnxruntime", "digits");
    let sheet = ringfence(&["inspect", model.path(), "--onnxruntime", library]);
    assert!(text(&sheet).contains("runs on onnxruntime"), "{}", text(&sheet));
    let scan = concat!(env!("CARGO_MANIFEST_DIR"), "/../guests/digits/held-out/seven.png");
    let tried = ringfence(&["test", model.path(), "--file", scan, "--onnxruntime", library]);
    assert!(tried.status.success(), "{}", text(&tried));
}

/// Sixteen callers at a time, whose computes wait for each other: each gets what it would
/// have got alone, and pays for one compute.
#[test]
fn batches_below_the_sandbox_change_no_answer() {
    let batching = "tract, batching: {max_size: 8, max_wait: 20ms}";
    let models = [
        with_engine(guests::DIGITS, "tract", "digits-alone"),
        with_engine(guests::DIGITS, batching, "digits-batched"),
    ];
    let host = Host::start(HostOptions {
        models: models.iter().map(|variant| variant.path().to_owned().into()).collect(),
        ..HostOptions::default()
    });
    let pictures = ["two.png", "three.png", "seven.png", "eight.png"].map(picture);
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let calls = |model: &'static str| {
            let pictures = pictures.iter().cycle().take(16);
            let calls =
                pictures.map(|picture| client.predict(model, vec![image_input(picture.clone())]));
            futures_util::future::join_all(calls)
        };
        let (alone, batched) = (calls("digits-alone").await, calls("digits-batched").await);
        for (alone, batched) in alone.iter().zip(&batched) {
            let concepts = |answer: &ringfence_tests::Answer| {
                let data = answer.outputs[0].data.clone().unwrap();
                data.concepts.iter().map(|one| (one.name.clone(), one.value)).collect::<Vec<_>>()
            };
            let (alone, batched) = (concepts(alone), concepts(batched));
            assert_eq!(alone.len(), batched.len());
            for ((name, value), (other, batched)) in alone.iter().zip(&batched) {
                assert_eq!(name, other);
                assert!((value - batched).abs() <= 1e-5, "{name}: {value} {batched}");
            }
        }
    });
}
