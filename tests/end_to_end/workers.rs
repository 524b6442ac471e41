//! Processes of replicas: what becomes of their calls when they end, who notices, and
//! what they are left with.

use prost::Message;
use ringfence::proto::clarifai::api::MultiOutputResponse;
use ringfence::proto::clarifai::api::status::StatusCode;
use ringfence_tests::{
    Answer, Canary, Client, Host, HostOptions, Variant, block_on, guests, raw_call, request,
    text_input,
};
use rustix::process::{Pid, Signal, kill_process};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A sleeper that may sleep for long.
fn sleeper() -> Variant {
    Variant::of(guests::SLEEPER, &[("call_timeout: 2s", "call_timeout: 1h")])
}

/// The process of the model that was started last.
fn newest(host: &Host, before: &[u32]) -> u32 {
    let new: Vec<_> = host.workers().into_iter().filter(|pid| !before.contains(pid)).collect();
    assert_eq!(new.len(), 1, "{new:?}");
    new[0]
}

fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), signal).unwrap();
}

/// Sends a signal until it has been the end of a worker: the first of a kind that wasm
/// means something by is looked at, and let go.
fn end_by(host: &Host, pid: u32, ends: Signal) {
    host.wait_until("the end of the worker", |host| {
        let is_there = host.workers().contains(&pid);
        if is_there {
            signal(pid, ends);
        }
        !is_there
    });
}

