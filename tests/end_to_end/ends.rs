//! Calls that others end, whoever reads or waits.

use crate::compute::{occupy, run, start, upload};
use crate::operators::succeeds;
use ringfence::proto::clarifai::api::status::StatusCode;
use ringfence_tests::web::{Page, Web};
use ringfence_tests::{Client, Host, HostOptions, Variant, block_on, guests, request, text_input};
use std::time::Duration;
use tempfile::TempDir;

/// Calls of a model that have begun or wait, by the metrics.
fn count(host: &Host, what: &str, model: &str) -> f64 {
    host.metric(&format!("ringfence_calls_{what}{{model=\"local/main/{model}\"}}"))
}

/// A stop is for the calls that have waited, too: none of them runs after it.
#[test]
fn a_stopped_model_starts_no_call_that_has_waited() {
    const WAITING: usize = 3;
    let scratch = TempDir::new().unwrap();
    let host = start(&scratch.path().join("data"));
    upload(&host, "echo");
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let _held = occupy(&client, "echo").await;
        let waiting: Vec<_> = (0..WAITING)
            .map(|_| {
                let client = client.clone();
                let asked = request("echo", vec![text_input("late")]);
                tokio::spawn(async move { client.predict_request(asked).await })
            })
            .collect();
        host.wait_until("all wait", |host| count(host, "waiting", "echo") == WAITING as f64);
        assert!(run(&host, &["models", "stop", "echo"]).contains("1 call ended"));
        for answer in waiting {
            let answer = answer.await.unwrap();
            assert_eq!(answer.code(), StatusCode::ModelNotDeployed, "{answer:?}");
            assert_eq!(answer.reason(), "STOPPED");
        }
    });
    assert_eq!(run(&host, &["calls", "list"]), "");
}

/// A stream that nobody reads is ended like others: its guest, its place and its
/// line among the calls. CLI-16, for a token that is revoked meanwhile.
#[test]
fn a_call_is_ended_though_its_client_does_not_read() {
    let scratch = TempDir::new().unwrap();
    let host = start(&scratch.path().join("data"));
    let long = Variant::of(
        guests::OUTPUT_FLOOD,
        &[("  user_id: local\n", ""), ("call_timeout: 2s", "call_timeout: 30m")],
    );
    run(&host, &["upload", long.path()]);
    run(&host, &["models", "share", "output-flood", "--with", "everyone"]);
    let bob = host.user("bob", "predict");
    let token = host.operate(&["pat", "list", "--user", "bob"]);
    let token = token.split_whitespace().next().unwrap();
    let flood = "output-flood";
    type End<'a> = &'a dyn Fn(&str);
    let ends: [(&str, End<'_>); 3] = [
        ("cancel", &|id| drop(host.operate(&["calls", "cancel", id]))),
        ("stop", &|_| {
            host.operate(&["models", "stop", "local/main/output-flood"]);
            host.operate(&["models", "start", "local/main/output-flood"]);
        }),
        ("revoke", &|_| drop(host.operate(&["pat", "revoke", token]))),
    ];
    block_on(async {
        let client = Client::connect(host.base(), &bob).await;
        for (what, end) in ends {
            let mut asked = request(flood, vec![text_input("x")]);
            asked.user_app_id.as_mut().unwrap().user_id = "local".into();
            // What is not read stays on the way until that is full.
            let unread = client.generate(asked).await;
            host.wait_until("it runs", |host| count(host, "running", flood) == 1.0);
            let listed = run(&host, &["calls", "list"]);
            end(listed.split_whitespace().next().unwrap());
            host.wait_until(what, |host| count(host, "running", flood) == 0.0);
            assert_eq!(run(&host, &["calls", "list"]), "", "{what}");
            drop(unread);
        }
    });
}

/// Nor does the host go on fetching for a call that was ended.
#[test]
fn a_call_is_ended_while_the_host_fetches_for_it() {
    let web = Web::start();
    web.put("/stalls", Page::Stalls("text/plain", 1));
    let scratch = TempDir::new().unwrap();
    let data_dir = Some(scratch.path().join("data"));
    let host = Host::start(HostOptions { data_dir, args: web.flag(), ..HostOptions::default() });
    upload(&host, "echo");
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let mut asked = request("echo", vec![text_input("")]);
        let text = asked.inputs[0].data.as_mut().unwrap().text.as_mut().unwrap();
        text.url = web.url("/stalls");
        let calling = tokio::spawn(async move { client.predict_request(asked).await });
        web.wait_for_a_request();
        let listed = run(&host, &["calls", "list"]);
        run(&host, &["calls", "cancel", listed.split_whitespace().next().unwrap()]);
        web.wait_for_gone(1);
        let answer = tokio::time::timeout(Duration::from_secs(20), calling).await.unwrap();
        assert_eq!(answer.unwrap().reason(), "CANCELLED");
    });
    succeeds(&host.ringfence(&["predict", "echo", "--text", "x"]));
}
