//! Files that are made in memory, and what the scan says of them.

use super::*;
use prost::Message;
use tract_onnx::pb;
use tract_onnx::pb::tensor_proto::{DataLocation, DataType};

/// The operators of an engine that has few.
fn has(domain: &str, operator: &str) -> bool {
    match domain {
        "" => !matches!(operator, "Loop" | "Mystery"),
        "com.microsoft" => operator == "GroupQueryAttention",
        _ => false,
    }
}

fn told(graph: pb::GraphProto) -> Result<Scan, ScanError> {
    let model = pb::ModelProto { graph: Some(graph), ..Default::default() };
    scan(&model.encode_to_vec(), &has)
}

fn node(operator: &str, input: &[&str]) -> pb::NodeProto {
    pb::NodeProto {
        op_type: operator.to_owned(),
        name: "n".to_owned(),
        input: input.iter().map(|name| (*name).to_owned()).collect(),
        output: vec!["y".to_owned()],
        ..Default::default()
    }
}

fn of_nodes(node: Vec<pb::NodeProto>) -> pb::GraphProto {
    pb::GraphProto { node, ..Default::default() }
}

fn tensor(name: &str, element: DataType, dims: &[i64]) -> pb::TensorProto {
    pb::TensorProto {
        name: name.to_owned(),
        data_type: element as i32,
        dims: dims.to_vec(),
        ..Default::default()
    }
}

fn shape(name: &str, lengths: &[i64]) -> pb::TensorProto {
    let raw_data = lengths.iter().flat_map(|length| length.to_le_bytes()).collect();
    pb::TensorProto { raw_data, ..tensor(name, DataType::Int64, &[lengths.len() as i64]) }
}

fn subgraph(graph: pb::GraphProto) -> pb::NodeProto {
    let attribute =
        pb::AttributeProto { name: "then_branch".to_owned(), g: Some(graph), ..Default::default() };
    pb::NodeProto { attribute: vec![attribute], ..node("If", &["c"]) }
}

fn elsewhere(words: &[(&str, &str)]) -> pb::GraphProto {
    let words = words.iter().map(|(key, value)| pb::StringStringEntryProto {
        key: (*key).to_owned(),
        value: (*value).to_owned(),
    });
    let tensor = pb::TensorProto {
        data_location: Some(DataLocation::External as i32),
        external_data: words.collect(),
        ..tensor("w", DataType::Float, &[2, 3])
    };
    pb::GraphProto { initializer: vec![tensor], ..Default::default() }
}

#[test]
fn a_graph_is_counted_with_those_inside_it() {
    let inner = of_nodes(vec![node("Add", &["a", "b"]), node("Relu", &["y"])]);
    let weights =
        pb::TensorProto { raw_data: vec![0; 24], ..tensor("w", DataType::Float, &[2, 3]) };
    let graph = pb::GraphProto { initializer: vec![weights], ..of_nodes(vec![subgraph(inner)]) };
    let found = told(graph).unwrap();
    assert_eq!((found.nodes, found.tensor_bytes, found.external.len()), (3, 24, 0));
}

/// NN-07: an operator that the engine does not have is named with its node and
/// its domain, at whatever depth.
#[test]
fn operators_that_the_engine_lacks_are_named() {
    let text = |node: pb::NodeProto| told(of_nodes(vec![node])).unwrap_err().to_string();
    assert_eq!(
        text(node("Mystery", &[])),
        "node \"n\" is of Mystery in domain ai.onnx, which the engine does not have"
    );
    let unnamed = pb::NodeProto { name: String::new(), ..node("Mystery", &[]) };
    assert!(text(unnamed).starts_with("node number 1 is of Mystery"));
    assert!(text(subgraph(of_nodes(vec![node("Loop", &[])]))).contains("is of Loop in domain"));
    let of = |domain: &str, operator: &str| {
        let node = pb::NodeProto { domain: domain.to_owned(), ..node(operator, &[]) };
        told(of_nodes(vec![node]))
    };
    assert!(of("com.microsoft", "GroupQueryAttention").is_ok());
    assert!(of("ai.onnx", "Add").is_ok());
    for (domain, operator) in [("com.microsoft", "Add"), ("evil", "Add"), ("ai.onnx.ml", "Add")] {
        let refused = of(domain, operator).unwrap_err().to_string();
        assert!(refused.contains(&format!("in domain {domain}")), "{refused}");
    }
}

