//! From nothing to a served model, with the commands that an author uses.

use ringfence::proto::clarifai::api::status::StatusCode;
use ringfence_tests::{Client, Host, HostOptions, Variant, binary, block_on, guests, image_input};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
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

fn expected(kind: &str) -> &'static str {
    TEMPLATES.iter().find(|(known, ..)| *known == kind).unwrap().2
}

pub(crate) fn ringfence(args: &[&str]) -> Output {
    Command::new(binary()).args(args).output().unwrap()
}

pub(crate) fn text(output: &Output) -> String {
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
pub(crate) fn target_dir() -> PathBuf {
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
        let tested = ringfence(&["test", moved.join(kind).to_str().unwrap()]);
        assert!(tested.status.success(), "{kind}: {}", text(&tested));
        assert!(text(&tested).contains(expected(kind)), "{kind}: {}", text(&tested));
        let drawn = moved.join(kind).join("target/test/predict.png");
        assert_eq!(drawn.exists(), kind == "visual-detector", "{kind}: {}", text(&tested));
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

/// What `test --json` says of each function.
fn figures(args: &[&str]) -> Vec<Value> {
    let output = ringfence(&[&["test", "--json"], args].concat());
    assert!(output.status.success(), "{}", text(&output));
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// `scribe` draws random numbers for each of its letters.
#[test]
fn the_same_seed_burns_the_same_fuel() {
    let of_seed = |seed: &str| {
        let args =
            [guests::SCRIBE, "--text", "It was ", "--seed", seed, "--param", "max_tokens=20"];
        let said = |function: &Value| {
            let outputs = function["outputs"].to_string();
            // Each output has an id of its own.
            let outputs = outputs.split("\"data\"").skip(1).collect::<String>();
            (function["fuel"].as_u64().unwrap(), function["memory_bytes_peak"].clone(), outputs)
        };
        figures(&args).iter().map(said).collect::<Vec<_>>()
    };
    let (first, again, other) = (of_seed("1"), of_seed("1"), of_seed("2"));
    assert_eq!(first.len(), 4);
    assert!(first.iter().all(|(fuel, ..)| *fuel > 0), "{first:?}");
    assert_eq!(first, again);
    assert_ne!(first[1].2, other[1].2);
}

#[test]
fn a_test_says_what_a_call_took() {
    let figures = figures(&[
        guests::DIGITS,
        "--file",
        concat!(env!("CARGO_MANIFEST_DIR"), "/../guests/digits/held-out/seven.png"),
    ]);
    let functions: Vec<_> = figures.iter().map(|one| one["function"].as_str().unwrap()).collect();
    assert_eq!(functions, ["load-model", "predict", "generate", "stream"]);
    let predict = &figures[1];
    assert_eq!(predict["computes"], 1, "{predict}");
    for key in ["fuel", "guest_cpu_us", "engine_cpu_us", "wall_us", "bytes_in", "bytes_out"] {
        assert!(predict[key].as_u64().unwrap() > 0, "{key}: {predict}");
    }
    let held = &predict["held_bytes_peak"];
    for holder in ["linear memory", "tensors", "messages", "graphs"] {
        assert!(held[holder].as_u64().unwrap() > 0, "{holder}: {held}");
    }
    let best = &predict["outputs"][0]["data"]["concepts"][0];
    assert_eq!(best["id"], "7", "{best}");
}

/// Arguments come of the example where they can, and of defaults.
#[test]
fn typed_methods_are_tested_as_far_as_the_example_goes() {
    let told = ringfence(&["test", guests::TYPED, "--text", "ab"]);
    assert!(told.status.success(), "{}", text(&told));
    for part in [
        "predict: ok, 1 output\n  abab.",
        "stream: ok, 1 output\n  > ab",
        "`sum` was not called: `sum` needs the argument `numbers`",
    ] {
        assert!(text(&told).contains(part), "{part} in {}", text(&told));
    }
}

#[test]
fn what_has_grown_beyond_a_baseline_fails() {
    let scratch = TempDir::new().unwrap();
    let path = scratch.path().join("baseline");
    let earlier = ringfence(&["test", "--json", guests::ECHO, "--text", "a b c"]);
    std::fs::write(&path, &earlier.stdout).unwrap();
    let against = |text: &str| {
        let path = path.to_str().unwrap();
        ringfence(&["test", guests::ECHO, "--text", text, "--baseline", path])
    };
    let same = against("a b c");
    assert!(same.status.success(), "{}", text(&same));
    let grown = against(&"a b c ".repeat(1000));
    assert_eq!(grown.status.code(), Some(1), "{}", text(&grown));
    assert!(text(&grown).contains("beyond the baseline: generate: fuel was"), "{}", text(&grown));
}

/// The report of a call that a limit ended: which, at which value, and the key.
#[test]
fn a_limit_that_ends_a_call_is_told_with_the_key_to_change() {
    let slow = Variant::of(
        guests::COUNTING_LOOP,
        &[("call_timeout: 2s", "call_timeout: 20s\n  max_fuel_per_call: 400000000")],
    );
    let held_back = Variant::of(
        guests::COUNTING_LOOP,
        &[("\"200m\"", "\"20m\""), ("call_timeout: 2s", "call_timeout: 1s")],
    );
    let cases = [
        (slow.path(), "FUEL_EXHAUSTED", "400000000 fuel", "ringfence.max_fuel_per_call"),
        (
            held_back.path(),
            "WALL_DEADLINE",
            "for its CPU limit",
            "inference_compute_info.cpu_limit",
        ),
        (guests::MEMORY_HOG, "MEMORY_LIMIT", "67108864 bytes", "inference_compute_info.cpu_memory"),
        (guests::SLEEPER, "WALL_DEADLINE", "it waited in the host", "ringfence.call_timeout"),
        (guests::OUTPUT_FLOOD, "OUTPUT_LIMIT", "16777216 bytes", "ringfence.max_output_bytes"),
    ];
    for (folder, reason, value, key) in cases {
        let told = ringfence(&["test", folder, "--text", "x"]);
        assert_eq!(told.status.code(), Some(1), "{folder}: {}", text(&told));
        for part in [reason, value, key, "last call", "memory"] {
            assert!(text(&told).contains(part), "{folder}: {part} in {}", text(&told));
        }
    }
}

/// A panic in a model made from a template: its message, and the line of the
/// author's own file.
#[test]
fn a_panic_is_told_with_the_line_of_the_source() {
    let scratch = TempDir::new().unwrap();
    let folder = scratch.path().join("panics");
    let path = folder.to_str().unwrap();
    assert!(ringfence(&["new", path]).status.success());
    let source = folder.join("1/model.rs");
    let model = std::fs::read_to_string(&source).unwrap();
    let model = model.replace(
        "Ok(Output::text",
        "assert!(input.text()?.len() > 99, \"too short\");\n        Ok(Output::text",
    );
    std::fs::write(&source, &model).unwrap();
    let line = 1 + model.lines().position(|line| line.contains("too short")).unwrap();
    let built = ringfence(&["build", path, "--target-dir", target_dir().to_str().unwrap()]);
    assert!(built.status.success(), "{}", text(&built));
    let told = ringfence(&["test", path]);
    assert_eq!(told.status.code(), Some(1), "{}", text(&told));
    for part in ["too short", "stack     innermost first", &format!("1/model.rs:{line}")] {
        assert!(text(&told).contains(part), "{part} in {}", text(&told));
    }
}

#[test]
fn a_model_that_asks_for_an_accelerator_runs_on_the_cpu_only_when_told() {
    let asks = Variant::of(guests::ECHO, &[("num_accelerators: 0", "num_accelerators: 1")]);
    let refused = ringfence(&["test", asks.path(), "--text", "x"]);
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused));
    assert!(text(&refused).trim_end().ends_with("try --cpu"), "{}", text(&refused));
    let told = ringfence(&["test", asks.path(), "--text", "x", "--cpu"]);
    assert!(told.status.success(), "{}", text(&told));
    assert_eq!(text(&told).matches("(on the CPU)").count(), 4, "{}", text(&told));
}

#[test]
fn more_memory_than_the_machine_has_is_a_limit_and_no_reservation() {
    let huge = Variant::of(guests::ECHO, &[("cpu_memory: ", "cpu_memory: \"999Ti\" # ")]);
    let told = ringfence(&["test", huge.path(), "--text", "x"]);
    assert!(told.status.success(), "{}", text(&told));
    assert_eq!(text(&told).matches("nothing is reserved, so it runs").count(), 1);
}

#[test]
fn a_test_without_an_input_says_how_to_give_one() {
    let told = ringfence(&["test", guests::ECHO]);
    assert_eq!(told.status.code(), Some(2), "{}", text(&told));
    assert!(text(&told).contains("example.txt"), "{}", text(&told));
}

#[test]
fn a_capability_sheet_says_what_a_model_can_do() {
    let sheet = text(&ringfence(&["inspect", guests::DIGITS]));
    for part in [
        "local/main/digits of type visual-classifier",
        "may run graphs of its package: digits",
        "digits: image float32[?, 1, 8, 8] -> probabilities float32[?, 10]",
        "ringfence:model/runner@0.1.0",
        "made by",
        "wit-component",
        "png 0.",
    ] {
        assert!(sheet.contains(part), "{part} in {sheet}");
    }
    let refused = text(&ringfence(&["inspect", guests::IMPORTS_SOCKETS]));
    assert!(refused.contains("refused") && refused.contains("library's `net`"), "{refused}");

    let component = Path::new(guests::ECHO).join("1/model.wasm");
    let of_file = text(&ringfence(&["inspect", component.to_str().unwrap()]));
    assert!(of_file.contains("may wait") && !of_file.contains("limits"), "{of_file}");
}

#[test]
fn two_models_are_told_apart_and_the_same_is_the_same() {
    let more = Variant::of(guests::ECHO, &[("cpu_memory: ", "cpu_memory: \"99Mi\" # ")]);
    let changes = text(&ringfence(&["inspect", guests::ECHO, more.path()]));
    let lines: Vec<_> = changes.lines().map(|line| line.split(':').next().unwrap()).collect();
    assert_eq!(lines, ["- limits", "- version", "+ limits", "+ version"], "{changes}");
    let same = text(&ringfence(&["inspect", guests::ECHO, guests::ECHO]));
    assert_eq!(same, "the two are the same\n");
}

#[test]
fn a_folder_that_has_not_been_built_is_inspected_by_its_configuration() {
    let scratch = TempDir::new().unwrap();
    let folder = scratch.path().join("fresh");
    assert!(ringfence(&["new", folder.to_str().unwrap()]).status.success());
    let sheet = ringfence(&["inspect", folder.to_str().unwrap()]);
    assert!(sheet.status.success(), "{}", text(&sheet));
    assert!(text(&sheet).contains("not built yet; run `ringfence build`"), "{}", text(&sheet));
}

/// Ends with this value.
struct Watching(Child);

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_watched_folder_is_built_and_tested_again_when_it_changes() {
    let scratch = TempDir::new().unwrap();
    let folder = scratch.path().join("watched");
    assert!(ringfence(&["new", folder.to_str().unwrap()]).status.success());
    let mut watching = Watching(
        Command::new(binary())
            .args(["build", "--watch", folder.to_str().unwrap(), "--target-dir"])
            .arg(target_dir())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let mut lines = BufReader::new(watching.0.stdout.take().unwrap()).lines();
    let mut until = |wanted: &str| {
        let found = lines.find(|line| line.as_ref().is_ok_and(|line| line.contains(wanted)));
        assert!(found.is_some(), "{wanted} was not printed");
    };
    // `stream` is the last function that is called.
    until("stream: ok");
    let source = folder.join("1/model.rs");
    let model = std::fs::read_to_string(&source).unwrap();
    std::fs::write(&source, model.replace("Hello, {}!", "Welcome, {}!")).unwrap();
    until("Welcome, Ada!");
}

/// A change to a copy of `echo`, and what the author is told.
struct Mistake {
    name: &'static str,
    make: fn(&Path),
    told: &'static str,
    mend: &'static str,
}

fn config(folder: &Path, from: &str, to: &str) {
    let path = folder.join("config.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{from} in {text}");
    std::fs::write(path, text.replace(from, to)).unwrap();
}

fn put(folder: &Path, name: &str, bytes: &[u8]) {
    std::fs::write(folder.join(name), bytes).unwrap();
}

const MISTAKES: [Mistake; 20] = [
    Mistake {
        name: "a wrong quantity",
        make: |dir| config(dir, "cpu_memory: ", "cpu_memory: 13Gig # "),
        told: "`inference_compute_info.cpu_memory`: \"13Gig\" is not a quantity",
        mend: "did you mean \"13Gi\"?",
    },
    Mistake {
        name: "half a byte",
        make: |dir| config(dir, "cpu_memory: ", "cpu_memory: 500m # "),
        told: "not a whole number of bytes",
        mend: "did you mean \"500Mi\"?",
    },
    Mistake {
        name: "no CPU",
        make: |dir| config(dir, "cpu_limit: ", "cpu_limit: 0 # "),
        told: "\"0\" must be more than zero",
        mend: "^",
    },
    Mistake {
        name: "a typo in a key",
        make: |dir| config(dir, "cpu_memory", "cpu_memoory"),
        told: "`inference_compute_info.cpu_memoory`: is not a key",
        mend: "did you mean `cpu_memory`?",
    },
    Mistake {
        name: "a typo in a section",
        make: |dir| config(dir, "inference_compute_info", "inference_compute_inf"),
        told: "`inference_compute_inf`: is not a key",
        mend: "did you mean `inference_compute_info`?",
    },
    Mistake {
        name: "no concepts",
        make: |dir| config(dir, "model_type_id: ", "model_type_id: visual-classifier # "),
        told: "`concepts`: is missing",
        mend: "list them as `- {id: cat, name: cat}`",
    },
    Mistake {
        name: "a model without an id",
        make: |dir| config(dir, "  id: echo", "  # id: echo"),
        told: "`model.id`: is missing",
        mend: "write a name such as `id: my-model`",
    },
    Mistake {
        name: "an id that is a path",
        make: |dir| config(dir, "id: echo", "id: ../echo"),
        told: "\"../echo\" begins with a dot",
        mend: "begin it with a letter or a digit",
    },
    Mistake {
        name: "a timeout without a unit",
        make: |dir| put(dir, "config.yaml", b"model: {id: m}\nringfence: {call_timeout: 30}\n"),
        told: "\"30\" is not a time",
        mend: "such as \"30s\"",
    },
    Mistake {
        name: "a tab in YAML",
        make: |dir| put(dir, "config.yaml", b"model:\n\tid: m\n"),
        told: "config.yaml:2:",
        mend: "correct the YAML there",
    },
    Mistake {
        name: "an alias",
        make: |dir| put(dir, "config.yaml", b"model: &a {id: m}\n"),
        told: "anchors, aliases and merge keys are not read",
        mend: "write the values out",
    },
    Mistake {
        name: "two sections of one name",
        make: |dir| put(dir, "config.yaml", b"model: {id: m}\nmodel: {id: n}\n"),
        told: "config.yaml:2:1: the key \"model\" stands twice",
        mend: "correct the YAML there",
    },
    Mistake {
        name: "no config.yaml",
        make: |dir| std::fs::remove_file(dir.join("config.yaml")).unwrap(),
        told: "config.yaml is missing",
        mend: "`ringfence new`",
    },
    Mistake {
        name: "a folder that is not built",
        make: |dir| std::fs::remove_file(dir.join("1/model.wasm")).unwrap(),
        told: "1/model.wasm is missing",
        mend: "run `ringfence build",
    },
    Mistake {
        name: "a core module",
        make: |dir| put(dir, "1/model.wasm", b"\0asm\x01\0\0\0"),
        told: "is a core module and no component",
        mend: "build it for wasm32-wasip2",
    },
    Mistake {
        name: "something else than wasm",
        make: |dir| put(dir, "1/model.wasm", b"#!/bin/sh\n"),
        told: "is not a WebAssembly component",
        mend: "build it again, with `ringfence build`",
    },
    Mistake {
        name: "a component of another world",
        make: |dir| put(dir, "1/model.wasm", b"\0asm\x0d\0\x01\0"),
        told: "does not export ringfence:model/runner",
        mend: "must implement the world model-runner",
    },
    Mistake {
        name: "a guest that imports sockets",
        make: |dir| {
            let other = Path::new(guests::IMPORTS_SOCKETS).join("1/model.wasm");
            put(dir, "1/model.wasm", &std::fs::read(other).unwrap());
        },
        told: "imports wasi:sockets/",
        mend: "the standard library's `net`",
    },
    Mistake {
        name: "a graph that is no ONNX",
        make: |dir| put(dir, "1/net.onnx", b"no protobuf at all"),
        told: "cannot load the graph net",
        mend: "export it again",
    },
    Mistake {
        name: "a rule for a graph that is not there",
        make: |dir| {
            put(dir, "config.yaml", b"model: {id: m}\nringfence: {graphs: {nett: net}}\n");
        },
        told: "there is no 1/nett.onnx",
        mend: "correct the name",
    },
];

#[test]
fn each_mistake_gets_an_answer_that_says_how_to_mend_it() {
    for Mistake { name, make, told, mend } in MISTAKES {
        let variant = Variant::of(guests::ECHO, &[]);
        make(variant.folder());
        let answer = ringfence(&["test", variant.path(), "--text", "x"]);
        assert_eq!(answer.status.code(), Some(2), "{name}: {}", text(&answer));
        for part in [told, mend] {
            assert!(text(&answer).contains(part), "{name}: {part} in {}", text(&answer));
        }
    }
}

/// Two that show only when the model runs.
#[test]
fn a_model_that_cannot_load_is_told_with_its_own_words() {
    let fails = ringfence(&["test", guests::LOAD_FAILS, "--text", "x"]);
    assert_eq!(fails.status.code(), Some(1), "{}", text(&fails));
    assert!(text(&fails).contains("load-model: returned an error"), "{}", text(&fails));
    let missing = ringfence(&["test", guests::MISSING_GRAPH, "--text", "x"]);
    assert_eq!(missing.status.code(), Some(1), "{}", text(&missing));
    assert!(text(&missing).contains("no graph is named"), "{}", text(&missing));
}

/// At the suggestion all calls pass; the command itself has tried that at 70 % of
/// it one is stopped. Comments stay.
#[test]
fn limits_that_fit_are_found_and_written() {
    let scan = concat!(env!("CARGO_MANIFEST_DIR"), "/../guests/digits/held-out/seven.png");
    let variant = Variant::of(guests::DIGITS, &[]);
    let path = variant.folder().join("config.yaml");
    let before = std::fs::read_to_string(&path).unwrap();
    let told = ringfence(&["test", variant.path(), "--file", scan, "--limits", "--write"]);
    assert!(told.status.success(), "{}", text(&told));
    assert!(text(&told).contains("inference_compute_info.cpu_memory"), "{}", text(&told));
    let after = std::fs::read_to_string(&path).unwrap();
    let changed = |line: &&str| {
        !["cpu_limit", "cpu_memory", "call_timeout", "max_concurrency", "ringfence:"]
            .iter()
            .any(|key| line.contains(key))
            && !line.is_empty()
    };
    let (old, new) = (before.lines().filter(changed), after.lines().filter(changed));
    assert!(old.eq(new), "{before}\n{after}");
    assert_ne!(before, after);
    let again = ringfence(&["test", variant.path(), "--file", scan]);
    assert!(again.status.success(), "{}", text(&again));

    // Calls at the same time wait for each other, and none is lost.
    let host = Host::serve(&[variant.path()]);
    let bytes = std::fs::read(scan).unwrap();
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let calls = (0..16).map(|_| client.predict("digits", vec![image_input(bytes.clone())]));
        for answer in futures_util::future::join_all(calls).await {
            assert_eq!(answer.code(), StatusCode::Success, "{answer:?}");
        }
    });
    drop(host);

    // 70 % of what was suggested.
    let line = after.lines().find(|line| line.contains("cpu_memory:")).unwrap();
    let kib: u64 = line.split('"').nth(1).unwrap().strip_suffix("Ki").unwrap().parse().unwrap();
    let less = format!("{}Ki", kib * 7 / 10);
    std::fs::write(&path, after.replace(&format!("{kib}Ki"), &less)).unwrap();
    let stopped = ringfence(&["test", variant.path(), "--file", scan]);
    assert!(
        !stopped.status.success() && text(&stopped).contains("cpu_memory"),
        "{}",
        text(&stopped)
    );
}

