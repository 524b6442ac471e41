//! What stands around the messages of a call, in both directions.

use crate::floods::{END_HEADERS, HEADERS, call, frame, header, send};
use ringfence_tests::{
    Answer, Client, Host, block_on, guests, params, raw_answer, request, text_input,
};
use serde_json::json;

/// CLI-23: NUL and what moves a cursor, in names that the host reads and in one
/// that it does not.
#[test]
fn metadata_that_is_no_text_ends_its_own_call_alone() {
    let mut host = Host::serve(&[guests::ECHO]);
    let names = ["authorization", "grpc-timeout", "user-agent", "ringfence-upload-sha256", "x"];
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        for name in names {
            for value in ["a\0b", "\0", "a\r\nb: c", "\u{1b}[2J", "\u{7f}"] {
                let headers = [call(), header(name, value)].concat();
                let sent = frame(HEADERS, END_HEADERS | END_STREAM, 1, &headers);
                send(host.base(), sent, true).join().unwrap();
                let answer = client.predict_request(request("echo", vec![text_input("calm")]));
                assert_eq!(answer.await.text(), "calm", "{name}: {value:?}");
            }
        }
        // Long ones that fit are looked at, and do no harm.
        let (authorization, long) = (format!("Key {}", host.pat()), "9".repeat(8 << 10));
        for name in ["grpc-timeout", "user-agent", "ringfence-upload-sha256", "x", "x-bin"] {
            let headers = [("authorization", authorization.as_str()), (name, long.as_str())];
            let hello = request("echo", vec![text_input("hello")]);
            let path = "/clarifai.api.V2/PostModelOutputs";
            let answer = raw_answer(host.base(), path, &headers, &hello).await;
            assert!(answer.message.is_some() || answer.code.is_some(), "{name}: {answer:?}");
        }
    });
    assert!(host.is_alive());
    let odd = |c: char| c.is_control() && c != '\n';
    assert!(!host.log().contains(odd), "{}", host.log());
    assert!(!host.log().contains(&"9".repeat(1 << 10)), "a long value is in the log");
}

/// RFC 9113, section 6.2.
const END_STREAM: u8 = 1;

/// CLI-23: what a guest says is in messages, and in no metadata, whatever it is.
#[test]
fn what_a_guest_says_is_in_no_metadata() {
    let host = Host::serve(&[guests::ECHO, guests::GUEST_ERROR]);
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let odd = "odd\0\r\nx: y\u{1b}[2J".repeat(1000);
        let failing = params(
            request("guest-error", vec![text_input(&odd)]),
            json!({ "code": "failed", "whole": true }),
        );
        for asked in [request("echo", vec![text_input(&odd)]), failing] {
            let sent = client.with_token(asked);
            let response = client.v2().post_model_outputs(sent).await.unwrap();
            let metadata = response.metadata().clone().into_headers();
            assert!(metadata.len() > 8, "{metadata:?}");
            for (name, value) in &metadata {
                let (name, value) = (name.as_str(), value.to_str().unwrap());
                let known = name.starts_with("ringfence-")
                    || ["content-type", "date", "grpc-status"].contains(&name);
                assert!(known && value.len() <= 64, "{name}: {value}");
                let odd = value.contains("odd") || value.contains(|c: char| c.is_control());
                assert!(!odd, "{name}: {value}");
            }
            let _ = Answer::from(response.into_inner());
        }
    });
}