/// Asks the sleeper as clients do, who try a busy model again.
async fn awake(client: &Client) -> Answer {
    for _ in 0..200 {
        let answer = client.predict("sleeper", vec![text_input("awake")]).await;
        if answer.code() != StatusCode::ModelBusyPleaseRetry {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the sleeper stays busy")
}

/// A host that serves `echo`, and a model that sleeps, whose process is given.
fn host_with_sleeper(variant: &Variant) -> (Host, u32) {
    let host = Host::serve(&[guests::ECHO, variant.path()]);
    let workers = host.workers();
    assert_eq!(workers.len(), 2);
    let of_sleeper = |host: &Host| {
        let log = host.log();
        let told = |pid| format!("a replica runs model=local/main/sleeper pid={pid} ");
        workers.iter().copied().find(|pid| log.contains(&told(*pid)))
    };
    // The log is written by a thread of its own.
    host.wait_until("a process of the sleeper", |host| of_sleeper(host).is_some());
    let pid = of_sleeper(&host).expect("it was there");
    (host, pid)
}

/// OPS-16: a worker that segfaults, aborts or is killed costs its callers one clear
/// answer, in a form that clients try again, and others nothing.
#[test]
fn a_worker_that_ends_costs_its_own_callers_one_answer_and_others_nothing() {
    let variant = sleeper();
    for ends in [Signal::SEGV, Signal::ABORT, Signal::KILL] {
        let (mut host, pid) = host_with_sleeper(&variant);
        block_on(async {
            let canary = Canary::start(&host).await;
            let client = Client::connect(host.base(), &host.pat()).await;
            let mut calls = tokio::task::JoinSet::new();
            for _ in 0..3 {
                let client = client.clone();
                calls.spawn(async move { client.predict("sleeper", vec![text_input("x")]).await });
            }
            let mut streamed = client.generate(request("sleeper", vec![text_input("x")])).await;
            streamed.message().await.unwrap().expect("the first output");
            host.wait_until("the calls", |host| running(host) == 4);
            end_by(&host, pid, ends);
            for answer in calls.join_all().await {
                assert_eq!(answer.reason(), "WORKER_CRASHED", "{answer:?}");
                assert_eq!(answer.code(), StatusCode::ModelBusyPleaseRetry);
            }
            // What has begun would be done twice.
            let last = streamed.message().await.unwrap().expect("an answer");
            let status = last.status.unwrap();
            assert_eq!(status.code(), StatusCode::ModelPredictionFailed, "{status:?}");
            assert!(status.details.starts_with("WORKER_CRASHED"), "{status:?}");
            let again = awake(&client).await;
            assert_eq!(again.text(), "awake", "{again:?}");
            assert!(canary.ends(&mut host, "a worker's end").await > 0);
        });
    }
}

/// Calls that run, as the operator sees them.
fn running(host: &Host) -> usize {
    let listed = host.operate(&["calls", "list", "--json"]);
    listed.lines().filter(|line| line.contains("sleeper")).count()
}

/// What nothing in a process can stop is stopped from outside: a process that does not
/// end a call at its deadline goes, with its other calls, and nobody else notices.
#[test]
fn a_worker_that_hangs_is_killed_at_a_deadline() {
    let variant = sleeper();
    let (mut host, pid) = host_with_sleeper(&variant);
    block_on(async {
        let canary = Canary::start(&host).await;
        let client = Client::connect(host.base(), &host.pat()).await;
        let patient = {
            let client = client.clone();
            tokio::spawn(async move { client.predict("sleeper", vec![text_input("x")]).await })
        };
        host.wait_until("the call", |host| running(host) == 1);
        signal(pid, Signal::STOP);
        let hasty = raw_call(
            &host,
            "/clarifai.api.V2/PostModelOutputs",
            &[("grpc-timeout", "300m")],
            &request("sleeper", vec![text_input("x")]),
        )
        .await;
        let hasty = MultiOutputResponse::decode(hasty.as_slice()).unwrap().status.unwrap();
        assert!(hasty.details.starts_with("WALL_DEADLINE"), "{hasty:?}");
        let patient = patient.await.unwrap();
        assert_eq!(patient.reason(), "WORKER_CRASHED", "{patient:?}");
        let again = awake(&client).await;
        assert_eq!(again.text(), "awake", "{again:?}");
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "it is gone");
        canary.ends(&mut host, "a worker that hangs").await;
    });
}

/// MEM-12: memory that no account sees is the kernel's to refuse. The host itself is
/// left with less than its model may have, and its workers with no more.
#[test]
fn a_worker_that_finds_no_memory_ends_alone() {
    let variant = Variant::of(
        guests::TENSOR_HOG,
        &[
            ("cpu_memory: \"64Mi\"", "cpu_memory: \"4Gi\""),
            ("call_timeout: 2s", "call_timeout: 1m"),
        ],
    );
    let mut host = Host::start(HostOptions {
        models: vec![guests::ECHO.into(), variant.path().into()],
        under: ["prlimit", "--data=402653184"].map(str::to_owned).to_vec(),
        ..HostOptions::default()
    });
    block_on(async {
        let canary = Canary::start(&host).await;
        let client = Client::connect(host.base(), &host.pat()).await;
        let answer = client.predict("tensor-hog", vec![text_input("x")]).await;
        assert_eq!(answer.reason(), "WORKER_CRASHED", "{answer:?}");
        assert!(host.log().contains("memory allocation of"), "{}", host.log());
        canary.ends(&mut host, "a worker without memory").await;
    });
}

/// OPS-16.
#[test]
fn a_version_whose_workers_crash_one_after_the_other_is_left_alone() {
    let variant = sleeper();
    let (mut host, _) = host_with_sleeper(&variant);
    block_on(async {
        let canary = Canary::start(&host).await;
        let client = Client::connect(host.base(), &host.pat()).await;
        let echo = host.workers();
        let of_sleeper = |host: &Host| {
            let told = |pid: &&u32| {
                host.log().contains(&format!("a replica runs model=local/main/sleeper pid={pid} "))
            };
            host.workers().iter().find(told).copied()
        };
        for crash in 0..3 {
            let answer = awake(&client).await;
            assert_eq!(answer.text(), "awake", "crash {crash}: {answer:?}");
            // Its line may come a moment later.
            host.wait_until("its process", |host| of_sleeper(host).is_some());
            let pid = of_sleeper(&host).expect("a process");
            signal(pid, Signal::KILL);
            host.wait_until("its end", |host| of_sleeper(host) != Some(pid));
        }
        // Nobody waits for what would crash again, and the reason is told.
        host.wait_until("the circuit to open", |host| {
            host.log().contains("is not started again for 60 s")
        });
        let answer = client.predict("sleeper", vec![text_input("awake")]).await;
        assert_eq!(answer.reason(), "WORKER_CRASHED", "{answer:?}");
        assert!(answer.status.details.contains("crashed three times"), "{answer:?}");
        assert!(of_sleeper(&host).is_none(), "{echo:?}");
        canary.ends(&mut host, "a worker that crashes again and again").await;
    });
}

/// OPS-17.
#[test]
fn a_killed_host_leaves_no_process_behind() {
    let mut host = Host::serve(&[guests::ECHO, guests::DIGITS]);
    let workers = host.workers();
    assert_eq!(workers.len(), 2);
    let killed = Instant::now();
    host.kill();
    let is_there = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // Nobody may be there to look at its end.
        !(stat.is_empty() || stat.contains(") Z "))
    };
    while workers.iter().any(is_there) {
        assert!(killed.elapsed() < Duration::from_secs(2), "they are still there");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_host_that_ends_lets_its_workers_end_first() {
    let host = Host::serve(&[guests::ECHO]);
    let workers = host.workers();
    assert!(host.terminate().success());
    assert!(workers.iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists()));
}

/// A layer that is missing is named, and a host that needs it does not start.
#[test]
fn a_jail_that_does_not_hold_is_named_and_no_start_where_it_is_required() {
    let options = |jail: &str| HostOptions {
        models: vec![guests::ECHO.into()],
        args: ["--jail", jail].map(str::to_owned).into(),
        variables: vec![("RINGFENCE_LIFT".into(), "jail_files".into())],
        ..HostOptions::default()
    };
    let host = Host::start(options("best-effort"));
    let log = host.log();
    assert!(log.contains("jail: files: missing"), "{log}");
    assert!(log.contains("it could open a file"), "{log}");
    drop(host);
    let scratch = TempDir::new().unwrap();
    let data_dir = scratch.path().join("data");
    let refused = std::process::Command::new(ringfence_tests::binary())
        .args(["serve", "--listen", "127.0.0.1:0", "--jail", "required", "--data-dir"])
        .arg(&data_dir)
        .env("RINGFENCE_LIFT", "jail_files")
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    let told = String::from_utf8_lossy(&refused.stderr);
    assert!(told.contains("the jail is required") && told.contains("files"), "{told}");
}

/// What `/proc` says of a process, by its first word.
pub(super) fn status(pid: u32) -> impl Fn(&str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    move |field: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{field}:")));
        line.unwrap_or_else(|| panic!("no {field} in {text}")).trim().to_owned()
    }
}

