//! Tensors as tract keeps them.

use super::{caught, causes};
use crate::nn::engine::{RunError, reason, shape_of};
use crate::nn::tensor::{ElementType, Elements, Tensor, Unread};
use bytes::Bytes;
use std::alloc::Layout;
use std::panic::catch_unwind;
use tract_gpu::device::get_context;
use tract_gpu::tensor::{DeviceTensor, LazyHostStorage};
use tract_onnx::prelude::*;

/// Bytes of each part of a tensor on a device that is taken apart there: to bring fewer takes no
/// longer than to have each part copied.
const PART_BYTES_MIN: usize = 64 << 10;

/// Elements that a kernel counts, of a copy in one run.
const COPIED_MAX: usize = 1 << 30;

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

/// What of a tensor is on a device, if it is, one row after the other.
fn there(tensor: &Tensor) -> Option<&DeviceTensor> {
    let lazy = tensor.elements::<Value>()?.0.storage_as::<LazyHostStorage>()?;
    let there = lazy.device().filter(|there| (1..=COPIED_MAX).contains(&there.len()))?;
    let strides = tract_onnx::prelude::Tensor::natural_strides(there.shape());
    (there.strides() == strides.as_slice()).then_some(there)
}

/// The same of all of them, where none is elsewhere.
pub(super) fn all_there<'a>(tensors: &[&'a Tensor]) -> Option<Vec<&'a DeviceTensor>> {
    tensors.iter().map(|tensor| there(tensor)).collect()
}

/// The same of one whose parts are worth to be made there.
pub(super) fn large_there<'a>(tensor: &'a Tensor, rows: &[u32]) -> Option<&'a DeviceTensor> {
    let least = *rows.iter().min()? as usize;
    let row_bytes = tensor.bytes() / (*tensor.shape().first()? as usize).max(1);
    there(tensor).filter(|_| least.saturating_mul(row_bytes) >= PART_BYTES_MIN)
}

/// The rows of all, one after the other.
pub(super) fn together(parts: &[&DeviceTensor]) -> TractResult<TValue> {
    let first = parts.first().ok_or_else(|| TractError::msg("there is nothing to put together"))?;
    let rows = parts.iter().filter_map(|part| part.shape().first()).sum();
    let (whole, mut at) = (like(first, rows)?, 0);
    let context = get_context()?;
    for part in parts {
        // They lie in one run, which is copied fastest so.
        let bytes = bytes_of(part);
        context.flat_copy(part, 0, &whole, at, bytes)?;
        at += bytes;
    }
    finished(whole)
}

/// So many rows each.
pub(super) fn apart(whole: &DeviceTensor, rows: &[u32]) -> TractResult<Vec<TValue>> {
    let (context, mut at) = (get_context()?, 0);
    let part = |rows: &u32| {
        let rows = *rows as usize;
        let part = like(whole, rows)?;
        let bytes = bytes_of(&part);
        context.flat_copy(whole, at, &part, 0, bytes)?;
        at += bytes;
        Ok(part)
    };
    let parts: Vec<DeviceTensor> = rows.iter().map(part).collect::<TractResult<_>>()?;
    parts.into_iter().map(finished).collect()
}

fn bytes_of(tensor: &DeviceTensor) -> usize {
    tensor.len() * tensor.datum_type().size_of()
}

/// One with so many rows, of which nothing is written yet.
fn like(tensor: &DeviceTensor, rows: usize) -> TractResult<DeviceTensor> {
    let mut shape: TVec<usize> = tensor.shape().into();
    *shape.first_mut().ok_or_else(|| TractError::msg("it has no rows"))? = rows;
    DeviceTensor::uninitialized_dt(tensor.datum_type(), &shape)
}

/// What stays there. Waits for what writes it, and so for what that reads.
fn finished(tensor: DeviceTensor) -> TractResult<TValue> {
    Ok(LazyHostStorage::new(tensor)?.into_tensor().into_tvalue())
}

#[cfg(test)]
mod tests {
    use super::super::TractOn;
    use super::*;
    use crate::nn::engine::{Engine, OnDevices};
    use crate::sandbox::Account;
    use std::cell::RefCell;
    use std::hash::{Hash, Hasher};
    use std::sync::{Arc, LazyLock, Mutex};
    use tract_gpu::device::{DeviceBuffer, DeviceContext, set_context};
    use tract_gpu::tensor::OwnedDeviceTensor;
    use tract_onnx::tract_core::internal::ExoticFact;

    type Made = tract_onnx::prelude::Tensor;

    /// A device whose memory is this process's.
    #[derive(Debug, Clone)]
    struct There {
        datum: DatumType,
        shape: TVec<usize>,
        strides: TVec<isize>,
        bytes: Arc<Mutex<Vec<u8>>>,
    }

