//! What the host refuses at its start, and what it tells.

use ringfence_tests::{
    Client, Host, HostOptions, Variant, block_on, guests, health_of, refused_start, request,
    text_input,
};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

/// What `serve` says when it refuses, which it must with the exit code of wrong
/// usage or configuration.
fn complaint(args: &[&str]) -> String {
    let (code, text) = refused_start(args);
    assert_eq!(code, Some(2), "{text}");
    text
}

#[test]
fn a_component_that_imports_sockets_is_refused_by_their_name() {
    let model = ["--listen", "127.0.0.1:0", "--model", guests::IMPORTS_SOCKETS];
    let text = complaint(&model);
    assert!(text.contains("wasi:sockets/"), "{text}");
    assert!(text.contains("imports-sockets"), "{text}");
}

#[test]
fn a_component_that_starts_above_its_memory_limit_is_refused_with_both_numbers() {
    let model = ["--listen", "127.0.0.1:0", "--model", guests::LARGE_START];
    let text = complaint(&model);
    assert!(text.contains("cpu_memory allows 67108864"), "{text}");
}

#[test]
fn a_folder_that_has_not_been_built_is_refused_with_the_command_that_builds_it() {
    let scratch = TempDir::new().unwrap();
    std::fs::create_dir(scratch.path().join("1")).unwrap();
    let config = Path::new(guests::ECHO).join("config.yaml");
    std::fs::copy(config, scratch.path().join("config.yaml")).unwrap();
    let folder = scratch.path().to_str().unwrap();
    let data_dir = scratch.path().join("data");
    let data = data_dir.to_str().unwrap();
    let args = ["--listen", "127.0.0.1:0", "--data-dir", data, "--model", folder];
    let text = complaint(&args);
    assert!(text.contains("ringfence build"), "{text}");
    assert!(!data_dir.exists(), "nothing was begun");
}

#[test]
fn a_taken_port_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let text = complaint(&["--listen", &address]);
    assert!(text.contains(&address), "{text}");
}

#[test]
fn beyond_loopback_the_jail_is_required() {
    let text = complaint(&["--listen", "0.0.0.0:0", "--jail", "best-effort"]);
    assert!(text.contains("needs its jail") && text.contains("--jail"), "{text}");
    let text = complaint(&["--listen", "0.0.0.0:0", "--no-auth"]);
    assert!(text.contains("--no-auth"), "{text}");
}

#[test]
fn a_second_host_is_kept_out_of_the_data_directory() {
    let host = Host::serve(&[guests::ECHO]);
    let data_dir = host.data_dir().to_str().unwrap();
    let (code, text) = refused_start(&["--listen", "127.0.0.1:0", "--data-dir", data_dir]);
    assert!(code.is_some_and(|code| code != 0), "{text}");
}

#[test]
fn two_folders_with_one_name_are_refused() {
    let text =
        complaint(&["--listen", "127.0.0.1:0", "--model", guests::ECHO, "--model", guests::ECHO]);
    assert!(text.contains("local/main/echo"), "{text}");
}

#[test]
fn health_is_served_without_a_token_and_a_signal_ends_the_host() {
    let host = Host::serve(&[guests::ECHO]);
    block_on(async {
        let mut health = health_of(&host).await;
        let asked = HealthCheckRequest { service: "clarifai.api.V2".into() };
        let HealthCheckResponse { status } = health.check(asked).await.unwrap().into_inner();
        assert_eq!(status, ServingStatus::Serving as i32);
    });
    assert!(host.terminate().success());
}

/// CLI-24.
#[test]
fn reflection_is_off_unless_asked_for() {
    let path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    let ask = |host: &Host| {
        block_on(async {
            let channel = tonic::transport::Endpoint::new(host.base().to_owned()).unwrap();
            let mut grpc = tonic::client::Grpc::new(channel.connect().await.unwrap());
            grpc.ready().await.unwrap();
            let codec: tonic_prost::ProstCodec<HealthCheckRequest, HealthCheckResponse> =
                tonic_prost::ProstCodec::default();
            let asked = tonic::Request::new(tokio_stream::empty());
            grpc.streaming(asked, path.parse().unwrap(), codec).await.is_ok()
        })
    };
    assert!(!ask(&Host::serve(&[guests::ECHO])));
    let with = HostOptions {
        models: vec![guests::ECHO.into()],
        args: vec!["--reflection".into()],
        ..HostOptions::default()
    };
    assert!(ask(&Host::start(with)));
}

