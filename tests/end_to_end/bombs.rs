//! Small components that cost much to compile: what becomes of them, and that nobody else
//! notices.

use crate::upload::{left_in, lines, make_model, send, state};
use crate::upload_limits::{MEMORY, compile_in, component, package};
use ringfence::proto::clarifai::api::status::{Status, StatusCode};
use ringfence_tests::{
    Canary, Client, Host, block_on, guests, large_to_compile, request, slow_in_either_way,
    slow_to_give_registers, text_input,
};
use rustix::param::clock_ticks_per_second;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;

const SIGXCPU: i32 = 24;

/// The ways in which a component is compiled, one after the other.
const BEST: &[&str] = &[];
const SINGLE_PASS: &[&str] = &["--single-pass"];

/// PKG-07: the second try does with less.
#[test]
fn what_takes_long_for_its_registers_is_compiled_in_one_pass_within_the_same_limit() {
    let bomb = slow_to_give_registers(&component(guests::ECHO));
    assert!(bomb.len() < 1 << 20);
    let ended = compile_in(BEST, &bomb, "5", MEMORY);
    assert_eq!(ended.signal(), Some(SIGXCPU), "{ended}");
    let ended = compile_in(SINGLE_PASS, &bomb, "5", MEMORY);
    assert!(ended.success(), "{ended}");
}

/// PKG-07: the second try has a limit, too.
#[test]
fn what_takes_long_in_either_way_is_ended_in_either_way() {
    let bomb = slow_in_either_way(&component(guests::ECHO));
    assert!(bomb.len() < 1 << 20);
    for way in [BEST, SINGLE_PASS] {
        let ended = compile_in(way, &bomb, "1", MEMORY);
        assert_eq!(ended.signal(), Some(SIGXCPU), "{way:?}: {ended}");
    }
}

/// PKG-07: what takes much, and no more than it may, is a model like others.
#[test]
fn what_stays_within_the_limits_of_compiling_is_served() {
    let mut host = Host::serve(&[guests::ECHO]);
    let large = large_to_compile(&component(guests::ECHO));
    // Not in the other way alone.
    let compiled = compile_in(BEST, &large, "20", MEMORY);
    assert!(compiled.success(), "{compiled}");
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let canary = Canary::start(&host).await;
        let (built, _) = upload(&client, "large", &large).await;
        assert_eq!(built.code(), StatusCode::ModelTrained, "{built:?}");
        canary.ends(&mut host, "a component that is large to compile").await;
        answers(&client, "large").await;
    });
}

/// PKG-07, with the host's own limits: the process of each try is ended by its CPU time,
/// the canary is answered all the while, and no process stays.
/// `cargo test --release -p ringfence-tests --test end_to_end -- --ignored --nocapture bombs::`
#[test]
#[ignore = "it takes a minute of CPU time"]
fn a_bomb_is_refused_or_compiled_in_one_pass_within_its_cpu_time_while_calls_are_served() {
    // Of a try, and what is beside it: the replica that tries a version, and the second
    // in which a process that was told to end may still run.
    const TRY: f64 = 20.0;
    const BESIDE: f64 = 5.0;
    let mut host = Host::serve(&[guests::ECHO]);
    let echo = component(guests::ECHO);
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let canary = Canary::start(&host).await;
        let at_first = cpu_seconds_of_ended(&host);
        let (failed, version) = upload(&client, "either", &slow_in_either_way(&echo)).await;
        assert_eq!(failed.code(), StatusCode::ModelBuildingFailed, "{failed:?}");
        let told = lines(&client, "either", &version).await;
        let said = "it took more than 20 s of CPU time; make it smaller";
        assert!(told.last().unwrap().contains(said), "{told:?}");
        assert_eq!(left_in(host.data_dir()), Vec::<PathBuf>::new());
        canary.comes_back(&host, "what is slow in either way").await;
        let after_two = cpu_seconds_of_ended(&host);
        let took = after_two - at_first;
        assert!((2.0 * TRY - BESIDE..2.0 * TRY + BESIDE).contains(&took), "{took} s");

        let (built, _) = upload(&client, "registers", &slow_to_give_registers(&echo)).await;
        assert_eq!(built.code(), StatusCode::ModelTrained, "{built:?}");
        canary.comes_back(&host, "what is slow to give registers").await;
        let took = cpu_seconds_of_ended(&host) - after_two;
        assert!((TRY - BESIDE..TRY + BESIDE).contains(&took), "{took} s");
        assert!(canary.ends(&mut host, "bombs").await > 0);
        answers(&client, "registers").await;
    });
}

/// Uploads a component as a version of a new model, and waits for what becomes of it.
/// Returns that, and the version.
async fn upload(client: &Client, model: &str, component: &[u8]) -> (Status, String) {
    make_model(client, model).await;
    let sent = send(client, model, &package(model, component)).await;
    let version = sent.last().unwrap().model_version_id.clone();
    (state(client, model, &version).await, version)
}

async fn answers(client: &Client, model: &str) {
    let answer = client.predict_request(request(model, vec![text_input("x")])).await;
    assert_eq!(answer.text(), "x", "{answer:?}");
}

/// CPU time of the processes that a host has started and that have ended.
fn cpu_seconds_of_ended(host: &Host) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", host.pid())).unwrap();
    // After the name, which may have anything in it.
    let (_, rest) = stat.rsplit_once(") ").unwrap();
    let ticks: Vec<&str> = rest.split(' ').collect();
    let a_second = clock_ticks_per_second() as f64;
    let seconds = |field: usize| ticks[field].parse::<f64>().unwrap() / a_second;
    // `cutime` and `cstime` of proc_pid_stat(5).
    seconds(13) + seconds(14)
}
