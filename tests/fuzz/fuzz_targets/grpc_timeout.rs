//! Any text as `grpc-timeout`: read as the protocol says, or not at all.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringfence::server::grpc_timeout;
use std::time::Duration;

/// "HTTP2 protocol mapping" of gRPC: TimeoutValue is at most eight ASCII digits,
/// TimeoutUnit one of these.
const UNITS: [(&str, u128); 6] = [
    ("H", 3_600_000_000_000),
    ("M", 60_000_000_000),
    ("S", 1_000_000_000),
    ("m", 1_000_000),
    ("u", 1_000),
    ("n", 1),
];

fuzz_target!(|text: &str| {
    let said = UNITS.iter().find_map(|(unit, nanoseconds)| {
        let digits = text.strip_suffix(unit)?;
        let is_number = (1..=8).contains(&digits.len())
            && digits.chars().all(|digit| "0123456789".contains(digit));
        is_number.then(|| digits.parse::<u128>().unwrap() * nanoseconds)
    });
    assert_eq!(grpc_timeout(text).as_ref().map(Duration::as_nanos), said, "{text:?}");
});
