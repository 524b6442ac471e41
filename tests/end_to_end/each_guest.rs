//! One test for each guest, in one host, beside a caller who must notice
//! nothing. A guest without a function here does not compile.

use futures_util::FutureExt;
use ringfence::proto::clarifai::api::status::StatusCode;
use ringfence::proto::clarifai::api::{self, PostModelOutputsRequest};
use ringfence_tests::{
    Answer, Canary, Client, Host, HostOptions, Variant, block_on, collect, foreach_guest, guests,
    image_input, params, request, text_input,
};
use serde_json::json;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

/// Guests that are refused before they run; `start.rs` tests that.
const REFUSED: &[&str] = &[guests::IMPORTS_SOCKETS, guests::LARGE_START];

#[test]
fn every_guest_gets_its_verdict_and_its_neighbours_notice_nothing() {
    let mut models = Vec::new();
    macro_rules! serve {
        ($name:ident) => {
            let folder = guest_folder(stringify!($name));
            if !REFUSED.contains(&folder) {
                models.push(folder.into());
            }
        };
    }
    foreach_guest!(serve);
    let mut host = Host::start(HostOptions { models, ..HostOptions::default() });

    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let mut surprises = Vec::new();
        let mut innocents = 0;
        // Threads for what blocks come with the first of it.
        client.predict("asset-hog", vec![text_input("x")]).await;
        let canary = Canary::start(&host).await;
        macro_rules! run {
            ($name:ident) => {
                // One guest's surprise must not hide another's.
                let asserted = guarded($name, &client).await;
                if asserted.is_err() {
                    surprises.push(stringify!($name));
                }
                let after = client.predict("echo", vec![text_input("still there")]).await;
                assert_eq!(after.text(), "still there", "after {}", stringify!($name));
                if may_be_innocent(stringify!($name)) {
                    let model = stringify!($name).replace('_', "-");
                    let innocent = client.predict(&model, vec![text_input("innocent")]).await;
                    assert_eq!(innocent.code(), StatusCode::Success, "{model}: {innocent:?}");
                    innocents += 1;
                }
                canary.comes_back(&host, stringify!($name)).await;
            };
        }
        foreach_guest!(run);
        let calls = canary.ends(&mut host, "all guests").await;
        assert!(calls > 20, "it hardly called");
        assert!(surprises.is_empty(), "{surprises:?}");
        assert!(innocents > 30, "{innocents}");
    });
}

/// Whether a guest answers an innocent call, as `hostile/innocent` does for it.
fn may_be_innocent(name: &str) -> bool {
    let folder = Path::new("hostile").join(name.replace('_', "-"));
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../guests").join(folder);
    std::fs::read_to_string(manifest.join("Cargo.toml"))
        .is_ok_and(|manifest| manifest.contains("innocent.workspace"))
}

/// One guest alone, for whoever looks at it or takes its limit away.
#[test]
#[ignore = "it needs RINGFENCE_GUEST, the name of a guest with _ for -"]
fn the_guest_of_the_environment_gets_its_verdict() {
    let wanted = std::env::var("RINGFENCE_GUEST").unwrap();
    let models = vec![guest_folder(&wanted).into()];
    let host = Host::start(HostOptions { models, ..HostOptions::default() });
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        macro_rules! run {
            ($name:ident) => {
                if stringify!($name) == wanted {
                    assert!(guarded($name, &client).await.is_ok());
                }
            };
        }
        foreach_guest!(run);
    });
}

/// A guest's test, with a panic as its outcome. A function of its own, because
/// all these futures together are too large for one stack frame.
fn guarded<'a, F>(
    test: impl FnOnce(&'a Client) -> F,
    client: &'a Client,
) -> Pin<Box<dyn Future<Output = std::thread::Result<()>> + 'a>>
where
    F: Future<Output = ()> + 'a,
{
    Box::pin(AssertUnwindSafe(test(client)).catch_unwind())
}

fn guest_folder(name: &str) -> &'static str {
    guests::ALL.iter().find(|(known, _)| *known == name).unwrap().1
}

/// Asserts how a predict call ends, twice: the next call of the same model
/// starts afresh.
async fn ends(
    client: &Client,
    asked: PostModelOutputsRequest,
    code: StatusCode,
    reasons: &[&str],
    text: &str,
) {
    for _ in 0..2 {
        let answer = client.predict_request(asked.clone()).await;
        assert_answer(&answer, code, reasons, text);
    }
}