pub(super) fn is_jailed(pid: u32, user: u32) {
    let score = std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
    assert_eq!(score.trim(), "1000");
    let status = status(pid);
    assert!(status("Uid").split_whitespace().all(|id| id == user.to_string()), "{}", status("Uid"));
    for field in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(status(field), "0000000000000000", "{field}");
    }
    assert_eq!((status("NoNewPrivs").as_str(), status("Seccomp").as_str()), ("1", "2"));
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let of = |name: &str| {
        let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().to_owned()
    };
    assert_eq!(of("Max core file size"), "0");
    assert!(of("Max data size").parse::<u64>().unwrap() < 2 << 30);
    assert!(of("Max open files").parse::<u64>().unwrap() < 10_000);
    let of_process = |what: &str| std::fs::read(format!("/proc/{pid}/{what}")).unwrap();
    assert!(of_process("environ").is_empty());
}

/// What another user needs to run a host, on a way that everybody may go.
pub(super) struct Home {
    pub(super) folders: Vec<PathBuf>,
    pub(super) program: PathBuf,
    pub(super) data_dir: PathBuf,
    _home: TempDir,
}

impl Home {
    /// Only root can give something to a user.
    pub(super) fn of(user: u32, models: &[PathBuf]) -> Self {
        let home = TempDir::new().unwrap();
        let may = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        may(home.path(), 0o755);
        let copied = |model: &PathBuf| {
            let to = home.path().join(model.file_name().unwrap());
            ringfence_tests::copy(model, &to);
            to
        };
        let folders = models.iter().map(copied).collect();
        let program = home.path().join("ringfence");
        std::fs::copy(ringfence_tests::binary(), &program).unwrap();
        let data_dir = home.path().join("data");
        std::fs::create_dir(&data_dir).unwrap();
        may(&data_dir, 0o700);
        std::os::unix::fs::chown(&data_dir, Some(user), Some(user)).unwrap();
        Self { folders, program, data_dir, _home: home }
    }
}

