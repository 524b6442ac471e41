//! The real binary over real sockets.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test says what is wrong by panicking"
)]

mod each_guest;

mod batches;
mod bench;
mod digits;
mod scribe;
mod streams;
mod typed;

mod accelerators;
mod author;
mod bad_requests;
mod bombs;
mod checkpoints;
mod commands;
mod compute;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod container;
mod crashes;
mod damaged;
mod disk;
mod doctor;
mod ends;
mod engines;
mod floods;
mod gpu;
mod hostile_graphs;
mod isolation;
mod limits;
mod listing;
mod load;
mod logs;
mod media;
mod metadata;
mod metrics;
mod operators;

mod oracles;
mod placing;
mod policy;
mod progress;
mod receipts;
mod replicas;
mod seam;
mod settings;
mod snapshots;
mod soak;
mod start;
mod time;
mod tokens;
mod upgrade;
mod upload;
mod upload_limits;
mod urls;

mod layers;

mod workers;
mod world;
