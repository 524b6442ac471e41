//! Graphs that somebody uploads to harm the host: what each is refused with, and
//! that whoever calls meanwhile notices nothing.

use crate::upload::{archive, left_in, lines, make_model, send, state};
use prost::Message;
use ringfence::proto::clarifai::api::status::StatusCode;
use ringfence_tests::{
    Canary, Client, Host, Variant, block_on, field, guests, request, text_input,
};
use std::path::{Path, PathBuf};
use tract_onnx::pb;
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::{DataLocation, DataType};
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension};
use tract_onnx::pb::type_proto;

fn node(operator: &str, inputs: &[&str]) -> pb::NodeProto {
    pb::NodeProto {
        op_type: operator.to_owned(),
        name: "n".to_owned(),
        input: inputs.iter().map(|name| (*name).to_owned()).collect(),
        output: vec!["y".to_owned()],
        ..Default::default()
    }
}

fn of_domain(domain: &str, operator: &str) -> pb::GraphProto {
    of_nodes(vec![pb::NodeProto { domain: domain.to_owned(), ..node(operator, &["x"]) }])
}

fn of_nodes(node: Vec<pb::NodeProto>) -> pb::GraphProto {
    pb::GraphProto { name: "g".to_owned(), node, ..Default::default() }
}

/// One node, and the constant `s` that says how much it makes.
fn from_shape(operator: &str, inputs: &[&str], lengths: &[i64]) -> pb::GraphProto {
    let shape = pb::TensorProto {
        name: "s".to_owned(),
        data_type: DataType::Int64 as i32,
        dims: vec![lengths.len() as i64],
        int64_data: lengths.to_vec(),
        ..Default::default()
    };
    pb::GraphProto { initializer: vec![shape], ..of_nodes(vec![node(operator, inputs)]) }
}

/// A node whose graph has one whose graph has one.
fn nested(depth: usize) -> pb::GraphProto {
    let mut graph = of_nodes(vec![]);
    for _ in 0..depth {
        let branch = pb::AttributeProto {
            name: "then_branch".to_owned(),
            r#type: AttributeType::Graph as i32,
            g: Some(graph),
            ..Default::default()
        };
        graph = of_nodes(vec![pb::NodeProto { attribute: vec![branch], ..node("If", &["c"]) }]);
    }
    graph
}

/// A weight whose data is in another file.
fn elsewhere(words: &[(&str, &str)]) -> pb::GraphProto {
    let words = words.iter().map(|(key, value)| pb::StringStringEntryProto {
        key: (*key).to_owned(),
        value: (*value).to_owned(),
    });
    let weight = pb::TensorProto {
        name: "w".to_owned(),
        data_type: DataType::Float as i32,
        dims: vec![2, 3],
        data_location: Some(DataLocation::External as i32),
        external_data: words.collect(),
        ..Default::default()
    };
    pb::GraphProto { initializer: vec![weight], ..of_nodes(vec![node("Identity", &["w"])]) }
}

/// Weights of which only those that are not zero are there.
fn sparse() -> pb::GraphProto {
    let weights = pb::SparseTensorProto { dims: vec![1 << 40], ..Default::default() };
    pb::GraphProto { sparse_initializer: vec![weights], ..of_nodes(vec![]) }
}

/// What goes in or comes out: a matrix of floating-point numbers.
fn port(name: &str, rows: i64, columns: i64) -> pb::ValueInfoProto {
    let side = |length| Dimension {
        value: Some(dimension::Value::DimValue(length)),
        ..Default::default()
    };
    let dim = vec![side(rows), side(columns)];
    pb::ValueInfoProto {
        name: name.to_owned(),
        r#type: Some(pb::TypeProto {
            value: Some(type_proto::Value::TensorType(type_proto::Tensor {
                elem_type: DataType::Float as i32,
                shape: Some(pb::TensorShapeProto { dim }),
            })),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// One node of more work than may be begun: 10,001³ multiplications.
fn giant() -> pb::GraphProto {
    let port = |name| port(name, 10_001, 10_001);
    pb::GraphProto {
        input: vec![port("x")],
        output: vec![port("y")],
        ..of_nodes(vec![node("MatMul", &["x", "x"])])
    }
}

/// Four numbers become as many, by way of a node of 6,000³ multiplications, which may be
/// begun and takes many seconds.
fn slow() -> pb::GraphProto {
    const SIDE: i64 = 6_000;
    let named = |name: &str, node: pb::NodeProto| pb::NodeProto {
        name: name.to_owned(),
        output: vec![name.to_owned()],
        ..node
    };
    let reduced = |operator: &str, input: &str| {
        let keeps_none = pb::AttributeProto {
            name: "keepdims".to_owned(),
            r#type: AttributeType::Int as i32,
            i: 0,
            ..Default::default()
        };
        pb::NodeProto { attribute: vec![keeps_none], ..node(operator, &[input]) }
    };
    pb::GraphProto {
        input: vec![port("x", 1, 4)],
        output: vec![port("y", 1, 4)],
        node: vec![
            named("least", reduced("ReduceMin", "x")),
            named("matrix", node("Expand", &["least", "s"])),
            named("product", node("MatMul", &["matrix", "matrix"])),
            named("most", reduced("ReduceMax", "product")),
            named("y", node("Add", &["x", "most"])),
        ],
        ..from_shape("Expand", &[], &[SIDE, SIDE])
    }
}

fn file(graph: pb::GraphProto) -> Vec<u8> {
    let version = pb::OperatorSetIdProto { domain: String::new(), version: 17 };
    pb::ModelProto {
        ir_version: 8,
        opset_import: vec![version],
        graph: Some(graph),
        ..Default::default()
    }
    .encode_to_vec()
}

/// A field of bytes in a field of bytes, and so on.
fn nested_fields(depth: usize) -> Vec<u8> {
    // ModelProto.graph, GraphProto.node, NodeProto.attribute, AttributeProto.g, and
    // from there on again.
    let fields = [7_u8, 1, 5, 6];
    let mut bytes = Vec::new();
    for level in (0..depth).rev() {
        let number = if level == 0 { fields[0] } else { fields[1 + (level - 1) % 3] };
        bytes = field(number, &bytes);
    }
    bytes
}

/// What nothing in a process can stop: its caller is told at the deadline, the process is
/// ended soon after, and nobody else notices.
#[test]
fn a_process_whose_engine_computes_for_too_long_is_ended() {
    let variant = Variant::of(guests::COMPUTE_LOOP, &[("64Mi", "1Gi"), ("200m", "1")]);
    std::fs::write(variant.folder().join("1/double.onnx"), file(slow())).unwrap();
    let mut host = Host::serve(&[guests::ECHO, variant.path()]);
    let workers = host.workers();
    assert_eq!(workers.len(), 2);
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let canary = Canary::start(&host).await;
        let answer = client.predict("compute-loop", vec![text_input("x")]).await;
        assert_eq!(answer.reason(), "WALL_DEADLINE", "{answer:?}");
        host.wait_until("the end of its process", |host| {
            host.log().contains("it did not end a call within call_timeout")
                && host.workers().iter().filter(|pid| workers.contains(pid)).count() == 1
        });
        canary.ends(&mut host, "an engine that computes for too long").await;
    });
}

