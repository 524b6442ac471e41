//! What each call took: in the trailers, in the log, and that nobody waits for
//! whoever reads that log.

use crate::settings::Folder;
use ringfence::proto::clarifai::api::PostModelOutputsRequest;
use ringfence_tests::{
    Answer, Client, Host, HostOptions, Variant, block_on, guests, image_input, params, request,
    text_input,
};
use serde_json::{Value, json};
use std::fs::OpenOptions;
use std::process::Stdio;
use tonic::metadata::MetadataMap;

/// Trailers, and the fields of the log line that say the same.
const SAME: [(&str, &str); 15] = [
    ("ringfence-call-id", "req_id"),
    ("ringfence-version", "version"),
    ("ringfence-fuel", "fuel"),
    ("ringfence-fuel-is-lower-bound", "fuel_is_lower_bound"),
    ("ringfence-cpu-ms", "cpu_ms"),
    ("ringfence-cpu-wait-ms", "cpu_wait_ms"),
    ("ringfence-tensor-ms", "tensor_ms"),
    ("ringfence-computes", "computes"),
    ("ringfence-memory-bytes-peak", "memory_bytes_peak"),
    ("ringfence-bytes-in", "bytes_in"),
    ("ringfence-bytes-out", "bytes_out"),
    ("ringfence-queue-ms", "queue_ms"),
    ("ringfence-load-ms", "load_ms"),
    ("ringfence-first-output-ms", "first_output_ms"),
    ("ringfence-wall-ms", "wall_ms"),
];

pub(crate) fn host(models: &[&str]) -> Host {
    Host::start(HostOptions {
        models: models.iter().map(Into::into).collect(),
        args: vec!["--log-format".into(), "json".into()],
        ..HostOptions::default()
    })
}

/// The lines of a host's log, each of which is a JSON object.
fn lines(host: &Host) -> Vec<Value> {
    let log = host.log();
    // The last one may be half written.
    let (whole, _) = log.rsplit_once('\n').unwrap_or_default();
    whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The one line of a call.
pub(crate) fn line_of(host: &Host, call: &str) -> Value {
    let of_call = |host: &Host| -> Vec<Value> {
        let ended = |line: &Value| line["target"] == "call" && line["req_id"] == call;
        lines(host).into_iter().filter(ended).collect()
    };
    host.wait_until("the line of the call", |host| !of_call(host).is_empty());
    let [line] = of_call(host).try_into().unwrap();
    line
}

fn echo(text: &str) -> PostModelOutputsRequest {
    request("echo", vec![text_input(text)])
}

fn value<'a>(trailers: &'a MetadataMap, name: &str) -> Option<&'a str> {
    trailers.get(name).map(|value| value.to_str().unwrap())
}

/// Makes a call of each function; its id, and the trailers.
async fn call_each(client: &Client, asked: &PostModelOutputsRequest) -> Vec<(String, MetadataMap)> {
    let mut called = Vec::new();
    let sent = client.with_token(asked.clone());
    let answer = client.v2().post_model_outputs(sent).await.unwrap();
    let trailers = answer.metadata().clone();
    called.push((Answer::from(answer.into_inner()).status.req_id, trailers));
    for mut answers in [
        client.generate(asked.clone()).await,
        client.stream(tokio_stream::once(asked.clone())).await,
    ] {
        let mut id = String::new();
        while let Some(answer) = answers.message().await.unwrap() {
            id = Answer::from(answer).status.req_id;
        }
        called.push((id, answers.trailers().await.unwrap().unwrap()));
    }
    called
}

#[test]
fn the_trailers_and_the_log_line_of_a_call_say_the_same() {
    let host = host(&[guests::ECHO, guests::PANIC]);
    let called = block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let mut called = call_each(&client, &echo("a canary that is in no log")).await;
        called.extend(call_each(&client, &request("panic", vec![text_input("x")])).await);
        called.extend(call_each(&client, &request("nobody", vec![text_input("x")])).await);
        called
    });
    assert_eq!(called.len(), 9);
    for (id, trailers) in &called {
        assert_eq!(value(trailers, "ringfence-call-id"), Some(id.as_str()), "{trailers:?}");
        let line = line_of(&host, id);
        for (trailer, field) in SAME {
            let logged = match &line[field] {
                Value::Null => String::new(),
                Value::String(text) => text.clone(),
                other => other.to_string().trim_end_matches(".0").to_owned(),
            };
            let told = value(trailers, trailer).unwrap_or_default();
            assert_eq!(told, logged, "{trailer} of {line}");
        }
    }
    let (_, of_echo) = &called[0];
    for name in ["fuel", "cpu-ms", "memory-bytes-peak", "bytes-in", "bytes-out", "wall-ms"] {
        let told = value(of_echo, &format!("ringfence-{name}")).unwrap();
        assert!(told.parse::<f64>().unwrap() > 0.0, "{name}: {told}");
    }
    assert_eq!(value(of_echo, "ringfence-version").unwrap().len(), 32);
    assert_eq!(value(&called[3].1, "ringfence-fuel-is-lower-bound"), Some("true"));
    assert_eq!(value(&called[6].1, "ringfence-version"), None, "nothing was called");
    let log = host.log();
    assert!(!log.contains("canary"), "{log}");
}

