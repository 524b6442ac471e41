//! `ringfence build`: a model folder's source to its component.
//!
//! Owns how cargo is called. The code that is compiled is the author's own, on
//! the author's machine; a host never builds.

use super::checkpoints::Wanted;
use super::{BuildArgs, GlobalArgs, TestArgs, Usage, checkpoints, test, usage, watch};
use crate::package::admission;
use anyhow::{Context, bail};
use serde_json::Value;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const TARGET: &str = "wasm32-wasip2";
/// What `cargo component` compiles for before it makes a component of it.
const TARGET_OF_COMPONENT: &str = "wasm32-wasip1";
/// Magic number, then version 13 and layer 1: a component. A module has 1 and 0.
const COMPONENT_HEADER: [u8; 8] = *b"\0asm\x0d\0\x01\0";

pub(super) fn run(args: &BuildArgs, global: &GlobalArgs) -> anyhow::Result<()> {
    match args.watch {
        true => watch::run(&args.dir, || build_and_test(args, global)),
        false => build(args, global),
    }
}

fn build_and_test(args: &BuildArgs, global: &GlobalArgs) -> anyhow::Result<()> {
    build(args, global)?;
    test::run(&TestArgs::of_example(&args.dir), global)
}

fn build(args: &BuildArgs, global: &GlobalArgs) -> anyhow::Result<()> {
    let wanted = if args.update { Wanted::Newest } else { Wanted::Pinned };
    let path = build_with(&args.dir, args.target_dir.as_deref(), wanted)?;
    let bytes = std::fs::metadata(&path)?.len();
    let mut stdout = std::io::stdout().lock();
    if global.json {
        writeln!(stdout, "{}", serde_json::json!({"path": path, "bytes": bytes}))?;
    } else {
        writeln!(stdout, "{} ({bytes} bytes)", path.display())?;
    }
    if !args.dir.join("config.yaml").exists() {
        note("there is no config.yaml, which `test` and `serve` need");
    }
    Ok(())
}

/// Compiles the model folder's crate and puts the component at `1/model.wasm`,
/// whose path is returned. Cargo keeps what it compiles in `target_dir`, or
/// where it would anyway.
pub fn build_model(dir: &Path, target_dir: Option<&Path>) -> anyhow::Result<PathBuf> {
    build_with(dir, target_dir, Wanted::Pinned)
}

fn build_with(dir: &Path, target_dir: Option<&Path>, wanted: Wanted) -> anyhow::Result<PathBuf> {
    if !dir.join("Cargo.toml").is_file() {
        let what = match dir.is_dir() {
            true => "has no Cargo.toml",
            false => "is no folder",
        };
        let text = format!("{} {what}; `ringfence new` makes a model folder", dir.display());
        return Err(Usage(text).into());
    }
    let dir = dir.canonicalize().with_context(|| format!("cannot open {}", dir.display()))?;
    checkpoints::ensure_of(&dir, wanted)?;
    let target_dir = target_dir.map(std::path::absolute).transpose()?;

    let component = wants_cargo_component(&dir)? && has_cargo_component(&dir);
    let target = if component { TARGET_OF_COMPONENT } else { TARGET };
    ensure_target(&dir, target)?;

    let mut cargo = command("cargo", &dir);
    if component {
        cargo.args(["component", "build"]);
    } else {
        cargo.args(["build", "--target", TARGET]);
    }
    cargo.args(["--release", "--message-format=json-render-diagnostics"]);
    if let Some(target_dir) = &target_dir {
        cargo.arg("--target-dir").arg(target_dir);
    }
    let built = compile(cargo, &dir)?;
    install(&built, &dir)
}

/// A command that sees nothing of a cargo that we may run under: its variables
/// are about our own package. How to reach the network, how many jobs to run
/// and which toolchain to use stays what the user said.
fn command(program: &str, dir: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(dir).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if is_of_outer_cargo(&name) {
            command.env_remove(name);
        }
    }
    command
}

fn is_of_outer_cargo(name: &OsStr) -> bool {
    const KEPT: [&str; 4] = ["CARGO_HOME", "CARGO_BUILD_JOBS", "CARGO_NET_", "CARGO_HTTP_"];
    let name = name.to_string_lossy();
    let foreign = name == "CARGO"
        || ["CARGO_", "RUSTC", "RUSTDOC", "RUSTFLAGS"].iter().any(|p| name.starts_with(p));
    foreign && !KEPT.iter().any(|kept| name.starts_with(kept))
}

fn wants_cargo_component(dir: &Path) -> anyhow::Result<bool> {
    let output = command("cargo", dir)
        .args(["metadata", "--no-deps", "--format-version=1"])
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo; install Rust from https://rustup.rs")?;
    if !output.status.success() {
        bail!("cargo cannot read {}; correct what it says above", dir.join("Cargo.toml").display());
    }
    let metadata: Value =
        serde_json::from_slice(&output.stdout).context("cargo's metadata is no JSON")?;
    let packages = metadata.get("packages").and_then(Value::as_array);
    let package = packages.and_then(|packages| packages.iter().find(|package| is_of(package, dir)));
    let component = package.and_then(|package| package.get("metadata")?.get("component"));
    Ok(component.is_some_and(|component| !component.is_null()))
}

/// Whether a package or a message of cargo's is about the folder's own crate.
fn is_of(value: &Value, dir: &Path) -> bool {
    value
        .get("manifest_path")
        .and_then(Value::as_str)
        .is_some_and(|path| Path::new(path) == dir.join("Cargo.toml"))
}

