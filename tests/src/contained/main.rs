//! Becomes another program, whose system calls are filtered as a container's are by
//! default: `ringfence-contained PROGRAM [ARGUMENT]...`. Nothing else of a container is
//! here.

use std::process::ExitCode;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod filter;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn main() -> anyhow::Result<ExitCode> {
    use std::os::unix::process::CommandExt;

    let mut words = std::env::args_os().skip(1);
    let program = words.next().ok_or_else(|| anyhow::anyhow!("name a program to become"))?;
    filter::enter()?;
    let refused = std::process::Command::new(&program).args(words).exec();
    Err(anyhow::anyhow!("{program:?} does not start: {refused}"))
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn main() -> ExitCode {
    ExitCode::FAILURE
}
