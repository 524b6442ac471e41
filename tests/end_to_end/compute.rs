//! Compute clusters, nodepools and deployments: what fits, where calls run, and
//! how many replicas there are.

use crate::author::text;
use crate::operators::succeeds;
use ringfence::proto::clarifai::api;
use ringfence::proto::clarifai::api::status::StatusCode;
use ringfence_tests::{Client, Host, HostOptions, Variant, block_on, guests, request, text_input};
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::mpsc::Sender;
use tonic::Streaming;

/// Enough for one replica of `echo` and not for two.
const SMALL: &str = "100Mi";

pub(crate) fn start(data_dir: &Path) -> Host {
    let args = ["--metrics-listen", "127.0.0.1:0"].map(str::to_owned).to_vec();
    let data_dir = Some(data_dir.to_owned());
    Host::start(HostOptions { data_dir, args, ..HostOptions::default() })
}

pub(crate) fn run(host: &Host, args: &[&str]) -> String {
    succeeds(&host.ringfence(args))
}

pub(crate) fn refused(host: &Host, args: &[&str]) -> String {
    let output = host.ringfence(args);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    text(&output)
}

/// `echo` under another name, one call at a time.
pub(crate) fn upload(host: &Host, id: &str) {
    let variant = Variant::of(
        guests::ECHO,
        &[
            ("  id: echo\n", &format!("  id: {id}\n")),
            (
                "  num_accelerators: 0\n",
                "  num_accelerators: 0\n\nringfence:\n  max_concurrency: 1\n",
            ),
        ],
    );
    run(host, &["upload", variant.path()]);
}

pub(crate) fn pool(host: &Host) {
    run(host, &["clusters", "create", "lab"]);
    run(host, &["nodepools", "create", "lab/small", "--cpu-limit", "1", "--cpu-memory", SMALL]);
}

pub(crate) fn deploy(host: &Host, id: &str, model: &str, more: &[&str]) -> String {
    run(host, &[&["deployments", "create", id, "--model", model], more].concat())
}

pub(crate) fn replicas(host: &Host, model: &str) -> f64 {
    host.metric(&format!("ringfence_replicas{{model=\"local/main/{model}\"}}"))
}

fn on(model: &str, selector: api::RunnerSelector) -> api::PostModelOutputsRequest {
    let runner_selector = Some(selector);
    api::PostModelOutputsRequest { runner_selector, ..request(model, vec![text_input("hello")]) }
}

fn nodepool(cluster: &str, id: &str) -> api::RunnerSelector {
    let cluster = api::ComputeCluster { id: cluster.into(), ..Default::default() };
    let compute_cluster = Some(cluster);
    let nodepool = api::Nodepool { id: id.into(), compute_cluster, ..Default::default() };
    api::RunnerSelector { nodepool: Some(nodepool), ..Default::default() }
}

fn deployment(id: &str) -> api::RunnerSelector {
    let deployment = api::Deployment { id: id.into(), ..Default::default() };
    api::RunnerSelector { deployment: Some(deployment), ..Default::default() }
}

/// A call that has a model's only place as long as what is returned first lives.
pub(crate) async fn occupy(
    client: &Client,
    model: &str,
) -> (Sender<api::PostModelOutputsRequest>, Streaming<api::MultiOutputResponse>) {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let messages = tokio_stream::wrappers::ReceiverStream::new(receiver);
    sender.send(request(model, vec![text_input("hello")])).await.unwrap();
    let mut answers = client.stream(messages).await;
    let first = answers.message().await.unwrap().unwrap();
    assert_eq!(first.status.unwrap().code, StatusCode::Success as i32);
    (sender, answers)
}

#[test]
fn the_machine_is_a_nodepool_from_the_start() {
    let scratch = TempDir::new().unwrap();
    let host = start(&scratch.path().join("data"));
    assert!(run(&host, &["clusters", "list"]).starts_with("local  "));
    let told = run(&host, &["nodepools", "list", "--json"]);
    let told: serde_json::Value = serde_json::from_str(told.trim()).unwrap();
    assert_eq!(told["nodepool"], "local/default");
    let cpus = std::thread::available_parallelism().unwrap().get();
    assert_eq!(told["cpu_limit"], cpus.to_string());
    assert!(told["cpu_memory"].as_str().unwrap().ends_with('i'), "{told}");
    for (args, told) in [
        (&["clusters", "create", "local"][..], "already"),
        (&["clusters", "delete", "local"], "it stays"),
        (&["nodepools", "create", "local/mine"], "make one of your own"),
        (&["nodepools", "delete", "local/default"], "it stays"),
    ] {
        let said = refused(&host, args);
        assert!(said.contains(told), "{said}");
    }
}

