//! Tensors that cannot be wrong: shape × type always equals the bytes.
//!
//! Owns what is known of a tensor without its elements. These are where an engine
//! keeps them, and nobody copies them but to hand them over to a guest.

use crate::limits::limit;
use bytes::Bytes;
use std::any::Any;
use std::fmt;

/// Axes of a tensor.
const AXES_MAX: usize = 16;

/// Element types that wasi-nn knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ElementType {
    /// IEEE 754 half precision.
    F16,
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 double precision.
    F64,
    /// Brain floating point.
    Bf16,
    /// Unsigned byte.
    U8,
    /// Signed 32-bit integer.
    I32,
    /// Signed 64-bit integer.
    I64,
}

impl ElementType {
    /// Bytes of one element.
    pub fn bytes(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::F16 | Self::Bf16 => 2,
            Self::F32 | Self::I32 => 4,
            Self::F64 | Self::I64 => 8,
        }
    }

    /// NumPy's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::F16 => "float16",
            Self::F32 => "float32",
            Self::F64 => "float64",
            Self::Bf16 => "bfloat16",
            Self::U8 => "uint8",
            Self::I32 => "int32",
            Self::I64 => "int64",
        }
    }
}

/// The elements of a tensor, where the engine that has made them, or that they are for,
/// keeps them: row-major, little-endian, without padding.
pub trait Elements: Any + Send + Sync {
    /// How many bytes they have.
    fn bytes(&self) -> usize;

    /// The bytes. They are not copied where they are in the memory of this process.
    fn read(&self) -> Result<Bytes, Unread>;
}

/// The device that has elements does not give them; why, as the engine says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the accelerator does not give a tensor's elements: {0}")]
pub struct Unread(pub String);

/// Bytes of no engine.
impl Elements for Bytes {
    fn bytes(&self) -> usize {
        self.len()
    }

    fn read(&self) -> Result<Bytes, Unread> {
        Ok(self.clone())
    }
}

/// A dense array.
pub struct Tensor {
    element: ElementType,
    shape: Vec<u32>,
    elements: Box<dyn Elements>,
}

/// The bytes do not fit the shape and the type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TensorError {
    /// Another number of bytes than the shape asks for.
    #[error(
        "a {} tensor of shape {shape:?} takes {expected} bytes, but its data has {actual}",
        element.as_str()
    )]
    Length {
        /// Its element type.
        element: ElementType,
        /// Its shape.
        shape: Vec<u32>,
        /// Bytes that shape and type ask for.
        expected: usize,
        /// Bytes there are.
        actual: usize,
    },
    /// More axes than any tensor has.
    #[error("the tensor has {axes} axes; at most {AXES_MAX} are taken")]
    TooManyAxes {
        /// Their number.
        axes: usize,
    },
    /// More bytes than a guest may hand over at once.
    #[error("the tensor has {bytes} bytes; at most {bytes_max} are taken, so split it")]
    OverLimit {
        /// Its bytes.
        bytes: usize,
        /// The limit.
        bytes_max: u64,
    },
    /// The shape is larger than any memory.
    #[error("a {} tensor of shape {shape:?} is larger than any memory", element.as_str())]
    TooLarge {
        /// Its element type.
        element: ElementType,
        /// Its shape.
        shape: Vec<u32>,
    },
}

impl Tensor {
    /// Checks that shape × type equals the bytes. No axes means a scalar.
    pub fn new(
        element: ElementType,
        shape: Vec<u32>,
        data: impl Into<Bytes>,
    ) -> Result<Self, TensorError> {
        Self::of(element, shape, Box::new(data.into()))
    }

    /// The same of elements that an engine has.
    pub fn of(
        element: ElementType,
        shape: Vec<u32>,
        elements: Box<dyn Elements>,
    ) -> Result<Self, TensorError> {
        let shape = fits(element, shape, elements.bytes())?;
        Ok(Self { element, shape, elements })
    }

    /// The shape, if it fits so many bytes that a guest hands over.
    pub fn shape_within(
        bytes_max: u64,
        element: ElementType,
        shape: Vec<u32>,
        bytes: usize,
    ) -> Result<Vec<u32>, TensorError> {
        match bytes as u64 > limit("tensor_bytes", bytes_max) {
            true => Err(TensorError::OverLimit { bytes, bytes_max }),
            false => fits(element, shape, bytes),
        }
    }

