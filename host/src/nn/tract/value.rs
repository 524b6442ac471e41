//! Tensors as tract keeps them.

use super::{caught, causes};
use crate::nn::engine::{RunError, reason, shape_of};
use crate::nn::tensor::{ElementType, Elements, Tensor, Unread};
use bytes::Bytes;
use std::alloc::Layout;
use std::panic::catch_unwind;
use tract_onnx::prelude::*;

/// The elements of a tensor in tract's memory, or on a device of its. What tract has made goes
/// back as it is, and is read, or brought here, only if somebody asks.
pub(super) struct Value(TValue);

impl Elements for Value {
    fn bytes(&self) -> usize {
        self.0.len() * self.0.datum_type().size_of()
    }

    fn read(&self) -> Result<Bytes, Unread> {
        let brought = caught(|| self.0.try_as_plain_ram().map(drop));
        brought.map_err(|error| Unread(causes(&error)))?;
        Ok(Bytes::from_owner(Shared(self.0.clone())))
    }
}

/// One that has been brought here.
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
    // It may be on a device still.
    let element = element(value.datum_type()).filter(|_| value.is_plain());
    let element = element.ok_or_else(unknown)?;
    let shape = shape_of(value.shape(), name)?;
    Ok(Tensor::of(element, shape, Box::new(Value(value)))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tract_gpu::device::{DeviceBuffer, DeviceContext, set_context};
    use tract_gpu::tensor::{DeviceTensor, LazyHostStorage, OwnedDeviceTensor};
    use tract_onnx::tract_core::internal::ExoticFact;

    type Made = tract_onnx::prelude::Tensor;

    /// A device whose memory is this process's, and what has been brought from it.
    #[derive(Debug, Clone, Hash, PartialEq, Eq)]
    struct There(Arc<Made>);

    static BROUGHT: AtomicUsize = AtomicUsize::new(0);

    /// What of it cannot be brought.
    const LOST: i64 = 13;

    impl OwnedDeviceTensor for There {
        fn datum_type(&self) -> DatumType {
            self.0.datum_type()
        }

        fn shape(&self) -> &[usize] {
            self.0.shape()
        }

        fn strides(&self) -> &[isize] {
            self.0.strides()
        }

        fn reshaped(&self, _: TVec<usize>) -> TractResult<DeviceTensor> {
            unimplemented!()
        }

        fn restrided(&self, _: TVec<isize>) -> TractResult<DeviceTensor> {
            unimplemented!()
        }

        fn exotic_fact(&self) -> Option<&dyn ExoticFact> {
            None
        }

        fn get_bytes_slice(&self, _: usize, _: usize) -> Vec<u8> {
            unimplemented!()
        }

        fn device_buffer(&self) -> &dyn DeviceBuffer {
            unimplemented!()
        }

        fn to_host(&self) -> TractResult<Arc<Made>> {
            BROUGHT.fetch_add(1, Ordering::Relaxed);
            match self.0.as_bytes().starts_with(&LOST.to_le_bytes()) {
                true => Err(TractError::msg("the device has fallen off the bus")),
                false => Ok(self.0.clone()),
            }
        }
    }

    /// All that is asked of it here is whether it is done.
    #[derive(Clone)]
    struct Done;

    impl DeviceContext for Done {
        fn tensor_to_device(&self, _: TValue) -> TractResult<Box<dyn OwnedDeviceTensor>> {
            unimplemented!()
        }

        fn uninitialized_device_tensor(
            &self,
            _: &[usize],
            _: DatumType,
        ) -> TractResult<Box<dyn OwnedDeviceTensor>> {
            unimplemented!()
        }

        fn uninitialized_device_exotic_tensor(
            &self,
            _: Box<dyn ExoticFact>,
        ) -> TractResult<Box<dyn OwnedDeviceTensor>> {
            unimplemented!()
        }

        fn synchronize(&self) -> TractResult<()> {
            Ok(())
        }

        fn copy_nd(
            &self,
            _: &DeviceTensor,
            _: usize,
            _: &[isize],
            _: &DeviceTensor,
            _: usize,
            _: &[usize],
            _: &[isize],
        ) -> TractResult<()> {
            unimplemented!()
        }
    }

    fn computed_there(numbers: &[i64]) -> TValue {
        let made = Made::from_shape(&[numbers.len()], numbers).unwrap();
        let there = DeviceTensor::Owned(Box::new(There(Arc::new(made))));
        LazyHostStorage::new(there).unwrap().into_tensor().into_tvalue()
    }

    /// A cache of keys and values goes into the next run as it came out of the one before.
    #[test]
    fn what_was_computed_on_a_device_stays_there_until_somebody_reads_it() {
        set_context(Box::new(Done)).unwrap();
        let before = BROUGHT.load(Ordering::Relaxed);
        let tensor = given(computed_there(&[1, 2, 3]), "cache").unwrap();
        assert_eq!(
            (tensor.element(), tensor.shape(), tensor.bytes()),
            (ElementType::I64, &[3][..], 24)
        );
        let value = taken(tensor).unwrap();
        let lazy = value.storage_as::<LazyHostStorage>().unwrap();
        assert!(lazy.device().is_some() && !lazy.is_materialized());
        assert_eq!(BROUGHT.load(Ordering::Relaxed), before);

        let tensor = given(value, "cache").unwrap();
        let bytes = tensor.read().unwrap();
        assert_eq!(bytes, [1_i64, 2, 3].map(i64::to_le_bytes).concat());
        assert_eq!(BROUGHT.load(Ordering::Relaxed), before + 1);

        let lost = given(computed_there(&[LOST]), "cache").unwrap();
        assert!(lost.read().unwrap_err().0.contains("fallen off the bus"));
    }
}
