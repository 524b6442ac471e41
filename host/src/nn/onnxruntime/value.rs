//! Tensors as ONNX Runtime keeps them.

use crate::nn::engine::{RunError, reason, shape_of};
use crate::nn::tensor::{ElementType, Elements, Tensor};
use bytes::Bytes;
use half::{bf16, f16};
use ort::value::{DynTensor, DynTensorValueType, DynValue, TensorElementType, ValueType};
use std::sync::Arc;

/// The elements of a tensor in its memory.
pub(super) struct Value(Arc<DynTensor>);

impl Elements for Value {
    fn bytes(&self) -> usize {
        bytes_of(&self.0).len()
    }

    fn read(&self) -> Bytes {
        Bytes::from_owner(Shared(self.0.clone()))
    }
}

struct Shared(Arc<DynTensor>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        bytes_of(&self.0)
    }
}

#[allow(
    unsafe_code,
    reason = "JUSTIFICATION: the library gives what a tensor holds as a pointer and a number of \
              elements, or as a slice of each type of its own"
)]
fn bytes_of(tensor: &DynTensor) -> &[u8] {
    let elements = tensor.shape().num_elements();
    let Some(bytes) = tensor.data_type().byte_size(elements).filter(|bytes| *bytes > 0) else {
        return &[];
    };
    if !tensor.memory_info().is_cpu_accessible() {
        return &[];
    }
    let data = tensor.data_ptr().cast::<u8>();
    // SAFETY: the tensor has as many elements as its shape says, of a type of plain numbers
    // (whatever comes here has one of `ElementType`), in memory of the CPU; nobody writes to
    // it while it is borrowed: a run only reads its inputs, and what it gives is its own, or
    // is copied before they go (`given`).
    unsafe { std::slice::from_raw_parts(data, bytes) }
}

pub(super) fn element(ty: TensorElementType) -> Option<ElementType> {
    Some(match ty {
        TensorElementType::Float16 => ElementType::F16,
        TensorElementType::Float32 => ElementType::F32,
        TensorElementType::Float64 => ElementType::F64,
        TensorElementType::Bfloat16 => ElementType::Bf16,
        TensorElementType::Uint8 => ElementType::U8,
        TensorElementType::Int32 => ElementType::I32,
        TensorElementType::Int64 => ElementType::I64,
        _ => return None,
    })
}

/// Elements of which it has a copy of its own.
pub(super) fn of(element: ElementType, shape: &[u32], data: &[u8]) -> ort::Result<Value> {
    Ok(Value(Arc::new(copied(element, shape, data)?)))
}

fn copied(element: ElementType, shape: &[u32], data: &[u8]) -> ort::Result<DynTensor> {
    let shape: Vec<i64> = shape.iter().map(|axis| i64::from(*axis)).collect();
    macro_rules! copied {
        ($type:ty) => {{
            let (elements, _) = data.as_chunks();
            let elements: Vec<$type> =
                elements.iter().copied().map(<$type>::from_le_bytes).collect();
            ort::value::Tensor::from_array((shape, elements))?.upcast()
        }};
    }
    Ok(match element {
        ElementType::F16 => copied!(f16),
        ElementType::F32 => copied!(f32),
        ElementType::F64 => copied!(f64),
        ElementType::Bf16 => copied!(bf16),
        ElementType::U8 => copied!(u8),
        ElementType::I32 => copied!(i32),
        ElementType::I64 => copied!(i64),
    })
}

/// A tensor as a run takes it: what it has made itself, or a copy.
pub(super) fn taken(tensor: Tensor) -> ort::Result<DynTensor> {
    let (element, shape) = (tensor.element(), tensor.shape().to_vec());
    match tensor.into_elements::<Value>() {
        // A guest may still read it.
        Ok(value) => {
            Arc::try_unwrap(value.0).or_else(|shared| copied(element, &shape, bytes_of(&shared)))
        }
        Err(data) => copied(element, &shape, &data),
    }
}

/// What a graph has made of these inputs. A graph may give one of them as it is: that is
/// the input's memory, which goes with it.
pub(super) fn given(value: DynValue, name: &str, inputs: &[DynTensor]) -> Result<Tensor, RunError> {
    let element = match value.dtype() {
        ValueType::Tensor { ty, .. } => element(*ty),
        ValueType::Sequence(_) | ValueType::Map { .. } | ValueType::Optional(_) => None,
    };
    let Some(element) = element else {
        let told = format!("{:?}", value.dtype());
        return Err(RunError::OutputType { name: name.to_owned(), element: told });
    };
    let failed = |error: ort::Error| RunError::Engine(reason(&error));
    let mut tensor = value.downcast::<DynTensorValueType>().map_err(failed)?;
    let shape = shape_of(tensor.shape(), name)?;
    let begin = bytes_of(&tensor).as_ptr();
    if inputs.iter().any(|input| bytes_of(input).as_ptr_range().contains(&begin)) {
        tensor = copied(element, &shape, bytes_of(&tensor)).map_err(failed)?;
    }
    Ok(Tensor::of(element, shape, Box::new(Value(Arc::new(tensor))))?)
}