/// NN-06, NN-07, NN-09, NN-11, NN-12.
#[test]
fn a_hostile_graph_is_refused_with_its_reason_while_others_are_served() {
    const DATA: &str = "only a plain name of a file beside it can be";
    let mut host = Host::serve(&[guests::ECHO]);
    let component = std::fs::read(Path::new(guests::ECHO).join("1/model.wasm")).unwrap();
    let long = "x".repeat(5 << 10);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        (DATA, file(elsewhere(&[("location", "/etc/passwd")]))),
        (DATA, file(elsewhere(&[("location", "/proc/self/environ")]))),
        (DATA, file(elsewhere(&[("location", "../config.yaml")]))),
        ("there is no file", file(elsewhere(&[("location", "not-there")]))),
        ("there is no file", file(elsewhere(&[("location", "model.wasm")]))),
        ("are not all in", file(elsewhere(&[("location", "weights"), ("offset", "8")]))),
        ("are not all in", file(elsewhere(&[("location", "weights"), ("offset", "9000000000")]))),
        ("not that of the tensor", file(elsewhere(&[("location", "weights"), ("length", "25")]))),
        ("sparse tensors", file(sparse())),
        ("is of Add in domain evil", file(of_domain("evil", "Add"))),
        ("is of EPContext in domain com.microsoft", file(of_domain("com.microsoft", "EPContext"))),
        ("is of PyOp in domain ai.onnx.contrib", file(of_domain("ai.onnx.contrib", "PyOp"))),
        ("is of Loop in domain ai.onnx", file(of_nodes(vec![node("Loop", &["n", "c"])]))),
        ("it is no ONNX file", b"\x18\0\0\0ORTM and more".to_vec()),
        ("bytes of a constant", file(from_shape("ConstantOfShape", &["s"], &[1 << 33]))),
        ("bytes of a constant", file(from_shape("ConstantOfShape", &["s"], &[1 << 62]))),
        ("bytes of a constant", file(from_shape("ConstantOfShape", &["s"], &[-1]))),
        ("bytes of a constant", file(from_shape("Tile", &["s", "s"], &[1 << 40]))),
        ("multiplications at once", file(giant())),
        ("nested more than 8 deep", file(nested(100))),
        ("nested more than 8 deep", nested_fields(1000)),
        ("more than 100000 nodes", file(of_nodes(vec![node("Relu", &[]); 100_001]))),
        ("bytes in a name", file(of_nodes(vec![node(&long, &["x"])]))),
    ];
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        make_model(&client, "bad").await;
        let canary = Canary::start(&host).await;
        for (number, (reason, graph)) in cases.iter().enumerate() {
            // Each is another version, which is compiled by itself.
            let config = format!("model:\n  id: bad\nnum_threads: {}\n", number + 1);
            let files: [(&str, &[u8]); 4] = [
                ("config.yaml", config.as_bytes()),
                ("1/model.wasm", &component),
                ("1/model.onnx", graph),
                ("1/weights", &[0; 24]),
            ];
            let answers = send(&client, "bad", &archive(&files)).await;
            let version = answers.last().unwrap().model_version_id.clone();
            assert!(!version.is_empty(), "{number}, {reason}: {answers:?}");
            let state = state(&client, "bad", &version).await;
            assert_eq!(state.code(), StatusCode::ModelBuildingFailed, "{number}, {reason}");
            let lines = lines(&client, "bad", &version).await;
            let told = lines.last().unwrap();
            println!("{number}: {told}");
            assert!(told.contains("the graph model"), "{number}: {lines:?}");
            assert!(told.contains(reason), "{number}, {reason}: {lines:?}");
            // What an engine says names its sources; nothing of the host's is told.
            for inner in [".rs", "/root", "staging", "root:"] {
                assert!(!told.contains(inner), "{number}: {told}");
            }
            let called = client.predict_request(request("bad", vec![text_input("x")])).await;
            assert_eq!(called.reason(), "NO_VERSION", "{called:?}");
        }
        canary.ends(&mut host, "hostile graphs").await;
    });
    // Echo's files are there, and it has no graph.
    let left: Vec<PathBuf> = left_in(host.data_dir());
    assert!(!left.iter().any(|path| path.ends_with("model.onnx")), "{left:?}");
}