#[test]
fn resources_are_made_listed_changed_and_deleted_and_survive_a_restart() {
    let scratch = TempDir::new().unwrap();
    let data_dir = scratch.path().join("data");
    let first = start(&data_dir);
    upload(&first, "echo");
    pool(&first);
    deploy(&first, "front", "echo", &["--nodepool", "lab/small"]);
    assert!(refused(&first, &["clusters", "create", "lab"]).contains("already"));
    let again = ["deployments", "create", "front", "--model", "echo"];
    assert!(refused(&first, &again).contains("already"));
    run(&first, &["deployments", "scale", "front", "--max-replicas", "3"]);
    assert!(first.terminate().success());

    let host = start(&data_dir);
    let listed = run(&host, &["deployments", "list"]);
    assert_eq!(listed, "front  local/main/echo on lab/small, 0 to 3 replicas\n");
    assert!(run(&host, &["nodepools", "list"]).contains("lab/small  1 CPU and 100Mi"));
    run(&host, &["nodepools", "update", "lab/small", "--cpu-memory", "200Mi"]);
    assert_eq!(run(&host, &["nodepools", "get", "lab/small"]), "lab/small  1 CPU and 200Mi\n");
    run(&host, &["clusters", "update", "lab", "--description", "of tests"]);
    assert_eq!(run(&host, &["clusters", "get", "lab"]), "lab  of tests\n");
    run(&host, &["deployments", "update", "front", "--nodepool", "local/default"]);
    let moved = run(&host, &["deployments", "get", "front"]);
    assert_eq!(moved, "front  local/main/echo on local/default, 0 to 3 replicas\n");
    run(&host, &["deployments", "update", "front", "--nodepool", "lab/small"]);
    let used = refused(&host, &["nodepools", "delete", "lab/small"]);
    assert!(used.contains("deployment front"), "{used}");
    let used = refused(&host, &["clusters", "delete", "lab"]);
    assert!(used.contains("nodepool small"), "{used}");
    run(&host, &["deployments", "delete", "front"]);
    run(&host, &["nodepools", "delete", "lab/small"]);
    run(&host, &["clusters", "delete", "lab"]);
    let absent = refused(&host, &["clusters", "delete", "lab"]);
    assert_eq!(absent, "error: cannot delete the cluster: there is no compute cluster lab\n");
    assert!(host.terminate().success());
    let check = Host::command(&["store", "check", "--data-dir", data_dir.to_str().unwrap()]);
    assert!(check.status.success(), "{}", text(&check));
}

/// MEM-15.
#[test]
fn what_does_not_fit_is_refused_with_the_numbers() {
    let scratch = TempDir::new().unwrap();
    let host = start(&scratch.path().join("data"));
    upload(&host, "echo");
    pool(&host);
    let many = ["--nodepool", "lab/small", "--min-replicas", "2", "--max-replicas", "2"];
    let told =
        refused(&host, &[&["deployments", "create", "d", "--model", "echo"], &many[..]].concat());
    for number in
        ["1 CPU and 128Mi do not fit", "nodepool lab/small", "100Mi left of 1 CPU and 100Mi"]
    {
        assert!(told.contains(number), "{number} in {told}");
    }
    // More than the machine has.
    let told = refused(&host, &["nodepools", "create", "lab/large", "--cpu-memory", "1Pi"]);
    assert!(told.contains("1048576Gi"), "{told}");
    assert!(told.contains("this machine has"), "{told}");
    // An upload that no replica of could ever run.
    let huge = Variant::of(guests::ECHO, &[("\"64Mi\"", "\"1Pi\"")]);
    let told = refused(&host, &["upload", huge.path()]);
    assert!(told.contains("do not fit: nodepool local/default"), "{told}");
    // The first replica runs, and a deployment beside it finds the nodepool full.
    deploy(&host, "d", "echo", &["--nodepool", "lab/small", "--min-replicas", "1"]);
    host.wait_until("the replica runs", |host| replicas(host, "echo") == 1.0);
    assert_eq!(host.metric("ringfence_reserved_memory_bytes"), f64::from(64 << 20));
    assert_eq!(host.metric("ringfence_reserved_cpus"), 0.5);
    upload(&host, "other");
    let beside = ["--nodepool", "lab/small", "--min-replicas", "1"];
    let told = refused(
        &host,
        &[&["deployments", "create", "e", "--model", "other"], &beside[..]].concat(),
    );
    assert!(told.contains("36Mi left of"), "{told}");
}

