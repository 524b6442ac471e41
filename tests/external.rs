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

use ringfence_tests::web::{CA_FILE, Page, Web};
use ringfence_tests::{Client, Host, HostOptions, block_on, guests, text_input};
use std::fs::Permissions;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::PermissionsExt;
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
    let tests: [(&str, Test); 4] = [
        ("clarifai_sdk_11_0_0", || sdk("11.0.0", Some("--older"))),
        ("clarifai_sdk_12_5_0", || sdk("12.5.0", None)),
        ("template_builds_with_cargo_component", cargo_component),
        ("project_without_the_guest_crate_is_a_model", project_of_cargo_component),
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

/// Runs the scenarios of a version of the SDK, and what the page about clients
/// shows, and compares our protocol files with the ones it brings.
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

    let image = tests_folder().join("../guests/digits/held-out/seven.png");
    let web = Web::start();
    web.put("/seven.png", Page::Content("image/png", std::fs::read(&image).unwrap()));
    let models = [guests::ECHO, guests::DIGITS, guests::SCRIBE, guests::TYPED];
    let models = models.iter().map(PathBuf::from).collect();
    let host = Host::start(HostOptions { models, args: web.flag(), ..HostOptions::default() });
    let over_tls = host_over_tls(scratch.path());

    let (pat, tls_pat) = (host.pat(), over_tls.pat());
    // What the certificate is for.
    let tls_base = over_tls.base().replace("127.0.0.1", "localhost");
    let images = web.url("");
    let component = Path::new(guests::ECHO).join("1/model.wasm");
    let (image, component) = (image.to_str().unwrap(), component.to_str().unwrap());
    let here = ["--base", host.base(), "--pat", &pat];
    let there = ["--base", &tls_base, "--pat", &tls_pat, "--ca", CA_FILE, "--models", "echo"];
    let digits = ["--digits-image", image, "--digits-label", "7"];
    let pages = ["--images", &images, "--image", image];
    let https = ["--https-base", &tls_base, "--https-pat", &tls_pat, "--ca", CA_FILE];
    let upload = ["--component", component];
    // Only what was uploaded can be deployed.
    let deploy = ["--model", "beside-stubs"];
    // The page about clients lists the models before any is uploaded.
    let runs = [
        ("sdk_scenario.py", [&here[..], &digits].concat(), 30),
        ("sdk_scenario.py", there.to_vec(), 15),
        ("clients_doc.py", [&here[..], &pages, &https].concat(), 11),
        ("sdk_upload.py", [&here[..], &upload].concat(), 5),
        ("sdk_compute.py", [&here[..], &deploy].concat(), 13),
    ];
    for (name, args, checks) in runs {
        if let Err(text) = scenario(&python, name, &args, checks) {
            return Outcome::Failed(format!("{text}\n{}", host.log()));
        }
    }
    Outcome::Passed
}

/// Runs a script of `python/`, which has to make at least so many checks.
fn scenario(python: &Path, name: &str, args: &[&str], checks: usize) -> Result<(), String> {
    let script = tests_folder().join("python").join(name);
    let output = Command::new(python).arg("-B").arg(script).args(args).output().unwrap();
    let text = printed(&output);
    let made = text.lines().filter(|line| line.starts_with("ok ")).count();
    match output.status.success() && made >= checks {
        true => Ok(()),
        false => Err(format!("{name}: {text}")),
    }
}

/// A host on https with a certificate for `localhost`.
fn host_over_tls(folder: &Path) -> Host {
    let fixtures = tests_folder().join("fixtures/tls");
    for name in ["localhost.pem", "localhost.key"] {
        std::fs::copy(fixtures.join(name), folder.join(name)).unwrap();
    }
    let key = folder.join("localhost.key");
    std::fs::set_permissions(key, Permissions::from_mode(0o600)).unwrap();
    let settings = folder.join("host.yaml");
    let tls = "tls: {certificate: localhost.pem, key: localhost.key}\n";
    std::fs::write(&settings, tls).unwrap();
    let args = vec!["--host-config".to_owned(), settings.to_str().unwrap().to_owned()];
    let models = vec![PathBuf::from(guests::ECHO)];
    Host::start(HostOptions { models, args, ..HostOptions::default() })
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
    if !has_cargo_component() {
        return Outcome::Skipped("cargo-component is not installed".into());
    }
    let scratch = tempfile::TempDir::new().unwrap();
    let folder = scratch.path().join("made");
    ringfence(&["new", folder.to_str().unwrap()]);
    if let Err(error) = ringfence::cli::build::build_model(&folder, None) {
        return Outcome::Failed(format!("{error:#}"));
    }
    if !folder.join("target/wasm32-wasip1/release/made.wasm").is_file() {
        return Outcome::Failed("plain cargo was used".into());
    }
    if folder.join("src").exists() {
        return Outcome::Failed("cargo component left src behind".into());
    }
    answers(&folder, "made", "Hello, Grace!")
}