fn assert_answer(answer: &Answer, code: StatusCode, reasons: &[&str], text: &str) {
    assert_eq!(answer.code(), code, "{answer:?}");
    assert!(reasons.contains(&answer.reason()), "{answer:?}");
    assert!(answer.status.details.contains(text), "{answer:?}");
    assert!(!answer.status.description.is_empty(), "{answer:?}");
}

/// A file below the guests' folder.
fn file(path: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../guests").join(path)).unwrap()
}

/// The picture that comes with a template.
fn example(name: &str) -> api::Input {
    image_input(file(&format!("template/{name}/example.png")))
}

fn plain(model: &str) -> PostModelOutputsRequest {
    request(model, vec![text_input("hello")])
}

const EXHAUSTED: StatusCode = StatusCode::InternalResourceExhausted;
const FAILED: StatusCode = StatusCode::ModelPredictionFailed;
const TIMEOUT: StatusCode = StatusCode::RpcRequestTimeout;
const UNLOADABLE: StatusCode = StatusCode::ModelDeploymentFailed;

/// The same before the call: the fuel says that the model cannot be loaded, the
/// deadline only that there was no time.
fn assert_burnt_in_load(answer: &Answer) {
    match answer.code() {
        UNLOADABLE => assert_answer(answer, UNLOADABLE, &["FUEL_EXHAUSTED"], "in load-model"),
        _ => assert_answer(answer, TIMEOUT, &["WALL_DEADLINE"], "in load-model"),
    }
}

/// A guest that burns CPU ends by whichever of its two limits comes first.
async fn burns(client: &Client, asked: PostModelOutputsRequest) {
    let answer = client.predict_request(asked).await;
    match answer.code() {
        EXHAUSTED => assert_eq!(answer.reason(), "FUEL_EXHAUSTED"),
        _ => assert_answer(&answer, TIMEOUT, &["WALL_DEADLINE"], "deadline"),
    }
}

async fn alias_lists(client: &Client) {
    let asked = |lists: u64| params(plain("alias-lists"), json!({ "lists": lists }));
    // Its `cpu_memory` is 64 MiB, and each list has 8.
    assert_eq!(client.predict_request(asked(7)).await.code(), StatusCode::Success);
    for lists in [9, 4096] {
        ends(client, asked(lists), EXHAUSTED, &["MEMORY_LIMIT"], "at once").await;
    }
}

async fn any_to_any(client: &Client) {
    let mut input = example("any-to-any");
    let picture = input.data.as_ref().unwrap().image.clone();
    input.data.as_mut().unwrap().text = text_input("two words").data.unwrap().text;
    let answer = client.predict("any-to-any", vec![input]).await;
    let data = answer.outputs[0].data.clone().unwrap();
    assert_eq!(data.text.unwrap().raw, "text: 2 words\nimage: 369 bytes");
    assert_eq!(data.image, picture);
}

async fn asset_hog(client: &Client) {
    let text = client.predict_request(plain("asset-hog")).await.text();
    assert_eq!(text, "small.txt [15, 1, 0]");
}

/// The same guest with an asset that is longer than one read may be.
#[test]
fn a_read_of_an_asset_is_cut_at_its_limit() {
    let variant = Variant::of(guests::ASSET_HOG, &[]);
    std::fs::write(variant.folder().join("1/long.bin"), vec![7; (1 << 20) + 5]).unwrap();
    let host = Host::serve(&[variant.path()]);
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let text = client.predict_request(plain("asset-hog")).await.text();
        assert_eq!(text, "long.bin [1048576, 1, 0]\nsmall.txt [15, 1, 0]");
    });
}

async fn audio_to_text(client: &Client) {
    let melody = file("template/audio-to-text/example.wav");
    let audio = api::Audio { url: String::new(), base64: melody.into() };
    let data = api::Data { audio: Some(audio), ..Default::default() };
    let input = api::Input { id: String::new(), data: Some(data) };
    let answer = client.predict("audio-to-text", vec![input]).await;
    assert_eq!(answer.text(), "C4 E4 G4 C5", "{answer:?}");
}

async fn bad_output(client: &Client) {
    for case in ["info", "json", "ndarray", "dtype", "deep", "sparse", "conflict", "twice"] {
        let asked = params(plain("bad-output"), json!({ "case": case }));
        let answer = client.predict_request(asked).await;
        // What cannot be said on the wire as it is reaches the client as
        // something it can read, or as the model's failure.
        assert!([StatusCode::Success, FAILED].contains(&answer.code()), "{case}: {answer:?}");
    }
}

