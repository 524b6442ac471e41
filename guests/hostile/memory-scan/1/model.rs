//! Looks through memory that it has just been given for what others left there, and
//! leaves something for others (LEAK-02).
//!
//! Expected: an output with the number of words that are not zero, which is 0, and
//! the number of pages of 64 KiB that it looked through.

#![allow(unsafe_code, reason = "JUSTIFICATION: an allocator would clear memory before it is seen")]

use std::arch::wasm32::memory_grow;
use std::slice;

use ringfence_guest::{Error, Input, Model, Output, Params};

const PAGE_BYTES: usize = 64 << 10;

/// Pages of one growth: from small ones, which a host might serve from what it kept.
const GROWTHS: [usize; 4] = [1, 16, 64, 256];
const REFUSED: usize = usize::MAX;

struct Attack;

impl Model for Attack {
    fn load() -> Result<Self, Error> {
        Ok(Attack)
    }

    fn predict(&self, _input: Input, _params: &Params) -> Result<Output, Error> {
        let (mut left, mut seen) = (0, 0);
        for pages in GROWTHS {
            let before = memory_grow::<0>(pages);
            if before == REFUSED {
                return Err(Error::failed(format!("{pages} more pages are refused")));
            }
            let words = pages * PAGE_BYTES / size_of::<u64>();
            // SAFETY: these pages have just been added, are aligned, and nobody else
            // knows of them. What is in them is whatever the host put there.
            let fresh =
                unsafe { slice::from_raw_parts_mut((before * PAGE_BYTES) as *mut u64, words) };
            left += fresh.iter().filter(|word| **word != 0).count();
            fresh.fill(u64::from_be_bytes(*b"a secret"));
            seen += pages;
        }
        Ok(Output::text(format!("{left} of {seen}")))
    }
}

ringfence_guest::export!(innocent::Or<Attack>);