fn has_cargo_component(dir: &Path) -> bool {
    let found = command("cargo", dir)
        .args(["component", "--version"])
        .output()
        .is_ok_and(|o| o.status.success());
    if !found {
        note("built with plain cargo; cargo-component, which the manifest names, is not installed");
    }
    found
}

/// Adds the target where the toolchain of the folder lacks it.
fn ensure_target(dir: &Path, target: &str) -> anyhow::Result<()> {
    let output = command("rustc", dir)
        .args(["--print", "target-libdir", "--target", target])
        .output()
        .context("cannot run rustc; install Rust from https://rustup.rs")?;
    let libdir = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if output.status.success() && Path::new(&libdir).is_dir() {
        return Ok(());
    }
    note(&format!("the Rust target {target} is missing; running `rustup target add {target}`"));
    let added = command("rustup", dir).args(["target", "add", target]).status();
    if added.is_ok_and(|status| status.success()) {
        Ok(())
    } else {
        bail!(
            "the Rust target {target} is missing and cannot be added; run `rustup target add {target}`"
        )
    }
}

/// Runs cargo, lets its diagnostics through and returns the crate's `.wasm`.
fn compile(mut cargo: Command, dir: &Path) -> anyhow::Result<PathBuf> {
    let mut child = cargo
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run cargo; install Rust from https://rustup.rs")?;
    let mut built = None;
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            built = artifact(&line?, dir).or(built);
        }
    }
    if !child.wait()?.success() {
        bail!("cargo cannot build {}; correct what it says above", dir.display());
    }
    built.ok_or_else(|| {
        let fix = "its Cargo.toml needs `[lib]` with `crate-type = [\"cdylib\"]`";
        Usage(format!("{} builds to no .wasm file; {fix}", dir.display())).into()
    })
}

fn artifact(line: &str, dir: &Path) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(line).ok()?;
    if message.get("reason")?.as_str()? != "compiler-artifact" || !is_of(&message, dir) {
        return None;
    }
    let files = message.get("filenames")?.as_array()?;
    files.iter().filter_map(Value::as_str).find(|file| file.ends_with(".wasm")).map(PathBuf::from)
}

fn install(built: &Path, dir: &Path) -> anyhow::Result<PathBuf> {
    let mut file =
        std::fs::File::open(built).with_context(|| format!("cannot read {}", built.display()))?;
    let mut component = Vec::new();
    file.read_to_end(&mut component).with_context(|| format!("cannot read {}", built.display()))?;
    if !component.starts_with(&COMPONENT_HEADER) {
        bail!("{} is not a WebAssembly component; build it for {TARGET}", built.display());
    }
    // Whether its memory fits is for whoever knows the limits.
    admission::admit(&component, u64::MAX).map_err(usage)?;
    let folder = dir.join("1");
    let path = folder.join("model.wasm");
    let write = || -> std::io::Result<()> {
        use std::os::unix::fs::PermissionsExt;
        std::fs::create_dir_all(&folder)?;
        let mut file = tempfile::Builder::new()
            .prefix(".model-")
            .permissions(std::fs::Permissions::from_mode(0o644))
            .tempfile_in(&folder)?;
        file.write_all(&component)?;
        file.persist(&path)?;
        Ok(())
    };
    write().with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "note: {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_an_outer_cargo_are_not_passed_on() {
        for name in [
            "CARGO",
            "CARGO_MANIFEST_DIR",
            "CARGO_TARGET_DIR",
            "CARGO_ENCODED_RUSTFLAGS",
            "RUSTFLAGS",
            "RUSTC_WRAPPER",
            "RUSTC",
            "RUSTDOCFLAGS",
        ] {
            assert!(is_of_outer_cargo(OsStr::new(name)), "{name}");
        }
        for name in [
            "CARGO_HOME",
            "RUSTUP_HOME",
            "RUSTUP_TOOLCHAIN",
            "CARGO_NET_OFFLINE",
            "PATH",
            "RUST_LOG",
        ] {
            assert!(!is_of_outer_cargo(OsStr::new(name)), "{name}");
        }
    }

    #[test]
    fn the_artifact_of_the_folder_itself_is_found() {
        let line = |manifest: &str, file: &str| {
            serde_json::json!({"reason": "compiler-artifact", "manifest_path": manifest, "filenames": [file]}).to_string()
        };
        let dir = Path::new("/m");
        assert_eq!(artifact(&line("/m/Cargo.toml", "/t/m.wasm"), dir), Some("/t/m.wasm".into()));
        assert_eq!(artifact(&line("/dep/Cargo.toml", "/t/dep.wasm"), dir), None);
        assert_eq!(artifact(&line("/m/Cargo.toml", "/t/libm.rlib"), dir), None);
        assert_eq!(artifact("no JSON", dir), None);
    }

    /// PKG-02.
    #[test]
    fn only_a_component_is_installed() {
        let dir = tempfile::TempDir::new().unwrap();
        let built = dir.path().join("built.wasm");
        for wrong in [&b""[..], b"\0asm", b"\0asm\x01\0\0\0", b"(component)"] {
            std::fs::write(&built, wrong).unwrap();
            assert!(install(&built, dir.path()).is_err());
            assert!(!dir.path().join("1/model.wasm").exists());
        }
        // A component, but not of our world.
        std::fs::write(&built, COMPONENT_HEADER).unwrap();
        let error = install(&built, dir.path()).unwrap_err();
        assert!(error.is::<Usage>() && error.to_string().contains("model-runner"), "{error}");
        assert!(!dir.path().join("1/model.wasm").exists());
    }

    #[test]
    fn a_folder_without_a_manifest_is_wrong_usage() {
        let dir = tempfile::TempDir::new().unwrap();
        assert!(build_model(dir.path(), None).unwrap_err().is::<Usage>());
    }
}