/// As root, and as an ordinary user: the jail is required, and guests of every kind of
/// need run in it.
#[test]
fn guests_run_in_the_jail_of_root_and_of_an_ordinary_user() {
    const USER: u32 = 1000;
    let answers = |host: &Host| {
        block_on(async {
            let client = Client::connect(host.base(), &host.pat_or_none()).await;
            let answer = client.predict("echo", vec![text_input("x")]).await;
            assert_eq!(answer.text(), "x", "{answer:?}");
            let scan = super::digits::single("seven.png");
            let answer = client.predict("digits", vec![ringfence_tests::image_input(scan)]).await;
            assert_eq!(answer.concepts()[0].id, "7", "{answer:?}");
            // It reads its assets by itself.
            let answer = client.predict("fs-probe", vec![text_input("x")]).await;
            assert_eq!(answer.code(), StatusCode::Success, "{answer:?}");
        });
    };
    let models: Vec<PathBuf> =
        [guests::ECHO, guests::DIGITS, guests::FS_PROBE].map(PathBuf::from).into();
    let args = ["--jail", "required", "--no-auth"].map(str::to_owned).to_vec();
    let own = rustix::process::geteuid();
    let host = Host::start(HostOptions {
        models: models.clone(),
        args: args.clone(),
        ..HostOptions::default()
    });
    answers(&host);
    let user = if own.is_root() { 65534 } else { own.as_raw() };
    host.workers().into_iter().for_each(|pid| is_jailed(pid, user));
    drop(host);
    if !own.is_root() {
        println!("not tried as root: this is not root");
        return;
    }
    let home = Home::of(USER, &models);
    let user = format!("--reuid={USER}");
    let under = ["setpriv", &user, "--regid=1000", "--clear-groups"];
    let host = Host::start(HostOptions {
        models: home.folders.clone(),
        args,
        data_dir: Some(home.data_dir.clone()),
        under: under.map(str::to_owned).to_vec(),
        program: Some(home.program.clone()),
        ..HostOptions::default()
    });
    answers(&host);
    host.workers().into_iter().for_each(|pid| is_jailed(pid, USER));
}

/// What a guest does when it loads takes nothing from the filters of its process.
#[test]
fn a_guest_that_does_not_load_is_in_the_same_filters() {
    let host = Host::serve(&[guests::ECHO, guests::LOAD_FAILS]);
    let filters: Vec<_> =
        host.workers().into_iter().map(|pid| status(pid)("Seccomp_filters")).collect();
    assert_eq!(filters.len(), 2);
    assert!(filters[0] == filters[1] && filters[0] != "0", "{filters:?}");
}

