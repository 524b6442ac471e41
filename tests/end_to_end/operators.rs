//! Users, tokens, shares, versions in use and calls that run, by the commands
//! of an operator and of owners.

use crate::author::text;
use crate::metrics;
use crate::upload;
use ringfence::proto::clarifai::api;
use ringfence::proto::clarifai::api::status::StatusCode;
use ringfence_tests::{
    Answer, Client, Host, HostOptions, Variant, block_on, collect, files_below, guests, request,
    text_input,
};
use std::path::Path;
use std::process::Output;
use tempfile::TempDir;
use tokio::sync::mpsc::Sender;
use tonic::Streaming;

struct Place {
    scratch: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { scratch: TempDir::new().unwrap() }
    }

    fn data_dir(&self) -> String {
        self.scratch.path().join("data").to_str().unwrap().to_owned()
    }

    fn start(&self) -> Host {
        let data_dir = Some(self.data_dir().into());
        Host::start(HostOptions { data_dir, ..HostOptions::default() })
    }
}

pub(crate) fn succeeds(output: &Output) -> String {
    assert!(output.status.success(), "{}", text(output));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn of(user: &str, model: &str) -> api::PostModelOutputsRequest {
    let set = api::UserAppIdSet { user_id: user.into(), app_id: "main".into() };
    api::PostModelOutputsRequest {
        user_app_id: Some(set),
        ..request(model, vec![text_input("hello")])
    }
}

/// A stream of `echo` that goes on as long as what is returned first lives.
async fn open_stream(
    client: &Client,
) -> (Sender<api::PostModelOutputsRequest>, Streaming<api::MultiOutputResponse>) {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let messages = tokio_stream::wrappers::ReceiverStream::new(receiver);
    sender.send(of("alice", "echo")).await.unwrap();
    (sender, client.stream(messages).await)
}

fn upload(host: &Host, pat: &str, folder: &str) {
    succeeds(&host.ringfence_as(pat, &["upload", folder]));
}

/// The folder of `echo` without an owner: it is whoever uploads it.
fn echo() -> Variant {
    Variant::of(guests::ECHO, &[("  user_id: local\n", "")])
}

#[test]
fn a_token_is_for_its_scopes_alone() {
    let place = Place::new();
    let host = place.start();
    let predict = host.user("alice", "predict");
    let upload_only = host.token("alice", "upload");
    let refused = host.ringfence_as(&predict, &["upload", echo().path()]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused).contains("it needs the scope upload"), "{}", text(&refused));
    let refused = host.ringfence_as(&upload_only, &["users", "list"]);
    assert!(text(&refused).contains("it needs the scope admin"), "{}", text(&refused));
    upload(&host, &upload_only, echo().path());
    block_on(async {
        let client = Client::connect(host.base(), &upload_only).await;
        let answer = client.predict_request(of("alice", "echo")).await;
        assert_eq!(answer.code(), StatusCode::ConnInsufficientScopes, "{answer:?}");
        let client = Client::connect(host.base(), &predict).await;
        assert_eq!(client.predict_request(of("alice", "echo")).await.text(), "hello");
    });
}

