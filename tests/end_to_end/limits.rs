//! What `config.yaml` promises.

use crate::receipts::{host, line_of};
use prost::Message;
use ringfence::proto::clarifai::api::MultiOutputResponse;
use ringfence::proto::clarifai::api::status::StatusCode;
use ringfence_tests::{
    Answer, Calm, Client, Host, HostOptions, Variant, block_on, collect, guests, params,
    raw_unread, request, text_input,
};
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The rounds that `counting-loop` counted until the end, and what it was told
/// then.
fn counted(changes: &[(&str, &str)], reason: &str) -> (u64, String) {
    let variant = Variant::of(guests::COUNTING_LOOP, changes);
    let host = Host::serve(&[variant.path()]);
    let answers = block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        client.generate_all(request("counting-loop", vec![text_input("x")])).await
    });
    let (end, counts) = answers.split_last().unwrap();
    assert_eq!(end.reason(), reason, "{end:?}");
    let last = counts.last().unwrap_or_else(|| panic!("no count before {end:?}"));
    (last.text().parse().unwrap(), end.status.details.clone())
}

/// Whoever has had it is stopped only then, which takes a while where there is much else to
/// do.
#[test]
fn what_a_call_had_is_free_when_it_is_told_that_it_was_too_much() {
    let variant = Variant::of(guests::MESSAGE_HOG, &[("\"200m\"", "\"1\""), ("2s", "1h")]);
    let host = Host::serve(&[variant.path()]);
    let message = request("message-hog", vec![text_input(&"x".repeat(1 << 20))]);
    let is_over = Arc::<AtomicBool>::default();
    let busy: Vec<_> = (0..4)
        .map(|_| {
            let is_over = is_over.clone();
            std::thread::spawn(move || while !is_over.load(Ordering::Relaxed) {})
        })
        .collect();
    let answers = block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let mut ends = Vec::new();
        for _ in 0..10 {
            let messages = tokio_stream::iter(std::iter::repeat_n(message.clone(), 100));
            let refused = collect(client.stream(messages).await).await.pop().unwrap();
            ends.push((refused, client.predict_request(message.clone()).await));
        }
        ends
    });
    is_over.store(true, Ordering::Relaxed);
    busy.into_iter().for_each(|thread| thread.join().unwrap());
    for (refused, next) in answers {
        assert_eq!(refused.reason(), "MEMORY_LIMIT", "{refused:?}");
        assert_eq!(next.code(), StatusCode::Success, "{next:?}");
    }
}

/// Whether or not its client reads it.
#[test]
fn an_answer_counts_towards_the_memory_of_its_version_until_it_has_left() {
    const BYTES: usize = 8 << 20;
    let host = crate::metrics::host(&[guests::ECHO]);
    let messages = |host: &Host| {
        host.metric("ringfence_memory_bytes{model=\"local/main/echo\",kind=\"messages\"}")
    };
    let asked = request("echo", vec![text_input(&"x".repeat(BYTES))]).encode_to_vec();
    let own = format!("Key {}", host.pat());
    let headers = [("authorization", own.as_str())];
    block_on(async {
        let path = "/clarifai.api.V2/PostModelOutputs";
        let unread = raw_unread(host.base(), path, &headers, &asked).await;
        host.wait_until("one to be counted", |host| messages(host) >= BYTES as f64);
        let another = raw_unread(host.base(), path, &headers, &asked).await;
        host.wait_until("both to be counted", |host| messages(host) >= 2. * BYTES as f64);
        drop((unread, another));
    });
    host.wait_until("the end of the connections", |host| messages(host) == 0.);
}

/// CPU-01, with a ceiling that comes before the deadline.
#[test]
fn halving_the_fuel_of_a_call_halves_what_it_counts() {
    let of = |fuel: u64| {
        let timeout = format!("call_timeout: 1h\n  max_fuel_per_call: {fuel}");
        let changes = [("\"200m\"", "\"2\""), ("call_timeout: 2s", timeout.as_str())];
        let (rounds, end) = counted(&changes, "FUEL_EXHAUSTED");
        assert!(end.contains(&format!("burnt all of its {fuel} fuel")), "{end}");
        rounds
    };
    let (whole, half) = (of(1_000_000_000), of(500_000_000));
    let ratio = whole as f64 / half as f64;
    assert!((1.9..=2.1).contains(&ratio), "{whole} and {half} rounds");
}

