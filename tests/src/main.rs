//! The binary under test: the same `main` as the product's.

use std::process::ExitCode;

fn main() -> ExitCode {
    ringfence::main()
}
