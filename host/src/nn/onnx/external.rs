//! Data that a graph keeps in other files of its package, put where the graph
//! would have it otherwise: the engine opens nothing.

use crate::nn::engine::{Beside, LoadError};
use crate::nn::onnx;
use tract_onnx::pb;
use tract_onnx::pb::tensor_proto::DataLocation;

/// Puts it into the graph, and into those inside it, and tells whether there is any. The
/// scan has seen how deep they are.
pub(in crate::nn) fn bring(
    graph: &mut pb::GraphProto,
    name: &str,
    beside: &dyn Beside,
) -> Result<bool, LoadError> {
    let mut is_any = false;
    for tensor in &mut graph.initializer {
        is_any |= bring_one(tensor, name, beside)?;
    }
    for attribute in graph.node.iter_mut().flat_map(|node| &mut node.attribute) {
        for tensor in attribute.t.iter_mut().chain(&mut attribute.tensors) {
            is_any |= bring_one(tensor, name, beside)?;
        }
        for inner in attribute.g.iter_mut().chain(&mut attribute.graphs) {
            is_any |= bring(inner, name, beside)?;
        }
    }
    Ok(is_any)
}

fn bring_one(
    tensor: &mut pb::TensorProto,
    name: &str,
    beside: &dyn Beside,
) -> Result<bool, LoadError> {
    let is_external = tensor.data_location == Some(DataLocation::External as i32);
    if !is_external && tensor.external_data.is_empty() {
        return Ok(false);
    }
    let words = tensor.external_data.iter();
    let words: Vec<_> = words.map(|word| (word.key.as_str(), word.value.as_str())).collect();
    let element = i64::from(tensor.data_type);
    let external = onnx::External::of(&tensor.name, &tensor.dims, element, &words)
        .map_err(|why| LoadError::Refused { name: name.to_owned(), why })?;
    tensor.raw_data = beside.read(&external).map_err(|problem| LoadError::External {
        name: name.to_owned(),
        location: external.location.clone(),
        problem,
    })?;
    tensor.external_data.clear();
    tensor.data_location = None;
    Ok(true)
}