/// Whatever a guest does all the time, it takes no more of the CPUs than its limit
/// and one burst: by the clock of the threads, not by its fuel. How much less it
/// gets is its neighbours' doing.
#[test]
fn no_mix_takes_more_cpu_time_than_its_limit() {
    const CPUS: f64 = 0.2;
    const BURST_MS: f64 = 100.0;
    // A turn is charged when it has ended: a time slice, or what one function of
    // the host takes, on a machine that does not always let it end.
    const TURNS_MS: f64 = 40.0;
    let host = host(&[guests::CPU_MIXES, guests::COMPUTE_LOOP]);
    let calls = ["integer", "fill", "division", "calls", "floats"]
        .map(|mix| params(request("cpu-mixes", vec![text_input("x")]), json!({ "mix": mix })));
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let mut ids = Vec::new();
        for asked in calls {
            let answers = client.generate_all(asked).await;
            ids.push(answers.last().unwrap().status.req_id.clone());
        }
        let computes = client.predict("compute-loop", vec![text_input("x")]).await;
        ids.push(computes.status.req_id);
        for id in ids {
            let line = line_of(&host, &id);
            let ms = |field: &str| line[field].as_f64().unwrap();
            let (took, wall) = (ms("cpu_ms") + ms("tensor_ms"), ms("wall_ms"));
            let most = CPUS * (wall + BURST_MS) + TURNS_MS;
            assert!(took > 0.0 && took <= most, "{took} of {most} ms: {line}");
        }
    });
}

/// CPU-14: a deadline ends a guest whatever has become of the thread that ends epochs.
/// One call at a time: the second can only begin when the first has left.
#[test]
fn a_deadline_ends_a_guest_though_no_epoch_does() {
    let variant = Variant::of(
        guests::LOOP_FOREVER,
        &[("\"200m\"", "\"4\""), ("call_timeout: 2s", "call_timeout: 1s\n  max_concurrency: 1")],
    );
    let host = Host::start(HostOptions {
        models: vec![variant.path().into()],
        args: ["--log-format", "json"].map(str::to_owned).into(),
        variables: vec![("RINGFENCE_LIFT".into(), "epoch".into())],
        ..HostOptions::default()
    });
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        for _ in 0..2 {
            let answer = client.predict("loop-forever", vec![text_input("x")]).await;
            assert_eq!(answer.reason(), "WALL_DEADLINE", "{answer:?}");
            let line = line_of(&host, &answer.status.req_id);
            assert!(line["cpu_ms"].as_f64().unwrap() > 0.0, "{line}");
        }
    });
}

#[test]
fn more_memory_lets_a_guest_grow_further() {
    let pages = |cpu_memory: &str| {
        let variant = Variant::of(guests::MEMORY_GROW, &[("\"64Mi\"", cpu_memory)]);
        let host = Host::serve(&[variant.path()]);
        block_on(async {
            let client = Client::connect(host.base(), &host.pat()).await;
            let answer = client.predict("memory-grow", vec![text_input("x")]).await;
            answer.text().parse::<u64>().unwrap()
        })
    };
    let (less, more) = (pages("\"32Mi\""), pages("\"128Mi\""));
    assert!(less <= 32 * 16 && more > 64 * 16 && more <= 128 * 16, "{less}, {more}");
}

/// Calls each of the models so many times, all at once, and waits for all.
async fn attack<const N: usize>(client: &Client, models: [&str; N], times: usize) {
    let calls =
        models.into_iter().flat_map(|model| std::iter::repeat_n(model, times)).map(|model| {
            let asked = request(model, vec![text_input("x")]);
            async move { client.predict_request(asked).await }
        });
    futures_util::future::join_all(calls).await;
}

