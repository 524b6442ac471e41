//! `generate` and `stream` are real streams.

use crate::settings::Folder;
use ringfence::proto::clarifai::api::PostModelOutputsRequest;
use ringfence::proto::clarifai::api::status::StatusCode;
use ringfence::proto::clarifai::api::v2_client::V2Client;
use ringfence_tests::{
    Answer, Canary, Client, Host, Variant, block_on, collect, guests, params, request, text_input,
};
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;

/// Longer than anything here takes, and far shorter than a sleeper sleeps.
const BOUND: Duration = Duration::from_secs(20);

fn echo(text: &str) -> PostModelOutputsRequest {
    request("echo", vec![text_input(text)])
}

fn asleep() -> PostModelOutputsRequest {
    request("sleeper", vec![text_input("z")])
}

/// A call of it ends after an hour, and only one runs at a time.
fn sleeper_with_one_place() -> Variant {
    let change = ("call_timeout: 2s", "call_timeout: 1h\n  max_concurrency: 1");
    Variant::of(guests::SLEEPER, &[change])
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

/// The guest sends one output and then sleeps for an hour, so what waits for
/// the second never sees the first.
#[test]
fn the_first_output_leaves_before_the_last_exists() {
    let variant = sleeper_with_one_place();
    let host = Host::serve(&[variant.path()]);
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        // Leaving frees the only place, or the second round would wait.
        for round in 0..3 {
            let mut answers = client.generate(asleep()).await;
            let first = tokio::time::timeout(BOUND, answers.message()).await;
            let first = first.unwrap_or_else(|_| panic!("no output in round {round}"));
            let first: Answer = first.unwrap().unwrap().into();
            assert_eq!(first.text(), "falling asleep", "{first:?}");
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

/// CLI-08: `sleeper` holds the only place for an hour if nobody stops it.
#[test]
fn a_client_that_leaves_frees_its_place() {
    let variant = sleeper_with_one_place();
    let host = Host::serve(&[variant.path()]);
    block_on(async {
        for round in 0..8 {
            let leaving = Client::connect(host.base(), &host.pat()).await;
            let patience = Duration::from_millis(20 + 4 * round);
            let left = tokio::time::timeout(patience, leaving.predict_request(asleep())).await;
            assert!(left.is_err(), "the sleeper woke up: {left:?}");
        }
        let client = Client::connect(host.base(), &host.pat()).await;
        let next = client.predict("sleeper", vec![text_input("awake")]);
        let next = tokio::time::timeout(BOUND, next).await.expect("a place for the next call");
        assert_eq!(next.text(), "awake", "{next:?}");
    });
}

/// CLI-14: the flood fills what may lie between the guest and the client, and stands.
/// The deadline ends it although nobody ever reads that it is over.
#[test]
fn a_client_that_does_not_read_loses_its_place_at_the_deadline() {
    let change = ("call_timeout: 2s", "call_timeout: 2s\n  max_concurrency: 1");
    let variant = Variant::of(guests::OUTPUT_FLOOD, &[change]);
    let mut host = Host::serve(&[variant.path(), guests::ECHO]);
    let flood = || request("output-flood", vec![text_input("x")]);
    block_on(async {
        let canary = Canary::start(&host).await;
        let endpoint = Endpoint::new(host.base().to_owned()).unwrap();
        let endpoint = endpoint.initial_stream_window_size(65_535);
        let channel = endpoint.connect().await.unwrap();
        let client = Client::connect(host.base(), &host.pat()).await;
        let mut silent = V2Client::new(channel);
        let asked = silent.generate_model_outputs(client.with_token(flood())).await;
        let mut unread = asked.unwrap().into_inner();
        // One output says that the guest runs; no other is ever read.
        let first: Answer = unread.message().await.unwrap().unwrap().into();
        assert_eq!(first.code(), StatusCode::Success, "{first:?}");

        // A call that waits for the place passes its own deadline of 2 s at
        // about the same time, so it may take a second one.
        let served = async {
            loop {
                let answer = client.predict_request(flood()).await;
                match answer.code() {
                    StatusCode::RpcRequestTimeout => {}
                    code => break code,
                }
            }
        };
        let code = tokio::time::timeout(BOUND, served).await.expect("the place of the flood");
        assert_eq!(code, StatusCode::Success);
        drop(unread);
        canary.ends(&mut host, "a slow reader").await;
    });
}

/// What lies between the guest and the client is bounded in its number, too: of a hundred
/// thousand words few are made that nobody reads.
#[test]
fn a_client_that_does_not_read_stops_a_guest_of_many_small_outputs() {
    const WORDS: usize = 100_000;
    const WORD: &str = "word ";
    /// Far more than windows and buffers of HTTP/2 have room for; each word counts as more
    /// than a hundred.
    const BYTES_MAX: usize = 1 << 20;
    let changes = [
        ("cpu_memory: \"64Mi\"", "cpu_memory: \"1Gi\""),
        ("num_accelerators: 0", "num_accelerators: 0\nringfence: {call_timeout: 2s}"),
    ];
    let variant = Variant::of(guests::ECHO, &changes);
    let host = Host::serve(&[variant.path()]);
    block_on(async {
        let endpoint = Endpoint::new(host.base().to_owned()).unwrap();
        let channel = endpoint.initial_stream_window_size(65_535).connect().await.unwrap();
        let client = Client::of(V2Client::new(channel), &host.pat());
        let mut unread = client.generate(echo(&WORD.repeat(WORDS))).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        let mut last = None;
        while let Some(answer) = unread.message().await.unwrap() {
            last = Some(Answer::from(answer));
        }
        let last = last.unwrap();
        assert_eq!(last.code(), StatusCode::RpcRequestTimeout, "{last:?}");
        let trailers = unread.trailers().await.unwrap().unwrap();
        let bytes = trailers.get("ringfence-bytes-out").unwrap().to_str().unwrap();
        let bytes = bytes.parse::<usize>().unwrap();
        assert!(bytes > 64 * WORD.len() && bytes < BYTES_MAX, "{bytes} bytes");
    });
}

#[test]
fn a_stream_of_which_nobody_says_anything_is_ended() {
    const IDLE: Duration = Duration::from_secs(1);
    let folder = Folder::new("stream_idle_timeout: 1s\n");
    let host = folder.serve();
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let (sender, requests) = mpsc::channel(1);
        sender.send(echo("first")).await.unwrap();
        let mut answers = client.stream(ReceiverStream::new(requests)).await;
        let began = Instant::now();
        while began.elapsed() < 2 * IDLE {
            sender.send(echo("again")).await.unwrap();
            let answer: Answer = answers.message().await.unwrap().unwrap().into();
            assert_eq!(answer.code(), StatusCode::Success, "{answer:?}");
            tokio::time::sleep(IDLE / 20).await;
        }
        let end = async {
            loop {
                let answer: Answer = answers.message().await.unwrap().unwrap().into();
                if answer.code() != StatusCode::Success {
                    break answer;
                }
            }
        };
        let end = tokio::time::timeout(BOUND, end).await.expect("the end of the stream");
        assert_eq!(end.reason(), "IDLE", "{end:?}");
    });
}

#[test]
fn sigterm_lets_an_open_stream_finish() {
    let host = Host::serve(&[guests::ECHO]);
    let address = host.base().strip_prefix("http://").unwrap().to_owned();
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let (sender, requests) = mpsc::channel(1);
        sender.send(echo("before")).await.unwrap();
        let mut answers = client.stream(ReceiverStream::new(requests)).await;
        let first: Answer = answers.message().await.unwrap().unwrap().into();
        assert_eq!(first.text(), "before", "{first:?}");

        host.ask_to_stop();
        host.wait_until("the end of listening", |_| {
            std::net::TcpStream::connect(&address).is_err()
        });
        sender.send(echo("after")).await.unwrap();
        let second = tokio::time::timeout(BOUND, answers.message()).await;
        let second: Answer = second.expect("an answer in the drain").unwrap().unwrap().into();
        assert_eq!(second.text(), "after", "{second:?}");
        drop(sender);
        let rest = tokio::time::timeout(BOUND, collect(answers)).await;
        assert!(rest.expect("the end of the stream").is_empty());
    });
    let status = host.wait();
    assert_eq!(status.code(), Some(0), "{status:?}");
}