async fn bad_tensor(client: &Client) {
    let invalid = StatusCode::InputInvalidArgument;
    let asked = |case: &str| params(plain("bad-tensor"), json!({ "case": case }));
    let cases = [
        ("bytes", "takes 16 bytes, but its data has 3"),
        ("overflow", "larger than any memory"),
        ("type", "takes float32"),
        ("shape", "takes the shape [1, 4]"),
        ("missing", "misses its input"),
        ("duplicate", "no further input"),
        ("unknown", "no further input"),
        ("number", "misses its input"),
    ];
    for (case, text) in cases {
        ends(client, asked(case), invalid, &["GUEST_ERROR"], text).await;
    }
    let fits = client.predict_request(asked("fits")).await;
    assert_eq!(fits.text(), "2", "{fits:?}");
}

async fn bad_values(client: &Client) {
    for what in ["case", "type", "text", "half", "length", "alignment"] {
        let asked = params(plain("bad-values"), json!({ "what": what }));
        ends(client, asked, FAILED, &["GUEST_TRAP"], "").await;
    }
}

async fn big_output(client: &Client) {
    let reasons = ["OUTPUT_LIMIT", "MEMORY_LIMIT"];
    ends(client, plain("big-output"), EXHAUSTED, &reasons, "").await;
    let answers = client.generate_all(plain("big-output")).await;
    assert_answer(answers.last().unwrap(), EXHAUSTED, &reasons, "");
}

async fn clock_probe(client: &Client) {
    let answer = client.predict_request(plain("clock-probe")).await;
    let steps: Vec<u64> = answer
        .text()
        .split(|character: char| !character.is_ascii_digit())
        .filter(|digits| !digits.is_empty())
        .map(|digits| digits.parse().unwrap())
        .collect();
    assert!(!steps.is_empty(), "{answer:?}");
    assert!(steps.iter().all(|step| *step == 0 || *step >= 1_000_000), "{answer:?}");
}

async fn compute_loop(client: &Client) {
    burns(client, plain("compute-loop")).await;
}

async fn counting_loop(client: &Client) {
    let answers = client.generate_all(plain("counting-loop")).await;
    let (last, counts) = answers.split_last().unwrap();
    assert!(!counts.is_empty(), "{last:?}");
    assert!(["FUEL_EXHAUSTED", "WALL_DEADLINE"].contains(&last.reason()), "{last:?}");
}

async fn cpu_mixes(client: &Client) {
    for mix in ["integer", "fill", "division", "calls", "floats"] {
        let asked = params(plain("cpu-mixes"), json!({ "mix": mix }));
        let answers = client.generate_all(asked).await;
        let (last, counts) = answers.split_last().unwrap();
        assert!(!counts.is_empty(), "{mix}: {last:?}");
        assert!(["FUEL_EXHAUSTED", "WALL_DEADLINE"].contains(&last.reason()), "{mix}: {last:?}");
    }
    assert_eq!(client.predict_request(plain("cpu-mixes")).await.text(), "4096");
}

async fn digits(client: &Client) {
    let scan = super::digits::single("seven.png");
    let answer = client.predict("digits", vec![image_input(scan)]).await;
    assert_eq!(answer.concepts()[0].id, "7", "{answer:?}");
}

async fn echo(client: &Client) {
    let answer = client.predict("echo", vec![text_input("äöü\n")]).await;
    assert_eq!(answer.text(), "äöü\n");
}

async fn exit(client: &Client) {
    ends(client, plain("exit"), FAILED, &["GUEST_TRAP"], "exit(0)").await;
    let one = params(plain("exit"), json!({ "status": 1 }));
    ends(client, one, FAILED, &["GUEST_TRAP"], "exit(1)").await;
}

async fn empty_writes(client: &Client) {
    burns(client, plain("empty-writes")).await;
}

/// Where the system runs out of files before the model runs out of handles,
/// the guest is told so and the host goes on.
async fn file_leak(client: &Client) {
    let answer = client.predict_request(plain("file-leak")).await;
    match answer.code() {
        StatusCode::Success => assert!(answer.text().starts_with("denied"), "{answer:?}"),
        _ => assert_answer(&answer, EXHAUSTED, &["HANDLE_LIMIT"], "handles"),
    }
}

async fn foreign_nn(client: &Client) {
    let asked = request("foreign-nn", vec![text_input("21")]);
    assert_eq!(client.predict_request(asked).await.text(), "42");
}

