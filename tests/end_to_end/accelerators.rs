//! Models that ask for what the machine does not have.

use crate::author::text;
use ringfence_tests::{Host, HostOptions, Variant, guests, refused_start};

/// OPS-10: what was asked for is named, whoever asks; models that need nothing of
/// it serve, and `doctor` says what there is.
#[test]
fn a_model_that_asks_for_an_accelerator_is_refused_by_what_it_asked_for_and_others_serve() {
    let asks = [
        ("  id: echo\n", "  id: fast\n"),
        (
            "  num_accelerators: 0\n",
            "  num_accelerators: 2\n  accelerator_type: [\"NVIDIA-A10G\"]\n  \
             accelerator_memory: \"20Gi\"\n",
        ),
    ];
    let fast = Variant::of(guests::ECHO, &asks);
    let host = Host::start(HostOptions {
        models: vec![guests::TEXT_TO_TEXT.into()],
        ..HostOptions::default()
    });
    let uploaded = host.ringfence(&["upload", guests::ECHO]);
    assert!(uploaded.status.success(), "{}", text(&uploaded));
    let told = host.ringfence(&["upload", fast.path()]);
    assert_eq!(told.status.code(), Some(1), "{}", text(&told));
    let told = text(&told);
    assert!(told.contains("2 accelerators") && told.contains("NVIDIA-A10G"), "{told}");
    assert!(told.contains("computes on CPUs only"), "{told}");
    let called = host.ringfence(&["predict", "fast", "--text", "x"]);
    assert_eq!(called.status.code(), Some(1), "{}", text(&called));
    let called = host.ringfence(&["predict", "echo", "--text", "x"]);
    assert!(called.status.success(), "{}", text(&called));

    let scratch = tempfile::TempDir::new().unwrap();
    let data_dir = scratch.path().join("data");
    let data_dir = data_dir.to_str().unwrap();
    let listen = ["--listen", "127.0.0.1:0", "--data-dir", data_dir];
    let (code, told) = refused_start(&[&listen[..], &["--model", fast.path()]].concat());
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("fast") && told.contains("NVIDIA-A10G"), "{told}");
    let doctor = Host::command(&["doctor", "--data-dir", data_dir]);
    let told = text(&doctor);
    let line = told.lines().find(|line| line.contains("accelerators:")).unwrap();
    assert!(line.contains("a model that asks for one is refused"), "{line}");
}