#[test]
fn a_call_runs_where_it_asks_to_or_is_told_why_not() {
    let scratch = TempDir::new().unwrap();
    let host = start(&scratch.path().join("data"));
    upload(&host, "echo");
    upload(&host, "other");
    pool(&host);
    deploy(&host, "front", "echo", &["--nodepool", "lab/small"]);
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        for selector in
            [deployment("front"), nodepool("lab", "small"), nodepool("local", "default")]
        {
            let answer = client.predict_request(on("echo", selector)).await;
            assert_eq!(answer.text(), "hello", "{answer:?}");
        }
        for (model, selector, reason, code) in [
            ("echo", deployment("none"), "NO_SUCH_DEPLOYMENT", StatusCode::DeploymentDoesNotExist),
            // It is there, and of another model.
            (
                "other",
                deployment("front"),
                "NO_SUCH_DEPLOYMENT",
                StatusCode::DeploymentDoesNotExist,
            ),
            ("echo", nodepool("lab", "none"), "NO_SUCH_NODEPOOL", StatusCode::NodepoolDoesNotExist),
            (
                "echo",
                nodepool("none", "small"),
                "NO_SUCH_NODEPOOL",
                StatusCode::NodepoolDoesNotExist,
            ),
            ("other", nodepool("lab", "small"), "NOT_DEPLOYED_THERE", StatusCode::ModelNotDeployed),
        ] {
            let answer = client.predict_request(on(model, selector)).await;
            assert_eq!((answer.reason(), answer.code()), (reason, code), "{answer:?}");
        }
        let runner = api::Runner { id: "r".into() };
        let selector = api::RunnerSelector { runner: Some(runner), ..Default::default() };
        let answer = client.predict_request(on("echo", selector)).await;
        assert_eq!(answer.code(), StatusCode::PredictInvalidRequest);
    });
    assert_eq!(run(&host, &["predict", "echo", "--deployment", "front", "--text", "x"]), "x\n");
    assert_eq!(run(&host, &["predict", "echo", "--nodepool", "lab/small", "--text", "x"]), "x\n");
    // The command line names its own arguments.
    for (place, told) in [
        (["--deployment", "none"], "the model has no deployment none; check --deployment"),
        (["--nodepool", "lab/none"], "there is no nodepool lab/none; check --nodepool"),
    ] {
        let said = refused(&host, &[&["predict", "echo", "--text", "x"], &place[..]].concat());
        assert!(said.contains(told), "{said}");
    }
}

/// What others have deployed is not there, and a model that is shared runs where
/// its owner has deployed it.
#[test]
fn others_see_no_resources_but_run_where_a_shared_model_is_deployed() {
    let scratch = TempDir::new().unwrap();
    let host = start(&scratch.path().join("data"));
    upload(&host, "echo");
    pool(&host);
    deploy(&host, "front", "echo", &["--nodepool", "lab/small"]);
    let bob = host.user("bob", "predict,upload");
    assert_eq!(succeeds(&host.ringfence_as(&bob, &["deployments", "list"])), "");
    let theirs = host.ringfence_as(&bob, &["nodepools", "list", "--cluster", "lab"]);
    assert!(text(&theirs).contains("there is no compute cluster lab"), "{}", text(&theirs));
    let args = ["deployments", "create", "mine", "--model", "local/main/echo"];
    let theirs = host.ringfence_as(&bob, &args);
    assert!(text(&theirs).contains("there is no model"), "{}", text(&theirs));
    host.operate(&["models", "share", "local/main/echo", "--with", "bob"]);
    let called = ["predict", "local/main/echo", "--deployment", "front", "--text", "x"];
    assert_eq!(succeeds(&host.ringfence_as(&bob, &called)), "x\n");
    // A nodepool that the model does not run on is as one that is not there.
    run(&host, &["nodepools", "create", "lab/hidden", "--cpu-memory", SMALL]);
    for pool in ["lab/hidden", "lab/none"] {
        let called = ["predict", "local/main/echo", "--nodepool", pool, "--text", "x"];
        let told = host.ringfence_as(&bob, &called);
        assert!(text(&told).contains("NO_SUCH_NODEPOOL"), "{}", text(&told));
    }
}

