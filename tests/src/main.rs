//! The binary under test: the same `main` as the product's, and one limit less
//! where the tests say so.

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Ok(name) = std::env::var("RINGFENCE_LIFT") {
        ringfence::limits::lift(&name);
    }
    ringfence::main()
}