    /// What of it cannot be brought or copied.
    const LOST: i64 = 13;

    /// What it has not.
    const HAD_BYTES_MAX: usize = 16 << 20;

    impl There {
        fn of(datum: DatumType, shape: &[usize], bytes: Vec<u8>) -> Self {
            let strides = Made::natural_strides(shape);
            Self { datum, shape: shape.into(), strides, bytes: Arc::new(Mutex::new(bytes)) }
        }
    }

    impl PartialEq for There {
        fn eq(&self, other: &Self) -> bool {
            Arc::ptr_eq(&self.bytes, &other.bytes)
        }
    }

    impl Eq for There {}

    impl Hash for There {
        fn hash<H: Hasher>(&self, state: &mut H) {
            self.shape.hash(state);
        }
    }

    impl OwnedDeviceTensor for There {
        fn datum_type(&self) -> DatumType {
            self.datum
        }

        fn shape(&self) -> &[usize] {
            &self.shape
        }

        fn strides(&self) -> &[isize] {
            &self.strides
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
            let bytes = self.bytes.lock().unwrap();
            match bytes.starts_with(&LOST.to_le_bytes()) {
                true => Err(TractError::msg("the device has fallen off the bus")),
                false => Ok(Arc::new(copied(self.datum, &self.shape, &bytes)?)),
            }
        }
    }

    /// What is asked of it here: each thread has a queue, of which nothing is done before it
    /// waits.
    #[derive(Clone)]
    struct Context;

    struct Copy {
        from: Arc<Mutex<Vec<u8>>>,
        to: Arc<Mutex<Vec<u8>>>,
        at: (usize, usize),
        bytes: usize,
    }

    thread_local! {
        static QUEUE: RefCell<Vec<Copy>> = const { RefCell::new(Vec::new()) };
    }

    fn bytes_there(tensor: &DeviceTensor) -> Arc<Mutex<Vec<u8>>> {
        let DeviceTensor::Owned(there) = tensor else { panic!("{tensor:?}") };
        there.downcast_ref::<There>().unwrap().bytes.clone()
    }

    impl DeviceContext for Context {
        fn tensor_to_device(&self, _: TValue) -> TractResult<Box<dyn OwnedDeviceTensor>> {
            unimplemented!()
        }

        fn uninitialized_device_tensor(
            &self,
            shape: &[usize],
            datum: DatumType,
        ) -> TractResult<Box<dyn OwnedDeviceTensor>> {
            let bytes = shape.iter().product::<usize>() * datum.size_of();
            assert!(bytes < HAD_BYTES_MAX, "CUDA_ERROR_OUT_OF_MEMORY");
            Ok(Box::new(There::of(datum, shape, vec![0xff; bytes])))
        }

        fn uninitialized_device_exotic_tensor(
            &self,
            _: Box<dyn ExoticFact>,
        ) -> TractResult<Box<dyn OwnedDeviceTensor>> {
            unimplemented!()
        }

        fn synchronize(&self) -> TractResult<()> {
            for Copy { from, to, at, bytes } in QUEUE.take() {
                let from = from.lock().unwrap()[at.0..at.0 + bytes].to_vec();
                to.lock().unwrap()[at.1..at.1 + bytes].copy_from_slice(&from);
            }
            Ok(())
        }

        /// Of one run.
        fn copy_nd(
            &self,
            input: &DeviceTensor,
            input_offset: usize,
            input_strides: &[isize],
            output: &DeviceTensor,
            output_offset: usize,
            output_shape: &[usize],
            output_strides: &[isize],
        ) -> TractResult<()> {
            assert_eq!(
                (input_strides, output_strides, output_shape.len()),
                (&[1][..], &[1][..], 1)
            );
            let (from, to) = (bytes_there(input), bytes_there(output));
            if from.lock().unwrap().starts_with(&LOST.to_le_bytes()) {
                return Err(TractError::msg("DriverError(CUDA_ERROR_ILLEGAL_ADDRESS)"));
            }
            let bytes = output_shape[0] * input.datum_type().size_of();
            let copy = Copy { from, to, at: (input_offset, output_offset), bytes };
            QUEUE.with_borrow_mut(|queue| queue.push(copy));
            Ok(())
        }
    }

    /// A process has one, so that these are not for one that computes on a real one.
    static DEVICE: LazyLock<()> = LazyLock::new(|| set_context(Box::new(Context)).unwrap());

    /// Rows of as many numbers each.
    fn computed_there(shape: &[usize], numbers: &[i64]) -> TValue {
        LazyLock::force(&DEVICE);
        let bytes = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        let there = There::of(DatumType::I64, shape, bytes);
        finished(DeviceTensor::Owned(Box::new(there))).unwrap()
    }

