//! Any bytes as `1/model.wasm`: admitted or refused in words, before anything is
//! compiled.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringfence::package::admission::{AdmissionError, admit};

const MEMORY_BYTES_MAX: u64 = 1 << 20;

fuzz_target!(|bytes: &[u8]| {
    let admitted = admit(bytes, MEMORY_BYTES_MAX);
    if let Err(refused) = &admitted {
        assert!(!refused.to_string().is_empty());
    }
    if let Err(AdmissionError::Memory { bytes, bytes_max }) = &admitted {
        assert!(bytes > bytes_max);
    }
    // What may start with more memory is refused for nothing else.
    if admitted.is_ok() {
        assert_eq!(admit(bytes, u64::MAX), Ok(()));
    }
});