/// NN-12.
#[test]
fn what_is_too_much_is_refused_by_its_number() {
    let mut nested = of_nodes(vec![]);
    for _ in 1..DEPTH_MAX {
        nested = of_nodes(vec![subgraph(nested)]);
    }
    assert!(told(nested.clone()).is_ok());
    assert_eq!(told(of_nodes(vec![subgraph(nested)])), Err(ScanError::TooDeep));

    let many = |count| told(of_nodes(vec![pb::NodeProto::default(); count]));
    assert_eq!(many(NODES_MAX).unwrap().nodes, NODES_MAX);
    assert_eq!(many(NODES_MAX + 1), Err(ScanError::TooMany { what: "nodes", max: NODES_MAX }));

    let empty = tensor("", DataType::Float, &[0]);
    let many = |count| {
        told(pb::GraphProto { initializer: vec![empty.clone(); count], ..Default::default() })
    };
    assert!(many(TENSORS_MAX).is_ok());
    let what = ScanError::TooMany { what: "tensors", max: TENSORS_MAX };
    assert_eq!(many(TENSORS_MAX + 1), Err(what));

    let long = "x".repeat(NAME_BYTES_MAX + 1);
    let refused = told(of_nodes(vec![node(&long, &[])])).unwrap_err();
    assert_eq!(refused, ScanError::TooMany { what: "bytes in a name", max: NAME_BYTES_MAX });
}

/// Bodies of operators that a file brings along would be graphs that nobody has looked at.
#[test]
fn functions_and_graphs_for_training_are_refused() {
    let file = pb::ModelProto { graph: Some(of_nodes(Vec::new())), ..Default::default() };
    let plain = file.encode_to_vec();
    // Fields 20 and 25 of ModelProto, each an empty message.
    for (field, what) in [([0xa2, 0x01, 0x00], "training"), ([0xca, 0x01, 0x00], "functions")] {
        let refused = scan(&[&plain[..], &field].concat(), &has).unwrap_err();
        assert!(refused.to_string().contains(what), "{refused}");
    }
}

/// Of texts and shapes there may be so much; of weights as much as fits a file.
#[test]
fn bytes_beside_the_data_of_tensors_have_a_limit() {
    let of = |doc: usize, data: usize| {
        let weights = pb::TensorProto {
            raw_data: vec![0; data],
            ..tensor("w", DataType::Uint8, &[data as i64])
        };
        told(pb::GraphProto {
            doc_string: "x".repeat(doc),
            initializer: vec![weights],
            ..Default::default()
        })
    };
    assert!(of(STRUCTURE_BYTES_MAX - 1024, 2 * STRUCTURE_BYTES_MAX).is_ok());
    assert!(matches!(of(STRUCTURE_BYTES_MAX, 0), Err(ScanError::TooMany { .. })));
}

#[test]
fn data_has_to_be_that_of_its_shape() {
    let told = |tensor: pb::TensorProto| {
        told(pb::GraphProto { initializer: vec![tensor], ..Default::default() })
    };
    let raw = |element, dims: &[i64], bytes| {
        told(pb::TensorProto { raw_data: vec![0; bytes], ..tensor("w", element, dims) })
    };
    assert!(raw(DataType::Float, &[2, 3], 24).is_ok());
    assert!(raw(DataType::Int4, &[3], 2).is_ok());
    assert!(raw(DataType::Float16, &[], 2).is_ok());
    for (dims, bytes) in [
        (&[2, 3][..], 23),
        (&[2, 3], 25),
        (&[-1], 4),
        (&[1 << 40], 4),
        (&[1 << 40, 1 << 40], 4),
        (&[i64::MAX, i64::MAX, 0], 0),
        (&[1; AXES_MAX + 1], 4),
    ] {
        let refused = raw(DataType::Float, dims, bytes);
        assert_eq!(refused, Err(ScanError::Tensor { name: "w".into() }), "{dims:?}");
    }
    assert!(told(tensor("w", DataType::Float, &[1 << 40])).is_err(), "nothing is there");
    let few = pb::TensorProto { float_data: vec![1., 2.], ..tensor("w", DataType::Float, &[2]) };
    assert!(told(few).is_ok());
    let unknown = pb::TensorProto { data_type: 99, ..tensor("w", DataType::Float, &[0]) };
    assert!(told(unknown).is_err());
}

