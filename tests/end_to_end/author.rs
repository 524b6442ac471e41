//! From nothing to a served model, with the commands that an author uses.

use ringfence_tests::{Host, HostOptions, binary};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

/// Each type of template, its example, and what is said about that.
const TEMPLATES: [(&str, &[&str], &str); 6] = [
    ("text-to-text", &["example.txt"], "Hello, Ada!"),
    ("visual-classifier", &["example.png"], "blue"),
    ("visual-detector", &["example.png"], "bright"),
    ("text-embedder", &["example.txt"], "64"),
    ("audio-to-text", &["example.wav"], "C4 E4 G4 C5"),
    ("any-to-any", &["example.txt", "example.png"], "image: 369 bytes"),
];

fn ringfence(args: &[&str]) -> Output {
    Command::new(binary()).args(args).output().unwrap()
}

fn text(output: &Output) -> String {
    let both = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8(both).unwrap()
}

/// The homes of the toolchain, which stay where they are when HOME moves.
fn tool_home(variable: &str, folder: &str) -> PathBuf {
    let home = std::env::var_os("HOME").unwrap();
    std::env::var_os(variable).map_or_else(|| Path::new(&home).join(folder), PathBuf::from)
}

/// What the tests build is kept beside the tests' own results, so that a second
/// run is quick.
fn target_dir() -> PathBuf {
    binary().parent().unwrap().with_file_name("template-builds")
}

/// Nothing of this repository is needed: the folders lie elsewhere, they are
/// moved before they are built, and HOME is another.
#[test]
fn each_template_builds_and_answers_as_it_is() {
    let scratch = TempDir::new().unwrap();
    let (first, moved) = (scratch.path().join("first"), scratch.path().join("moved"));
    for (kind, ..) in TEMPLATES {
        let folder = first.join(kind);
        let made = ringfence(&["new", folder.to_str().unwrap(), "--type", kind]);
        assert!(made.status.success(), "{}", text(&made));
    }
    std::fs::rename(&first, &moved).unwrap();
    let mut models = Vec::new();
    for (kind, ..) in TEMPLATES {
        let built = Command::new(binary())
            .args(["build", ".", "--target-dir"])
            .arg(target_dir())
            .current_dir(moved.join(kind))
            .env("CARGO_HOME", tool_home("CARGO_HOME", ".cargo"))
            .env("RUSTUP_HOME", tool_home("RUSTUP_HOME", ".rustup"))
            .env("HOME", scratch.path())
            .output()
            .unwrap();
        assert!(built.status.success(), "{kind}: {}", text(&built));
        models.push(moved.join(kind));
    }
    let host = Host::start(HostOptions { models, ..HostOptions::default() });
    for (kind, examples, expected) in TEMPLATES {
        let mut call = Command::new(binary());
        call.args(["predict", kind, "--base", host.base(), "--pat-file"]);
        call.arg(host.data_dir().join("admin.pat"));
        for example in examples {
            call.arg("--file").arg(moved.join(kind).join(example));
        }
        let said = call.output().unwrap();
        assert!(said.status.success(), "{kind}: {}", text(&said));
        assert!(text(&said).contains(expected), "{kind}: {}", text(&said));
    }
}

#[test]
fn the_world_is_written_beside_nothing_strange() {
    let scratch = TempDir::new().unwrap();
    let dir = scratch.path().join("wit");
    let path = dir.to_str().unwrap();
    for _ in 0..2 {
        let written = ringfence(&["wit", path]);
        assert!(written.status.success(), "{}", text(&written));
    }
    let world = std::fs::read_to_string(dir.join("model.wit")).unwrap();
    assert!(world.contains("world model-runner"));
    assert!(dir.join("deps/nn/nn.wit").is_file());

    std::fs::write(dir.join("world.wit"), "package component:strange;").unwrap();
    let refused = ringfence(&["wit", path]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused).contains("world.wit"), "{}", text(&refused));
}

#[test]
fn a_new_model_is_put_into_a_new_folder_only() {
    let scratch = TempDir::new().unwrap();
    let path = scratch.path().to_str().unwrap();
    std::fs::write(scratch.path().join("mine"), "x").unwrap();
    let refused = ringfence(&["new", path]);
    assert_eq!(refused.status.code(), Some(2));
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 1);
}
