//! What a device does that is there: one of NVIDIA's where `RINGFENCE_TEST_GPU` says so, else
//! one that this program pretends to have.
//!
//! For the first, `RINGFENCE_TEST_PROGRAM` names the product's own program, and
//! `RINGFENCE_TEST_CUDA` the folders of CUDA, with colons between them.

use crate::author::text;
use ringfence::proto::clarifai::api::status::StatusCode;
use ringfence_tests::device::{DEVICES, cuda_args};
use ringfence_tests::{
    Answer, Client, Host, HostOptions, Variant, binary, block_on, guests, image_input, params,
    refused_start_with, request, text_input,
};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;
use tempfile::TempDir;

/// By how much a value that is computed there may differ from the CPU's: both have floats of
/// 32 bits, and add them up in orders of their own.
const TOLERANCE: f32 = 1e-3;

fn is_real() -> bool {
    std::env::var_os("RINGFENCE_TEST_GPU").is_some()
}

/// One device, if it has to be made up.
fn machine() -> Vec<(&'static str, String)> {
    match is_real() {
        true => Vec::new(),
        false => vec![(DEVICES, "Fake-One:67108864".to_owned())],
    }
}

fn cuda() -> Vec<String> {
    if is_real() { cuda_args() } else { Vec::new() }
}

/// What is compiled for a device that is there is compiled for the first host alone. Tests of
/// one run one after the other.
static DATA_DIR: LazyLock<TempDir> = LazyLock::new(|| TempDir::new().unwrap());

fn data_dir() -> Option<PathBuf> {
    is_real().then(|| DATA_DIR.path().join("data"))
}

fn host(models: &[&str]) -> Host {
    let variables = machine().into_iter().map(|(name, value)| (name.to_owned(), value));
    Host::start(HostOptions {
        data_dir: data_dir(),
        models: models.iter().map(Into::into).collect(),
        args: [cuda(), ["--metrics-listen", "127.0.0.1:0"].map(str::to_owned).to_vec()].concat(),
        variables: variables.collect(),
        ..HostOptions::default()
    })
}

/// A model folder whose graphs are to be on a device, under a name of its own.
pub(crate) fn on_device(guest: &str, id: &str, more: &str) -> Variant {
    let guest_id = format!("id: {}\n", guest.rsplit('/').next().unwrap());
    let asks = format!("  num_accelerators: 1\n{more}");
    let name = format!("id: {id}\n");
    Variant::of(guest, &[("  num_accelerators: 0\n", asks.as_str()), (&guest_id, &name)])
}

fn picture(model: &str) -> ringfence::proto::clarifai::api::PostModelOutputsRequest {
    request(model, vec![image_input(crate::digits::single("two.png"))])
}

fn device_seconds(host: &Host, model: &str) -> f64 {
    host.metric(&format!("ringfence_device_seconds_total{{model=\"local/main/{model}\"}}"))
}

/// The example models that have graphs, against the CPU. What it took is accounted.
#[test]
fn each_example_computes_there_what_it_computes_on_the_cpu() {
    // tract has no pooling there.
    let pool = "\nringfence:\n  accelerator_cpu_nodes: [e]\n";
    let digits = on_device(guests::DIGITS, "digits-there", pool);
    let there = host(&[digits.path(), guests::DIGITS]);
    block_on(async {
        let client = Client::connect(there.base(), &there.pat()).await;
        let values = async |model: &str| {
            let answer = client.predict_request(picture(model)).await;
            assert_eq!(answer.code(), StatusCode::Success, "{answer:?}");
            let concepts = answer.outputs[0].data.as_ref().unwrap().concepts.clone();
            let values = concepts.into_iter().map(|concept| (concept.id, concept.value));
            values.collect::<BTreeMap<_, _>>()
        };
        let (on_device, on_cpu) = (values("digits-there").await, values("digits").await);
        assert_eq!(on_device.len(), 10);
        for (id, value) in &on_cpu {
            let difference = (value - on_device[id]).abs();
            assert!(difference <= TOLERANCE, "{id}: {difference}");
        }
    });
    assert!(device_seconds(&there, "digits-there") > 0.0);
    assert_eq!(device_seconds(&there, "digits"), 0.0);
    drop(there);

    let scribe = on_device(guests::SCRIBE, "scribe-there", "");
    let there = host(&[scribe.path(), guests::SCRIBE]);
    block_on(async {
        let client = Client::connect(there.base(), &there.pat()).await;
        let tokens = async |model: &str| {
            let asked = request(model, vec![text_input("In the beginning ")]);
            let asked = params(asked, json!({ "max_tokens": 32, "temperature": 0 }));
            let answers = client.generate_all(asked).await;
            answers.iter().map(Answer::text).collect::<String>()
        };
        let on_device = tokens("scribe-there").await;
        assert!(!on_device.is_empty());
        assert_eq!(on_device, tokens("scribe").await);
    });
    assert!(device_seconds(&there, "scribe-there") > 0.0);
}

