//! How much may be uploaded at a time, and what an upload may cost: sizes of
//! messages, uploads of one user and of all, compiling.

use crate::upload::{archive, config_of, left_in, lines, make_model, send, send_messages, state};
use futures_util::future::join_all;
use ringfence::package::admission;
use ringfence::proto::clarifai::api;
use ringfence::proto::clarifai::api::post_model_versions_upload_request::UploadData;
use ringfence::proto::clarifai::api::status::StatusCode;
use ringfence_tests::{
    Canary, Client, Host, HostOptions, binary, block_on, files_below, guests, hungry_to_compile,
    request, slow_to_compile, text_input, with_custom_section,
};
use rustix::process::{Pid, Signal, kill_process};
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tonic::Code;

/// `UPLOADS_MAX` of the host.
const UPLOADS_MAX: usize = 16;

fn start() -> Host {
    Host::start(HostOptions::default())
}

pub(crate) fn component(guest: &str) -> Vec<u8> {
    std::fs::read(Path::new(guest).join("1/model.wasm")).unwrap()
}

pub(crate) fn package(id: &str, component: &[u8]) -> Vec<u8> {
    let config = format!("model:\n  id: {id}\n");
    archive(&[("config.yaml", config.as_bytes()), ("1/model.wasm", component)])
}

fn part(number: i64, data: Vec<u8>) -> UploadData {
    let part = api::UploadContentPart { range_start: 0, part_number: number, data: data.into() };
    UploadData::ContentPart(part)
}

/// CLI-02: a part of an upload may be as long as those of the Python SDK, which
/// are 127 MiB, and nothing else may.
#[test]
fn messages_of_uploads_may_be_long_and_no_others() {
    const PART: usize = 127 << 20;
    const TOO_LONG: usize = 131 << 20;
    let host = start();
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        make_model(&client, "m").await;
        let answers =
            send_messages(&client, vec![config_of("m", PART), part(1, vec![0; PART])]).await;
        let taken = answers.iter().filter_map(|answer| answer.status.as_ref());
        let percents: Vec<u32> = taken.map(|status| status.percent_completed).collect();
        assert!(percents.contains(&100), "{percents:?}");
        // It has come; what it is is another matter.
        let last = answers.last().unwrap().status.clone().unwrap();
        assert!(last.details.contains("no gzip"), "{last:?}");

        let long = vec![config_of("m", TOO_LONG), part(1, vec![0; TOO_LONG])];
        let last = send_messages(&client, long).await.last().unwrap().status.clone().unwrap();
        assert_eq!(last.code(), StatusCode::UploadFailed, "{last:?}");
        assert!(last.details.contains("a message cannot be read"), "{last:?}");

        let model = api::Model { id: "x".repeat(17 << 20), ..Default::default() };
        let asked = api::PostModelsRequest { models: vec![model], ..Default::default() };
        let refused = client.v2().post_models(client.with_token(asked)).await.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    });
    assert_eq!(left_in(host.data_dir()), Vec::<PathBuf>::new());
}

/// An upload that has begun and waits for its archive.
struct Open {
    _requests: tokio::sync::mpsc::Sender<api::PostModelVersionsUploadRequest>,
    _answers: tonic::Streaming<api::PostModelVersionsUploadResponse>,
    first: api::status::Status,
}

async fn open(client: &Client, user: &str) -> Open {
    let (requests, receiver) = tokio::sync::mpsc::channel(1);
    let mut config = config_of("m", 1000);
    if let UploadData::UploadConfig(config) = &mut config {
        config.user_app_id.as_mut().unwrap().user_id = user.to_owned();
    }
    let message = api::PostModelVersionsUploadRequest { upload_data: Some(config) };
    requests.send(message).await.unwrap();
    let messages = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let request = client.with_token(messages);
    let mut answers = client.v2().post_model_versions_upload(request).await.unwrap().into_inner();
    let first = answers.message().await.unwrap().unwrap().status.unwrap();
    Open { _requests: requests, _answers: answers, first }
}