/// NN-09: little that says that it is much.
#[test]
fn constants_that_become_huge_are_refused() {
    const MUCH: i64 = 1 << 28;
    let told = |operator: &str, inputs: &[&str], constants: Vec<pb::TensorProto>| {
        told(pb::GraphProto { initializer: constants, ..of_nodes(vec![node(operator, inputs)]) })
    };
    for (operator, inputs) in [
        ("ConstantOfShape", &["s"][..]),
        ("Expand", &["x", "s"]),
        ("Tile", &["x", "s"]),
        ("Resize", &["x", "", "", "s"]),
        ("OneHot", &["x", "s"]),
        ("Pad", &["x", "s"]),
    ] {
        assert!(told(operator, inputs, vec![shape("s", &[4])]).is_ok(), "{operator}");
        let refused = told(operator, inputs, vec![shape("s", &[MUCH])]).unwrap_err();
        assert!(matches!(refused, ScanError::Bomb { .. }), "{operator}: {refused}");
        // Where the shape is an input, the engine is asked when it runs.
        assert!(told(operator, inputs, vec![]).is_ok());
    }
    let range = |numbers: [i64; 3]| {
        let constants = ["a", "b", "c"].iter().zip(numbers);
        let scalar = |(name, number): (&&str, i64)| pb::TensorProto {
            int64_data: vec![number],
            ..tensor(name, DataType::Int64, &[])
        };
        told("Range", &["a", "b", "c"], constants.map(scalar).collect())
    };
    assert!(range([0, 100, 1]).is_ok());
    assert!(range([0, i64::MAX, 1]).is_err());
    assert!(range([i64::MIN, i64::MAX, 0]).is_ok(), "no step is an engine's error");

    // A constant may be a node, too.
    let attribute = pb::AttributeProto {
        name: "value".to_owned(),
        t: Some(shape("", &[1 << 20, 1 << 20])),
        ..Default::default()
    };
    let constant = pb::NodeProto { attribute: vec![attribute], ..node("Constant", &[]) };
    let refused = super::tests::told(of_nodes(vec![constant, node("ConstantOfShape", &["y"])]));
    assert!(matches!(refused, Err(ScanError::Bomb { .. })), "{refused:?}");
}

/// Readers of protobuf put two tensors of one attribute together, to one that
/// neither was.
#[test]
fn an_attribute_has_one_value() {
    let tensor = |tensor: pb::TensorProto| {
        let attribute = pb::AttributeProto { t: Some(tensor), ..Default::default() };
        attribute.encode_to_vec()
    };
    let twice = [
        tensor(pb::TensorProto { dims: vec![1 << 28], ..Default::default() }),
        tensor(shape("", &[1])),
    ];
    let node = pb::NodeProto { op_type: "Constant".to_owned(), ..Default::default() };
    let mut bytes = node.encode_to_vec();
    let attribute = twice.concat();
    // NodeProto.attribute, GraphProto.node, ModelProto.graph.
    bytes.extend([5 << 3 | 2, u8::try_from(attribute.len()).unwrap()]);
    bytes.extend(attribute);
    for field in [1, 7] {
        let mut outer = vec![field << 3 | 2, u8::try_from(bytes.len()).unwrap()];
        outer.extend(bytes);
        bytes = outer;
    }
    assert!(scan(&bytes, &has).is_err());
}

#[test]
fn data_in_another_file_is_told_with_its_place() {
    let found = told(elsewhere(&[("location", "model.onnx_data"), ("offset", "64")])).unwrap();
    let expected =
        External { name: "w".into(), location: "model.onnx_data".into(), offset: 64, bytes: 24 };
    assert_eq!((found.external, found.tensor_bytes), (vec![expected], 24));
    assert!(told(elsewhere(&[("location", "data/w"), ("length", "24")])).is_ok());
}

/// NN-06: nothing but a plain name of a file that is beside the graph.
#[test]
fn data_that_is_elsewhere_is_refused_with_its_location() {
    for location in
        ["", "/etc/passwd", "../x", "a/../../x", "./x", "a//b", "a/", "C:\\x", "a\\b", "a\0b", ".."]
    {
        let refused = told(elsewhere(&[("location", location)]));
        let Err(ScanError::External { location: told, .. }) = &refused else {
            panic!("{location:?}: {refused:?}")
        };
        assert_eq!(told, location);
    }
    for (key, number) in [("offset", "-1"), ("offset", "x"), ("length", "25"), ("length", "")] {
        let refused = told(elsewhere(&[("location", "w"), (key, number)]));
        assert!(matches!(refused, Err(ScanError::External { .. })), "{key} {number}");
    }
}

/// PKG-04: whatever the bytes are, there is an answer.
#[test]
fn damaged_files_are_refused_or_read_and_nothing_else() {
    let inner = of_nodes(vec![node("Add", &["a", "b"])]);
    let graph = pb::GraphProto {
        initializer: vec![shape("s", &[2, 3])],
        ..of_nodes(vec![subgraph(inner), node("Tile", &["x", "s"])])
    };
    let whole = pb::ModelProto { graph: Some(graph), ..Default::default() }.encode_to_vec();
    assert!(scan(&whole, &has).is_ok());
    for place in 0..whole.len() {
        let cut = scan(&whole[..place], &has);
        assert!(cut.is_err() || place == 0, "{place}");
        for bit in 0..8 {
            let mut damaged = whole.clone();
            damaged[place] ^= 1 << bit;
            // Either is right.
            drop(scan(&damaged, &has));
        }
    }
    assert_eq!(scan(b"", &has), Err(ScanError::NoGraph));
}
