//! `isolation: caller`: what a sandbox remembers is of its one caller, and of
//! nobody else.

use crate::operators::succeeds;
use ringfence::proto::clarifai::api;
use ringfence::proto::clarifai::api::status::StatusCode;
use ringfence_tests::{
    Client, Host, HostOptions, Variant, block_on, guests, params, request, text_input,
};
use serde_json::json;

const KEPT: (&str, &str) = ("call_timeout: 2s", "call_timeout: 10s\n  isolation: caller");

fn of_alice(text: &str) -> api::PostModelOutputsRequest {
    let set = api::UserAppIdSet { user_id: "alice".into(), app_id: "main".into() };
    let asked = request("remember", vec![text_input(text)]);
    api::PostModelOutputsRequest { user_app_id: Some(set), ..asked }
}

/// LEAK-01: a hostile author's guest keeps what it is told.
#[test]
fn a_sandbox_that_is_kept_is_its_callers_alone() {
    let host = Host::start(HostOptions::default());
    let (alice, bob) = (host.user("alice", "predict,upload"), host.user("bob", "predict"));
    let variant = Variant::of(guests::REMEMBER, &[("  user_id: local\n", ""), KEPT]);
    succeeds(&host.ringfence_as(&alice, &["upload", variant.path()]));
    let share = ["models", "share", "remember", "--with", "everyone"];
    succeeds(&host.ringfence_as(&alice, &share));
    block_on(async {
        let alice = Client::connect(host.base(), &alice).await;
        let bob = Client::connect(host.base(), &bob).await;
        let told =
            async |client: &Client, text: &str| client.predict_request(of_alice(text)).await.text();
        assert_eq!(told(&alice, "a1").await, "nothing");
        assert_eq!(told(&alice, "a2").await, "a1");
        assert_eq!(told(&bob, "b1").await, "nothing");
        assert_eq!(told(&bob, "b2").await, "b1");
        assert_eq!(told(&alice, "a3").await, "a2");

        // At a time there is one of a caller's, and the others are fresh.
        for round in 0..10 {
            let calls = (0..8).flat_map(|number| {
                [("a", &alice), ("b", &bob)].map(|(of, client)| {
                    let text = format!("{of} {round} {number}");
                    async move { (of, told(client, &text).await) }
                })
            });
            for (of, answer) in futures_util::future::join_all(calls).await {
                assert!(answer == "nothing" || answer.starts_with(of), "{of} was told {answer}");
            }
        }
    });
}

/// What a hostile author's guest can choose at its end is not told to its author, who
/// reads how calls of others ended.
#[test]
fn an_author_cannot_be_told_what_a_caller_sent_by_how_the_call_ends() {
    const SECRET: i64 = 31_337;
    let host = Host::start(HostOptions::default());
    let (alice, bob) = (host.user("alice", "predict,upload"), host.user("bob", "predict"));
    for (model, folder) in [("exit", guests::EXIT), ("panic", guests::PANIC)] {
        let variant = Variant::of(folder, &[("  user_id: local\n", "")]);
        succeeds(&host.ringfence_as(&alice, &["upload", variant.path()]));
        succeeds(&host.ringfence_as(&alice, &["models", "share", model, "--with", "everyone"]));
    }
    block_on(async {
        let bob = Client::connect(host.base(), &bob).await;
        for model in ["exit", "panic"] {
            let set = api::UserAppIdSet { user_id: "alice".into(), app_id: "main".into() };
            let asked = request(model, vec![text_input(&SECRET.to_string())]);
            let asked = api::PostModelOutputsRequest { user_app_id: Some(set), ..asked };
            let answer = bob.predict_request(params(asked, json!({ "status": SECRET }))).await;
            assert_eq!(answer.code(), StatusCode::ModelPredictionFailed, "{answer:?}");
        }
    });
    for (model, told) in [("exit", "its code called exit"), ("panic", "its code panicked")] {
        let read = succeeds(&host.ringfence_as(&alice, &["logs", model]));
        assert!(read.contains(told), "{read}");
        assert!(!read.contains(&SECRET.to_string()), "{read}");
    }
}

/// Without the key every call has its own.
#[test]
fn a_sandbox_is_kept_for_nobody_unless_the_author_asks() {
    let host = Host::serve(&[guests::REMEMBER]);
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        for text in ["one", "two", "three"] {
            let answer = client.predict("remember", vec![text_input(text)]).await;
            assert_eq!(answer.text(), "nothing");
        }
    });
}
