//! What a machine offers to a host.

use ringfence_tests::{Host, binary, guests};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use tempfile::TempDir;

fn doctor(data_dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command.args(["doctor", "--data-dir"]).arg(data_dir).args(args).output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn a_machine_that_serves_is_well_and_each_finding_is_a_line() {
    let scratch = TempDir::new().unwrap();
    let data_dir = scratch.path().join("data");
    let output = doctor(&data_dir, &[]);
    let found = text(&output);
    assert!(output.status.success(), "{output:?}");
    for line in found.lines() {
        let (verdict, rest) = line.split_at(6);
        assert!(["ok", "note", "warn"].contains(&verdict.trim()), "{line}");
        assert!(rest.contains(": "), "{line}");
    }
    for topic in [
        "program: ringfence ",
        "wasm32-wasip2:",
        "cpus:",
        "memory:",
        "kernel: Linux ",
        "jail: landlock:",
        "jail: seccomp:",
        "jail: user namespaces:",
        "jail: control group:",
        "engine: tract: built in",
        "engine: onnx runtime:",
        "accelerators:",
        "monotonic clock:",
        "wall clock: is plausible",
        "open files:",
        "core dumps:",
        "free space:",
        "smt:",
        "`serve` makes it",
    ] {
        assert!(found.contains(topic), "{topic}: {found}");
    }
    assert!(!data_dir.exists(), "it only looks");
}

#[test]
fn a_library_of_onnx_runtime_that_is_not_there_fails() {
    let scratch = TempDir::new().unwrap();
    let there = doctor(scratch.path(), &["--onnxruntime", "/proc/self/exe"]);
    assert!(text(&there).contains("onnx runtime: /proc/self/exe"), "{}", text(&there));
    let config = scratch.path().join("host.yaml");
    std::fs::write(&config, "onnxruntime: /nowhere/lib.so\n").unwrap();
    let absent = doctor(scratch.path(), &["--host-config", config.to_str().unwrap()]);
    assert_eq!(absent.status.code(), Some(1), "{}", text(&absent));
    assert!(text(&absent).contains("there is no /nowhere/lib.so"), "{}", text(&absent));
}

#[test]
fn findings_can_be_read_by_programs() {
    let scratch = TempDir::new().unwrap();
    for line in text(&doctor(scratch.path(), &["--json"])).lines() {
        let finding: serde_json::Value = serde_json::from_str(line).unwrap();
        for key in ["topic", "verdict", "found", "advice"] {
            assert!(finding[key].is_string(), "{key} in {line}");
        }
    }
}

#[test]
fn what_keeps_a_host_from_starting_fails() {
    let scratch = TempDir::new().unwrap();
    std::fs::set_permissions(scratch.path(), Permissions::from_mode(0o777)).unwrap();
    let output = doctor(scratch.path(), &[]);
    assert_eq!(output.status.code(), Some(1));
    let advice = format!("run `chmod 700 {}`", scratch.path().display());
    let found = text(&output);
    let line = found.lines().find(|line| line.starts_with("fail")).unwrap();
    assert!(line.contains(&advice), "{found}");
}

#[test]
fn a_running_host_is_seen_and_not_disturbed() {
    let host = Host::serve(&[guests::ECHO]);
    let output = doctor(host.data_dir(), &[]);
    assert!(output.status.success(), "{output:?}");
    assert!(text(&output).contains("a host runs on"), "{}", text(&output));
}

#[test]
fn a_demo_without_examples_where_they_are_said_to_be_says_so() {
    let output = Command::new(binary()).args(["demo", "--guests", "/nowhere"]).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    for expected in ["/nowhere", "without --guests"] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
}
