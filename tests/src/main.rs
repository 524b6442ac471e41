//! The binary under test: the same `main` as the product's, with one limit less and with
//! accelerators that there are none of where the tests say so.

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Ok(name) = std::env::var("RINGFENCE_LIFT") {
        ringfence::limits::lift(&name);
    }
    ringfence_tests::device::stand_in();
    ringfence::main()
}
