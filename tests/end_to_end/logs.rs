//! What guests write, and how their calls are stopped: in the log of the
//! version, never in the host's.

use ringfence::proto::clarifai::api::{self, ListLogEntriesRequest, LogEntry};
use ringfence_tests::{Answer, Client, Host, Variant, binary, block_on, guests, text_input};
use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

/// Bytes of the two files of a version.
const LOG_BYTES_MAX: u64 = 2 * (512 << 10);

/// Calls that flood, and bytes of the lines of each; what is around a line is
/// another half of it at most.
const CALLS: u64 = 4;
const CALL_BYTES_MAX: u64 = 64 << 10;

fn asked(model: &str) -> ListLogEntriesRequest {
    let set = api::UserAppIdSet { user_id: "local".into(), app_id: "main".into() };
    ListLogEntriesRequest {
        log_type: "runner".into(),
        user_app_id: Some(set),
        model_id: model.into(),
        ..Default::default()
    }
}

async fn entries(client: &Client, asked: ListLogEntriesRequest) -> (Answer, Vec<LogEntry>) {
    let answer = client.v2().list_log_entries(client.with_token(asked)).await.unwrap();
    let answer = answer.into_inner();
    (Answer { status: answer.status.unwrap(), outputs: Vec::new() }, answer.log_entries)
}

fn messages(entries: &[LogEntry]) -> String {
    entries.iter().map(|entry| entry.message.as_str()).collect::<Vec<_>>().join("\n")
}

#[test]
fn what_a_guest_writes_is_in_its_own_log_and_not_in_the_hosts() {
    let host = Host::serve(&[guests::PANIC, guests::ECHO]);
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let answer = client.predict("panic", vec![text_input("x")]).await;
        let call = answer.status.req_id;
        let (status, entries) = self::entries(&client, asked("panic")).await;
        assert!(status.status.details.is_empty(), "{status:?}");
        let text = messages(&entries);
        assert!(text.contains(&format!("[{call}]")) && text.contains("on purpose"), "{text}");
        let kill = entries.last().unwrap();
        assert!(kill.url.contains(&format!("call={call}&kind=kill")), "{kill:?}");
        assert!(kill.message.ends_with("its code panicked"), "{kill:?}");
        assert!(!kill.message.contains("on purpose"), "a kill report has no words of a guest");
        host.wait_until("the line of the call", |host| host.log().contains(&call));
        assert!(!host.log().contains("on purpose"), "{}", host.log());

        let (_, of_echo) = self::entries(&client, asked("echo")).await;
        assert!(of_echo.is_empty(), "{of_echo:?}");
    });
}

#[test]
fn pages_are_told_apart_and_what_is_wrong_is_named() {
    let foreign = Variant::of(guests::ECHO, &[("user_id: local", "user_id: alice")]);
    let host = Host::serve(&[guests::PANIC, foreign.path()]);
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        // The operator reads of every model, though only its owner calls it.
        let set = api::UserAppIdSet { user_id: "alice".into(), app_id: "main".into() };
        let of_alice = ListLogEntriesRequest { user_app_id: Some(set), ..asked("echo") };
        assert!(entries(&client, of_alice).await.0.status.details.is_empty());
        for _ in 0..3 {
            client.predict("panic", vec![text_input("x")]).await;
        }
        let (_, all) = entries(&client, asked("panic")).await;
        let urls: HashSet<&str> = all.iter().map(|entry| entry.url.as_str()).collect();
        assert_eq!(urls.len(), all.len());
        let mut paged = Vec::new();
        for page in 1.. {
            let one = ListLogEntriesRequest { page, per_page: 2, ..asked("panic") };
            let (_, entries) = entries(&client, one).await;
            assert!(entries.len() <= 2);
            let is_last = entries.len() < 2;
            paged.extend(entries);
            if is_last {
                break;
            }
        }
        assert_eq!(paged, all);

        let version = "0".repeat(32);
        for (wrong, reason) in [
            (asked("none"), "NO_SUCH_MODEL"),
            (ListLogEntriesRequest { log_type: "x".into(), ..asked("panic") }, "INVALID_REQUEST"),
            (asked(""), "INVALID_REQUEST"),
            (
                ListLogEntriesRequest { model_version_id: version, ..asked("panic") },
                "NO_SUCH_VERSION",
            ),
            (
                ListLogEntriesRequest { model_version_id: "../x".into(), ..asked("panic") },
                "NO_SUCH_VERSION",
            ),
        ] {
            let (status, entries) = entries(&client, wrong).await;
            assert_eq!((status.reason(), entries.len()), (reason, 0));
        }
        let builder = ListLogEntriesRequest { log_type: "builder".into(), ..asked("panic") };
        let (status, entries) = entries(&client, builder).await;
        assert!(status.status.details.is_empty() && entries.is_empty());
    });
}

/// OUT-01: no flood fills the disk, or the host's log.
#[test]
fn a_flood_of_output_stays_within_its_bound_on_the_disk() {
    let variant = Variant::of(guests::LOG_FLOOD, &[]);
    let host = Host::serve(&[variant.path()]);
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        for _ in 0..CALLS {
            client.predict("log-flood", vec![text_input("x")]).await;
        }
        let all = ListLogEntriesRequest { per_page: 1000, ..asked("log-flood") };
        let (_, entries) = entries(&client, all).await;
        let text = messages(&entries);
        assert!(text.contains("[cut]"), "lines of 1 MiB");
    });
    let logs = std::fs::read_dir(host.data_dir().join("logs")).unwrap();
    let bytes: u64 = logs.map(|file| file.unwrap().metadata().unwrap().len()).sum();
    assert!(bytes > CALLS / 2 * CALL_BYTES_MAX, "{bytes} bytes");
    assert!(bytes <= LOG_BYTES_MAX.min(2 * CALLS * CALL_BYTES_MAX), "{bytes} bytes");
    let log = host.log();
    assert!(log.len() < 16 << 10 && !log.contains("line line"), "{} bytes", log.len());
}

