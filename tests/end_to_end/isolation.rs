//! `isolation: caller`: what a sandbox remembers is of its one caller, and of
//! nobody else.

use crate::operators::succeeds;
use ringfence::proto::clarifai::api;
use ringfence_tests::{Client, Host, HostOptions, Variant, block_on, guests, request, text_input};

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
