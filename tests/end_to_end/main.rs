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
mod digits;
mod scribe;
mod streams;
mod typed;

mod author;
mod bad_requests;
mod checkpoints;
mod compute;
mod crashes;
mod disk;
mod doctor;
mod floods;
mod limits;
mod load;
mod logs;
mod metrics;
mod operators;

mod oracles;
mod policy;
mod progress;
mod receipts;
mod seam;
mod settings;
mod start;
mod time;
mod tokens;
mod upgrade;
mod upload;
mod upload_limits;
mod urls;

mod layers;

mod world;