/// PKG-09.
#[test]
fn a_user_has_one_upload_at_a_time_and_the_host_sixteen() {
    let host = start();
    let names: Vec<String> = (0..=UPLOADS_MAX).map(|number| format!("user-{number}")).collect();
    let pats: Vec<String> = names.iter().map(|name| host.user(name, "predict,upload")).collect();
    block_on(async {
        let mut clients = Vec::new();
        for pat in &pats {
            clients.push(Client::connect(host.base(), pat).await);
        }
        let mut taken = Vec::new();
        for (client, name) in clients.iter().zip(&names).take(UPLOADS_MAX) {
            let opened = open(client, name).await;
            assert_eq!(opened.first.code(), StatusCode::UploadInProgress, "{:?}", opened.first);
            taken.push(opened);
        }
        let again = open(&clients[0], &names[0]).await.first;
        assert_eq!(again.code(), StatusCode::ConnThrottled, "{again:?}");
        assert!(again.details.contains("another upload of yours is under way"), "{again:?}");
        let (last, name) = (&clients[UPLOADS_MAX], &names[UPLOADS_MAX]);
        let busy = open(last, name).await.first;
        assert_eq!(busy.code(), StatusCode::ConnThrottled, "{busy:?}");
        assert!(busy.details.contains("16 uploads at a time"), "{busy:?}");
        // Whoever leaves makes room, as soon as the host has seen it.
        taken.clear();
        let began = Instant::now();
        while open(last, name).await.first.code() != StatusCode::UploadInProgress {
            assert!(began.elapsed() < Duration::from_secs(60), "no room was made");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    host.wait_until("what was begun goes", |host| left_in(host.data_dir()).is_empty());
}

/// PKG-09: fifty at once are one at a time, and the others are told.
#[test]
fn fifty_uploads_of_one_user_at_once_are_taken_or_told() {
    let host = start();
    let good = package("m", &component(guests::ECHO));
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        make_model(&client, "m").await;
        let all = join_all((0..50).map(|_| send(&client, "m", &good))).await;
        let codes: Vec<StatusCode> = all
            .iter()
            .map(|answers| answers.last().unwrap().status.as_ref().unwrap().code())
            .collect();
        assert!(codes.contains(&StatusCode::ModelBuilding), "{codes:?}");
        for code in &codes {
            let expected = [StatusCode::ModelBuilding, StatusCode::ConnThrottled];
            assert!(expected.contains(code), "{codes:?}");
        }
        let version = all.iter().find_map(|answers| {
            let version = &answers.last().unwrap().model_version_id;
            (!version.is_empty()).then(|| version.clone())
        });
        state(&client, "m", &version.unwrap()).await;
        let answer = client.predict_request(request("m", vec![text_input("x")])).await;
        assert_eq!(answer.text(), "x");
    });
}

/// PKG-07, the memory of compiling.
#[test]
fn a_component_that_takes_too_much_memory_to_compile_is_refused_with_the_limit() {
    let mut host = Host::serve(&[guests::ECHO]);
    let hungry = package("m", &hungry_to_compile(&component(guests::ECHO)));
    assert!(hungry.len() < 1 << 20);
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        make_model(&client, "m").await;
        let canary = Canary::start(&host).await;
        let version = send(&client, "m", &hungry).await.pop().unwrap().model_version_id;
        let failed = state(&client, "m", &version).await;
        assert_eq!(failed.code(), StatusCode::ModelBuildingFailed, "{failed:?}");
        let told = lines(&client, "m", &version).await;
        let said = "it took more than 2147483648 bytes of memory; make it smaller";
        assert!(told.last().unwrap().contains(said), "{told:?}");
        canary.ends(&mut host, "what takes much memory to compile").await;
    });
    assert_eq!(left_in(host.data_dir()), Vec::<PathBuf>::new());
}

/// PKG-25: what names things and means nothing to the machine is not believed, and
/// not in the way.
#[test]
fn a_component_with_a_long_section_that_means_nothing_is_one_like_others() {
    let host = start();
    let long = package("m", &with_custom_section(&component(guests::ECHO), 50 << 20));
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        make_model(&client, "m").await;
        let version = send(&client, "m", &long).await.pop().unwrap().model_version_id;
        let built = state(&client, "m", &version).await;
        assert_eq!(built.code(), StatusCode::ModelTrained, "{built:?}");
        let answer = client.predict_request(request("m", vec![text_input("x")])).await;
        assert_eq!(answer.text(), "x");
    });
    let cached = files_below(&host.data_dir().join("cache"));
    let bytes: u64 = cached.iter().map(|file| file.metadata().unwrap().len()).sum();
    assert!(bytes < 16 << 20, "it is in the machine code: {bytes} bytes");
}

