//! `generate` and `stream` are real streams.

use ringfence::proto::clarifai::api::PostModelOutputsRequest;
use ringfence_tests::{
    Answer, Client, Host, block_on, collect, guests, params, request, text_input,
};
use serde_json::json;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

fn echo(text: &str) -> PostModelOutputsRequest {
    request("echo", vec![text_input(text)])
}

#[test]
fn generate_yields_pieces_that_join_to_the_text() {
    let host = Host::serve(&[guests::ECHO]);
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let text = "  to be,\n or not to be ";
        let answers = client.generate_all(echo(text)).await;
        assert!(answers.len() > 3, "{answers:?}");
        assert_eq!(answers.iter().map(Answer::text).collect::<String>(), text);

        let chunks = params(echo(text), json!({ "chunk": 3 }));
        assert_eq!(client.generate_all(chunks).await.len(), 2);
    });
}

/// The host buffers a few messages each way and no more: a text far larger
/// than that is not finished before the client has read.
#[test]
fn the_first_output_leaves_before_the_last_exists() {
    let host = Host::serve(&[guests::SCRIBE]);
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let asked = params(
            request("scribe", vec![text_input("In the beginning ")]),
            json!({ "max_tokens": 200, "seed": 1 }),
        );
        let mut answers = client.generate(asked).await;
        let first: Answer = answers.message().await.unwrap().unwrap().into();
        assert!(first.outputs[0].completion_tokens < 200, "{first:?}");
        // Leaving ends the guest: the host has a place free again at once, or
        // the calls below would find none.
        drop(answers);
        for _ in 0..20 {
            let asked = params(
                request("scribe", vec![text_input("And ")]),
                json!({ "max_tokens": 1, "seed": 1 }),
            );
            assert_eq!(client.predict_request(asked).await.status.code, 10000);
        }
    });
}

#[test]
fn stream_answers_the_first_message_before_the_second_is_sent() {
    let host = Host::serve(&[guests::ECHO]);
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let (sender, requests) = mpsc::channel(1);
        sender.send(echo("message 0")).await.unwrap();
        let mut answers = client.stream(ReceiverStream::new(requests)).await;
        for number in 0..5 {
            let answer = tokio::time::timeout(Duration::from_secs(20), answers.message());
            let answer: Answer = answer.await.unwrap().unwrap().unwrap().into();
            assert_eq!(answer.text(), format!("message {number}"));
            sender.send(echo(&format!("message {}", number + 1))).await.unwrap();
        }
        drop(sender);
        let rest = collect(answers).await;
        assert_eq!(rest.len(), 1, "{rest:?}");
        assert_eq!(rest[0].text(), "message 5");
    });
}

#[test]
fn a_stream_without_messages_gets_one_answer() {
    let host = Host::serve(&[guests::ECHO]);
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let answers = collect(client.stream(tokio_stream::empty()).await).await;
        assert_eq!(answers.len(), 1, "{answers:?}");
        assert_eq!(answers[0].reason(), "INVALID_REQUEST");
    });
}

#[test]
fn a_bad_message_ends_the_stream_with_its_reason() {
    let host = Host::serve(&[guests::ECHO]);
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let messages = vec![echo("good"), request("echo", vec![])];
        let answers = collect(client.stream(tokio_stream::iter(messages)).await).await;
        let last = answers.last().unwrap();
        assert_eq!(last.reason(), "INVALID_REQUEST", "{answers:?}");
    });
}

/// `sleeper` holds its place for two seconds if nobody stops it; the places
/// are 16. Sixty clients that leave at once would need eight rounds.
#[test]
fn a_client_that_leaves_frees_its_place() {
    let host = Host::serve(&[guests::SLEEPER]);
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        for _ in 0..60 {
            let asked = client.with_token(request("sleeper", vec![text_input("z")]));
            let mut v2 = client.v2();
            let call = v2.post_model_outputs(asked);
            let left = tokio::time::timeout(Duration::from_millis(20), call).await;
            assert!(left.is_err(), "the sleeper woke up: {left:?}");
        }
        host.wait_until("60 cancelled calls", |host| host.log().matches("CANCELLED").count() >= 60);
        assert!(!host.log().contains("WALL_DEADLINE"), "{}", host.log());
    });
}