    /// Its element type.
    pub fn element(&self) -> ElementType {
        self.element
    }

    /// Length of each axis, outermost first.
    pub fn shape(&self) -> &[u32] {
        &self.shape
    }

    /// Bytes of its elements.
    pub fn bytes(&self) -> usize {
        self.elements.bytes()
    }

    /// The elements: row-major, little-endian.
    pub fn read(&self) -> Result<Bytes, Unread> {
        self.elements.read()
    }

    /// Type, shape and elements.
    pub fn into_parts(self) -> (ElementType, Vec<u32>, Box<dyn Elements>) {
        (self.element, self.shape, self.elements)
    }

    /// The elements as an engine keeps them, if they are its own.
    pub fn elements<T: Elements>(&self) -> Option<&T> {
        (&*self.elements as &dyn Any).downcast_ref()
    }

    /// The same, or else their bytes.
    pub fn into_elements<T: Elements>(self) -> Result<T, Result<Bytes, Unread>> {
        if !(&*self.elements as &dyn Any).is::<T>() {
            return Err(self.elements.read());
        }
        let elements: Box<dyn Any> = self.elements;
        // They are, as was seen.
        elements.downcast().map(|elements| *elements).map_err(|_| Ok(Bytes::new()))
    }
}

/// The shape, if it and the type ask for so many bytes.
fn fits(element: ElementType, shape: Vec<u32>, actual: usize) -> Result<Vec<u32>, TensorError> {
    if shape.len() > limit("tensor_axes", AXES_MAX) {
        return Err(TensorError::TooManyAxes { axes: shape.len() });
    }
    let expected =
        shape.iter().try_fold(element.bytes(), |bytes, axis| bytes.checked_mul(*axis as usize));
    match expected {
        Some(expected) if expected == actual => Ok(shape),
        Some(expected) => Err(TensorError::Length { element, shape, expected, actual }),
        None => Err(TensorError::TooLarge { element, shape }),
    }
}

impl PartialEq for Tensor {
    /// The same numbers, wherever they are.
    fn eq(&self, other: &Self) -> bool {
        let of = |tensor: &Self| (tensor.element, tensor.read());
        self.shape == other.shape && of(self) == of(other)
    }
}

impl fmt::Debug for Tensor {
    /// Type and shape only: the elements are the caller's.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:?}", self.element.as_str(), self.shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tensor_whose_bytes_do_not_fit_its_shape_cannot_be_made() {
        assert!(Tensor::new(ElementType::F32, vec![2, 2], vec![0; 16]).is_ok());
        assert!(Tensor::new(ElementType::F32, vec![], vec![0; 4]).is_ok());
        assert!(Tensor::new(ElementType::F32, vec![0, 7], vec![]).is_ok());
        let three_bytes = Tensor::new(ElementType::F32, vec![1], vec![0; 3]).unwrap_err();
        assert_eq!(
            three_bytes.to_string(),
            "a float32 tensor of shape [1] takes 4 bytes, but its data has 3"
        );
    }

    #[test]
    fn a_shape_of_many_axes_is_not_kept() {
        let refused = Tensor::new(ElementType::U8, vec![1; 17], vec![0]).unwrap_err();
        assert_eq!(refused, TensorError::TooManyAxes { axes: 17 });
        assert!(Tensor::new(ElementType::U8, vec![1; 16], vec![0]).is_ok());
    }

    #[test]
    fn a_tensor_over_its_limit_is_refused() {
        let tensor = |bytes: usize| {
            let shape = vec![u32::try_from(bytes).unwrap()];
            Tensor::shape_within(4, ElementType::U8, shape, bytes)
        };
        assert!(tensor(4).is_ok());
        assert_eq!(tensor(5).unwrap_err(), TensorError::OverLimit { bytes: 5, bytes_max: 4 });
    }

    #[test]
    fn a_shape_that_overflows_is_refused() {
        let shape = vec![u32::MAX; 4];
        assert!(matches!(
            Tensor::new(ElementType::I64, shape, vec![]),
            Err(TensorError::TooLarge { .. })
        ));
    }
}
