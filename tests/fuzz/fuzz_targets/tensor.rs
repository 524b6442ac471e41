//! Any shape, type and data as a tensor: what is made has as many bytes as its
//! shape says, and no more than it may.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringfence::nn::{ElementType, Tensor};

const BYTES_MAX: u64 = 64;

fuzz_target!(|input: (u8, Vec<u32>, Vec<u8>)| {
    let (element, shape, data) = input;
    let element = [
        ElementType::F16,
        ElementType::F32,
        ElementType::F64,
        ElementType::Bf16,
        ElementType::U8,
        ElementType::I32,
        ElementType::I64,
    ][usize::from(element) % 7];
    let length = data.len() as u64;
    // As a guest hands it over.
    let fits = Tensor::shape_within(BYTES_MAX, element, shape.clone(), data.len());
    match fits.and_then(|shape| Tensor::new(element, shape, data)) {
        Ok(tensor) => {
            let elements: u128 = shape.iter().map(|axis| u128::from(*axis)).product();
            assert_eq!(elements * element.bytes() as u128, tensor.read().unwrap().len() as u128);
            assert_eq!((tensor.shape(), tensor.bytes() as u64), (&*shape, length));
            assert!(length <= BYTES_MAX);
        }
        Err(refused) => assert!(refused.to_string().len() < 1024, "a long answer"),
    }
});