/// No user but the operator keeps more than half of the machine to itself.
#[test]
fn replicas_of_one_user_that_always_run_have_a_share() {
    let scratch = TempDir::new().unwrap();
    let host = start(&scratch.path().join("data"));
    let bob = host.user("bob", "predict,upload");
    let cpus = std::thread::available_parallelism().unwrap().get();
    let changes = [("  user_id: local\n", String::new()), ("\"500m\"", format!("\"{cpus}\""))];
    let changes = changes.each_ref().map(|(from, to)| (*from, to.as_str()));
    let wide = Variant::of(guests::ECHO, &changes);
    succeeds(&host.ringfence_as(&bob, &["upload", wide.path()]));
    let deploy = |id: &str, count: &str| {
        let args = ["deployments", "create", id, "--model", "bob/main/echo"];
        let scale = ["--min-replicas", count, "--max-replicas", count];
        host.ringfence_as(&bob, &[&args[..], &scale[..]].concat())
    };
    let told = deploy("three", "3");
    assert!(text(&told).contains("lower min_replicas"), "{}", text(&told));
    succeeds(&deploy("two", "2"));
    let told = deploy("one", "1");
    assert!(text(&told).contains("lower min_replicas"), "{}", text(&told));
}

/// A version that comes later is not checked by a deployment, and gets no more
/// than the share either.
#[test]
fn a_version_that_takes_more_than_its_owners_share_does_not_always_run() {
    let scratch = TempDir::new().unwrap();
    let host = start(&scratch.path().join("data"));
    let bob = host.user("bob", "predict,upload");
    let small = Variant::of(guests::ECHO, &[("  user_id: local\n", "")]);
    succeeds(&host.ringfence_as(&bob, &["upload", small.path()]));
    let args = ["deployments", "create", "front", "--model", "bob/main/echo"];
    let scale = ["--min-replicas", "1", "--scale-to-zero-delay", "1"];
    succeeds(&host.ringfence_as(&bob, &[&args[..], &scale[..]].concat()));
    let running = |host: &Host| host.metric("ringfence_replicas{model=\"bob/main/echo\"}");
    host.wait_until("it runs", |host| running(host) == 1.0);
    // Half of what can be reserved is twice the CPUs.
    let cpus = 3 * std::thread::available_parallelism().unwrap().get();
    let cpus = format!("\"{cpus}\"");
    let wide = Variant::of(guests::ECHO, &[("  user_id: local\n", ""), ("\"500m\"", &cpus)]);
    succeeds(&host.ringfence_as(&bob, &["upload", wide.path()]));
    host.wait_until("none runs", |host| running(host) == 0.0);
    let called = host.ringfence_as(&bob, &["predict", "bob/main/echo", "--text", "x"]);
    assert_eq!(succeeds(&called), "x\n");
}

#[test]
fn a_deployment_without_calls_stops_and_starts_with_the_next_one() {
    let scratch = TempDir::new().unwrap();
    let host = start(&scratch.path().join("data"));
    upload(&host, "echo");
    deploy(&host, "front", "echo", &["--scale-to-zero-delay", "1"]);
    for _ in 0..2 {
        assert_eq!(run(&host, &["predict", "echo", "--text", "x"]), "x\n");
        host.wait_until("the replica is stopped", |host| replicas(host, "echo") == 0.0);
    }
}

#[test]
fn replicas_that_have_to_run_do_so_before_the_first_call_and_after_a_restart() {
    let scratch = TempDir::new().unwrap();
    let data_dir = scratch.path().join("data");
    let first = start(&data_dir);
    upload(&first, "echo");
    let two = ["--min-replicas", "2", "--max-replicas", "2", "--scale-to-zero-delay", "1"];
    deploy(&first, "front", "echo", &two);
    first.wait_until("both run", |host| replicas(host, "echo") == 2.0);
    assert!(first.terminate().success());
    let host = start(&data_dir);
    host.wait_until("both run", |host| replicas(host, "echo") == 2.0);
    let told = run(&host, &["deployments", "scale", "front", "--max-replicas", "3"]);
    assert!(told.contains("2 to 3 replicas"), "{told}");
    let told = run(&host, &["deployments", "scale", "front", "--min-replicas", "0"]);
    assert!(told.contains("0 to 3 replicas"), "{told}");
    let nothing = host.ringfence(&["deployments", "scale", "front"]);
    assert_eq!(nothing.status.code(), Some(2), "{}", text(&nothing));
    host.wait_until("none runs", |host| replicas(host, "echo") == 0.0);
    // A model that is stopped has none, whatever its deployment says.
    deploy(&host, "always", "echo", &["--min-replicas", "1"]);
    host.wait_until("one runs", |host| replicas(host, "echo") == 1.0);
    run(&host, &["models", "stop", "echo"]);
    host.wait_until("none runs", |host| replicas(host, "echo") == 0.0);
    run(&host, &["models", "start", "echo"]);
    host.wait_until("one runs", |host| replicas(host, "echo") == 1.0);
}