async fn forged_handle(client: &Client) {
    for how in ["unknown", "dropped", "other"] {
        let asked = params(plain("forged-handle"), json!({ "how": how }));
        ends(client, asked, FAILED, &["GUEST_TRAP"], "").await;
    }
}

async fn fs_probe(client: &Client) {
    let text = client.predict_request(plain("fs-probe")).await.text();
    let (got, rest): (Vec<_>, Vec<_>) = text.lines().partition(|line| line.starts_with("GOT"));
    let notes = file("hostile/fs-probe/1/notes.txt").len().min(64);
    assert_eq!(
        got,
        [
            format!("GOT read /model/notes.txt: {notes}"),
            "GOT list /model: \"notes.txt\"".to_owned()
        ],
        "{text}"
    );
    let denied = rest.iter().filter(|line| line.starts_with("denied")).count();
    assert!(denied > 20, "{text}");
    assert!(rest.iter().all(|l| l.starts_with("denied") || l.starts_with("empty")), "{text}");
}

async fn graph_leak(client: &Client) {
    let reasons = ["HANDLE_LIMIT", "MEMORY_LIMIT"];
    ends(client, plain("graph-leak"), EXHAUSTED, &reasons, "").await;
}

async fn graph_load(client: &Client) {
    let answer = client.predict_request(plain("graph-load")).await;
    assert_eq!(answer.text(), "refused");
}

async fn guest_error(client: &Client) {
    let codes = [
        ("invalid-argument", StatusCode::InputInvalidArgument),
        ("out-of-range", StatusCode::InputOverLimit),
        ("failed-precondition", FAILED),
        ("unsupported", StatusCode::InputUnsupportedFormat),
        ("failed", FAILED),
    ];
    for (code, expected) in codes {
        for whole in [false, true] {
            let asked = params(plain("guest-error"), json!({ "code": code, "whole": whole }));
            ends(client, asked, expected, &["GUEST_ERROR"], "").await;
        }
    }
    let long = params(plain("guest-error"), json!({ "message": "long" }));
    let answer = client.predict_request(long).await;
    assert!(answer.status.details.len() < 5000, "{}", answer.status.details.len());
    let control = params(plain("guest-error"), json!({ "message": "control" }));
    let answer = client.predict_request(control).await;
    assert!(!answer.status.details.contains('\u{1b}'), "{answer:?}");

    let after = params(plain("guest-error"), json!({ "after": 3 }));
    let answers = client.generate_all(after).await;
    assert_eq!(answers.len(), 4, "{answers:?}");
    assert_answer(&answers[3], FAILED, &["GUEST_ERROR"], "");
}

async fn handle_leak(client: &Client) {
    ends(client, plain("handle-leak"), EXHAUSTED, &["HANDLE_LIMIT"], "handles").await;
}

async fn imports_sockets(_: &Client) {}

async fn large_start(_: &Client) {}

async fn load_fails(client: &Client) {
    ends(client, plain("load-fails"), UNLOADABLE, &["GUEST_ERROR"], "in load-model").await;
}

async fn load_keeps(client: &Client) {
    for _ in 0..5 {
        assert_eq!(client.predict_request(plain("load-keeps")).await.text(), "fits");
    }
}

async fn load_leaves(client: &Client) {
    for _ in 0..3 {
        assert_eq!(client.predict_request(plain("load-leaves")).await.text(), "print print");
    }
}

async fn load_loops(client: &Client) {
    let answer = client.predict_request(plain("load-loops")).await;
    assert_burnt_in_load(&answer);
}

async fn load_sleeps(client: &Client) {
    let answer = client.predict_request(plain("load-sleeps")).await;
    assert_answer(&answer, TIMEOUT, &["WALL_DEADLINE"], "in load-model");
}

async fn log_flood(client: &Client) {
    burns(client, plain("log-flood")).await;
}

async fn loop_forever(client: &Client) {
    burns(client, plain("loop-forever")).await;
}

async fn memory_grow(client: &Client) {
    let answer = client.predict_request(plain("memory-grow")).await;
    let pages: u64 = answer.text().parse().unwrap();
    assert!(pages > 0 && pages * (64 << 10) < 64 << 20, "{pages} pages");
}

async fn memory_hog(client: &Client) {
    ends(client, plain("memory-hog"), EXHAUSTED, &["MEMORY_LIMIT"], "linear memory").await;
}

