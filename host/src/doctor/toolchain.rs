//! What building a model needs. A host does without.

use super::{Finding, Surroundings};
use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const TARGET: &str = "wasm32-wasip2";

/// Time in which the compiler has to say where it is.
const COMPILER_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) fn examine(surroundings: &Surroundings) -> Vec<Finding> {
    vec![compiler(surroundings), target(surroundings), component(surroundings)]
}

fn compiler(surroundings: &Surroundings) -> Finding {
    let tools: Vec<&str> =
        ["cargo", "rustup"].into_iter().filter(|tool| find(surroundings, tool).is_some()).collect();
    match tools.as_slice() {
        [] => Finding::warn(
            "cargo",
            "not there, so `ringfence build` cannot work",
            "install Rust, as https://rustup.rs says; a host needs none",
        ),
        tools => Finding::ok("cargo", format!("{} found", tools.join(" and "))),
    }
}

fn target(surroundings: &Surroundings) -> Finding {
    let advice = format!("`rustup target add {TARGET}`; a host needs none");
    let Some(sysroot) = find(surroundings, "rustc").and_then(|rustc| sysroot(&rustc)) else {
        return Finding::warn(TARGET, "no compiler says where its targets are", advice);
    };
    match sysroot.join("lib/rustlib").join(TARGET).is_dir() {
        true => Finding::ok(TARGET, "installed"),
        false => Finding::warn(TARGET, "not installed, so models cannot be built", advice),
    }
}

fn component(surroundings: &Surroundings) -> Finding {
    match find(surroundings, "cargo-component") {
        Some(_) => Finding::ok("cargo-component", "found"),
        None => Finding::ok(
            "cargo-component",
            "not there; only manifests with `package.metadata.component` need it",
        ),
    }
}

fn find(surroundings: &Surroundings, program: &str) -> Option<PathBuf> {
    std::env::split_paths(&surroundings.path)
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
}

/// Asks the compiler, which is not to install anything for it.
fn sysroot(rustc: &PathBuf) -> Option<PathBuf> {
    let mut child = Command::new(rustc)
        .args(["--print", "sysroot"])
        .current_dir("/")
        .env("RUSTUP_AUTO_INSTALL", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let began = Instant::now();
    while child.try_wait().ok()?.is_none() {
        if began.elapsed() > COMPILER_TIMEOUT {
            // It is ours, and nobody waits for it any more.
            let _ = child.kill();
            let _ = child.wait();
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    // A path is far shorter than what a pipe holds.
    let output = child.wait_with_output().ok()?;
    let text = output.stdout.trim_ascii_end();
    let path: &OsStr = std::os::unix::ffi::OsStrExt::from_bytes(text);
    (output.status.success() && !path.is_empty()).then(|| path.into())
}
