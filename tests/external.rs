//! What needs tools that a machine may lack: the unmodified Clarifai SDK for
//! Python, and `cargo component`.
//!
//! Without libtest's harness, so that what is skipped is seen: the last lines
//! are `SKIPPED name: reason`. Where `CI=true` nothing may be skipped.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test tells how it went, and says what is wrong by panicking"
)]

use ringfence_tests::{Client, Host, Variant, block_on, guests, text_input};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output};

/// How a test went.
enum Outcome {
    Passed,
    Skipped(String),
    Failed(String),
}

type Test = fn() -> Outcome;

fn main() -> ExitCode {
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    if std::env::args().any(|argument| argument == "--list") {
        return ExitCode::SUCCESS;
    }
    let tests: [(&str, Test); 3] = [
        ("clarifai_sdk_11_0_0", || sdk("11.0.0", Some("--older"))),
        ("clarifai_sdk_12_5_0", || sdk("12.5.0", None)),
        ("template_builds_with_cargo_component", cargo_component),
    ];
    let required = std::env::var("CI").is_ok_and(|value| value == "true");
    let (mut passed, mut failed, mut skipped) = (0, 0, Vec::new());
    for (name, test) in tests {
        if filter.as_ref().is_some_and(|filter| !name.contains(filter.as_str())) {
            continue;
        }
        match test() {
            Outcome::Passed => {
                println!("test {name} ... ok");
                passed += 1;
            }
            Outcome::Skipped(reason) if !required => skipped.push((name, reason)),
            Outcome::Skipped(reason) | Outcome::Failed(reason) => {
                println!("test {name} ... FAILED\n{reason}");
                failed += 1;
            }
        }
    }
    for (name, reason) in &skipped {
        println!("SKIPPED {name}: {reason}");
    }
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {word}. {passed} passed; {failed} failed; {} ignored; 0 measured; \
         0 filtered out\n",
        skipped.len()
    );
    ExitCode::from(u8::from(failed > 0))
}

fn tests_folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Runs the scenario of a version of the SDK, and compares our protocol files
/// with the ones it brings.
fn sdk(version: &str, compare: Option<&str>) -> Outcome {
    let python = match environment(version) {
        Ok(python) => python,
        Err(outcome) => return outcome,
    };
    let scratch = tempfile::TempDir::new().unwrap();
    let descriptors = scratch.path().join("descriptors.bin");
    std::fs::write(&descriptors, ringfence::proto::DESCRIPTORS).unwrap();
    let scripts = tests_folder().join("python");
    let compared = Command::new(&python)
        .arg("-B")
        .arg(scripts.join("check_protos.py"))
        .arg(&descriptors)
        .args(compare)
        .output()
        .unwrap();
    if !compared.status.success() {
        return Outcome::Failed(printed(&compared));
    }

    let host = Host::serve(&[guests::ECHO, guests::DIGITS, guests::SCRIBE]);
    let output = Command::new(&python)
        .arg("-B")
        .arg(scripts.join("sdk_scenario.py"))
        .args(["--base", host.base(), "--pat", &host.pat(), "--digits-label", "7"])
        .arg("--digits-image")
        .arg(tests_folder().join("../guests/digits/held-out/seven.png"))
        .output()
        .unwrap();
    let text = printed(&output);
    let checks = text.lines().filter(|line| line.starts_with("ok ")).count();
    match output.status.success() && checks > 20 {
        true => Outcome::Passed,
        false => Outcome::Failed(format!("{text}\n{}", host.log())),
    }
}

/// A virtual environment with the SDK, made once beside the build's results.
/// Its name holds a digest of what it was made from.
fn environment(version: &str) -> Result<PathBuf, Outcome> {
    let requirements = tests_folder().join(format!("python/requirements-{version}.txt"));
    let mut digest = DefaultHasher::new();
    std::fs::read(&requirements).unwrap().hash(&mut digest);
    let binary = ringfence_tests::binary();
    let target = binary.parent().and_then(Path::parent).unwrap();
    let folder = target.join(format!("clarifai-sdk/{version}-{:x}", digest.finish()));
    let python = folder.join("bin/python");
    let complete = folder.join("complete");
    if complete.is_file() {
        return Ok(python);
    }
    let made = Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder).output();
    match made {
        Ok(made) if made.status.success() => {}
        Ok(made) => return Err(Outcome::Skipped(format!("no venv: {}", printed(&made)))),
        Err(error) => return Err(Outcome::Skipped(format!("there is no python3: {error}"))),
    }
    let installed = Command::new(&python)
        .args(["-m", "pip", "install", "--quiet", "--no-deps", "-r"])
        .arg(&requirements)
        .output()
        .unwrap();
    if !installed.status.success() {
        return Err(Outcome::Skipped(format!("pip cannot install it: {}", printed(&installed))));
    }
    std::fs::write(complete, "").unwrap();
    Ok(python)
}

/// The template's manifest asks for `cargo component`, so `build` uses it.
fn cargo_component() -> Outcome {
    let version = Command::new("cargo").args(["component", "--version"]).output();
    match version {
        Ok(output) if output.status.success() => {}
        _ => return Outcome::Skipped("cargo-component is not installed".into()),
    }
    // A copy, because cargo-component writes a lock file of its own.
    let scratch = tempfile::TempDir::new().unwrap();
    let root = tests_folder().join("..");
    for folder in ["wit", "guests/sdk", "guests/template"] {
        ringfence_tests::copy(&root.join(folder), &scratch.path().join(folder));
    }
    let members = "[workspace]\nresolver = \"3\"\nmembers = [\"sdk\", \"template\"]\n";
    let workspace = std::fs::read_to_string(root.join("guests/Cargo.toml")).unwrap();
    let tables = workspace.split_once("[workspace.package]").unwrap().1;
    let manifest = format!("{members}\n[workspace.package]{tables}");
    std::fs::write(scratch.path().join("guests/Cargo.toml"), manifest).unwrap();
    std::fs::copy(root.join("guests/Cargo.lock"), scratch.path().join("guests/Cargo.lock"))
        .unwrap();

    let folder = scratch.path().join("guests/template");
    let built = match ringfence::cli::build::build_model(&folder, None) {
        Ok(built) => built,
        Err(error) => return Outcome::Failed(format!("{error:#}")),
    };
    let by_component = folder.join("../target/wasm32-wasip1/release/hello.wasm");
    if !by_component.is_file() {
        return Outcome::Failed("plain cargo was used".into());
    }
    if folder.join("src/bindings.rs").exists() {
        return Outcome::Failed("cargo component left src/bindings.rs behind".into());
    }
    let variant = Variant::of(guests::TEMPLATE, &[]);
    std::fs::copy(built, variant.folder().join("1/model.wasm")).unwrap();
    let host = Host::serve(&[variant.path()]);
    let answer = block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        client.predict("hello", vec![text_input("Grace")]).await
    });
    match answer.text().as_str() {
        "Hello, Grace!" => Outcome::Passed,
        other => Outcome::Failed(other.to_owned()),
    }
}

fn printed(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}