/// What guests do to memory at the same time is within their limits together, seen
/// from outside. What is beside that is not theirs: copies between a guest and the
/// host, compiled code, and what the allocator keeps.
#[test]
fn attacks_on_memory_stay_within_their_limits_together() {
    const LIMIT: u64 = 64 << 20;
    const BESIDE: u64 = 192 << 20;
    const ATTACKS: [(&str, &str); 4] = [
        ("memory-hog", guests::MEMORY_HOG),
        ("tensor-hog", guests::TENSOR_HOG),
        ("message-hog", guests::MESSAGE_HOG),
        ("output-flood", guests::OUTPUT_FLOOD),
    ];
    let host = host(&ATTACKS.map(|(_, folder)| folder));
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let before = host.resident_bytes();
        for _ in 0..3 {
            attack(&client, ATTACKS.map(|(name, _)| name), 6).await;
        }
        let more = host.resident_bytes_peak().saturating_sub(before);
        println!("{} MiB more than before", more >> 20);
        let limits = ATTACKS.len() as u64 * LIMIT;
        assert!(more > LIMIT, "{more} bytes: nothing was attacked");
        assert!(more <= limits + BESIDE, "{more} bytes, where the limits are {limits} together");
    });
}

/// The allocator keeps nothing of what calls have freed for long, on however many
/// threads they were.
#[test]
fn what_calls_have_freed_is_given_back() {
    const ATTACKS: [(&str, &str); 3] = [
        ("alias-lists", guests::ALIAS_LISTS),
        ("message-hog", guests::MESSAGE_HOG),
        ("output-flood", guests::OUTPUT_FLOOD),
    ];
    let host = host(&ATTACKS.map(|(_, folder)| folder));
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let calm = Calm::of(&host);
        for _ in 0..3 {
            attack(&client, ATTACKS.map(|(name, _)| name), 4).await;
            calm.comes_back(&host, "these attacks").await;
        }
    });
}

#[test]
fn a_graph_that_does_not_fit_into_cpu_memory_is_refused_at_the_start() {
    let variant = Variant::of(guests::SCRIBE, &[("\"256Mi\"", "\"2Mi\"")]);
    let args = ["--listen", "127.0.0.1:0", "--model", variant.path()];
    let (code, text) = ringfence_tests::refused_start(&args);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("cpu_memory"), "{text}");
}

/// Each sleeper holds one of the places for two seconds.
#[test]
fn a_call_beyond_places_and_queue_is_told_that_the_model_is_busy() {
    let change = ("call_timeout: 2s", "call_timeout: 2s\n  max_concurrency: 1");
    let variant = Variant::of(guests::SLEEPER, &[change]);
    let host = Host::serve(&[variant.path()]);
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..80 {
            let client = client.clone();
            calls.spawn(async move { client.predict("sleeper", vec![text_input("z")]).await });
        }
        let answers = calls.join_all().await;
        let busy = answers
            .iter()
            .filter(|answer| answer.code() == StatusCode::ModelBusyPleaseRetry)
            .count();
        // One runs, 64 wait.
        assert_eq!(busy, 80 - 65);
        let late = answers.iter().filter(|answer| answer.reason() == "WALL_DEADLINE").count();
        let reasons: BTreeSet<_> = answers.iter().map(Answer::reason).collect();
        assert_eq!(late, 65, "{reasons:?}");
    });
}

/// With a client that does not keep its own deadline, so that only the host
/// can.
#[test]
fn a_clients_own_deadline_stops_the_guest() {
    let variant = Variant::of(guests::SLEEPER, &[("call_timeout: 2s", "call_timeout: 1h")]);
    let host = Host::serve(&[variant.path()]);
    let message = request("sleeper", vec![text_input("z")]);
    let answer = block_on(ringfence_tests::raw_call(
        &host,
        "/clarifai.api.V2/PostModelOutputs",
        &[("grpc-timeout", "300m")],
        &message,
    ));
    let answer = MultiOutputResponse::decode(answer.as_slice()).unwrap();
    let status = answer.status.unwrap();
    assert_eq!(status.code(), StatusCode::RpcRequestTimeout, "{status:?}");
}