/// Twenty times, each after others have had the memory.
async fn memory_scan(client: &Client) {
    for _ in 0..20 {
        let answer = client.predict_request(plain("memory-scan")).await;
        assert_eq!(answer.text(), "0 of 337", "{answer:?}");
    }
}

/// The host stops reading once the messages it holds reach the limit.
async fn message_hog(client: &Client) {
    let message = request("message-hog", vec![text_input(&"x".repeat(1 << 20))]);
    let messages = tokio_stream::iter(std::iter::repeat_n(message, 200));
    let answers = collect(client.stream(messages).await).await;
    let last = answers.last().unwrap();
    let reasons = ["MEMORY_LIMIT", "WALL_DEADLINE"];
    assert!(reasons.contains(&last.reason()), "{last:?}");
}

async fn message_refuser(client: &Client) {
    let message = request("message-refuser", vec![text_input(&"x".repeat(1 << 20))]);
    let messages = tokio_stream::iter(std::iter::repeat_n(message, 100));
    let answers = collect(client.stream(messages).await).await;
    let last = answers.last().unwrap();
    assert!(["MEMORY_LIMIT", "WALL_DEADLINE"].contains(&last.reason()), "{last:?}");
}

/// The host does not ask for typed methods yet, so what the guest would answer
/// does no harm.
async fn methods_garbage(client: &Client) {
    assert_eq!(client.predict_request(plain("methods-garbage")).await.code(), StatusCode::Success);
}

async fn methods_loops(client: &Client) {
    // The guest crate itself asks for them in a call.
    burns(client, plain("methods-loops")).await;
}

async fn missing_graph(client: &Client) {
    ends(client, plain("missing-graph"), FAILED, &["GUEST_ERROR"], "no graph is named").await;
}

async fn output_flood(client: &Client) {
    let answers = client.generate_all(plain("output-flood")).await;
    let last = answers.last().unwrap();
    assert_answer(last, EXHAUSTED, &["OUTPUT_LIMIT"], "max_output_bytes");
}

async fn panic(client: &Client) {
    ends(client, plain("panic"), FAILED, &["GUEST_TRAP"], "panicked").await;
}

async fn poll_spin(client: &Client) {
    burns(client, plain("poll-spin")).await;
}

async fn random_hog(client: &Client) {
    let asked = |bytes: u64| params(plain("random-hog"), json!({ "bytes": bytes }));
    let most = 64 << 10;
    assert_eq!(client.predict_request(asked(most)).await.text(), most.to_string());
    for bytes in [most + 1, 1 << 40] {
        ends(client, asked(bytes), FAILED, &["GUEST_TRAP"], "").await;
    }
}

async fn remember(client: &Client) {
    for secret in ["first", "second", "third"] {
        let answer = client.predict("remember", vec![text_input(secret)]).await;
        assert_eq!(answer.text(), "nothing");
    }
}

async fn scribe(client: &Client) {
    let asked = params(plain("scribe"), json!({ "max_tokens": 5, "seed": 1 }));
    let answer = client.predict_request(asked).await;
    assert_eq!(answer.outputs[0].completion_tokens, 5, "{answer:?}");
}

async fn sleeper(client: &Client) {
    ends(client, plain("sleeper"), TIMEOUT, &["WALL_DEADLINE"], "deadline").await;
    let answers = client.generate_all(plain("sleeper")).await;
    assert_eq!(answers.len(), 2, "{answers:?}");
    assert_answer(&answers[1], TIMEOUT, &["WALL_DEADLINE"], "deadline");
}

/// Twice as many sleepers as there are threads sleep for an hour. Were each to
/// hold a thread, nobody would answer before that.
#[test]
fn sleeping_guests_hold_no_thread() {
    let count = 2 * std::thread::available_parallelism().unwrap().get();
    let places = format!("call_timeout: 1h\n  max_concurrency: {count}");
    let changes = [("call_timeout: 2s", places.as_str())];
    let variant = Variant::of(guests::SLEEPER, &changes);
    let host = Host::serve(&[variant.path(), guests::ECHO]);
    let bound = Duration::from_secs(20);
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let mut sleepers = Vec::new();
        for _ in 0..count {
            let mut answers = client.generate(plain("sleeper")).await;
            let first = tokio::time::timeout(bound, answers.message()).await;
            let first: Answer = first.expect("a sleeper fell asleep").unwrap().unwrap().into();
            assert_eq!(first.text(), "falling asleep");
            sleepers.push(answers);
        }
        let call = client.predict("echo", vec![text_input("awake")]);
        let answer = tokio::time::timeout(bound, call).await.expect("an answer beside sleepers");
        assert_eq!(answer.text(), "awake");
        drop(sleepers);
    });
}