#[test]
fn calls_that_wait_start_a_further_replica_which_goes_when_it_is_not_needed() {
    let scratch = TempDir::new().unwrap();
    let host = start(&scratch.path().join("data"));
    upload(&host, "echo");
    deploy(&host, "front", "echo", &["--max-replicas", "2", "--scale-down-delay", "1"]);
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let held = occupy(&client, "echo").await;
        // The only place is taken, so this is answered by another replica.
        let answer = client.predict_request(request("echo", vec![text_input("x")])).await;
        assert_eq!(answer.text(), "x", "{answer:?}");
        assert_eq!(replicas(&host, "echo"), 2.0);
        drop(held);
    });
    host.wait_until("one is stopped", |host| replicas(host, "echo") == 1.0);
    assert_eq!(run(&host, &["predict", "echo", "--text", "x"]), "x\n");
}

/// What nobody calls makes room; what is called does not, and who waits too long
/// is told the numbers.
#[test]
fn a_call_waits_for_room_and_gets_it_from_those_that_nobody_calls() {
    let scratch = TempDir::new().unwrap();
    let host = start(&scratch.path().join("data"));
    upload(&host, "echo");
    upload(&host, "other");
    pool(&host);
    deploy(&host, "a", "echo", &["--nodepool", "lab/small"]);
    deploy(&host, "b", "other", &["--nodepool", "lab/small"]);
    assert_eq!(run(&host, &["predict", "echo", "--text", "x"]), "x\n");
    assert_eq!(run(&host, &["predict", "other", "--text", "x"]), "x\n");
    assert_eq!((replicas(&host, "echo"), replicas(&host, "other")), (0.0, 1.0));
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let held = occupy(&client, "other").await;
        let waiting = client.predict_request(request("echo", vec![text_input("x")]));
        let later = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            drop(held);
        };
        let (answer, ()) = tokio::join!(waiting, later);
        assert_eq!(answer.text(), "x", "{answer:?}");
    });
}

/// What takes the place of a replica that always runs finds that replica's room.
#[test]
fn a_new_version_takes_the_room_of_the_one_that_it_replaces() {
    let scratch = TempDir::new().unwrap();
    let host = start(&scratch.path().join("data"));
    upload(&host, "echo");
    pool(&host);
    deploy(&host, "front", "echo", &["--nodepool", "lab/small", "--min-replicas", "1"]);
    host.wait_until("the replica runs", |host| replicas(host, "echo") == 1.0);
    let larger = Variant::of(guests::ECHO, &[("\"64Mi\"", "\"65Mi\"")]);
    run(&host, &["upload", larger.path()]);
    assert_eq!(run(&host, &["predict", "echo", "--text", "x"]), "x\n");
}

/// Replicas beyond the first make room for others, though calls of their model
/// run; and nothing is stopped where that would not be enough.
#[test]
fn room_is_made_of_what_is_spare_and_never_for_nothing() {
    let scratch = TempDir::new().unwrap();
    let host = start(&scratch.path().join("data"));
    upload(&host, "echo");
    upload(&host, "other");
    let large =
        Variant::of(guests::ECHO, &[("  id: echo\n", "  id: large\n"), ("\"64Mi\"", "\"150Mi\"")]);
    run(&host, &["upload", large.path()]);
    run(&host, &["clusters", "create", "lab"]);
    run(&host, &["nodepools", "create", "lab/two", "--cpu-memory", "150Mi"]);
    let long = ["--nodepool", "lab/two", "--scale-down-delay", "6000"];
    deploy(&host, "a", "echo", &[&long[..], &["--max-replicas", "2"]].concat());
    deploy(&host, "b", "other", &long);
    deploy(&host, "c", "large", &long);
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let (first, second) = (occupy(&client, "echo").await, occupy(&client, "echo").await);
        assert_eq!(replicas(&host, "echo"), 2.0);
        drop(first);
        let answer = client.predict_request(request("other", vec![text_input("x")])).await;
        assert_eq!(answer.text(), "x", "{answer:?}");
        assert_eq!((replicas(&host, "echo"), replicas(&host, "other")), (1.0, 1.0));
        // Nobody calls `other`, but without it there would still be too little.
        let answer = client.predict_request(request("large", vec![text_input("x")])).await;
        assert_eq!(answer.reason(), "NO_ROOM", "{answer:?}");
        assert_eq!(replicas(&host, "other"), 1.0);
        drop(second);
    });
}

