//! What building a model needs. A host does without.

use super::{Finding, Surroundings};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
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
    let Some(sysroot) =
        find(surroundings, "rustc").and_then(|rustc| sysroot(&rustc, COMPILER_TIMEOUT))
    else {
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
            "not there, and not needed: `ringfence build` takes plain cargo",
        ),
    }
}

fn find(surroundings: &Surroundings, program: &str) -> Option<PathBuf> {
    std::env::split_paths(&surroundings.path)
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
}

/// Asks the compiler, which is not to install anything for it.
fn sysroot(rustc: &Path, timeout: Duration) -> Option<PathBuf> {
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
        if began.elapsed() > timeout {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;
    use crate::doctor::tests::Root;

    /// A folder with a `rustc` that does this. Another process writes it: a file
    /// that is open for writing somewhere cannot be run.
    fn compiler_that(does: &str) -> tempfile::TempDir {
        let folder = tempfile::TempDir::new().unwrap();
        let script = "printf '#!/bin/sh\\n%s\\n' \"$1\" > \"$2\" && chmod 700 \"$2\"";
        let path = folder.path().join("rustc");
        let status = Command::new("/bin/sh").args(["-c", script, "sh", does]).arg(path).status();
        assert!(status.unwrap().success());
        folder
    }

    fn found(path: &Path) -> Finding {
        let root = Root::with(&[]);
        target(&Surroundings { path: path.into(), ..root.surroundings() })
    }

    #[test]
    fn the_target_is_looked_for_where_the_compiler_says() {
        assert_eq!(found(Path::new("/nowhere")).verdict, Verdict::Warn);
        let there = tempfile::TempDir::new().unwrap();
        std::fs::create_dir_all(there.path().join("lib/rustlib/wasm32-wasip2")).unwrap();
        let compiler = compiler_that(&format!("echo '{}'", there.path().display()));
        assert_eq!(found(compiler.path()).verdict, Verdict::Ok);
        let compiler = compiler_that("echo /nowhere");
        assert!(found(compiler.path()).found.starts_with("not installed"));
        assert!(found(compiler_that("exit 1").path()).found.starts_with("no compiler"));
    }

    #[test]
    fn a_compiler_that_does_not_answer_is_not_waited_for() {
        let folder = compiler_that("exec sleep 1000");
        let began = Instant::now();
        assert_eq!(sysroot(&folder.path().join("rustc"), Duration::from_millis(50)), None);
        assert!(began.elapsed() < Duration::from_secs(100));
    }
}