async fn stack_overflow(client: &Client) {
    ends(client, plain("stack-overflow"), FAILED, &["GUEST_TRAP"], "stack").await;
}

async fn start_loops(client: &Client) {
    let answer = client.predict_request(plain("start-loops")).await;
    assert_burnt_in_load(&answer);
}

/// Each listing is a handle of WASI, and of those there are 64.
async fn stream_leak(client: &Client) {
    let answer = client.predict_request(plain("stream-leak")).await;
    match answer.code() {
        StatusCode::Success => assert!(answer.text().starts_with("denied"), "{answer:?}"),
        _ => assert_answer(&answer, EXHAUSTED, &["HANDLE_LIMIT"], "more than 64 handles"),
    }
}

async fn tensor_hog(client: &Client) {
    ends(client, plain("tensor-hog"), EXHAUSTED, &["MEMORY_LIMIT"], "tensors").await;
}

async fn text_embedder(client: &Client) {
    let vector = async |text: &str| {
        let answer = client.predict("text-embedder", vec![text_input(text)]).await;
        answer.outputs[0].data.clone().unwrap().embeddings[0].vector.clone()
    };
    let near = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let (cat, cats, dog) =
        (vector("the cat sat").await, vector("the cat sits").await, vector("dogs bark").await);
    assert_eq!(cat.len(), 64);
    assert!((near(&cat, &cat) - 1.0).abs() < 1e-3, "{}", near(&cat, &cat));
    assert!(near(&cat, &cats) > near(&cat, &dog) + 0.2, "{cat:?}\n{cats:?}\n{dog:?}");
}

async fn text_to_text(client: &Client) {
    let answer = client.predict("text-to-text", vec![text_input("Ada")]).await;
    assert_eq!(answer.text(), "Hello, Ada!");
}

async fn timer_hog(client: &Client) {
    ends(client, plain("timer-hog"), EXHAUSTED, &["HANDLE_LIMIT"], "more than 64 handles").await;
}

async fn trap(client: &Client) {
    ends(client, plain("trap"), FAILED, &["GUEST_TRAP"], "unreachable").await;
    let asked = params(plain("trap"), json!({ "how": "out-of-bounds" }));
    ends(client, asked, FAILED, &["GUEST_TRAP"], "out of bounds").await;
}

async fn typed(client: &Client) {
    // A plain call is one of the method that is called like the function.
    assert_eq!(client.predict_request(plain("typed")).await.text(), "hellohello.");
}

async fn hello_world(client: &Client) {
    // Letters follow a dash; `typed.rs` compares all of its methods.
    let answer = client.predict_request(plain("hello-world")).await;
    assert!(answer.text().starts_with("hello-") && answer.text().len() == 10, "{answer:?}");
}

async fn visual_classifier(client: &Client) {
    let answer = client.predict("visual-classifier", vec![example("visual-classifier")]).await;
    let concepts = answer.concepts();
    assert_eq!((concepts.len(), concepts[0].id.as_str()), (7, "blue"), "{answer:?}");
    let broken = client.predict("visual-classifier", vec![image_input(*b"GIF89a")]).await;
    assert_answer(&broken, StatusCode::InputInvalidArgument, &["GUEST_ERROR"], "PNG or JPEG");
}

async fn visual_detector(client: &Client) {
    let answer = client.predict("visual-detector", vec![example("visual-detector")]).await;
    let regions = answer.outputs[0].data.clone().unwrap().regions;
    let seen: Vec<_> = regions
        .iter()
        .map(|region| {
            let edges = region.region_info.clone().unwrap().bounding_box.unwrap();
            let concept = region.data.clone().unwrap().concepts[0].id.clone();
            (concept, edges.left_col < 0.5, region.value > 0.8)
        })
        .collect();
    // The bright disc of the picture is on the left, the dark one on the right.
    assert_eq!(seen, [("bright".into(), true, true), ("dark".into(), false, true)], "{answer:?}");
}

async fn wrong_count(client: &Client) {
    ends(client, plain("wrong-count"), FAILED, &["GUEST_TRAP"], "results for").await;
    let more = params(plain("wrong-count"), json!({ "more": true }));
    ends(client, more, FAILED, &["GUEST_TRAP"], "results for").await;
}
