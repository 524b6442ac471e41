//! Any bytes as an ONNX file: the scan reads them or refuses them in words, with
//! little memory.

#![no_main]

use libfuzzer_sys::fuzz_target;
use peak_alloc::PeakAlloc;
use ringfence::nn::{Engine, Tract, onnx};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// What the scan may take, whatever the file; a file of libFuzzer's is short.
const MEMORY_BYTES_MAX: usize = 16 << 20;
/// A name is in it, and a location.
const ANSWER_BYTES_MAX: usize = 32 << 10;

fuzz_target!(|bytes: &[u8]| {
    // Tables of the engine are made once, and are not the scan's.
    let has = |domain: &str, operator: &str| Tract.has(domain, operator);
    has("", "Add");
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    let scanned = onnx::scan(bytes, &has);
    let used = ALLOCATOR.peak_usage().saturating_sub(before);
    assert!(used <= MEMORY_BYTES_MAX, "{used} bytes were used");
    match &scanned {
        Ok(found) => {
            for external in &found.external {
                let parts: Vec<&str> = external.location.split('/').collect();
                assert!(!parts.iter().any(|part| ["", ".", ".."].contains(part)), "{external:?}");
            }
        }
        Err(refused) => assert!(refused.to_string().len() <= ANSWER_BYTES_MAX, "a long answer"),
    }
    assert_eq!(scanned, onnx::scan(bytes, &has));
});