#[test]
fn who_is_disabled_has_no_replicas_without_calls_and_the_operator_can_delete_them() {
    let scratch = TempDir::new().unwrap();
    let host = start(&scratch.path().join("data"));
    let bob = host.user("bob", "predict,upload");
    let echo = Variant::of(guests::ECHO, &[("  user_id: local\n", "")]);
    succeeds(&host.ringfence_as(&bob, &["upload", echo.path()]));
    let args = ["deployments", "create", "front", "--model", "bob/main/echo"];
    let scale = ["--min-replicas", "1", "--scale-to-zero-delay", "1"];
    succeeds(&host.ringfence_as(&bob, &[&args[..], &scale[..]].concat()));
    let running = |host: &Host| host.metric("ringfence_replicas{model=\"bob/main/echo\"}");
    host.wait_until("it runs", |host| running(host) == 1.0);
    host.operate(&["users", "disable", "bob"]);
    host.wait_until("none runs", |host| running(host) == 0.0);
    assert!(run(&host, &["deployments", "list", "--user", "bob"]).starts_with("front  "));
    run(&host, &["deployments", "delete", "front", "--user", "bob"]);
    assert_eq!(run(&host, &["deployments", "list", "--user", "bob"]), "");
    let nobody = refused(&host, &["clusters", "create", "x", "--user", "nobody"]);
    assert!(nobody.contains("there is no such user"), "{nobody}");
}

#[test]
fn who_waits_too_long_for_room_is_told_the_numbers() {
    let scratch = TempDir::new().unwrap();
    let host = start(&scratch.path().join("data"));
    upload(&host, "echo");
    upload(&host, "other");
    pool(&host);
    deploy(&host, "a", "echo", &["--nodepool", "lab/small"]);
    deploy(&host, "b", "other", &["--nodepool", "lab/small"]);
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let held = occupy(&client, "other").await;
        let answer = client.predict_request(request("echo", vec![text_input("x")])).await;
        let told = (answer.reason(), answer.code());
        assert_eq!(told, ("NO_ROOM", StatusCode::ModelBusyPleaseRetry), "{answer:?}");
        drop(held);
    });
}

#[test]
fn a_deployment_pins_a_version_or_follows_its_model() {
    let scratch = TempDir::new().unwrap();
    let data_dir = scratch.path().join("data");
    let host = start(&data_dir);
    upload(&host, "echo");
    let first = run(&host, &["models", "list", "echo", "--json"]);
    let first: serde_json::Value = serde_json::from_str(first.trim()).unwrap();
    let first = format!("echo@{}", first["version"].as_str().unwrap());
    deploy(&host, "pinned", &first, &[]);
    deploy(&host, "latest", "echo", &["--min-replicas", "1"]);
    let changed = Variant::of(guests::ECHO, &[("\"64Mi\"", "\"65Mi\"")]);
    run(&host, &["upload", changed.path()]);
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let version = |selector| {
            let asked = api::PostModelOutputsRequest {
                version_id: first.strip_prefix("echo@").unwrap().to_owned(),
                ..on("echo", selector)
            };
            client.predict_request(asked)
        };
        assert_eq!(version(deployment("pinned")).await.text(), "hello");
        assert_eq!(version(deployment("latest")).await.reason(), "OTHER_VERSION");
        let answer = client.predict_request(on("echo", deployment("latest"))).await;
        assert_eq!(answer.text(), "hello", "{answer:?}");
    });
    // The replica of the version that was replaced goes; that of the pinned one stays.
    host.wait_until("two run", |host| replicas(host, "echo") == 2.0);
    // A version takes its deployments with it.
    run(&host, &["models", "delete", &first]);
    assert!(!run(&host, &["deployments", "list"]).contains("pinned"));
    assert!(host.terminate().success());
    let check = Host::command(&["store", "check", "--data-dir", data_dir.to_str().unwrap()]);
    assert!(check.status.success(), "{}", text(&check));
}
