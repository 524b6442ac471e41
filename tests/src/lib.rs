//! What every end-to-end test needs: the real binary as a child process, a
//! client, and the guests' model folders.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test says what is wrong by panicking"
)]

mod calls;
mod calm;
mod canary;
mod costly;
pub mod device;
mod filled;
mod host;
pub mod hub;
pub mod measure;
mod raw;
pub mod web;

pub use calls::{
    Answer, Client, bytes_input, collect, image_input, output_config, params, request, text_input,
};
pub use calm::Calm;
pub use canary::{Canary, health_of};
pub use costly::{
    hungry_to_compile, large_to_compile, slow_in_either_way, slow_to_compile,
    slow_to_give_registers, with_custom_section,
};
pub use filled::{Filled, fill};
pub use host::{
    Host, HostOptions, Variant, binary, children, copy, files_below, refused_start,
    refused_start_with,
};

pub use raw::{RawAnswer, Unread, field, raw_answer, raw_answer_to, raw_call, raw_unread};

/// The guests, compiled and laid out by the build script.
pub mod guests {
    include!(concat!(env!("OUT_DIR"), "/guests.rs"));
}

/// Says that a test does not run here, and why. Where `CI=true` that fails.
#[allow(clippy::print_stdout, reason = "a test says what it does not look at")]
pub fn skip(test: &str, reason: &str) {
    let required = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(!required, "{test}: {reason}");
    println!("SKIPPED {test}: {reason}");
}

/// Runs a future to its end on a runtime of the test's own.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}
