//! Tensors as ONNX Runtime keeps them.

use crate::nn::engine::{RunError, reason, shape_of};
use crate::nn::tensor::{ElementType, Elements, Tensor, Unread};
use bytes::Bytes;
use half::{bf16, f16};
use ort::memory::AllocationDevice;
use ort::value::{DynTensor, DynTensorValueType, DynValue, TensorElementType, ValueType};
use std::ops::Range;
use std::sync::Arc;

/// The elements of a tensor in its memory.
pub(super) struct Value(Arc<DynTensor>);

impl Elements for Value {
    fn bytes(&self) -> usize {
        size_of(&self.0)
    }

    fn read(&self) -> Result<Bytes, Unread> {
        if self.0.memory_info().is_cpu_accessible() {
            return Ok(Bytes::from_owner(Shared(self.0.clone())));
        }
        let here = self.0.to(AllocationDevice::CPU, 0).map_err(|error| Unread(reason(&error)))?;
        Ok(Bytes::from_owner(Shared(Arc::new(here))))
    }
}

/// The bytes of a tensor's elements, wherever they are.
fn size_of(tensor: &DynTensor) -> usize {
    tensor.data_type().byte_size(tensor.shape().num_elements()).unwrap_or(0)
}

/// Where they are, as numbers.
fn range_of(tensor: &DynTensor) -> Range<usize> {
    let begin = tensor.data_ptr().addr();
    begin..begin.saturating_add(size_of(tensor))
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

/// A tensor as a run takes it: what it has made itself, which is only read, or a copy.
pub(super) fn taken(tensor: Tensor) -> Result<Arc<DynTensor>, RunError> {
    let (element, shape) = (tensor.element(), tensor.shape().to_vec());
    match tensor.into_elements::<Value>() {
        Ok(value) => Ok(value.0),
        Err(data) => {
            let copied = copied(element, &shape, &data?);
            Ok(Arc::new(copied.map_err(|error| RunError::Engine(reason(&error)))?))
        }
    }
}

/// What a graph has made of these inputs. A graph may give one of them as it is: that is
/// the input's memory, which goes with it.
pub(super) fn given(
    value: DynValue,
    name: &str,
    inputs: &[Arc<DynTensor>],
) -> Result<Tensor, RunError> {
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
    let begin = range_of(&tensor).start;
    if inputs.iter().any(|input| range_of(input).contains(&begin)) {
        let there = tensor.memory_info();
        tensor = match there.is_cpu_accessible() {
            true => copied(element, &shape, bytes_of(&tensor)).map_err(failed)?,
            false => {
                let device = there.allocation_device();
                tensor.to(device, there.device_id()).map_err(failed)?
            }
        };
    }
    Ok(Tensor::of(element, shape, Box::new(Value(Arc::new(tensor))))?)
}