/// Not allowed to know reads as not found, until it is shared.
#[test]
fn a_model_is_called_by_its_owner_and_by_whom_it_is_shared_with() {
    let place = Place::new();
    let host = place.start();
    let alice = host.user("alice", "predict,upload");
    let bob = host.user("bob", "predict,upload");
    upload(&host, &alice, echo().path());
    let called_by_bob = || {
        block_on(async {
            let client = Client::connect(host.base(), &bob).await;
            client.predict_request(of("alice", "echo")).await
        })
    };
    assert_eq!(called_by_bob().reason(), "NO_SUCH_MODEL");
    let stolen = host.ringfence_as(&bob, &["models", "share", "alice/main/echo", "--with", "bob"]);
    assert!(text(&stolen).contains("there is no such model"), "{}", text(&stolen));
    succeeds(&host.ringfence_as(&alice, &["models", "share", "alice/main/echo", "--with", "bob"]));
    assert_eq!(called_by_bob().text(), "hello");
    for (args, reason) in [
        (&["models", "promote", "alice/main/echo"][..], "there is no such model"),
        (&["models", "delete", "alice/main/echo"], "there is no such model"),
        (&["models", "stop", "alice/main/echo"], "there is no such model"),
    ] {
        let refused = host.ringfence_as(&bob, args);
        assert!(text(&refused).contains(reason), "{}", text(&refused));
    }
    let end = ["models", "share", "alice/main/echo", "--with", "bob", "--end"];
    succeeds(&host.ringfence_as(&alice, &end));
    assert_eq!(called_by_bob().reason(), "NO_SUCH_MODEL");
    let everyone = ["models", "share", "alice/main/echo", "--with", "everyone"];
    succeeds(&host.ringfence_as(&alice, &everyone));
    assert_eq!(called_by_bob().text(), "hello");
    assert!(host.terminate().success());
    let host = place.start();
    block_on(async {
        let client = Client::connect(host.base(), &bob).await;
        assert_eq!(client.predict_request(of("alice", "echo")).await.text(), "hello");
    });
}

/// CLI-16.
#[test]
fn a_revoked_token_ends_its_streams_and_counts_no_more() {
    let place = Place::new();
    let host = place.start();
    let alice = host.user("alice", "predict,upload");
    upload(&host, &alice, echo().path());
    let listed = host.operate(&["pat", "list", "--user", "alice"]);
    assert!(!listed.contains(&alice), "a token is shown once");
    let id = listed.split_whitespace().next().unwrap().to_owned();
    block_on(async {
        let client = Client::connect(host.base(), &alice).await;
        let (_open, mut stream) = open_stream(&client).await;
        let first = stream.message().await.unwrap().unwrap();
        assert_eq!(first.status.unwrap().code(), StatusCode::Success);
        host.operate(&["pat", "revoke", &id]);
        let last = collect(stream).await.pop().unwrap();
        assert_eq!(last.code(), StatusCode::ConnKeyInvalid, "{last:?}");
        let answer = client.predict_request(of("alice", "echo")).await;
        assert_eq!(answer.reason(), "TOKEN_INVALID");
    });
}

#[test]
fn versions_are_promoted_rolled_back_and_deleted_and_that_survives_a_restart() {
    let place = Place::new();
    let host = place.start();
    upload(&host, &host.pat(), guests::ECHO);
    let newer = Variant::of(guests::ECHO, &[("model:", "num_threads: 3\nmodel:")]);
    upload(&host, &host.pat(), newer.path());
    let listed = succeeds(&host.ringfence(&["models", "list", "echo", "--json"]));
    let versions: Vec<String> = listed
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|line| line["version"].as_str().unwrap().to_owned())
        .collect();
    let [second, first] = versions.as_slice() else { panic!("{versions:?}") };
    let current = |host: &Host| {
        let listed = succeeds(&host.ringfence(&["models", "list"]));
        listed.split_once('@').unwrap().1.split_whitespace().next().unwrap().to_owned()
    };
    assert_eq!(current(&host), *second);
    assert!(succeeds(&host.ringfence(&["models", "rollback", "echo"])).contains(first.as_str()));
    assert_eq!(current(&host), *first);
    let none = host.ringfence(&["models", "rollback", "echo"]);
    assert!(text(&none).contains("no version before"), "{}", text(&none));
    assert!(host.terminate().success());

    let host = place.start();
    assert_eq!(current(&host), *first);
    succeeds(&host.ringfence(&["models", "promote", "echo"]));
    assert_eq!(current(&host), *second);
    succeeds(&host.ringfence(&["models", "promote", &format!("echo@{first}")]));
    assert_eq!(current(&host), *first);
    succeeds(&host.ringfence(&["models", "delete", &format!("echo@{first}")]));
    assert_eq!(current(&host), *second);
    succeeds(&host.ringfence(&["models", "stop", "echo"]));
    let stopped = host.ringfence(&["predict", "echo", "--text", "x"]);
    assert!(text(&stopped).contains("MODEL_NOT_DEPLOYED"), "{}", text(&stopped));
    assert!(host.terminate().success());

    let host = place.start();
    let stopped = host.ringfence(&["predict", "echo", "--text", "x"]);
    assert!(text(&stopped).contains("the operator has stopped the model"), "{}", text(&stopped));
    succeeds(&host.ringfence(&["models", "start", "echo"]));
    succeeds(&host.ringfence(&["predict", "echo", "--text", "x"]));
    succeeds(&host.ringfence(&["models", "delete", "echo"]));
    let gone = host.ringfence(&["predict", "echo", "--text", "x"]);
    assert!(text(&gone).contains("MODEL_DOES_NOT_EXIST"), "{}", text(&gone));
}