/// PKG-04: a component with a flipped bit is compiled or refused, and nothing
/// panics.
#[test]
fn a_flipped_bit_in_a_component_is_refused_or_does_not_matter() {
    const FLIPS: usize = 2000;
    // Compiling takes longer than looking at what a component imports.
    const COMPILED: usize = 16;
    let whole = component(guests::ECHO);
    let mut refused = 0;
    for flip in 0..FLIPS {
        let mut bytes = whole.clone();
        // Half of them in the head, where the sections of the component are.
        let span = if flip % 2 == 0 { bytes.len() } else { bytes.len().min(4096) };
        let bit = flip.wrapping_mul(2_654_435_761) % (span * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        let admitted = admission::admit(&bytes, 64 << 20);
        refused += usize::from(admitted.is_err());
        if admitted.is_ok() && flip % (FLIPS / COMPILED) == 0 {
            let ended = compile(&bytes, "60", MEMORY);
            assert!(ended.success(), "flip {flip}: {ended}");
        }
    }
    assert!(refused > 0);
}

/// Bytes that compiling may take.
pub(crate) const MEMORY: &str = "2147483648";

/// Has a process compile a component, as the host does, with this much CPU time and
/// memory. One that is given variables is no proof of the jail.
fn compile(component: &[u8], cpu_seconds: &str, data_bytes: &str) -> ExitStatus {
    compile_in(&[], component, cpu_seconds, data_bytes)
}

/// The same with further arguments, which say in which way.
pub(crate) fn compile_in(
    way: &[&str],
    component: &[u8],
    cpu_seconds: &str,
    data_bytes: &str,
) -> ExitStatus {
    let parent = std::process::id().to_string();
    let mut child = Command::new(binary())
        .args(["compile-worker", "--memory-bytes-max", "67108864", "--cpu-seconds", cpu_seconds])
        .args(["--data-bytes", data_bytes, "--parent", &parent])
        .args(["--files-max", "64", "--jail", "best-effort", "--cpus", "2"])
        .args(way)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(component).unwrap();
    drop(stdin);
    child.wait().unwrap()
}

/// PKG-07, the CPU time of compiling; of one second, for the test's sake.
#[test]
fn compiling_ends_with_its_cpu_time() {
    const SIGXCPU: i32 = 24;
    let ended = compile(&slow_to_compile(&component(guests::ECHO)), "1", MEMORY);
    assert_eq!(ended.signal(), Some(SIGXCPU));
}

/// PKG-07, its memory.
#[test]
fn compiling_ends_with_its_memory() {
    const SIGABRT: i32 = 6;
    let echo = component(guests::ECHO);
    assert!(compile(&echo, "60", MEMORY).success());
    let ended = compile(&hungry_to_compile(&echo), "60", "134217728");
    assert_eq!(ended.signal(), Some(SIGABRT));
}

/// The process that compiles for a host, once there is one.
fn compiling(host: &Host) -> Pid {
    let mut found = None;
    host.wait_until("compiling", |host| {
        found = children(host.pid()).into_iter().find(|child| {
            let path = format!("/proc/{}/cmdline", child.as_raw_nonzero());
            let command = std::fs::read(path).unwrap_or_default();
            command.split(|byte| *byte == 0).any(|word| word == b"compile-worker")
        });
        found.is_some()
    });
    found.unwrap()
}

/// The processes that a process has started and that have not ended.
fn children(parent: u32) -> Vec<Pid> {
    let pids = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse::<i32>().ok());
    let of_parent = pids.filter(|pid| stat(*pid).is_some_and(|(_, of)| of == parent));
    of_parent.filter_map(Pid::from_raw).collect()
}

/// The state of a process and its parent, if there is such a process.
fn stat(pid: i32) -> Option<(char, u32)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // After the name, which may have anything in it.
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut words = rest.split(' ');
    Some((words.next()?.chars().next()?, words.next()?.parse().ok()?))
}

/// PKG-08.
#[test]
fn a_compiler_that_is_killed_fails_its_upload_and_nothing_else() {
    let host = start();
    let echo = component(guests::ECHO);
    let slow = package("m", &slow_to_compile(&echo));
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        make_model(&client, "m").await;
        let version = send(&client, "m", &slow).await.pop().unwrap().model_version_id;
        kill_process(compiling(&host), Signal::KILL).unwrap();
        let failed = state(&client, "m", &version).await;
        assert_eq!(failed.code(), StatusCode::ModelBuildingFailed, "{failed:?}");
        let told = lines(&client, "m", &version).await;
        assert!(told.last().unwrap().contains("it was killed"), "{told:?}");
        assert_eq!(left_in(host.data_dir()), Vec::<PathBuf>::new());

        let version = send(&client, "m", &package("m", &echo)).await.pop().unwrap();
        let built = state(&client, "m", &version.model_version_id).await;
        assert_eq!(built.code(), StatusCode::ModelTrained, "{built:?}");
        let answer = client.predict_request(request("m", vec![text_input("x")])).await;
        assert_eq!(answer.text(), "x");
    });
}

/// OPS-17: what compiles ends with its host, however that ends.
#[test]
fn a_compiler_does_not_outlive_its_host() {
    let mut host = start();
    let slow = package("m", &slow_to_compile(&component(guests::ECHO)));
    let compiler = block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        make_model(&client, "m").await;
        send(&client, "m", &slow).await;
        compiling(&host)
    });
    host.kill();
    // It would take seconds more. One that has ended may wait for its new parent.
    let raw = compiler.as_raw_nonzero().get();
    let began = Instant::now();
    while stat(raw).is_some_and(|(state, _)| state != 'Z') {
        assert!(began.elapsed() < Duration::from_secs(3), "it goes on");
        std::thread::sleep(Duration::from_millis(5));
    }
}
