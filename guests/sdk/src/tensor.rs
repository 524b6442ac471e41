//! Dense arrays for graphs.

use std::fmt;

use crate::error::Error;

pub use crate::raw::wasi::nn::tensor::TensorType;

/// A dense array: a type, a shape, and elements in row-major order,
/// little-endian and without padding. It lives in the model's memory, so it
/// can be kept. One whose bytes do not match its type and shape cannot be made.
#[derive(Clone, PartialEq)]
pub struct Tensor {
    ty: TensorType,
    shape: Vec<u32>,
    bytes: Vec<u8>,
}

impl TensorType {
    /// The size of one element in bytes.
    pub fn element_bytes(self) -> usize {
        match self {
            TensorType::U8 => 1,
            TensorType::Fp16 | TensorType::Bf16 => 2,
            TensorType::Fp32 | TensorType::I32 => 4,
            TensorType::Fp64 | TensorType::I64 => 8,
        }
    }

    /// The type's name in the wasi-nn standard, in lower case.
    pub fn name(self) -> &'static str {
        match self {
            TensorType::Fp16 => "fp16",
            TensorType::Fp32 => "fp32",
            TensorType::Fp64 => "fp64",
            TensorType::Bf16 => "bf16",
            TensorType::U8 => "u8",
            TensorType::I32 => "i32",
            TensorType::I64 => "i64",
        }
    }
}

macro_rules! typed {
    ($($make:ident, $read:ident, $element:ty, $ty:ident, $what:literal;)*) => {$(
        #[doc = concat!("A tensor of ", $what, ".")]
        ///
        /// `shape` gives the length of each axis, outermost first; their
        /// product must be the number of elements, else the error names both.
        /// No axes means a scalar: one element.
        pub fn $make(shape: &[usize], elements: &[$element]) -> Result<Self, Error> {
            Self::checked(
                TensorType::$ty,
                shape,
                elements.len(),
                elements.iter().flat_map(|element| element.to_le_bytes()).collect(),
            )
        }

        #[doc = concat!("The elements as ", $what, ", in row-major order.")]
        ///
        /// An error names the type that the tensor has instead.
        pub fn $read(&self) -> Result<Vec<$element>, Error> {
            let bytes = self.of_type(TensorType::$ty)?;
            let (elements, _) = bytes.as_chunks();
            Ok(elements.iter().copied().map(<$element>::from_le_bytes).collect())
        }
    )*};
}

impl Tensor {
    typed! {
        f32, to_f32, f32, Fp32, "single-precision floats";
        f64, to_f64, f64, Fp64, "double-precision floats";
        u8, to_u8, u8, U8, "bytes";
        i32, to_i32, i32, I32, "32-bit integers";
        i64, to_i64, i64, I64, "64-bit integers";
        f16_bits, to_f16_bits, u16, Fp16, "the bits of half-precision floats";
        bf16_bits, to_bf16_bits, u16, Bf16, "the bits of bfloat16 numbers";
    }

    #[cfg(feature = "half")]
    typed! {
        f16, to_f16, half::f16, Fp16, "half-precision floats";
        bf16, to_bf16, half::bf16, Bf16, "bfloat16 numbers";
    }

    /// A tensor of any type from its bytes: little-endian, row-major, without
    /// padding. Their number must be the product of the shape times
    /// [`TensorType::element_bytes`].
    pub fn from_bytes(ty: TensorType, shape: &[usize], bytes: Vec<u8>) -> Result<Self, Error> {
        let expected = elements_of(shape)
            .and_then(|elements| elements.checked_mul(ty.element_bytes()))
            .ok_or_else(|| too_large(ty, shape))?;
        if bytes.len() != expected {
            return Err(Error::failed(format!(
                "a tensor of type {} and shape {shape:?} has {expected} bytes, got {}",
                ty.name(),
                bytes.len()
            )));
        }
        Ok(Self { ty, shape: axes(shape).ok_or_else(|| too_large(ty, shape))?, bytes })
    }

    /// The element type.
    pub fn ty(&self) -> TensorType {
        self.ty
    }

    /// The length of each axis, outermost first.
    pub fn shape(&self) -> Vec<usize> {
        self.shape.iter().map(|&length| length as usize).collect()
    }

    /// The number of elements.
    pub fn elements(&self) -> usize {
        self.bytes.len() / self.ty.element_bytes()
    }

    /// The elements as bytes: row-major, little-endian.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The same elements under another shape of as many elements.
    pub fn reshaped(self, shape: &[usize]) -> Result<Self, Error> {
        Self::from_bytes(self.ty, shape, self.bytes)
    }

    fn checked(
        ty: TensorType,
        shape: &[usize],
        given: usize,
        bytes: Vec<u8>,
    ) -> Result<Self, Error> {
        let expected = elements_of(shape).ok_or_else(|| too_large(ty, shape))?;
        if given != expected {
            return Err(Error::failed(format!(
                "a tensor of shape {shape:?} has {expected} elements, got {given}"
            )));
        }
        Self::from_bytes(ty, shape, bytes)
    }

