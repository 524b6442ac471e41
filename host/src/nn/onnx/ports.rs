//! What a graph's file says of its inputs and outputs, for engines that do not.

use super::external;
use crate::nn::engine::{Beside, LoadError, Port, Ports};
use crate::nn::tensor::ElementType;
use prost::Message;
use tract_onnx::pb;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::dimension;
use tract_onnx::pb::type_proto;

/// The file as it is written.
pub(in crate::nn) fn read(onnx: &[u8], name: &str) -> Result<pb::ModelProto, LoadError> {
    let unread = |reason| LoadError::Unread { name: name.to_owned(), reason };
    pb::ModelProto::decode(onnx).map_err(|error| unread(error.to_string()))
}

/// The file with the data in it that it keeps in others; nothing where it keeps none.
pub(in crate::nn) fn whole(
    file: &mut pb::ModelProto,
    name: &str,
    beside: &dyn Beside,
) -> Result<Option<Vec<u8>>, LoadError> {
    let Some(graph) = &mut file.graph else { return Ok(None) };
    if !external::bring(graph, name, beside)? {
        return Ok(None);
    }
    Ok(Some(file.encode_to_vec()))
}

/// Inputs and outputs in the file's own order. The error is a sentence for the author.
pub(in crate::nn) fn of(file: &pb::ModelProto) -> Result<Ports, String> {
    let graph = file.graph.as_ref().ok_or("there is no graph in it")?;
    // Older files list what has a value among the inputs.
    let has_value = |name: &str| graph.initializer.iter().any(|tensor| tensor.name == name);
    let inputs = graph.input.iter().filter(|input| !has_value(&input.name));
    let outputs = graph.output.iter().map(port).collect();
    Ok(Ports { inputs: inputs.map(port).collect(), outputs })
}

fn port(value: &pb::ValueInfoProto) -> Port {
    let tensor = value.r#type.as_ref().and_then(|of| of.value.as_ref()).map(|of| match of {
        type_proto::Value::TensorType(tensor) => tensor,
    });
    let dimensions = tensor.and_then(|tensor| tensor.shape.as_ref()).map(|shape| &shape.dim);
    let axis = |dimension: &pb::tensor_shape_proto::Dimension| match dimension.value {
        Some(dimension::Value::DimValue(length)) => u32::try_from(length).ok(),
        Some(dimension::Value::DimParam(_)) | None => None,
    };
    Port {
        name: value.name.clone(),
        element: tensor.and_then(|tensor| element(tensor.elem_type)),
        shape: dimensions.into_iter().flatten().map(axis).collect(),
    }
}

/// The numbers of `TensorProto.DataType`.
fn element(number: i32) -> Option<ElementType> {
    Some(match DataType::try_from(number).ok()? {
        DataType::Float16 => ElementType::F16,
        DataType::Float => ElementType::F32,
        DataType::Double => ElementType::F64,
        DataType::Bfloat16 => ElementType::Bf16,
        DataType::Uint8 => ElementType::U8,
        DataType::Int32 => ElementType::I32,
        DataType::Int64 => ElementType::I64,
        _ => return None,
    })
}