#[test]
fn calls_that_run_are_listed_and_ended_by_who_may() {
    let place = Place::new();
    let host = place.start();
    let alice = host.user("alice", "predict,upload");
    let bob = host.user("bob", "predict,upload");
    upload(&host, &alice, echo().path());
    block_on(async {
        let client = Client::connect(host.base(), &alice).await;
        let (_open, mut stream) = open_stream(&client).await;
        stream.message().await.unwrap().unwrap();
        let listed = succeeds(&host.ringfence_as(&alice, &["calls", "list"]));
        assert!(listed.contains("stream of alice/main/echo@"), "{listed}");
        let id = listed.split_whitespace().next().unwrap();
        assert_eq!(succeeds(&host.ringfence_as(&bob, &["calls", "list"])), "");
        let refused = host.ringfence_as(&bob, &["calls", "cancel", id]);
        assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
        host.operate(&["calls", "cancel", id]);
        let last = collect(stream).await.pop().unwrap();
        assert_eq!(last.reason(), "CANCELLED", "{last:?}");
        assert_eq!(succeeds(&host.ringfence_as(&alice, &["calls", "list"])), "");
    });
}

/// CPU-12: a call that its caller breaks off has no fuel that was counted, and its
/// CPU time counts instead.
#[test]
fn calls_that_are_broken_off_count_for_the_quota_of_fuel() {
    let host = metrics::host(&[guests::COUNTING_LOOP]);
    let running = r#"ringfence_calls_running{model="local/main/counting-loop"}"#;
    host.operate(&["users", "quota", "local", "--fuel-per-minute", "1"]);
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let asked = || request("counting-loop", vec![text_input("x")]);
        let mut answers = client.generate(asked()).await;
        let first: Answer = answers.message().await.unwrap().unwrap().into();
        assert_eq!(first.reason(), "", "{first:?}");
        drop(answers);
        host.wait_until("the end of the call", |host| host.log().contains("call ended"));
        // The guest may be in its first turn still.
        host.wait_until("the end of the guest", |host| host.metric(running) == 0.0);
        let refused = client.predict_request(asked()).await;
        assert_eq!(refused.reason(), "QUOTA", "{refused:?}");
    });
}

