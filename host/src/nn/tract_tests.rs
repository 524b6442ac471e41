//! Graphs that are made in memory, one node or two each, and what tract makes
//! of them.

use super::*;
use prost::Message;
use std::sync::Barrier;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension};
use tract_onnx::pb::{tensor_proto, type_proto};

/// An axis as ONNX writes it.
enum Axis {
    Fixed(i64),
    Named(&'static str),
    Unknown,
}

use Axis::{Fixed, Named, Unknown};

fn port(name: &str, element: DataType, axes: Option<&[Axis]>) -> pb::ValueInfoProto {
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

fn node(op_type: &str, input: &[&str], output: &str) -> pb::NodeProto {
    pb::NodeProto {
        name: format!("{op_type} of {output}"),
        op_type: op_type.to_owned(),
        input: input.iter().map(|name| (*name).to_owned()).collect(),
        output: vec![output.to_owned()],
        ..Default::default()
    }
}

fn file(graph: pb::GraphProto) -> Vec<u8> {
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

fn load(onnx: &[u8]) -> Arc<dyn Graph> {
    Tract.load("graph", onnx).unwrap()
}

fn run(graph: &dyn Graph, input: Tensor) -> Tensor {
    let mut outputs = graph.run(vec![input], &Cancel::default()).unwrap();
    assert_eq!(outputs.len(), 1);
    outputs.remove(0)
}

fn f32s(shape: &[u32], values: &[f32]) -> Tensor {
    let data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
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
        let input = Tensor::new(element, vec![1, 3], ones).unwrap();
        assert_eq!(run(&*graph, input.clone()), input);
    }
}

#[test]
fn every_element_type_is_computed_in() {
    for (onnx, element, ones, twos) in types() {
        let graph = load(&graph("Add", onnx, Some(&[Fixed(1), Fixed(3)])));
        let output = run(&*graph, Tensor::new(element, vec![1, 3], ones).unwrap());
        assert_eq!(output.element(), element);
        assert_eq!(output.shape(), [1, 3]);
        assert_eq!(output.data(), twos, "{element:?}");
    }
}

#[test]
fn bfloat16_is_refused_by_name() {
    let onnx = graph("Identity", DataType::Bfloat16, Some(&[Fixed(3)]));
    let refused = Tract.load("graph", &onnx).err().unwrap().to_string();
    assert!(refused.to_lowercase().contains("bfloat16"), "{refused}");

    let graph = load(&graph("Identity", DataType::Float, Some(&[Fixed(3)])));
    let input = Tensor::new(ElementType::Bf16, vec![3], vec![0; 6]).unwrap();
    let refused = graph.run(vec![input], &Cancel::default()).unwrap_err().to_string();
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
        external_data: vec![entry("location", "/etc/passwd"), entry("length", "12")],
        ..Default::default()
    }
}

#[test]
fn data_in_another_file_is_refused_with_its_location() {
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
    let refused = Tract.load("graph", &weights_in(vec![elsewhere()], vec![])).err().unwrap();
    let LoadError::ExternalData { location, .. } = &refused else { panic!("{refused:?}") };
    assert_eq!(location, "/etc/passwd");
    assert!(refused.to_string().contains("/etc/passwd"), "{refused}");

    let attribute = pb::AttributeProto {
        name: "value".to_owned(),
        r#type: pb::attribute_proto::AttributeType::Tensor as i32,
        t: Some(elsewhere()),
        ..Default::default()
    };
    let constant = pb::NodeProto { attribute: vec![attribute], ..node("Constant", &[], "weights") };
    let refused = Tract.load("graph", &weights_in(vec![], vec![constant])).err().unwrap();
    let text = refused.to_string();
    assert!(text.contains("external data") || text.contains("/etc/passwd"), "{text}");
}

/// tract asks for a length or a name of every axis. Without one the graph is
/// refused when it is loaded, not when it is first called.
#[test]
fn an_input_of_unknown_shape_is_refused_at_the_start() {
    let shapes: [Option<&[Axis]>; 2] = [None, Some(&[Unknown, Fixed(2)])];
    for axes in shapes {
        let refused = Tract.load("graph", &graph("Add", DataType::Float, axes)).err().unwrap();
        assert!(matches!(refused, LoadError::Engine { .. }), "{refused:?}");
        assert!(refused.to_string().contains("\"x\""), "{refused}");
    }
}

#[test]
fn a_cancelled_run_stops() {
    let graph = load(&graph("Add", DataType::Float, Some(&[Fixed(3)])));
    let cancel = Cancel::default();
    cancel.cancel();
    let stopped = graph.run(vec![f32s(&[3], &[1.; 3])], &cancel);
    assert!(matches!(stopped, Err(RunError::Cancelled)), "{stopped:?}");
}