/// Secrets stay in the host: not one is in what a process that runs or compiles guests
/// can be read from, nor in what it leaves behind.
#[test]
fn no_secret_is_in_any_process_but_the_host() {
    const CANARY: &str = "canary-of-the-environment-4711";
    let scratch = TempDir::new().unwrap();
    let (mut seen, mut host) = (
        0,
        Host::start(HostOptions {
            models: vec![guests::ECHO.into(), guests::DIGITS.into()],
            variables: vec![
                ("SECRET_CANARY".into(), CANARY.into()),
                ("HF_TOKEN".into(), CANARY.into()),
            ],
            ..HostOptions::default()
        }),
    );
    let pat = host.pat();
    let key = std::fs::read(host.data_dir().join("secret.key")).unwrap();
    let secrets = [CANARY.as_bytes().to_vec(), pat.clone().into_bytes(), key];
    let has = |bytes: &[u8]| {
        secrets.iter().any(|secret| bytes.windows(secret.len()).any(|part| part == secret))
    };
    // What is compiled meanwhile is looked at as well.
    let slow = ringfence_tests::slow_to_compile(
        &std::fs::read(Path::new(guests::ECHO).join("1/model.wasm")).unwrap(),
    );
    let folder = scratch.path().join("slow");
    ringfence_tests::copy(Path::new(guests::ECHO), &folder);
    std::fs::write(folder.join("1/model.wasm"), slow).unwrap();
    let config = std::fs::read_to_string(folder.join("config.yaml")).unwrap();
    std::fs::write(folder.join("config.yaml"), config.replace("id: echo", "id: slow")).unwrap();
    let mut uploading = std::process::Command::new(ringfence_tests::binary())
        .args(["upload", folder.to_str().unwrap()])
        .env_clear()
        .env("RINGFENCE_BASE", host.base())
        .env("RINGFENCE_PAT", &pat)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    block_on(async {
        let client = Client::connect(host.base(), &pat).await;
        for _ in 0..5 {
            client.predict("echo", vec![text_input("x")]).await;
        }
    });
    let mut kinds = std::collections::BTreeSet::new();
    while uploading.try_wait().unwrap().is_none() {
        for pid in ringfence_tests::children(host.pid()) {
            let of = |what: &str| std::fs::read(format!("/proc/{pid}/{what}")).unwrap_or_default();
            let (arguments, environment) = (of("cmdline"), of("environ"));
            let kind = arguments.split(|byte| *byte == 0).nth(1).unwrap_or_default();
            // It is the host itself until it has become another program.
            if kind == b"serve" {
                continue;
            }
            kinds.insert(String::from_utf8_lossy(kind).into_owned());
            assert!(!has(&arguments) && !has(&environment), "{kind:?}");
            for file in open_files(pid) {
                let inside = file.starts_with(host.data_dir());
                let may = file.components().any(|part| part.as_os_str() == "run");
                assert!(!inside || may, "{kind:?} has {} open", file.display());
                seen += 1;
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    for kind in ["call-worker", "compile-worker"] {
        assert!(kinds.contains(kind), "{kinds:?}");
    }
    assert!(seen > 10, "{seen} open files");
    let log = host.log();
    assert!(!has(log.as_bytes()), "{log}");
    let pids = host.workers();
    host.kill();
    for file in ringfence_tests::files_below(host.data_dir()) {
        let name = file.file_name().unwrap().to_str().unwrap();
        assert!(!name.starts_with("core"), "{}", file.display());
        // Where they are kept, and where the operator is heard.
        let is_file = file.symlink_metadata().unwrap().is_file();
        if is_file && !["admin.pat", "secret.key"].contains(&name) {
            let content = std::fs::read(&file).unwrap();
            assert!(!has(&content), "{}", file.display());
        }
    }
    for pid in pids {
        assert!(!Path::new(&format!("core.{pid}")).exists());
    }
}

/// Where the open files of a process lie, as far as they have a place.
fn open_files(pid: u32) -> Vec<PathBuf> {
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let files = files.filter_map(|file| std::fs::read_link(file.path()).ok());
    files.filter(|file| file.is_absolute()).collect()
}

/// A process that nobody needs any more ends, and the next call has another.
#[test]
fn a_worker_is_there_as_long_as_somebody_needs_it() {
    let host = Host::start(HostOptions::default());
    let uploaded = host.ringfence(&["upload", guests::ECHO]);
    assert!(uploaded.status.success(), "{uploaded:?}");
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let before = host.workers();
        assert_eq!(client.predict("echo", vec![text_input("x")]).await.text(), "x");
        let pid = newest(&host, &before);
        host.operate(&["models", "stop", "local/main/echo"]);
        host.wait_until("its end", |_| !Path::new(&format!("/proc/{pid}")).exists());
        host.operate(&["models", "start", "local/main/echo"]);
        assert_eq!(client.predict("echo", vec![text_input("x")]).await.text(), "x");
        assert_ne!(newest(&host, &[]), pid);
    });
}
