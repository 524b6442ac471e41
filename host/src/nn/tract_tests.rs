//! Graphs that are made in memory, one node or two each, and what tract makes
//! of them.

use super::super::engine::REASON_BYTES_MAX;
use super::super::onnx::External;
use super::*;
use crate::call::Holder;
use crate::nn::Cancel;
use crate::sandbox::{Account, Charge};
use prost::Message;
use std::sync::Barrier;
use tract_onnx::pb;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension};
use tract_onnx::pb::{tensor_proto, type_proto};

/// An axis as ONNX writes it.
pub(in crate::nn) enum Axis {
    Fixed(i64),
    Named(&'static str),
    Unknown,
}

use Axis::{Fixed, Named, Unknown};

pub(in crate::nn) fn port(
    name: &str,
    element: DataType,
    axes: Option<&[Axis]>,
) -> pb::ValueInfoProto {
    let dimension = |axis: &Axis| Dimension {
        value: match axis {
            Fixed(length) => Some(dimension::Value::DimValue(*length)),
            Named(name) => Some(dimension::Value::DimParam((*name).to_owned())),
            Unknown => None,
        },
        ..Default::default()
    };
    let shape = axes.map(|axes| pb::TensorShapeProto { dim: axes.iter().map(dimension).collect() });
    let tensor = type_proto::Tensor { elem_type: element as i32, shape };
    let value = Some(type_proto::Value::TensorType(tensor));
    pb::ValueInfoProto {
        name: name.to_owned(),
        r#type: Some(pb::TypeProto { value, ..Default::default() }),
        ..Default::default()
    }
}

pub(in crate::nn) fn node(op_type: &str, input: &[&str], output: &str) -> pb::NodeProto {
    pb::NodeProto {
        name: format!("{op_type} of {output}"),
        op_type: op_type.to_owned(),
        input: input.iter().map(|name| (*name).to_owned()).collect(),
        output: vec![output.to_owned()],
        ..Default::default()
    }
}

pub(in crate::nn) fn file(graph: pb::GraphProto) -> Vec<u8> {
    pb::ModelProto {
        ir_version: 8,
        opset_import: vec![pb::OperatorSetIdProto { domain: String::new(), version: 14 }],
        graph: Some(graph),
        ..Default::default()
    }
    .encode_to_vec()
}

/// `y` is `x`, or `x` + `x`, both of this type and shape.
fn graph(op_type: &str, element: DataType, axes: Option<&[Axis]>) -> Vec<u8> {
    let inputs: &[&str] = if op_type == "Add" { &["x", "x"] } else { &["x"] };
    file(pb::GraphProto {
        name: "graph".to_owned(),
        node: vec![node(op_type, inputs, "y")],
        input: vec![port("x", element, axes)],
        output: vec![port("y", element, axes)],
        ..Default::default()
    })
}

/// A package of one file.
struct File(&'static str, Vec<u8>);

impl Beside for File {
    fn read(&self, external: &External) -> Result<Vec<u8>, String> {
        let start = usize::try_from(external.offset).unwrap();
        let end = start + usize::try_from(external.bytes).unwrap();
        let content = (external.location == self.0).then(|| self.1.get(start..end)).flatten();
        content.map(<[u8]>::to_vec).ok_or_else(|| "it is not there".to_owned())
    }
}

fn try_load(onnx: &[u8]) -> Result<Arc<dyn Graph>, LoadError> {
    Tract.load("graph", onnx, &(), MEANS)
}

fn load(onnx: &[u8]) -> Arc<dyn Graph> {
    try_load(onnx).unwrap()
}

const MEANS: Means = Means { threads: 1, memory_bytes_max: 1 << 30 };

fn try_run(
    graph: &dyn Graph,
    inputs: Vec<Tensor>,
    cancel: &Cancel,
    scratch: &mut Charge,
) -> Result<Vec<Tensor>, RunError> {
    graph.run(inputs, &mut Run::new(cancel, scratch))
}

/// What a run may hold where a test is about something else.
fn scratch() -> Charge {
    Account::new(1 << 30).charge(Holder::Engine, 0).unwrap()
}

fn run_all(graph: &dyn Graph, inputs: Vec<Tensor>) -> Vec<Tensor> {
    try_run(graph, inputs, &Cancel::default(), &mut scratch()).unwrap()
}

fn run(graph: &dyn Graph, input: Tensor) -> Tensor {
    let mut outputs = run_all(graph, vec![input]);
    assert_eq!(outputs.len(), 1);
    outputs.remove(0)
}

fn f32s(shape: &[u32], values: &[f32]) -> Tensor {
    let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Tensor::new(ElementType::F32, shape.to_vec(), data).unwrap()
}

/// Each type, and the bytes of 1, 2, 3 and of 2, 4, 6 in it.
fn types() -> Vec<(DataType, ElementType, Vec<u8>, Vec<u8>)> {
    macro_rules! bytes {
        ($type:ty: $($value:expr),*) => {
            [$($value as $type),*].iter().flat_map(|value| value.to_le_bytes()).collect()
        };
    }
    vec![
        (
            DataType::Float16,
            ElementType::F16,
            // Sign, five bits of exponent with a bias of 15, ten of fraction.
            bytes!(u16: 0x3c00, 0x4000, 0x4200),
            bytes!(u16: 0x4000, 0x4400, 0x4600),
        ),
        (DataType::Float, ElementType::F32, bytes!(f32: 1, 2, 3), bytes!(f32: 2, 4, 6)),
        (DataType::Double, ElementType::F64, bytes!(f64: 1, 2, 3), bytes!(f64: 2, 4, 6)),
        (DataType::Int64, ElementType::I64, bytes!(i64: 1, 2, 3), bytes!(i64: 2, 4, 6)),
        (DataType::Int32, ElementType::I32, bytes!(i32: 1, 2, 3), bytes!(i32: 2, 4, 6)),
        (DataType::Uint8, ElementType::U8, bytes!(u8: 1, 2, 3), bytes!(u8: 2, 4, 6)),
    ]
}

#[test]
fn every_element_type_keeps_its_bytes() {
    for (onnx, element, ones, _) in types() {
        let graph = load(&graph("Identity", onnx, Some(&[Fixed(1), Fixed(3)])));
        let port = &graph.inputs()[0];
        assert_eq!((port.name.as_str(), port.element), ("x", Some(element)));
        assert_eq!(port.shape, [Some(1), Some(3)]);
        assert_eq!(graph.outputs()[0].name, "y");
        let input = || Tensor::new(element, vec![1, 3], ones.clone()).unwrap();
        assert_eq!(run(&*graph, input()), input());
    }
}

/// NN-02.
#[test]
fn every_element_type_is_computed_in() {
    for (onnx, element, ones, twos) in types() {
        let graph = load(&graph("Add", onnx, Some(&[Fixed(1), Fixed(3)])));
        let output = run(&*graph, Tensor::new(element, vec![1, 3], ones).unwrap());
        assert_eq!(output.element(), element);
        assert_eq!(output.shape(), [1, 3]);
        assert_eq!(output.read().unwrap(), twos, "{element:?}");
    }
}

#[test]
fn bfloat16_is_refused_by_name() {
    let onnx = graph("Identity", DataType::Bfloat16, Some(&[Fixed(3)]));
    let refused = try_load(&onnx).err().unwrap().to_string();
    assert!(refused.to_lowercase().contains("bfloat16"), "{refused}");

    let graph = load(&graph("Identity", DataType::Float, Some(&[Fixed(3)])));
    let input = Tensor::new(ElementType::Bf16, vec![3], vec![0; 6]).unwrap();
    let refused =
        try_run(&*graph, vec![input], &Cancel::default(), &mut scratch()).unwrap_err().to_string();
    assert!(refused.contains("bfloat16"), "{refused}");
}

#[test]
fn a_named_batch_axis_takes_any_length() {
    let graph = load(&graph("Add", DataType::Float, Some(&[Named("N"), Fixed(2)])));
    assert_eq!(graph.inputs()[0].shape, [None, Some(2)]);
    assert_eq!(graph.outputs()[0].shape, [None, Some(2)]);
    assert_eq!(run(&*graph, f32s(&[1, 2], &[1., 2.])), f32s(&[1, 2], &[2., 4.]));
    let five: Vec<f32> = (0..10_u8).map(f32::from).collect();
    let doubled: Vec<f32> = five.iter().map(|value| 2. * value).collect();
    assert_eq!(run(&*graph, f32s(&[5, 2], &five)), f32s(&[5, 2], &doubled));
}

#[test]
fn runs_at_once_do_not_mix() {
    let graph = load(&graph("Add", DataType::Float, Some(&[Named("N")])));
    let barrier = Barrier::new(4);
    std::thread::scope(|scope| {
        for thread in 1..=4_u16 {
            let (graph, barrier) = (&graph, &barrier);
            scope.spawn(move || {
                barrier.wait();
                for round in 1..=50_u16 {
                    let length = u32::from(thread * round);
                    let value = f32::from(thread) * 1000. + f32::from(round);
                    let values = |value| f32s(&[length], &vec![value; length as usize]);
                    assert_eq!(run(&**graph, values(value)), values(2. * value));
                }
            });
        }
    });
}

/// Twelve bytes from the fourth on of a file beside the graph.
fn elsewhere() -> pb::TensorProto {
    let entry = |key: &str, value: &str| pb::StringStringEntryProto {
        key: key.to_owned(),
        value: value.to_owned(),
    };
    pb::TensorProto {
        name: "weights".to_owned(),
        dims: vec![3],
        data_type: DataType::Float as i32,
        data_location: Some(tensor_proto::DataLocation::External as i32),
        external_data: vec![entry("location", "data"), entry("offset", "4"), entry("length", "12")],
        ..Default::default()
    }
}

#[test]
fn data_in_another_file_is_computed_with() {
    let weights_in = |initializer, constants: Vec<pb::NodeProto>| {
        let mut nodes = constants;
        nodes.push(node("Add", &["x", "weights"], "y"));
        file(pb::GraphProto {
            name: "graph".to_owned(),
            node: nodes,
            initializer,
            input: vec![port("x", DataType::Float, Some(&[Fixed(3)]))],
            output: vec![port("y", DataType::Float, Some(&[Fixed(3)]))],
            ..Default::default()
        })
    };
    let attribute = pb::AttributeProto {
        name: "value".to_owned(),
        r#type: pb::attribute_proto::AttributeType::Tensor as i32,
        t: Some(elsewhere()),
        ..Default::default()
    };
    let constant = pb::NodeProto { attribute: vec![attribute], ..node("Constant", &[], "weights") };
    let data = [0_f32, 10., 20., 30.].iter().flat_map(|value| value.to_le_bytes()).collect();
    let beside = File("data", data);
    for onnx in [weights_in(vec![elsewhere()], vec![]), weights_in(vec![], vec![constant])] {
        let graph = Tract.load("graph", &onnx, &beside, MEANS).unwrap();
        assert_eq!(run(&*graph, f32s(&[3], &[1., 2., 3.])), f32s(&[3], &[11., 22., 33.]));
        let refused = try_load(&onnx).err().unwrap().to_string();
        assert!(refused.contains("keeps data in \"data\": there is no file beside"), "{refused}");
    }
}

/// tract asks for a length or a name of every axis. Without one the graph is
/// refused when it is loaded, not when it is first called.
#[test]
fn an_input_of_unknown_shape_is_refused_at_the_start() {
    let shapes: [Option<&[Axis]>; 2] = [None, Some(&[Unknown, Fixed(2)])];
    for axes in shapes {
        let refused = try_load(&graph("Add", DataType::Float, axes)).err().unwrap();
        assert!(matches!(refused, LoadError::Engine { .. }), "{refused:?}");
        assert!(refused.to_string().contains("\"x\""), "{refused}");
    }
}

/// NN-22: what an engine says of a failure names no file of the host's, as the causes
/// beneath it do.
#[test]
fn a_failure_names_no_source_and_no_file() {
    let graph = load(&graph("Add", DataType::Float, Some(&[Fixed(3)])));
    // Guests cannot do this: the shapes of inputs are looked at before.
    let failed = try_run(&*graph, vec![f32s(&[4], &[1.; 4])], &Cancel::default(), &mut scratch());
    let failed = failed.unwrap_err().to_string();
    assert!(!failed.is_empty());
    for told in ["/", ".rs", "\n", "stack backtrace"] {
        assert!(!failed.contains(told), "{failed:?}");
    }
}

/// The same of a graph that cannot be loaded, whose causes its author needs.
#[test]
fn causes_are_told_but_for_the_engines_sources() {
    let failed = TractError::msg("shapes differ").context("at src/x.rs:7").context("node 3");
    assert_eq!(causes(&failed), "node 3: shapes differ");
    assert_eq!(causes(&TractError::msg("at src/x.rs:7")), "it does not say why");
    let long = TractError::msg("x".repeat(2 * REASON_BYTES_MAX));
    assert_eq!(causes(&long).len(), REASON_BYTES_MAX);
}

#[test]
fn a_cancelled_run_stops() {
    let graph = load(&graph("Add", DataType::Float, Some(&[Fixed(3)])));
    let cancel = Cancel::default();
    cancel.cancel();
    let stopped = try_run(&*graph, vec![f32s(&[3], &[1.; 3])], &cancel, &mut scratch());
    assert!(matches!(stopped, Err(RunError::Cancelled)), "{stopped:?}");
}

/// The engine's words of an operator's domain.
#[test]
fn operators_belong_to_domains() {
    assert!(Tract.has("", "Add") && Tract.has("com.microsoft", "GroupQueryAttention"));
    assert!(Tract.has("ai.onnx.ml", "TreeEnsembleClassifier"));
    for (domain, operator) in
        [("", "Loop"), ("com.microsoft", "Add"), ("com.microsoft", "EPContext"), ("evil", "Add")]
    {
        assert!(!Tract.has(domain, operator), "{domain} {operator}");
    }
    for (domain, operators) in [(ONNX_ML, &ML[..]), (MICROSOFT, &CONTRIB)] {
        for operator in operators {
            assert!(Tract.has(domain, operator), "{operator} is not tract's any more");
        }
    }
}

/// NN-09: what stands between nodes is charged before it is made, and given back
/// when nothing needs it any more.
#[test]
fn values_inside_a_graph_are_charged() {
    const LENGTH: u32 = 1 << 16;
    const VALUE: u64 = 4 * LENGTH as u64;
    let nodes = ["Exp", "Neg", "Tanh", "Exp"].into_iter().enumerate();
    let chain = nodes.map(|(place, operator)| {
        node(operator, &[&format!("v{place}")], &format!("v{}", place + 1))
    });
    let onnx = file(pb::GraphProto {
        name: "chain".to_owned(),
        node: chain.collect(),
        input: vec![port("v0", DataType::Float, Some(&[Named("N")]))],
        output: vec![port("v4", DataType::Float, Some(&[Named("N")]))],
        ..Default::default()
    });
    let graph = load(&onnx);
    let input = || f32s(&[LENGTH], &vec![0.5; LENGTH as usize]);
    let ran = |bytes: u64| {
        let account = Account::new(bytes);
        let mut scratch = account.charge(Holder::Engine, 0).unwrap();
        let outputs = try_run(&*graph, vec![input()], &Cancel::default(), &mut scratch);
        (outputs.map(|_| ()), account.peak_of(Holder::Engine))
    };
    let (done, peak) = ran(1 << 30);
    done.unwrap();
    // One at a time, or two where a node has both; the input is charged as a tensor.
    assert!((VALUE..=2 * VALUE).contains(&peak), "{peak}");
    assert!(ran(peak).0.is_ok());
    let (refused, _) = ran(peak - 1);
    assert!(matches!(refused, Err(RunError::Memory(over)) if over.holder == Holder::Engine));
}

/// NN-09: what a guest's numbers make of a graph is charged before it is made.
#[test]
fn a_length_that_a_guest_gives_is_charged_before_it_is_made() {
    let onnx = file(pb::GraphProto {
        name: "range".to_owned(),
        node: vec![node("Range", &["start", "limit", "step"], "y")],
        input: ["start", "limit", "step"]
            .map(|name| port(name, DataType::Float, Some(&[])))
            .to_vec(),
        output: vec![port("y", DataType::Float, None)],
        ..Default::default()
    });
    let graph = load(&onnx);
    let run = |numbers: [f32; 3]| {
        let inputs = numbers.map(|number| f32s(&[], &[number])).into();
        let mut scratch = Account::new(1 << 20).charge(Holder::Engine, 0).unwrap();
        try_run(&*graph, inputs, &Cancel::default(), &mut scratch)
    };
    assert_eq!(run([0., 3., 1.]).unwrap(), [f32s(&[3], &[0., 1., 2.])]);
    for numbers in [[0., 1e12, 1.], [0., 1., 1e-30], [0., f32::MAX, f32::MIN_POSITIVE]] {
        let refused = run(numbers);
        assert!(matches!(refused, Err(RunError::Memory(_))), "{numbers:?}: {refused:?}");
    }
}

/// NN-09: the same of the places of the largest ones.
#[test]
fn a_number_of_places_that_a_guest_gives_is_charged_before_they_are_made() {
    let mut top = node("TopK", &["x", "k"], "values");
    top.output.push("places".to_owned());
    let graph = load(&file(pb::GraphProto {
        name: "top".to_owned(),
        node: vec![top],
        input: vec![
            port("x", DataType::Float, Some(&[Fixed(3)])),
            port("k", DataType::Int64, Some(&[Fixed(1)])),
        ],
        output: vec![port("values", DataType::Float, None), port("places", DataType::Int64, None)],
        ..Default::default()
    }));
    let run = |k: i64| {
        let k = Tensor::new(ElementType::I64, vec![1], k.to_le_bytes().to_vec()).unwrap();
        let mut scratch = Account::new(1 << 20).charge(Holder::Engine, 0).unwrap();
        try_run(&*graph, vec![f32s(&[3], &[1., 3., 2.]), k], &Cancel::default(), &mut scratch)
    };
    assert_eq!(run(2).unwrap()[0], f32s(&[2], &[3., 2.]));
    for k in [1 << 33, i64::MAX, -1] {
        let refused = run(k);
        assert!(matches!(refused, Err(RunError::Memory(_))), "{k}: {refused:?}");
    }
}

/// NN-11: a node that nothing could stop is not begun.
#[test]
fn a_node_of_too_much_work_is_refused() {
    let product = |axes: [Axis; 2]| {
        let [rows, columns] = axes;
        file(pb::GraphProto {
            name: "product".to_owned(),
            node: vec![node("MatMul", &["x", "x"], "y")],
            input: vec![port("x", DataType::Float, Some(&[rows, columns]))],
            output: vec![port("y", DataType::Float, None)],
            ..Default::default()
        })
    };
    let side = 10_001;
    assert!(u64::pow(side, 3) > ledger::NODE_WORK_MAX);
    let refused = try_load(&product([Fixed(10_001), Fixed(10_001)])).err().unwrap().to_string();
    assert!(refused.contains("multiplications at once"), "{refused}");
    let graph = load(&product([Named("N"), Named("N")]));
    assert_eq!(run(&*graph, f32s(&[1, 1], &[3.])), f32s(&[1, 1], &[9.]));

    // The same of a pool, whose input says how much it is: each of a million places
    // looks at a million others.
    let window = pb::AttributeProto {
        name: "kernel_shape".to_owned(),
        r#type: pb::attribute_proto::AttributeType::Ints as i32,
        ints: vec![1001, 1001],
        ..Default::default()
    };
    let pool = pb::NodeProto { attribute: vec![window], ..node("MaxPool", &["x"], "y") };
    let axes = [Fixed(1), Fixed(1), Named("H"), Named("W")];
    let graph = load(&file(pb::GraphProto {
        name: "pool".to_owned(),
        node: vec![pool],
        input: vec![port("x", DataType::Float, Some(&axes))],
        output: vec![port("y", DataType::Float, None)],
        ..Default::default()
    }));
    let huge = f32s(&[1, 1, 2001, 2001], &vec![0.; 2001 * 2001]);
    let refused = try_run(&*graph, vec![huge], &Cancel::default(), &mut scratch()).unwrap_err();
    assert!(refused.to_string().contains("multiplications at once"), "{refused}");
}

/// A graph within a node: its steps are counted before the first one, and its values
/// are charged.
#[test]
fn a_recurrent_node_of_too_many_steps_is_refused() {
    let weights = |name: &str, values: [f32; 4]| pb::TensorProto {
        name: name.to_owned(),
        dims: vec![1, 4, 1],
        data_type: DataType::Float as i32,
        float_data: values.to_vec(),
        ..Default::default()
    };
    let hidden = pb::AttributeProto {
        name: "hidden_size".to_owned(),
        r#type: pb::attribute_proto::AttributeType::Int as i32,
        i: 1,
        ..Default::default()
    };
    let lstm = pb::NodeProto { attribute: vec![hidden], ..node("LSTM", &["x", "w", "r"], "y") };
    let axes = [Named("steps"), Fixed(1), Fixed(1)];
    let graph = load(&file(pb::GraphProto {
        name: "lstm".to_owned(),
        node: vec![lstm],
        initializer: vec![weights("w", [1., 1., 1., 1.]), weights("r", [0., 0., 0., 0.])],
        input: vec![port("x", DataType::Float, Some(&axes))],
        output: vec![port("y", DataType::Float, None)],
        ..Default::default()
    }));
    let answer = run(&*graph, f32s(&[3, 1, 1], &[0., 0., 1.]));
    assert_eq!(answer.shape(), [3, 1, 1, 1]);
    let many = f32s(&[1 << 24, 1, 1], &vec![0.; 1 << 24]);
    let refused = try_run(&*graph, vec![many], &Cancel::default(), &mut scratch()).unwrap_err();
    assert!(refused.to_string().contains("multiplications at once"), "{refused}");
    let mut little = Account::new(1).charge(Holder::Engine, 0).unwrap();
    let few = f32s(&[3, 1, 1], &[0., 0., 1.]);
    let refused = try_run(&*graph, vec![few], &Cancel::default(), &mut little).unwrap_err();
    assert!(matches!(refused, RunError::Memory(_)), "{refused:?}");
}

/// A decoder's step: two tokens, two heads of queries for one of keys, whose
/// projection is in another file. The expected values are computed here, by the
/// definition of attention.
#[test]
fn a_decoder_with_grouped_attention_and_data_beside_it_runs() {
    const TOKENS: usize = 2;
    const WIDTH: usize = 2;
    let attribute = |name: &str, i: i64| pb::AttributeProto {
        name: name.to_owned(),
        r#type: pb::attribute_proto::AttributeType::Int as i32,
        i,
        ..Default::default()
    };
    let attention = pb::NodeProto {
        domain: MICROSOFT.to_owned(),
        attribute: vec![attribute("num_heads", 2), attribute("kv_num_heads", 1)],
        output: vec!["y".to_owned(), "present_key".to_owned(), "present_value".to_owned()],
        ..node("GroupQueryAttention", &["q", "k", "v", "", "", "lengths", "total"], "y")
    };
    let weights = pb::TensorProto {
        dims: vec![2, 4],
        external_data: vec![pb::StringStringEntryProto {
            key: "location".to_owned(),
            value: "model.onnx_data".to_owned(),
        }],
        ..elsewhere()
    };
    let integers = |name: &str, dims: &[i64], value: i32| pb::TensorProto {
        name: name.to_owned(),
        dims: dims.to_vec(),
        data_type: DataType::Int32 as i32,
        int32_data: vec![value],
        ..Default::default()
    };
    let shape = |width| [Fixed(1), Fixed(TOKENS as i64), Fixed(width)];
    let model = pb::ModelProto {
        ir_version: 8,
        opset_import: [("", 17), (MICROSOFT, 1)]
            .map(|(domain, version)| pb::OperatorSetIdProto { domain: domain.into(), version })
            .to_vec(),
        graph: Some(pb::GraphProto {
            name: "decoder".to_owned(),
            node: vec![node("MatMul", &["x", "weights"], "q"), attention],
            initializer: vec![weights, integers("lengths", &[1], 1), integers("total", &[], 2)],
            input: [("x", 2), ("k", 2), ("v", 2)]
                .map(|(name, width)| port(name, DataType::Float, Some(&shape(width))))
                .to_vec(),
            output: vec![port("y", DataType::Float, Some(&shape(4)))],
            ..Default::default()
        }),
        ..Default::default()
    };
    // x to the two heads of the queries: as it is, and doubled.
    let projection: [f32; 8] = [1., 0., 2., 0., 0., 1., 0., 2.];
    let data = projection.iter().flat_map(|value| value.to_le_bytes()).collect();
    let onnx = model.encode_to_vec();
    let scanned =
        crate::nn::onnx::scan(&onnx, &|domain, operator| Tract.has(domain, operator)).unwrap();
    assert_eq!(scanned.external[0].location, "model.onnx_data");
    let graph = Tract.load("graph", &onnx, &File("model.onnx_data", data), MEANS).unwrap();

    let (x, k, v) = ([0.5, -1., 1.5, 0.25], [1., 2., -0.5, 1.], [3., -1., 0.5, 4.]);
    let place = |name: &str| graph.inputs().iter().position(|port| port.name == name).unwrap();
    let mut inputs: Vec<Tensor> = (0..3).map(|_| f32s(&[], &[0.])).collect();
    for (name, values) in [("x", &x), ("k", &k), ("v", &v)] {
        inputs[place(name)] = f32s(&[1, 2, 2], values);
    }
    let output = run_all(&*graph, inputs).remove(0);
    assert_eq!(output.shape(), [1, 2, 4]);
    let output = output.read().unwrap();
    let told = output.chunks(4).map(|word| f32::from_le_bytes(word.try_into().unwrap()));

    let mut expected = Vec::new();
    for token in 0..TOKENS {
        for head in [1_f32, 2.] {
            let query = [head * x[token * WIDTH], head * x[token * WIDTH + 1]];
            let score = |past: usize| {
                let product = query[0] * k[past * WIDTH] + query[1] * k[past * WIDTH + 1];
                (product / (WIDTH as f32).sqrt()).exp()
            };
            let sum: f32 = (0..=token).map(score).sum();
            for axis in 0..WIDTH {
                let weighed = (0..=token).map(|past| score(past) * v[past * WIDTH + axis]);
                expected.push(weighed.sum::<f32>() / sum);
            }
        }
    }
    for (told, expected) in told.zip(&expected) {
        assert!((told - expected).abs() < 1e-5, "{told} where {expected} should be");
    }
}

/// What a device has no room for tract panics about.
#[test]
fn a_panic_of_tracts_is_told_by_its_words() {
    let text = "DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")";
    let error = caught::<()>(|| panic!("called `Result::unwrap()` on an `Err` value: {text}"));
    assert!(causes(&error.unwrap_err()).contains("CUDA_ERROR_OUT_OF_MEMORY"));
    let error = caught::<()>(|| panic!("as it is"));
    assert_eq!(causes(&error.unwrap_err()), "as it is");
    assert_eq!(caught(|| Ok(1)).unwrap(), 1);
}
