//! What a caller must not learn about others: from how long an answer takes,
//! and from what is shared between versions.

use crate::author::text;
use ringfence::proto::clarifai::api;
use ringfence_tests::{Client, Host, HostOptions, Variant, block_on, guests, request, text_input};
use std::time::{Duration, Instant};

/// Answers of each kind that are compared.
const SAMPLES: usize = 2000;
/// How many times as long the slower kind's median may be. What would be seen
/// from outside is a look-up or a hash more, which is many times a refusal's cost
/// where it happens at all; the rest is noise.
const RATIO_MAX: f64 = 1.3;

fn upload(host: &Host, pat: &str, changes: &[(&str, &str)]) {
    let folder = Variant::of(guests::ECHO, &[&[("  user_id: local\n", "")], changes].concat());
    let output = host.ringfence_as(pat, &["upload", folder.path()]);
    assert!(output.status.success(), "{}", text(&output));
}

fn of(user: &str, model: &str, input: &str) -> api::PostModelOutputsRequest {
    let set = api::UserAppIdSet { user_id: user.into(), app_id: "main".into() };
    api::PostModelOutputsRequest {
        user_app_id: Some(set),
        ..request(model, vec![text_input(input)])
    }
}

/// Takes turns, so that whatever else the machine does is in both.
async fn medians(first: impl AsyncFn(), second: impl AsyncFn()) -> (Duration, Duration) {
    let mut times = (Vec::new(), Vec::new());
    for _ in 0..SAMPLES {
        let began = Instant::now();
        first().await;
        times.0.push(began.elapsed());
        let began = Instant::now();
        second().await;
        times.1.push(began.elapsed());
    }
    times.0.sort();
    times.1.sort();
    (times.0[SAMPLES / 2], times.1[SAMPLES / 2])
}

fn assert_alike(what: &str, (first, second): (Duration, Duration)) {
    println!("{what}: {first:?} and {second:?} at the median");
    let ratio = first.max(second).as_secs_f64() / first.min(second).as_secs_f64();
    assert!(ratio < RATIO_MAX, "{what}: {first:?} and {second:?}");
}

/// LEAK-07: a model of somebody else and none.
#[test]
fn how_long_an_answer_takes_does_not_tell_whether_there_is_such_a_model() {
    let host = Host::start(HostOptions::default());
    let (alice, bob) = (host.user("alice", "predict,upload"), host.user("bob", "predict,upload"));
    upload(&host, &alice, &[]);
    block_on(async {
        let client = Client::connect(host.base(), &bob).await;
        let call = async |model: &str| {
            let answer = client.predict_request(of("alice", model, "x")).await;
            assert_eq!(answer.reason(), "NO_SUCH_MODEL");
        };
        let found = medians(async || call("echo").await, async || call("none").await).await;
        assert_alike("another's model, and none", found);
    });
}

/// LEAK-07: a token that was good once, and one that never was. What no token can
/// be is refused sooner; that of a text everybody can tell without asking.
#[test]
fn how_long_a_refusal_takes_does_not_tell_whether_a_token_was_ever_good() {
    let host = Host::start(HostOptions::default());
    let revoked = host.user("alice", "predict,upload");
    let listed = host.operate(&["pat", "list", "--user", "alice"]);
    host.operate(&["pat", "revoke", listed.split_whitespace().next().unwrap()]);
    // Another host's token is as well-formed, and was never one of this host.
    let foreign = Host::start(HostOptions::default()).pat();
    let refused = async |client: &Client| {
        let answer = client.predict_request(of("alice", "echo", "x")).await;
        assert_eq!(answer.reason(), "TOKEN_INVALID");
    };
    block_on(async {
        let once = Client::connect(host.base(), &revoked).await;
        let never = Client::connect(host.base(), &foreign).await;
        // The first fifty are answered at once, so there are few to compare; past
        // them both wait the same half second.
        let mut times = (Vec::new(), Vec::new());
        for _ in 0..24 {
            let began = Instant::now();
            refused(&once).await;
            times.0.push(began.elapsed());
            let began = Instant::now();
            refused(&never).await;
            times.1.push(began.elapsed());
        }
        times.0.sort();
        times.1.sort();
        let (first, second) = (times.0[12], times.1[12]);
        println!("revoked, and never known: {first:?} and {second:?} at the median");
        let ratio = first.max(second).as_secs_f64() / first.min(second).as_secs_f64();
        // Few samples are noisy ones.
        assert!(ratio < 3.0, "{first:?} and {second:?}");
    });
}

/// LEAK-06: models of one id and one component, which share compiled code, and
/// nothing else.
#[test]
fn models_of_one_component_have_each_their_own_configuration() {
    let host = Host::start(HostOptions::default());
    let (alice, bob) = (host.user("alice", "predict,upload"), host.user("bob", "predict,upload"));
    upload(&host, &alice, &[]);
    upload(&host, &bob, &[("model:", "ringfence:\n  max_output_bytes: 1Ki\nmodel:")]);
    let long = "x".repeat(4000);
    block_on(async {
        let of_alice = Client::connect(host.base(), &alice).await;
        let of_bob = Client::connect(host.base(), &bob).await;
        for _ in 0..2 {
            let answer = of_alice.predict_request(of("alice", "echo", &long)).await;
            assert_eq!(answer.text(), long);
            let answer = of_bob.predict_request(of("bob", "echo", &long)).await;
            assert_eq!(answer.reason(), "OUTPUT_LIMIT", "{answer:?}");
        }
    });
}