#[test]
fn a_deadline_that_is_no_time_is_refused() {
    let host = Host::serve(&[guests::ECHO]);
    let message = request("echo", vec![text_input("z")]);
    let told = |timeout: &str| {
        let headers = [("grpc-timeout", timeout)];
        let path = "/clarifai.api.V2/PostModelOutputs";
        let answer = block_on(ringfence_tests::raw_call(&host, path, &headers, &message));
        MultiOutputResponse::decode(answer.as_slice()).unwrap().status.unwrap()
    };
    assert_eq!(told("60S").code(), StatusCode::Success);
    for nonsense in ["soon", "-1S", "123456789S", "5"] {
        let status = told(nonsense);
        assert_eq!(status.code(), StatusCode::PredictInvalidRequest, "{nonsense}: {status:?}");
        assert!(status.details.contains("grpc-timeout is no time"), "{status:?}");
    }
}

/// CLI-13: the only place is taken for an hour.
#[test]
fn a_call_whose_deadline_passes_in_the_queue_burns_no_fuel() {
    let change = ("call_timeout: 2s", "call_timeout: 1h\n  max_concurrency: 1");
    let variant = Variant::of(guests::SLEEPER, &[change]);
    let host = Host::serve(&[variant.path()]);
    let message = request("sleeper", vec![text_input("z")]);
    let status = block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let asleep = {
            let message = message.clone();
            tokio::spawn(async move { client.predict_request(message).await })
        };
        host.wait_until("the first call", |host| {
            let listed = host.ringfence(&["calls", "list"]);
            String::from_utf8(listed.stdout).unwrap().contains("predict of")
        });
        let timeout = [("grpc-timeout", "300m")];
        let path = "/clarifai.api.V2/PostModelOutputs";
        let answer = ringfence_tests::raw_call(&host, path, &timeout, &message).await;
        asleep.abort();
        MultiOutputResponse::decode(answer.as_slice()).unwrap().status.unwrap()
    });
    assert!(status.details.starts_with("WALL_DEADLINE"), "{status:?}");
    let line = format!("req_id={}", status.req_id);
    host.wait_until("its line", |host| host.log().contains(&line));
    let log = host.log();
    let line = log.lines().find(|of| of.contains("call ended") && of.contains(&line)).unwrap();
    assert!(line.contains(" fuel=0 "), "{line}");
}

/// One place and 64 that wait, all taken for an hour.
#[test]
fn each_client_is_told_that_the_model_is_busy_by_the_code_it_waits_for() {
    let change = ("call_timeout: 2s", "call_timeout: 1h\n  max_concurrency: 1");
    let variant = Variant::of(guests::SLEEPER, &[change]);
    let host = Host::serve(&[variant.path()]);
    let asked = || request("sleeper", vec![text_input("z")]);
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..70 {
            let client = client.clone();
            calls.spawn(async move { client.predict_request(asked()).await });
        }
        // Five find no place, so all places are taken from here on.
        for _ in 0..5 {
            let answer = calls.join_next().await.unwrap().unwrap();
            assert_eq!(answer.reason(), "QUOTA", "{answer:?}");
        }
        let of_sdk = |version: &str| {
            let mut request = client.with_token(asked());
            let prefix = format!("sdk-python-{version}").parse().unwrap();
            request.metadata_mut().insert("x-clarifai-request-id-prefix", prefix);
            request
        };
        for (version, code) in [
            ("11.0.0", StatusCode::ConnThrottled),
            ("12.5.0", StatusCode::ModelBusyPleaseRetry),
            ("unheard-of", StatusCode::ModelBusyPleaseRetry),
        ] {
            let response = client.v2().post_model_outputs(of_sdk(version)).await.unwrap();
            let predicted = Answer::from(response.into_inner());
            let response = client.v2().generate_model_outputs(of_sdk(version)).await.unwrap();
            let generated = collect(response.into_inner()).await.remove(0);
            for answer in [predicted, generated] {
                assert_eq!((answer.code(), answer.reason()), (code, "QUOTA"), "{version}");
            }
        }
        let streamed = collect(client.stream(tokio_stream::once(asked())).await).await;
        assert_eq!(streamed[0].code(), StatusCode::RpcRequestQueueFull, "{streamed:?}");
        assert_eq!(streamed[0].reason(), "QUOTA");
        calls.abort_all();
    });
}