#[test]
fn arguments_are_given_by_name() {
    let said = |input: &str| {
        let output = ringfence(&["test", guests::TYPED, "--input", input]);
        (output.status.code(), text(&output))
    };
    for (input, method, expected) in [
        (r#"{"prompt": "ab", "times": 3, "loud": true}"#, "predict", "ABABAB."),
        (r#"{"numbers": [1, 2, 3]}"#, "sum", "6"),
        (r#"{"person": {"age": 36, "name": "Ada"}, "years": 1}"#, "older", "37"),
        (r#"{"pair": ["a", 0.5]}"#, "swap", "0.5"),
    ] {
        let (code, text) = said(input);
        assert_eq!(code, Some(0), "{text}");
        let (_, after) =
            text.split_once(&format!("\n{method}: ok")).unwrap_or_else(|| panic!("{text}"));
        let outputs = after.split("fuel").next().unwrap();
        assert!(outputs.contains(expected), "{method}: {text}");
        let missed = "was not called: ";
        assert!(text.contains(missed), "the other methods have other arguments: {text}");
    }
    for (input, expected) in [
        (r#"{"numbers": [1, "2"]}"#, "`numbers/1` is \"2\", not a whole number"),
        ("{", "--input is no JSON"),
        ("3", "--input takes an object or a list"),
        (r#"{"of_nobody": 1}"#, "no function was called"),
    ] {
        let (code, text) = said(input);
        assert!(code.is_some_and(|code| code > 0) && text.contains(expected), "{text}");
    }
    // A model without methods takes any object; `generate` of this one wants a text.
    let json = text(&ringfence(&["test", guests::ECHO, "--input", r#"{"a": [1, 0.5]}"#]));
    assert!(json.contains(r#"{"a":[1,0.5]}"#) && json.contains("expected text"), "{json}");
}

#[test]
fn a_model_on_a_host_is_inspected() {
    let models = vec![guests::TYPED.into()];
    let host = Host::start(HostOptions { models, ..HostOptions::default() });
    let pat = host.data_dir().join("admin.pat");
    let inspect = |model: &str| {
        ringfence(&["inspect", model, "--base", host.base(), "--pat-file", pat.to_str().unwrap()])
    };
    let sheet = inspect("local/main/typed");
    assert!(sheet.status.success(), "{}", text(&sheet));
    for expected in ["local/main/typed of type", "sum(numbers: LIST[INT]) -> INT", "times: INT = 2"]
    {
        assert!(text(&sheet).contains(expected), "{expected}: {}", text(&sheet));
    }
    let missing = inspect("local/main/nobody");
    assert_eq!(missing.status.code(), Some(1));
    assert!(text(&missing).contains("there is no file or folder local/main/nobody"));
}

/// What `inspect` says that it may do, against what it did.
#[test]
fn a_test_says_what_was_called() {
    let args = [guests::SCRIBE, "--text", "It was ", "--param", "max_tokens=3"];
    let said = figures(&args);
    let calls = |index: usize| said[index]["host_calls"].clone();
    assert!(calls(0).get("wasi:nn: compute").is_none(), "{}", calls(0));
    assert_eq!(calls(2)["streams: sink.send"], said[2]["outputs"].as_array().unwrap().len());
    assert_eq!(calls(2)["wasi:nn: compute"], said[2]["computes"]);
    assert!(calls(2)["wasi:random: get"].as_u64().is_some_and(|draws| draws > 0), "{}", calls(2));
    let clocks = figures(&[guests::CLOCK_PROBE, "--text", "x"]);
    assert!(clocks[1]["host_calls"]["wasi:clocks: now"].as_u64() > Some(0), "{}", clocks[1]);
}