/// CPU-12: what a user may take is the user's, whoever's model is called.
#[test]
fn a_users_quota_is_held_and_changed_while_the_host_runs() {
    let place = Place::new();
    let host = place.start();
    let alice = host.user("alice", "predict,upload");
    upload(&host, &alice, echo().path());
    let predict = || {
        block_on(async {
            let client = Client::connect(host.base(), &alice).await;
            client.predict_request(of("alice", "echo")).await
        })
    };
    assert_eq!(predict().text(), "hello");
    host.operate(&["users", "quota", "alice", "--calls", "0"]);
    let refused = predict();
    assert_eq!(refused.reason(), "QUOTA", "{refused:?}");
    assert!(refused.status.details.contains("which is your limit"), "{refused:?}");
    host.operate(&["users", "quota", "alice", "--calls", "9", "--fuel-per-minute", "1"]);
    // Either the minute's fuel is already burnt, or this call burns it.
    predict();
    assert_eq!(predict().reason(), "QUOTA");
    let plenty = ["--calls", "9", "--fuel-per-minute", "1000000000000000"];
    host.operate(&[&["users", "quota", "alice", "--models", "1"][..], &plenty].concat());
    let second = Variant::of(guests::ECHO, &[("  user_id: local\n", ""), ("id: echo", "id: two")]);
    let refused = host.ringfence_as(&alice, &["upload", second.path()]);
    assert!(
        text(&refused).contains("you have 1 models, which is your limit"),
        "{}",
        text(&refused)
    );
    // Whatever is not named goes back to the default.
    let shown = host.operate(&["users", "quota", "alice", "--reset", "--models", "9"]);
    assert!(shown.trim_end().ends_with("  models 9") && !shown.contains("calls"), "{shown}");
    host.operate(&["users", "quota", "alice", "--compilations-per-hour", "0"]);
    let other = Variant::of(guests::TYPED, &[("  user_id: local\n", "")]);
    let refused = host.ringfence_as(&alice, &["upload", other.path()]);
    assert!(text(&refused).contains("compiled in the last hour"), "{}", text(&refused));
    // What is compiled with its own state counts, too; but nothing is compiled again.
    let refused = host.ringfence_as(&alice, &["upload", second.path()]);
    assert!(text(&refused).contains("compiled in the last hour"), "{}", text(&refused));
    host.operate(&["users", "quota", "alice", "--compilations-per-hour", "9"]);
    upload(&host, &alice, second.path());
    host.operate(&["users", "quota", "alice", "--compilations-per-hour", "0"]);
    upload(&host, &alice, second.path());

    // What counts is what is stored, and not what is sent of it.
    let wide = Variant::of(guests::ECHO, &[("  user_id: local\n", ""), ("id: echo", "id: wide")]);
    std::fs::write(wide.folder().join("1/zeros"), vec![0; 8 << 20]).unwrap();
    host.operate(&["users", "quota", "alice", "--stored-bytes", &(6 << 20).to_string()]);
    let refused = host.ringfence_as(&alice, &["upload", wide.path()]);
    assert!(text(&refused).contains("more are over your 6291456"), "{}", text(&refused));
    assert_eq!(
        block_on(async {
            let client = Client::connect(host.base(), &alice).await;
            client.predict_request(of("alice", "wide")).await.reason().to_owned()
        }),
        "NO_VERSION"
    );

    host.operate(&["users", "quota", "alice", "--stored-bytes", "1"]);
    let newer = Variant::of(
        guests::ECHO,
        &[("  user_id: local\n", ""), ("model:", "num_threads: 3\nmodel:")],
    );
    let refused = host.ringfence_as(&alice, &["upload", newer.path()]);
    assert!(text(&refused).contains("are over your 1"), "{}", text(&refused));
}

/// Store and token commands work on a directory that no host has open, and by
/// the host that has.
#[test]
fn the_operators_commands_need_no_token_where_the_data_directory_is() {
    let place = Place::new();
    let data_dir = place.data_dir();
    let without = Host::command(&["users", "list", "--data-dir", &data_dir]);
    assert_eq!(without.status.code(), Some(2), "{}", text(&without));
    assert!(!Path::new(&data_dir).exists(), "nothing is made by asking");
    let host = place.start();
    host.operate(&["users", "create", "alice"]);
    let secret = host.token("alice", "upload");
    upload(&host, &secret, echo().path());
    let backup = place.scratch.path().join("backup.tar");
    let backup = backup.to_str().unwrap();
    host.operate(&["store", "backup", backup]);
    assert!(host.operate(&["store", "check"]).contains("looked at 1 version of"));
    assert!(host.terminate().success());

    let offline =
        |args: &[&str]| succeeds(&Host::command(&[args, &["--data-dir", &data_dir]].concat()));
    assert!(offline(&["users", "list"]).contains("alice"));
    offline(&["pat", "create", "--user", "alice"]);
    assert_eq!(offline(&["pat", "list", "--user", "alice"]).lines().count(), 2);
    offline(&["store", "gc"]);
    let audit = std::fs::read_to_string(Path::new(&data_dir).join("audit.log")).unwrap();
    for did in ["made a user", "made a token", "uploaded a version", "made a backup"] {
        assert!(audit.contains(did), "{did} in {audit}");
    }

    let restored = place.scratch.path().join("restored");
    let restored = restored.to_str().unwrap();
    let into_full = Host::command(&["store", "restore", backup, "--data-dir", &data_dir]);
    assert!(!into_full.status.success());
    succeeds(&Host::command(&["store", "restore", backup, "--data-dir", restored]));
    let again =
        Host::start(HostOptions { data_dir: Some(restored.into()), ..HostOptions::default() });
    // The first token is in no backup.
    let greeting = again.greeting().join("\n");
    assert!(!greeting.contains("CLARIFAI_PAT"), "{greeting}");
    assert!(greeting.contains("`ringfence pat create --data-dir"), "{greeting}");
    let of_before = again.token("alice", "predict");
    block_on(async {
        let client = Client::connect(again.base(), &of_before).await;
        assert_eq!(client.predict_request(of("alice", "echo")).await.text(), "hello");
    });
    // Tokens of before count too: the key is in the backup.
    assert!(again.ringfence_as(&secret, &["models", "list"]).status.success());
}

