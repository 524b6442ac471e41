//! Any text as a `config.yaml`: it is read or refused in words, with little
//! memory, and the same each time.

#![no_main]

use libfuzzer_sys::fuzz_target;
use peak_alloc::PeakAlloc;
use ringfence::package::config::Config;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// What no `config.yaml` may use more of.
const MEMORY_BYTES_MAX: usize = 32 << 20;

/// Fifty problems, each with a line of the file and what is known there.
const ANSWER_BYTES_MAX: usize = 256 << 10;

fuzz_target!(|text: &str| {
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    let read = Config::parse(text);
    let used = ALLOCATOR.peak_usage().saturating_sub(before);
    assert!(used <= MEMORY_BYTES_MAX, "{used} bytes were used");

    if let Err(refused) = &read {
        assert!(refused.to_string().len() <= ANSWER_BYTES_MAX, "a long answer");
    }
    assert_eq!(read, Config::parse(text));

    // What is packaged of it has no secrets, and stays the same without them.
    if read.is_ok()
        && let Ok(stripped) = Config::without_secrets(text)
    {
        let packaged = Config::parse(&stripped).unwrap();
        assert!(packaged.checkpoints.is_none_or(|checkpoints| checkpoints.hf_token.is_none()));
        assert!(packaged.secrets.iter().all(|secret| secret.value.is_none()));
        assert_eq!(Config::without_secrets(&stripped).as_deref(), Ok(&*stripped));
    }
});
