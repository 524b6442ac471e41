//! Ringfence: a host that runs machine-learning models whose code nobody has
//! to trust. The modules stand in the order of a call.

#![warn(missing_docs)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        reason = "a test says what is wrong by panicking"
    )
)]

pub mod cli;
pub mod doctor;
pub mod settings;

pub mod server;

pub mod auth;
pub mod devices;
pub mod fetch;
pub mod package;
pub mod store;

pub mod deploy;
pub mod upload;
pub mod worker;

pub mod nn;
pub mod sandbox;

pub mod call;
mod clock;
mod digest;
mod heap;
pub mod limits;
pub mod proto;
mod sched;
pub mod sealed;
pub mod telemetry;
pub mod text;
pub mod yaml;

/// The whole program: arguments in, exit code out.
pub fn main() -> std::process::ExitCode {
    cli::run(std::env::args_os())
}