#[test]
fn a_log_outlives_its_host() {
    let scratch = tempfile::TempDir::new().unwrap();
    let options = || ringfence_tests::HostOptions {
        models: vec![guests::PANIC.into()],
        data_dir: Some(scratch.path().join("data")),
        ..Default::default()
    };
    let read = |host: &Host| {
        block_on(async {
            let client = Client::connect(host.base(), &host.pat()).await;
            entries(&client, asked("panic")).await.1
        })
    };
    let first = Host::start(options());
    block_on(async {
        let client = Client::connect(first.base(), &first.pat()).await;
        client.predict("panic", vec![text_input("x")]).await;
    });
    let before = read(&first);
    assert!(!before.is_empty());
    assert!(first.terminate().success());
    assert_eq!(read(&Host::start(options())), before);
}

/// A stored model runs only when it is called.
#[test]
fn an_owner_reads_the_log_of_a_stopped_model_and_a_deleted_one_has_none() {
    let host = Host::serve(&[]);
    let run = |pat: &str, args: &[&str]| {
        let output = host.ringfence_as(pat, args);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let user = |name: &str| {
        run(&host.pat(), &["users", "create", name]);
        run(&host.pat(), &["pat", "create", "--user", name, "--scope", "predict,upload"])
    };
    let (alice, bob) = (user("alice"), user("bob"));
    let of_owner = alice.clone();
    let of_alice = Variant::of(guests::PANIC, &[("user_id: local", "user_id: alice")]);
    run(&alice, &["upload", of_alice.path()]);
    let model = "alice/main/panic";
    run(&alice, &["models", "share", model, "--with", "bob"]);
    let set = Some(api::UserAppIdSet { user_id: "alice".into(), app_id: "main".into() });
    let asked = ListLogEntriesRequest { user_app_id: set.clone(), ..asked("panic") };
    let call = ringfence_tests::request("panic", vec![text_input("x")]);
    let call = api::PostModelOutputsRequest { user_app_id: set, ..call };
    block_on(async {
        let client_of = async |pat: &str| Client::connect(host.base(), pat).await;
        let (alice, bob) = (client_of(&alice).await, client_of(&bob).await);
        let operator = client_of(&host.pat()).await;
        let (status, before) = entries(&alice, asked.clone()).await;
        assert!(status.status.details.is_empty() && before.is_empty(), "{status:?} {before:?}");
        let of_alice = alice.predict_request(call.clone()).await.status.req_id;
        let of_bob = bob.predict_request(call.clone()).await.status.req_id;
        run(&of_owner, &["models", "stop", model]);
        assert_eq!(alice.predict_request(call.clone()).await.reason(), "STOPPED");

        let (_, own) = entries(&alice, asked.clone()).await;
        let (_, all) = entries(&operator, asked.clone()).await;
        let of = |entries: &[LogEntry], call: &str, kind: &str| {
            entries.iter().any(|e| e.url.contains(&format!("call={call}&kind={kind}")))
        };
        for kind in ["output", "kill"] {
            assert!(of(&own, &of_alice, kind) && of(&all, &of_bob, kind), "{all:?}");
        }
        assert!(of(&own, &of_bob, "kill") && !of(&own, &of_bob, "output"), "{own:?}");
        let (status, none) = entries(&bob, asked.clone()).await;
        assert_eq!((status.reason(), none.len()), ("NO_SUCH_MODEL", 0), "bob may call it alone");
    });
    let files = |host: &Host| std::fs::read_dir(host.data_dir().join("logs")).unwrap().count();
    assert!(files(&host) > 0);
    run(&alice, &["models", "delete", model]);
    host.wait_until("the log to go", |host| files(host) == 0);
}

fn logs(host: &Host, args: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(["logs", "panic", "--base", host.base(), "--pat-file"]);
    command.arg(host.data_dir().join("admin.pat")).args(args).stdout(Stdio::piped());
    command
}

#[test]
fn the_command_prints_a_calls_entries_and_follows_new_ones() {
    let host = Host::serve(&[guests::PANIC]);
    let call = || {
        block_on(async {
            let client = Client::connect(host.base(), &host.pat()).await;
            client.predict("panic", vec![text_input("x")]).await.status.req_id
        })
    };
    let (first, second) = (call(), call());
    let all = logs(&host, &[]).output().unwrap();
    let all = String::from_utf8(all.stdout).unwrap();
    assert!(all.contains(&first) && all.contains(&second), "{all}");
    let one = logs(&host, &["--json", "--call", &second]).output().unwrap();
    let one = String::from_utf8(one.stdout).unwrap();
    let kinds: Vec<String> = one
        .lines()
        .map(|line| {
            let entry: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(entry["call"], second.as_str(), "{line}");
            entry["kind"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(kinds.last().unwrap(), "kill", "{one}");

    let mut following = logs(&host, &["--follow"]).spawn().unwrap();
    let mut printed = BufReader::new(following.stdout.take().unwrap()).lines();
    for line in all.lines() {
        assert_eq!(printed.next().unwrap().unwrap(), line);
    }
    let third = call();
    assert!(printed.next().unwrap().unwrap().contains(&third), "nothing is printed twice");
    following.kill().unwrap();
    following.wait().unwrap();
}