/// A project as `cargo component new --lib` makes it, pointed at the world that
/// `ringfence wit` writes, with its library at a place of its own.
fn project_of_cargo_component() -> Outcome {
    if !has_cargo_component() {
        return Outcome::Skipped("cargo-component is not installed".into());
    }
    let scratch = tempfile::TempDir::new().unwrap();
    let folder = scratch.path().join("strange");
    let made = Command::new("cargo")
        .args(["component", "new", "--lib", "strange"])
        .current_dir(scratch.path())
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", printed(&made));
    std::fs::remove_dir_all(folder.join("wit")).unwrap();
    let wit = folder.join("wit");
    let told = ringfence(&["wit", wit.to_str().unwrap()]);
    // The lines for Cargo.toml, as they are told.
    let (_, lines) = told.split_once("[package.metadata.component.target]").unwrap();
    let (lines, _) = lines.split_once("\nfor wit-bindgen").unwrap();
    let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
    let (manifest, _) = manifest.split_once("[package.metadata.component.dependencies]").unwrap();
    let manifest = manifest.replace("[lib]", "[lib]\npath = \"odd/place.rs\"");
    let manifest = format!("{manifest}\n[package.metadata.component.target]{lines}");
    std::fs::write(folder.join("Cargo.toml"), manifest).unwrap();
    std::fs::create_dir(folder.join("odd")).unwrap();
    std::fs::write(folder.join("odd/place.rs"), STRANGE).unwrap();
    std::fs::remove_file(folder.join("src/lib.rs")).unwrap();
    let config = "model: {id: strange, model_type_id: text-to-text}\n";
    std::fs::write(folder.join("config.yaml"), config).unwrap();
    if let Err(error) = ringfence::cli::build::build_model(&folder, None) {
        return Outcome::Failed(format!("{error:#}"));
    }
    answers(&folder, "strange", "Grace, stranger")
}

/// A model on the bare bindings.
const STRANGE: &str = r#"
#[allow(warnings)]
#[path = "../src/bindings.rs"]
mod bindings;

use bindings::exports::ringfence::model::runner::{
    Error, Guest, Output, Request, Sink, Source,
};
use bindings::ringfence::model::types::{ErrorCode, Part, Value};

struct Strange;

fn unsupported() -> Error {
    Error { code: ErrorCode::Unsupported, message: "predict only".into(), info: String::new() }
}

impl Guest for Strange {
    fn methods() -> String {
        String::new()
    }

    fn load_model() -> Result<(), Error> {
        Ok(())
    }

    fn predict(request: Request) -> Result<Vec<Result<Output, Error>>, Error> {
        let answer = |parts: Vec<Part>| match parts.into_iter().next() {
            Some(Part { name, value: Value::Text(text) }) => Ok(Output {
                parts: vec![Part { name, value: Value::Text(format!("{text}, stranger")) }],
                usage: None,
                info: String::new(),
            }),
            _ => Err(unsupported()),
        };
        Ok(request.inputs.into_iter().map(|input| answer(input.parts)).collect())
    }

    fn generate(_: Request, _: &Sink) -> Result<(), Error> {
        Err(unsupported())
    }

    fn stream(_: &Source, _: &Sink) -> Result<(), Error> {
        Err(unsupported())
    }
}

bindings::export!(Strange with_types_in bindings);
"#;

fn has_cargo_component() -> bool {
    let version = Command::new("cargo").args(["component", "--version"]).output();
    version.is_ok_and(|output| output.status.success())
}

/// Runs the program and returns what it prints.
fn ringfence(args: &[&str]) -> String {
    let output = Command::new(ringfence_tests::binary()).args(args).output().unwrap();
    assert!(output.status.success(), "{}", printed(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// Serves a folder that has been built, and calls it with a name.
fn answers(folder: &Path, model: &str, expected: &str) -> Outcome {
    let host = Host::serve(&[folder.to_str().unwrap()]);
    let answer = block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        client.predict(model, vec![text_input("Grace")]).await
    });
    match answer.text() {
        text if text == expected => Outcome::Passed,
        other => Outcome::Failed(other),
    }
}

fn printed(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}