/// What the device has is more than what the version may.
#[test]
fn a_version_has_no_more_of_its_memory_than_it_asks_for() {
    let little = on_device(guests::SCRIBE, "little", "  accelerator_memory: \"1Mi\"\n");
    let mut args = vec!["--listen", "127.0.0.1:0", "--model", little.path()];
    let (cuda, data_dir) = (cuda(), data_dir());
    args.extend(cuda.iter().map(String::as_str));
    if let Some(data_dir) = &data_dir {
        args.extend(["--data-dir", data_dir.to_str().unwrap()]);
    }
    let (code, told) = refused_start_with(&args, &machine());
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("does not fit into accelerator_memory"), "{told}");
}

/// One that there is not is named with the one that is, and nobody computes on CPUs instead.
#[test]
fn another_device_is_refused_and_nobody_computes_on_cpus_instead() {
    let host = host(&[guests::ECHO]);
    let asks = on_device(guests::DIGITS, "other", "  accelerator_type: [\"AMD-*\"]\n");
    let refused = host.ringfence(&["upload", asks.path()]);
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
    let told = text(&refused);
    assert!(told.contains("of type AMD-*") && told.contains("this host has"), "{told}");
    assert!(!told.contains("no accelerator"), "{told}");
}

/// Two versions have it in turns, each in a process that begins anew.
#[test]
fn two_versions_have_one_device_in_turns() {
    let (first, second) =
        (on_device(guests::SCRIBE, "first", ""), on_device(guests::SCRIBE, "second", ""));
    let host = host(&[guests::ECHO]);
    for model in [&first, &second] {
        let taken = host.ringfence(&["upload", model.path()]);
        assert!(taken.status.success(), "{}", text(&taken));
    }
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        for model in ["first", "second", "first"] {
            let asked = request(model, vec![text_input("In the beginning ")]);
            let asked = params(asked, json!({ "max_tokens": 4, "temperature": 0 }));
            let answers = client.generate_all(asked).await;
            let is_good = |answer: &Answer| answer.status.code == 10000;
            assert!(!answers.is_empty() && answers.iter().all(is_good), "{model}: {answers:?}");
        }
    });
}

/// Whoever leaves in the middle of it leaves nothing that runs.
#[test]
fn a_call_that_is_over_leaves_the_device_to_the_next() {
    let scribe = on_device(guests::SCRIBE, "short", "\nringfence:\n  call_timeout: 1s\n");
    let host = host(&[scribe.path()]);
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let asked = |count: u32| {
            let asked = request("short", vec![text_input("In the beginning ")]);
            params(asked, json!({ "max_tokens": count, "temperature": 0 }))
        };
        let long = client.generate_all(asked(100_000)).await;
        let last = long.last().unwrap();
        assert!(last.status.code != 10000, "{last:?}");
        let next = client.generate_all(asked(4)).await;
        assert!(next.iter().all(|answer| answer.status.code == 10000), "{next:?}");
    });
}

/// With the nodes that are there.
#[test]
fn its_jail_holds_and_a_driver_has_what_it_needs() {
    let scratch = TempDir::new().unwrap();
    let told = Command::new(binary())
        .args(["doctor", "--data-dir"])
        .arg(scratch.path().join("data"))
        .envs(machine())
        .output()
        .unwrap();
    let told = text(&told);
    let lines = told.lines().filter(|line| line.contains("jail with accelerators: "));
    let lines: Vec<&str> = lines.collect();
    // A line for each layer, and none for what it has not refused, or a driver has not.
    assert_eq!(lines.len(), 9, "{told}");
}