    fn tensor_there(shape: &[usize], numbers: &[i64]) -> Tensor {
        given(computed_there(shape, numbers), "cache").unwrap()
    }

    fn is_brought(tensor: &Tensor) -> bool {
        let value = &tensor.elements::<Value>().unwrap().0;
        value.storage_as::<LazyHostStorage>().unwrap().is_materialized()
    }

    fn numbers(tensor: &Tensor) -> Vec<i64> {
        let bytes = tensor.read().unwrap();
        bytes.as_chunks().0.iter().copied().map(i64::from_le_bytes).collect()
    }

    /// A cache of keys and values goes into the next run as it came out of the one before.
    #[test]
    fn what_was_computed_on_a_device_stays_there_until_somebody_reads_it() {
        let tensor = tensor_there(&[3], &[1, 2, 3]);
        assert_eq!(
            (tensor.element(), tensor.shape(), tensor.bytes()),
            (ElementType::I64, &[3][..], 24)
        );
        let value = taken(tensor).unwrap();
        let lazy = value.storage_as::<LazyHostStorage>().unwrap();
        assert!(lazy.device().is_some() && !lazy.is_materialized());

        let tensor = given(value, "cache").unwrap();
        assert!(!is_brought(&tensor));
        assert_eq!(numbers(&tensor), [1, 2, 3]);
        assert!(is_brought(&tensor));

        let lost = tensor_there(&[1], &[LOST]);
        assert!(lost.read().unwrap_err().0.contains("fallen off the bus"));
    }

    fn engine(memory_bytes: u64) -> TractOn {
        LazyLock::force(&DEVICE);
        let devices = OnDevices { memory: Account::new(memory_bytes), no_kernels: None };
        TractOn::cpu(&devices).unwrap()
    }

    /// Rows of several calls become one, and are theirs again, without being brought.
    #[test]
    fn batches_of_what_is_on_a_device_are_made_there() {
        let engine = engine(1 << 20);
        let (one, two) = (tensor_there(&[1, 2], &[1, 2]), tensor_there(&[2, 2], &[3, 4, 5, 6]));
        let whole = engine.together(&[&one, &two]).unwrap().unwrap();
        assert!(![&one, &two, &whole].into_iter().any(is_brought));
        assert_eq!((whole.shape(), numbers(&whole)), (&[3, 2][..], vec![1, 2, 3, 4, 5, 6]));

        // What is elsewhere has to be read, and of what is small each part is there sooner.
        let here = Tensor::new(ElementType::I64, vec![1, 2], vec![0; 16]).unwrap();
        assert!(engine.together(&[&one, &here]).is_none());
        assert!(engine.apart(&whole, &[1, 2]).is_none());
        let wide = vec![0; PART_BYTES_MIN / 8];
        assert!(engine.apart(&tensor_there(&[2, wide.len() / 2], &wide), &[1, 1]).is_none());

        let row = PART_BYTES_MIN / 8;
        let all: Vec<i64> = (0..).take(row * 3).collect();
        let whole = tensor_there(&[3, row], &all);
        let parts = engine.apart(&whole, &[1, 2]).unwrap().unwrap();
        assert!(!is_brought(&whole) && !parts.iter().any(is_brought));
        let shapes: Vec<_> = parts.iter().map(|part| part.shape().to_vec()).collect();
        assert_eq!(shapes, [[1, row as u32], [2, row as u32]]);
        assert_eq!(parts.iter().flat_map(numbers).collect::<Vec<_>>(), all);
    }

    #[test]
    fn a_batch_that_the_device_has_no_room_for_is_not_made_there() {
        let one = tensor_there(&[2], &[1, 2]);
        let full = engine(31).together(&[&one, &one]).unwrap();
        assert!(matches!(full, Err(RunError::Memory(_))));
        assert!(engine(32).together(&[&one, &one]).unwrap().is_ok());
        // Of what it has, whatever the account says; and the library panics.
        let much = tensor_there(&[1, HAD_BYTES_MAX / 16], &vec![0; HAD_BYTES_MAX / 16]);
        let full = engine(1 << 30).together(&[&much, &much]).unwrap();
        assert!(matches!(full, Err(RunError::Memory(_))));
    }

    #[test]
    fn a_copy_that_fails_is_a_lost_device() {
        let (one, lost) = (tensor_there(&[1], &[1]), tensor_there(&[1], &[LOST]));
        let failed = engine(1 << 20).together(&[&one, &lost]).unwrap();
        assert!(matches!(failed, Err(RunError::DeviceLost(_))));
        assert!(QUEUE.take().is_empty(), "something of it runs on");
    }
}