/// Whatever an operator or an owner decides is one line of the audit log.
#[test]
fn each_decision_is_a_line_in_the_audit_log() {
    let place = Place::new();
    let host = place.start();
    let alice = host.user("alice", "predict,upload");
    let own = |args: &[&str]| succeeds(&host.ringfence_as(&alice, args));
    upload(&host, &alice, echo().path());
    let newer = Variant::of(
        guests::ECHO,
        &[("  user_id: local\n", ""), ("model:", "num_threads: 3\nmodel:")],
    );
    upload(&host, &alice, newer.path());
    own(&["models", "rollback", "echo"]);
    own(&["models", "promote", "echo"]);
    own(&["models", "share", "echo", "--with", "everyone"]);
    own(&["models", "share", "echo", "--with", "everyone", "--end"]);
    own(&["models", "stop", "echo"]);
    own(&["models", "start", "echo"]);
    own(&["deployments", "create", "front", "--model", "echo"]);
    own(&["models", "delete", "echo"]);
    host.operate(&["users", "quota", "alice", "--models", "7"]);
    let token = host.operate(&["pat", "list", "--user", "alice"]);
    host.operate(&["pat", "revoke", token.split_whitespace().next().unwrap()]);
    host.operate(&["users", "disable", "alice"]);
    let audit = std::fs::read_to_string(Path::new(&place.data_dir()).join("audit.log")).unwrap();
    let lines: Vec<serde_json::Value> =
        audit.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let did: Vec<_> = lines.iter().map(|line| line["did"].as_str().unwrap()).collect();
    assert_eq!(
        did,
        [
            "made the first token",
            "made a user",
            "made a token",
            "uploaded a version",
            "uploaded a version",
            "rolled a model back",
            "promoted a version",
            "shared a model",
            "ended a share",
            "stopped a model",
            "started a model",
            "deployed a model",
            "deleted a model",
            "changed a user",
            "revoked a token",
            "changed a user",
        ]
    );
    assert!(!audit.contains(&alice));
}

/// I5: a token and a secret of a configuration are in no file but `admin.pat`.
#[test]
fn no_secret_is_in_any_file_of_the_data_directory_or_a_backup() {
    let place = Place::new();
    let host = place.start();
    let alice = host.user("alice", "predict,upload");
    let secrets = "secrets:\n  - id: s\n    env_var: S\n    value: SECRET_CANARY\nmodel:";
    let folder = Variant::of(guests::ECHO, &[("  user_id: local\n", ""), ("model:", secrets)]);
    upload(&host, &alice, folder.path());
    let replies = block_on(upload_with_secrets(&host));
    for secret in ["SECRET_CANARY", TOKEN_CANARY] {
        assert!(!replies.contains(secret), "{replies}");
    }
    let backup = place.scratch.path().join("backup.tar");
    host.operate(&["store", "backup", backup.to_str().unwrap()]);
    let mut files = files_below(host.data_dir());
    files.push(backup);
    assert!(files.len() > 8, "{files:?}");
    let first = host.pat();
    for file in files {
        if file.ends_with("admin.pat") || file.ends_with("host.sock") {
            continue;
        }
        let bytes = std::fs::read(&file).unwrap();
        for secret in [alice.as_str(), &first, "SECRET_CANARY", TOKEN_CANARY] {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{}", file.display());
        }
    }
    for secret in [alice.as_str(), &first, "SECRET_CANARY", TOKEN_CANARY] {
        assert!(!host.log().contains(secret));
    }
}

