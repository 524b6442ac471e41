//! Who may call.

use prost::Message;
use ringfence::proto::clarifai::api::status::StatusCode;
use ringfence::proto::clarifai::api::{self, GetUserRequest};
use ringfence_tests::{
    Canary, Client, Host, HostOptions, block_on, collect, guests, raw_call, request, text_input,
};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};
use tonic::Request;

fn hello() -> api::PostModelOutputsRequest {
    request("echo", vec![text_input("hello")])
}

#[test]
fn a_wrong_token_is_refused_in_band_by_every_call() {
    let host = Host::serve(&[guests::ECHO]);
    block_on(async {
        for token in ["", "rf_0", "Key", &format!("{}0", host.pat())] {
            let client = Client::connect(host.base(), token).await;
            let predicted = client.predict_request(hello()).await;
            let generated = client.generate_all(hello()).await;
            let streamed = collect(client.stream(tokio_stream::once(hello())).await).await;
            for answer in [&predicted, &generated[0], &streamed[0]] {
                assert_eq!(answer.code(), StatusCode::ConnKeyInvalid, "{answer:?}");
                assert_eq!(answer.reason(), "TOKEN_INVALID");
            }
        }
    });
}

/// OUT-05: whoever has no token cannot make the host write as much as it likes.
#[test]
fn a_flood_of_bad_tokens_does_not_fill_the_log() {
    const CALLS: usize = 250;
    const AT_ONCE: usize = 100;
    const PER_SECOND: usize = 10;
    let mut host = Host::serve(&[guests::ECHO]);
    let lines = |host: &Host| host.log().matches("TOKEN_INVALID").count();
    block_on(async {
        let client = Client::connect(host.base(), "rf_0").await;
        let canary = Canary::start(&host).await;
        let began = Instant::now();
        let calls = (0..CALLS).map(|_| client.predict_request(hello()));
        let answers = futures_util::future::join_all(calls).await;
        assert!(answers.iter().all(|answer| answer.reason() == "TOKEN_INVALID"));
        let seconds = usize::try_from(began.elapsed().as_secs()).unwrap() + 1;
        assert!(seconds < (CALLS - AT_ONCE) / PER_SECOND, "too slow to tell: {seconds} s");
        host.wait_until("the lines", |host| lines(host) >= AT_ONCE);
        let told = lines(&host);
        assert!(told <= AT_ONCE + PER_SECOND * seconds, "{told} lines in {seconds} s");
        // One with a token has its line all the same.
        let good = Client::connect(host.base(), &host.pat()).await;
        let req_id = good.predict_request(hello()).await.status.req_id;
        host.wait_until("its line", |host| host.log().contains(&req_id));
        canary.ends(&mut host, "a flood of bad tokens").await;
    });
}

#[test]
fn every_method_of_the_service_refuses_a_wrong_token() {
    let host = Host::serve(&[guests::ECHO]);
    let methods = methods_of_v2();
    assert!(methods.len() >= 10, "{methods:?}");
    block_on(async {
        for method in methods {
            let path = format!("/clarifai.api.V2/{method}");
            let wrong = [("authorization", "Key rf_0")];
            // Field 1 of every response is the status.
            let answer = raw_call(&host, &path, &wrong, &api::GetUserRequest::default()).await;
            let answer = api::MultiOutputResponse::decode(answer.as_slice());
            let status = answer.unwrap_or_else(|error| panic!("{method}: {error}")).status;
            assert_eq!(status.unwrap().code(), StatusCode::ConnKeyInvalid, "{method}");
        }
    });
}

/// The names of all methods, as the host's own descriptors have them.
fn methods_of_v2() -> Vec<String> {
    let files = prost_types::FileDescriptorSet::decode(ringfence::proto::DESCRIPTORS).unwrap();
    let services = files.file.into_iter().flat_map(|file| file.service);
    let v2 = services.filter(|service| service.name() == "V2");
    v2.flat_map(|service| service.method).map(|method| method.name().to_owned()).collect()
}

#[test]
fn a_call_without_a_token_is_refused() {
    let host = Host::serve(&[guests::ECHO]);
    block_on(async {
        let client = Client::connect(host.base(), "").await;
        let answer = client.v2().post_model_outputs(Request::new(hello())).await.unwrap();
        let status = answer.into_inner().status.unwrap();
        assert_eq!(status.code(), StatusCode::ConnKeyInvalid);
    });
}

#[test]
fn a_large_body_with_a_wrong_token_is_refused_in_band() {
    let host = Host::serve(&[guests::ECHO]);
    block_on(async {
        let client = Client::connect(host.base(), "rf_0").await;
        let large = request("echo", vec![text_input(&"x".repeat(15 << 20))]);
        let answer = client.predict_request(large).await;
        assert_eq!(answer.code(), StatusCode::ConnKeyInvalid, "{answer:?}");
        assert_eq!(answer.reason(), "TOKEN_INVALID");
        assert!(answer.outputs.is_empty());
    });
}

