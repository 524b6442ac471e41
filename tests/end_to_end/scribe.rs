//! `scribe`: streamed text, seeds, counts.

use ringfence_tests::{Answer, Client, Host, block_on, guests, params, request, text_input};
use serde_json::{Value, json};

const PROMPT: &str = "In the beginning ";

async fn generate(client: &Client, parameters: Value) -> Vec<Answer> {
    let asked = params(request("scribe", vec![text_input(PROMPT)]), parameters);
    let answers = client.generate_all(asked).await;
    for answer in &answers {
        assert_eq!(answer.status.code, 10000, "{answer:?}");
    }
    answers
}

fn text(answers: &[Answer]) -> String {
    answers.iter().map(Answer::text).collect()
}

#[test]
fn the_same_seed_gives_the_same_text_and_none_gives_another() {
    let host = Host::serve(&[guests::SCRIBE]);
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let seeded = json!({ "max_tokens": 60, "seed": 7, "temperature": 1.0 });
        let first = text(&generate(&client, seeded.clone()).await);
        let second = text(&generate(&client, seeded).await);
        assert_eq!(first, second);
        assert!(!first.is_empty());

        let free = json!({ "max_tokens": 60, "temperature": 1.0 });
        let third = text(&generate(&client, free.clone()).await);
        let fourth = text(&generate(&client, free).await);
        assert_ne!(third, fourth);
    });
}

#[test]
fn tokens_are_counted_and_their_number_is_honoured() {
    let host = Host::serve(&[guests::SCRIBE]);
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        for max_tokens in [1, 40] {
            let answers =
                generate(&client, json!({ "max_tokens": max_tokens, "temperature": 0 })).await;
            let last = answers.last().unwrap().outputs.last().unwrap();
            assert_eq!(last.completion_tokens, max_tokens);
            assert!(last.prompt_tokens > 0);
        }
    });
}

#[test]
fn a_bad_parameter_is_named() {
    let host = Host::serve(&[guests::SCRIBE]);
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        for (key, value) in [("temperature", json!(-1)), ("max_tokens", json!("many"))] {
            let asked = params(request("scribe", vec![text_input(PROMPT)]), json!({ key: value }));
            let answer = client.predict_request(asked).await;
            assert_eq!(answer.reason(), "GUEST_ERROR", "{answer:?}");
            assert!(answer.status.details.contains(key), "{answer:?}");
        }
    });
}