/// Not even where everything is logged, the libraries' lines too.
#[test]
fn what_is_sent_and_answered_is_in_no_log() {
    let folder = Folder::new("log:\n  filter: trace\n");
    let host = folder.serve();
    let asked = params(echo("a canary that is in no log"), json!({ "canary": "canary" }));
    let called = block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let called = call_each(&client, &asked).await;
        let image = image_input(b"a canary of bytes");
        let answer = client.predict_request(request("echo", vec![image])).await;
        (called, answer.status.req_id)
    });
    let (called, id_of_image) = called;
    let (id, _) = called.last().unwrap();
    host.wait_until("the lines of the calls", |host| {
        let log = host.log();
        log.contains(id) && log.contains(&id_of_image)
    });
    let log = host.log();
    assert!(log.contains("TRACE"), "nothing is left out");
    for (what, secret) in [("what is sent", "canary"), ("the token", host.pat().as_str())] {
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{what}");
    }
    // Bytes as a debugger shows them.
    let bytes = format!("{:?}", b"canary");
    assert!(!log.contains(bytes.trim_matches(['[', ']'])), "bytes of what is sent");
}

/// The first of two calls sleeps in the only place until its deadline.
#[test]
fn a_call_that_waited_is_told_how_long() {
    let one_place = ("call_timeout: 2s", "call_timeout: 1s\n  max_concurrency: 1");
    let variant = Variant::of(guests::SLEEPER, &[one_place]);
    let host = host(&[variant.path()]);
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let asked = |text| client.with_token(request("sleeper", vec![text_input(text)]));
        let mut asleep = client.generate(request("sleeper", vec![text_input("z")])).await;
        asleep.message().await.unwrap().unwrap();
        let waits = tokio::spawn({
            let (mut v2, asked) = (client.v2(), asked("awake"));
            async move { v2.post_model_outputs(asked).await.unwrap() }
        });
        while asleep.message().await.unwrap().is_some() {}
        let trailers = waits.await.unwrap().metadata().clone();
        let queued: f64 = value(&trailers, "ringfence-queue-ms").unwrap().parse().unwrap();
        let wall: f64 = value(&trailers, "ringfence-wall-ms").unwrap().parse().unwrap();
        assert!(queued > 0.0 && queued <= wall, "{queued} ms of {wall}");
        let first = value(&asleep.trailers().await.unwrap().unwrap(), "ringfence-queue-ms")
            .unwrap()
            .parse::<f64>()
            .unwrap();
        assert!(first < queued, "{first} ms before {queued}");
    });
}

#[test]
fn a_call_that_its_client_breaks_off_is_logged_with_what_it_took() {
    let variant = Variant::of(guests::COUNTING_LOOP, &[("call_timeout: 2s", "call_timeout: 1h")]);
    let host = host(&[variant.path()]);
    let id = block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let mut counting = client.generate(request("counting-loop", vec![text_input("x")])).await;
        let first = Answer::from(counting.message().await.unwrap().unwrap());
        // What a guest has taken is counted each time that it waits or is interrupted.
        for _ in 0..20 {
            counting.message().await.unwrap().unwrap();
        }
        first.status.req_id
    });
    let line = line_of(&host, &id);
    assert_eq!(line["reason"], "CANCELLED", "{line}");
    assert!(line["cpu_ms"].as_f64().unwrap() > 0.0, "{line}");
    assert!(line["bytes_out"].as_u64().unwrap() > 0, "{line}");
    assert_eq!(line["fuel_is_lower_bound"], true, "{line}");
}

/// OUT-06, OPS-20: the log is a closed pipe, a full disk, a reader that does not read.
#[test]
fn a_log_that_nobody_can_read_stops_no_call() {
    let (gone, closed) = std::io::pipe().unwrap();
    drop(gone);
    let (_unread, stalled) = std::io::pipe().unwrap();
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    // A pipe takes 64 KiB, and 1,024 lines wait.
    for (what, stderr, calls) in [
        ("a closed pipe", Stdio::from(closed), 20),
        ("a full disk", Stdio::from(full), 20),
        ("a stalled reader", Stdio::from(stalled), 2000),
    ] {
        let host = Host::start(HostOptions {
            models: vec![guests::ECHO.into()],
            args: vec!["--metrics-listen".into(), "127.0.0.1:0".into()],
            stderr: Some(stderr),
            ..HostOptions::default()
        });
        block_on(async {
            let client = Client::connect(host.base(), &host.pat()).await;
            for _ in 0..calls {
                assert_eq!(client.predict_request(echo("x")).await.text(), "x", "{what}");
            }
        });
        host.wait_until(what, |host| host.metric("ringfence_log_lines_dropped_total") > 0.0);
        assert_eq!(host.operator_get("/healthz").0, 200, "{what}");
        assert!(host.terminate().success(), "{what}");
    }
}
