//! Tensors as tract keeps them.

use crate::nn::engine::{RunError, reason, shape_of};
use crate::nn::tensor::{ElementType, Elements, Tensor, Unread};
use bytes::Bytes;
use std::alloc::Layout;
use std::panic::catch_unwind;
use tract_onnx::prelude::*;

/// The elements of a tensor in tract's memory. What tract has made goes back as it is, and
/// is read only if somebody asks.
pub(super) struct Value(TValue);

impl Elements for Value {
    fn bytes(&self) -> usize {
        self.0.as_bytes().len()
    }

    fn read(&self) -> Result<Bytes, Unread> {
        Ok(Bytes::from_owner(Shared(self.0.clone())))
    }
}

struct Shared(TValue);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

pub(super) fn element(datum: DatumType) -> Option<ElementType> {
    Some(match datum {
        DatumType::F16 => ElementType::F16,
        DatumType::F32 => ElementType::F32,
        DatumType::F64 => ElementType::F64,
        DatumType::U8 => ElementType::U8,
        DatumType::I32 => ElementType::I32,
        DatumType::I64 => ElementType::I64,
        _ => return None,
    })
}

fn datum(element: ElementType) -> Option<DatumType> {
    Some(match element {
        ElementType::F16 => DatumType::F16,
        ElementType::F32 => DatumType::F32,
        ElementType::F64 => DatumType::F64,
        ElementType::U8 => DatumType::U8,
        ElementType::I32 => DatumType::I32,
        ElementType::I64 => DatumType::I64,
        ElementType::Bf16 => return None,
    })
}

/// Elements of which tract makes a copy; nothing where it has no such type.
pub(super) fn of(element: ElementType, shape: &[u32], data: &[u8]) -> Option<Value> {
    let shape: TVec<usize> = shape.iter().map(|axis| *axis as usize).collect();
    let datum = datum(element)?;
    // It panics where there is no memory, which is the end of a process as anywhere else.
    let copied = catch_unwind(|| copied(datum, &shape, data)).unwrap_or_else(|_| {
        let layout = Layout::for_value(data);
        std::alloc::handle_alloc_error(layout)
    });
    Some(Value(copied.ok()?.into_tvalue()))
}

#[allow(
    unsafe_code,
    reason = "JUSTIFICATION: what is safe fills the memory with zeros first, and every byte \
              that a guest hands over takes this way"
)]
fn copied(
    datum: DatumType,
    shape: &[usize],
    data: &[u8],
) -> TractResult<tract_onnx::prelude::Tensor> {
    // SAFETY: it checks the number of bytes itself, and each type of `datum` is plain
    // numbers, of which any bytes are some.
    unsafe { tract_onnx::prelude::Tensor::from_raw_dt(datum, shape, data) }
}

/// A tensor as tract takes it: what it has made itself, or a copy.
pub(super) fn taken(tensor: Tensor) -> TractResult<TValue> {
    let (element, shape) = (tensor.element(), tensor.shape().to_vec());
    match tensor.into_elements::<Value>() {
        Ok(value) => Ok(value.0),
        Err(data) => of(element, &shape, &data.map_err(RunError::from)?)
            .map(|value| value.0)
            .ok_or_else(|| TractError::msg("tract has no bfloat16 tensors")),
    }
}

/// What a graph has made.
pub(super) fn given(value: TValue, name: &str) -> Result<Tensor, RunError> {
    let datum = value.datum_type();
    let unknown = || RunError::OutputType { name: name.to_owned(), element: format!("{datum:?}") };
    let failed = |error: TractError| RunError::Engine(reason(&error));
    let value = match datum {
        // Shapes that the graph computes are symbolic numbers inside tract.
        DatumType::TDim => {
            value.cast_to_dt(DatumType::I64).map_err(failed)?.into_owned().into_tvalue()
        }
        _ => value,
    };
    let element = element(value.datum_type()).filter(|_| value.is_plain_ram());
    let element = element.ok_or_else(unknown)?;
    let shape = shape_of(value.shape(), name)?;
    Ok(Tensor::of(element, shape, Box::new(Value(value)))?)
}