#[test]
fn a_source_that_is_newer_than_what_was_built_is_told() {
    let variant = Variant::of(guests::ECHO, &[]);
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(60);
    let source = std::fs::File::options().write(true).open(variant.folder().join("1/model.rs"));
    source.unwrap().set_modified(later).unwrap();
    let host = Host::serve(&[variant.path()]);
    host.wait_until("the note", |host| host.log().contains("newer than 1/model.wasm"));
    let fresh = Variant::of(guests::ECHO, &[]);
    let built = std::fs::File::options().write(true).open(fresh.folder().join("1/model.wasm"));
    built.unwrap().set_modified(later).unwrap();
    assert!(!Host::serve(&[fresh.path()]).log().contains("newer than"));
}

#[test]
fn a_faulty_configuration_is_told_with_its_folder() {
    let variant = Variant::of(guests::ECHO, &[("cpu_memory", "cpu_memoory")]);
    let text = complaint(&["--listen", "127.0.0.1:0", "--model", variant.path()]);
    assert!(text.contains(variant.path()) && text.contains("cpu_memory"), "{text}");
}

/// OPS-15: a host that runs out of descriptors pauses after each `accept` that fails,
/// and goes on when there are some again.
#[test]
fn running_out_of_descriptors_is_no_busy_loop() {
    const PAUSE_MS: usize = 50;
    // More than a host at rest has open, and less than the connections that one
    // address may have.
    const FILES: usize = 128;
    let host = Host::serve(&[guests::ECHO]);
    let pid = Pid::from_raw(i32::try_from(host.pid()).unwrap());
    // Whoever answers has looked how many files there are for connections.
    assert_eq!(echoed(&host, "there"), "there");
    let before = prlimit(pid, Resource::Nofile, files(FILES as u64)).unwrap();
    let began = Instant::now();
    let address = host.base().strip_prefix("http://").unwrap();
    let flood: Vec<_> = (0..FILES + 60).map(|_| TcpStream::connect(address).unwrap()).collect();
    let failures = |host: &Host| host.log().matches("cannot accept a connection").count();
    host.wait_until("three failures", |host| failures(host) >= 3);
    let failed = failures(&host);
    let at_most = began.elapsed().as_millis() as usize / PAUSE_MS + 1;
    assert!(failed <= at_most, "{failed} failures where {at_most} were possible");

    drop(flood);
    prlimit(pid, Resource::Nofile, before).unwrap();
    assert_eq!(echoed(&host, "back"), "back");
}

/// What a text comes back as, by a connection of its own.
fn echoed(host: &Host, text: &str) -> String {
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        client.predict("echo", vec![text_input(text)]).await.text()
    })
}

fn files(current: u64) -> Rlimit {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    Rlimit { current: Some(current), maximum }
}

/// OPS-13: who reads the host's output may go, and a host that was halted goes on.
#[test]
fn a_broken_pipe_and_a_halt_end_nothing() {
    let host = Host::serve(&[guests::ECHO]);
    let pid = Pid::from_raw(i32::try_from(host.pid()).unwrap()).unwrap();
    let answer = || echoed(&host, "on");
    assert_eq!(answer(), "on");
    kill_process(pid, Signal::PIPE).unwrap();
    assert_eq!(answer(), "on");
    kill_process(pid, Signal::STOP).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(answer);
        std::thread::sleep(Duration::from_secs(1));
        assert!(!waiting.is_finished(), "a halted host has answered");
        kill_process(pid, Signal::CONT).unwrap();
        assert_eq!(waiting.join().unwrap(), "on");
    });
    assert!(host.terminate().success());
}

/// OPS-13: a stream that would be waited for, and a second signal that does not
/// wait.
#[test]
fn a_second_signal_ends_the_host_at_once() {
    let variant = Variant::of(guests::SLEEPER, &[("call_timeout: 2s", "call_timeout: 1h")]);
    let host = Host::serve(&[variant.path()]);
    let address = host.base().strip_prefix("http://").unwrap().to_owned();
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let mut answers = client.generate(request("sleeper", vec![text_input("z")])).await;
        answers.message().await.unwrap().unwrap();
        host.ask_to_stop();
        host.wait_until("the end of listening", |_| TcpStream::connect(&address).is_err());
        host.ask_to_stop();
        let status = host.wait();
        assert_eq!(status.code(), Some(1), "{status:?}");
        drop(answers);
    });
}
