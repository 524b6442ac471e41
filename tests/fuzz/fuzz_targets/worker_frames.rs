//! Any bytes as what a worker process says to its host: whatever it is, each caller has
//! one answer, and nothing is left. The same bytes as what a host says: read, or refused.

#![no_main]

use libfuzzer_sys::fuzz_target;
use peak_alloc::PeakAlloc;
use ringfence::worker::{hear_anything, heed_anything};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// The version may hold 1 MiB. A body may become four times of what its head declares, and
/// a list that grows has three times what is in it.
const MEMORY_BYTES_MAX: usize = 32 << 20;

fuzz_target!(|bytes: &[u8]| {
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    let heard = hear_anything(bytes).unwrap();
    let used = ALLOCATOR.peak_usage().saturating_sub(before);
    assert!(used <= MEMORY_BYTES_MAX, "{used} bytes were used");
    assert!(heard.verdicts.iter().all(|verdicts| *verdicts == 1), "{heard:?}");
    assert_eq!(heard.charged_bytes_left, 0, "{heard:?}");
    assert!(heard.asked.is_ok(), "{heard:?}");
    // Its words are the host's.
    assert!(heard.wrong.is_none_or(|why| why.len() < 100));
    let _ = heed_anything(bytes);
});
