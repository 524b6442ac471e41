//! sdk
fn main() {}