#[test]
fn the_first_token_is_in_a_private_file_and_nowhere_else() {
    let host = Host::serve(&[guests::ECHO]);
    let token = host.pat();
    let file = host.data_dir().join("admin.pat");
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    block_on(async {
        let client = Client::connect(host.base(), &token).await;
        assert_eq!(client.predict_request(hello()).await.text(), "hello");
    });
    for entry in std::fs::read_dir(host.data_dir()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() && path != file {
            let bytes = std::fs::read(&path).unwrap();
            let found = bytes.windows(token.len()).any(|window| window == token.as_bytes());
            assert!(!found, "{}", path.display());
        }
    }
    assert!(!host.log().contains(&token));
    assert!(!host.greeting().iter().any(|line| line.contains(&token)));
}

#[test]
fn the_greeting_can_be_pasted_into_a_shell() {
    let host = Host::serve(&[guests::ECHO]);
    let exports: Vec<_> =
        host.greeting().iter().filter(|line| line.starts_with("export ")).cloned().collect();
    assert_eq!(exports.len(), 2);
    let script = format!(
        "cd /\n{}\nprintf '%s %s' \"$CLARIFAI_API_BASE\" \"$CLARIFAI_PAT\"",
        exports.join("\n")
    );
    let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert_eq!(printed, format!("{} {}", host.base(), host.pat()));
}

#[test]
fn a_token_survives_a_restart() {
    let scratch = tempfile::TempDir::new().unwrap();
    let options = || HostOptions {
        models: vec![guests::ECHO.into()],
        data_dir: Some(scratch.path().join("data")),
        ..HostOptions::default()
    };
    let first = Host::start(options());
    let token = first.pat();
    assert!(first.terminate().success());
    let second = Host::start(options());
    assert_eq!(second.pat(), token);
    block_on(async {
        let client = Client::connect(second.base(), &token).await;
        assert_eq!(client.predict_request(hello()).await.text(), "hello");
    });
}

#[test]
fn without_authentication_every_caller_is_local() {
    let host = Host::start(HostOptions {
        models: vec![guests::ECHO.into()],
        args: vec!["--no-auth".into()],
        ..HostOptions::default()
    });
    block_on(async {
        let client = Client::connect(host.base(), "anything").await;
        assert_eq!(client.predict_request(hello()).await.text(), "hello");
        let set = api::UserAppIdSet { user_id: "me".into(), app_id: String::new() };
        let asked = GetUserRequest { user_app_id: Some(set), ..Default::default() };
        let user = client.v2().get_user(client.with_token(asked)).await.unwrap().into_inner();
        assert_eq!(user.user.unwrap().id, "local");
    });
}

fn without_a_name() -> api::PostModelOutputsRequest {
    api::PostModelOutputsRequest { inputs: vec![text_input("hello")], ..Default::default() }
}

/// Only where there is no token and no choice may a request name no model.
#[test]
fn a_request_without_a_name_means_the_only_model_of_a_host_without_tokens() {
    let start = |models: &[&str], args: &[&str]| {
        Host::start(HostOptions {
            models: models.iter().map(Into::into).collect(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            ..HostOptions::default()
        })
    };
    let only = start(&[guests::ECHO], &["--no-auth"]);
    let one_of_two = start(&[guests::ECHO, guests::TEXT_TO_TEXT], &["--no-auth"]);
    let with_tokens = start(&[guests::ECHO], &[]);
    block_on(async {
        let client = Client::connect(only.base(), "").await;
        let predicted = client.predict_request(without_a_name()).await;
        assert_eq!(predicted.text(), "hello", "{predicted:?}");
        let streamed = collect(client.stream(tokio_stream::once(without_a_name())).await).await;
        assert_eq!(streamed[0].text(), "hello", "{streamed:?}");
        for host in [&one_of_two, &with_tokens] {
            let client = Client::connect(host.base(), &host.pat_or_none()).await;
            let answer = client.predict_request(without_a_name()).await;
            assert_eq!(answer.reason(), "INVALID_REQUEST", "{answer:?}");
        }
    });
}

/// CLI-19. That a refusal comes no sooner can be asserted on any machine.
#[test]
fn one_bad_token_after_the_other_is_refused_later_by_every_service() {
    const FREE: usize = 50;
    const DELAY: Duration = Duration::from_millis(500);
    let host = Host::serve(&[guests::ECHO]);
    block_on(async {
        let bad = Client::connect(host.base(), "rf_0").await;
        for _ in 0..FREE {
            assert_eq!(bad.predict_request(hello()).await.reason(), "TOKEN_INVALID");
        }
        let began = Instant::now();
        assert_eq!(bad.predict_request(hello()).await.reason(), "TOKEN_INVALID");
        assert!(began.elapsed() >= DELAY);
        let began = Instant::now();
        let answers = collect(bad.stream(tokio_stream::once(hello())).await).await;
        assert_eq!(answers[0].reason(), "TOKEN_INVALID");
        assert!(began.elapsed() >= DELAY);
        let wrong = [("authorization", "Key rf_0")];
        let began = Instant::now();
        raw_call(&host, "/grpc.health.v1.Health/Check", &wrong, &()).await;
        assert!(began.elapsed() >= DELAY);
        let good = Client::connect(host.base(), &host.pat()).await;
        assert_eq!(good.predict_request(hello()).await.text(), "hello");
    });
    let began = Instant::now();
    assert!(!host.ringfence_as("rf_0", &["users", "list"]).status.success());
    assert!(began.elapsed() >= DELAY);
}