const TOKEN_CANARY: &str = "hf_CANARYCANARYCANARYCANARY";

/// Uploads as a client does that knows nothing of secrets, once a model that is
/// taken and once one that is refused late. Returns all that was answered. PKG-20.
async fn upload_with_secrets(host: &Host) -> String {
    let client = Client::connect(host.base(), &host.pat()).await;
    let mut replies = String::new();
    for (id, guest) in [("good", guests::ECHO), ("bad", guests::LOAD_FAILS)] {
        let config = format!(
            "model:\n  id: {id}\ncheckpoints:\n  type: huggingface\n  repo_id: a/b\n  \
             hf_token: {TOKEN_CANARY}\nsecrets:\n  - id: s\n    env_var: S\n    value: \
             SECRET_CANARY\n"
        );
        let component = std::fs::read(Path::new(guest).join("1/model.wasm")).unwrap();
        let archive = upload::archive(&[
            ("./config.yaml", config.as_bytes()),
            ("./1/checkpoints/config.json", b"{}"),
            ("./1/model.wasm", &component),
        ]);
        upload::make_model(&client, id).await;
        let answers = upload::send(&client, id, &archive).await;
        let version = answers.last().unwrap().model_version_id.clone();
        let state = upload::state(&client, id, &version).await;
        let expected = match id {
            "good" => StatusCode::ModelTrained,
            _ => StatusCode::ModelBuildingFailed,
        };
        let lines = upload::lines(&client, id, &version).await;
        assert_eq!(state.code(), expected, "{state:?} {lines:?}");
        let asked = api::GetModelRequest {
            user_app_id: upload::set(),
            model_id: id.into(),
            ..Default::default()
        };
        let model = client.v2().get_model(client.with_token(asked)).await.unwrap();
        replies.push_str(&format!("{answers:?} {state:?} {lines:?} {model:?}"));
    }
    let called = client.predict_request(request("good", vec![text_input("hello")])).await;
    assert_eq!(called.text(), "hello", "{called:?}");
    replies
}

/// OPS-06.
#[test]
fn a_flipped_byte_stops_one_version_and_no_other() {
    let place = Place::new();
    let host = place.start();
    upload(&host, &host.pat(), guests::ECHO);
    let other = Variant::of(
        guests::ECHO,
        &[("id: echo", "id: other"), ("model:", "num_threads: 3\nmodel:")],
    );
    std::fs::copy(
        Path::new(guests::TEXT_TO_TEXT).join("1/model.wasm"),
        other.folder().join("1/model.wasm"),
    )
    .unwrap();
    upload(&host, &host.pat(), other.path());
    assert!(host.terminate().success());
    let files = files_below(&Path::new(&place.data_dir()).join("blobs"));
    let wasm = std::fs::read(Path::new(guests::ECHO).join("1/model.wasm")).unwrap();
    let blob = files.iter().find(|file| std::fs::read(file).unwrap() == wasm).unwrap();
    let mut bytes = wasm;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(blob, bytes).unwrap();

    let host = place.start();
    let broken = host.ringfence(&["predict", "echo", "--text", "x"]);
    assert!(text(&broken).contains("STORE_CORRUPT"), "{}", text(&broken));
    assert!(text(&broken).contains("1/model.wasm has another content"), "{}", text(&broken));
    succeeds(&host.ringfence(&["predict", "other", "--text", "x"]));
    let check = Host::command(&["store", "check", "--data-dir", &place.data_dir()]);
    assert_eq!(check.status.code(), Some(1));
    assert!(text(&check).contains("another content than its name says"), "{}", text(&check));
    // Uploading it again mends it.
    upload(&host, &host.pat(), guests::ECHO);
    succeeds(&host.ringfence(&["predict", "echo", "--text", "x"]));
}