    fn of_type(&self, expected: TensorType) -> Result<&[u8], Error> {
        if self.ty == expected {
            Ok(&self.bytes)
        } else {
            Err(Error::failed(format!(
                "expected a tensor of type {}, got {} of shape {:?}",
                expected.name(),
                self.ty.name(),
                self.shape
            )))
        }
    }

    #[cfg_attr(not(target_family = "wasm"), expect(dead_code, reason = "only a host takes axes"))]
    pub(crate) fn axes(&self) -> &[u32] {
        &self.shape
    }
}

impl fmt::Debug for Tensor {
    /// Type and shape; never the elements, which belong to the caller.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor({} {:?})", self.ty.name(), self.shape)
    }
}

fn elements_of(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1_usize, |product, &length| product.checked_mul(length))
}

/// The world counts lengths in 32 bits.
fn axes(shape: &[usize]) -> Option<Vec<u32>> {
    shape.iter().map(|&length| u32::try_from(length).ok()).collect()
}

fn too_large(ty: TensorType, shape: &[usize]) -> Error {
    Error::failed(format!("a tensor of type {} and shape {shape:?} is too large", ty.name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_come_back_as_they_went_in() {
        let tensor = Tensor::f32(&[2, 3], &[1.0, -2.0, 3.5, 0.0, f32::MIN, f32::MAX]).unwrap();
        assert_eq!(tensor.shape(), [2, 3]);
        assert_eq!(tensor.elements(), 6);
        assert_eq!(tensor.to_f32().unwrap(), [1.0, -2.0, 3.5, 0.0, f32::MIN, f32::MAX]);
        let integers = [i64::MIN, 0, i64::MAX];
        let tensor = Tensor::i64(&[3], &integers).unwrap();
        assert_eq!(tensor.to_i64().unwrap(), integers);
        assert_eq!(Tensor::u8(&[1, 2], &[7, 8]).unwrap().to_u8().unwrap(), [7, 8]);
        assert_eq!(Tensor::bf16_bits(&[1], &[0x3f80]).unwrap().as_bytes(), [0x80, 0x3f]);
    }

    #[test]
    fn a_scalar_has_one_element_and_an_empty_axis_none() {
        assert_eq!(Tensor::f64(&[], &[1.0]).unwrap().elements(), 1);
        assert!(Tensor::f64(&[], &[]).is_err());
        assert_eq!(Tensor::i32(&[4, 0], &[]).unwrap().elements(), 0);
    }

    #[test]
    fn a_wrong_number_of_elements_is_named() {
        let error = Tensor::f32(&[1, 64], &[0.0; 63]).unwrap_err();
        assert_eq!(error.message(), "a tensor of shape [1, 64] has 64 elements, got 63");
    }

    #[test]
    fn a_wrong_number_of_bytes_is_named() {
        let error = Tensor::from_bytes(TensorType::Fp32, &[1], vec![0; 3]).unwrap_err();
        assert_eq!(error.message(), "a tensor of type fp32 and shape [1] has 4 bytes, got 3");
    }

    #[test]
    fn a_shape_whose_product_overflows_is_an_error() {
        let error = Tensor::f32(&[usize::MAX, 2], &[]).unwrap_err();
        assert!(error.message().ends_with("is too large"));
        assert!(Tensor::from_bytes(TensorType::I64, &[usize::MAX / 4], Vec::new()).is_err());
        assert!(Tensor::f32(&[usize::MAX, 0], &[]).is_err() == (usize::BITS > 32));
    }

    #[test]
    fn reading_another_type_is_an_error() {
        let error = Tensor::u8(&[2], &[1, 2]).unwrap().to_f32().unwrap_err();
        assert_eq!(error.message(), "expected a tensor of type fp32, got u8 of shape [2]");
    }

    #[test]
    fn debug_shows_no_elements() {
        let tensor = Tensor::u8(&[2], &[77, 78]).unwrap();
        assert_eq!(format!("{tensor:?}"), "Tensor(u8 [2])");
    }

    #[test]
    fn a_reshape_keeps_the_number_of_elements() {
        let tensor = Tensor::u8(&[2, 2], &[1, 2, 3, 4]).unwrap();
        assert_eq!(tensor.clone().reshaped(&[4]).unwrap().shape(), [4]);
        assert!(tensor.reshaped(&[3]).is_err());
    }

    #[cfg(feature = "half")]
    #[test]
    fn half_precision_comes_back_as_it_went_in() {
        let elements = [half::f16::from_f32(1.5)];
        let tensor = Tensor::f16(&[1], &elements).unwrap();
        assert_eq!(tensor.to_f16().unwrap(), elements);
        assert_eq!(tensor.to_f16_bits().unwrap(), [0x3e00]);
    }
}
