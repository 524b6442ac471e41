//! Which replicas go and which come, and what a deployment can become.

use crate::author::text;
use crate::compute::{deploy, occupy, refused, replicas, run, start, upload};
use ringfence_tests::{Client, Host, Variant, block_on, guests, request, text_input};
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;

fn predict(host: &Host, model: &str) {
    assert_eq!(run(host, &["predict", model, "--text", "x"]), "x\n");
}

fn check(data_dir: &Path) {
    let check = Host::command(&["store", "check", "--data-dir", data_dir.to_str().unwrap()]);
    assert!(check.status.success(), "{}", text(&check));
}

/// Room for two of three, and the one goes that was not called for longest,
/// wherever it stands by its name or its age.
#[test]
fn the_replica_makes_room_that_was_not_called_for_longest() {
    let scratch = TempDir::new().unwrap();
    let host = start(&scratch.path().join("data"));
    run(&host, &["clusters", "create", "lab"]);
    run(&host, &["nodepools", "create", "lab/two", "--cpu-memory", "130Mi"]);
    let models = ["one", "two", "three"];
    for model in models {
        upload(&host, model);
        deploy(&host, model, model, &["--nodepool", "lab/two"]);
    }
    let order = ["one", "two", "one", "three", "two", "three", "one", "one", "two"];
    let mut latest: Vec<&str> = Vec::new();
    for model in order {
        predict(&host, model);
        // A call that was answered has its place until its guest has ended.
        let running = |model| format!("ringfence_calls_running{{model=\"local/main/{model}\"}}");
        host.wait_until("the call has ended", |host| host.metric(&running(model)) == 0.0);
        latest.retain(|other| *other != model);
        latest.push(model);
        for other in models {
            let runs = latest.iter().rev().take(2).any(|recent| *recent == other);
            let expected = f64::from(u8::from(runs));
            assert_eq!(replicas(&host, other), expected, "{other} after {latest:?}");
        }
    }
}

#[test]
fn a_further_replica_starts_when_calls_have_waited_for_its_delay() {
    const DELAY: Duration = Duration::from_secs(2);
    let scratch = TempDir::new().unwrap();
    let host = start(&scratch.path().join("data"));
    upload(&host, "echo");
    deploy(&host, "front", "echo", &["--max-replicas", "2", "--scale-up-delay", "2"]);
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let held = occupy(&client, "echo").await;
        let began = Instant::now();
        let answer = client.predict_request(request("echo", vec![text_input("x")])).await;
        assert_eq!(answer.text(), "x", "{answer:?}");
        assert!(began.elapsed() >= DELAY, "{:?}", began.elapsed());
        assert_eq!(replicas(&host, "echo"), 2.0);
        drop(held);
    });
}

/// What a deployment becomes has to fit where it is to be; else it stays what it
/// was.
#[test]
fn a_deployment_is_moved_or_pinned_only_where_its_replicas_fit() {
    let scratch = TempDir::new().unwrap();
    let data_dir = scratch.path().join("data");
    let host = start(&data_dir);
    upload(&host, "echo");
    run(&host, &["clusters", "create", "lab"]);
    for (pool, memory) in [("lab/small", "100Mi"), ("lab/large", "300Mi"), ("lab/tiny", "50Mi")] {
        run(&host, &["nodepools", "create", pool, "--cpu-memory", memory]);
    }
    let always = ["--nodepool", "lab/large", "--min-replicas", "2", "--max-replicas", "2"];
    deploy(&host, "front", "echo", &always);
    host.wait_until("both run", |host| replicas(host, "echo") == 2.0);
    let was = run(&host, &["deployments", "get", "front"]);
    for (pool, told) in [("lab/small", "128Mi do not fit"), ("lab/tiny", "64Mi do not fit")] {
        let said = refused(&host, &["deployments", "update", "front", "--nodepool", pool]);
        assert!(said.contains(told) && said.contains(pool), "{said}");
        assert_eq!(run(&host, &["deployments", "get", "front"]), was);
        predict(&host, "echo");
    }

    // A version that fits nowhere in this nodepool, once and then twice.
    let listed = |host: &Host| -> Vec<String> {
        let printed = run(host, &["models", "list", "echo", "--json"]);
        let lines = printed.lines().map(|line| serde_json::from_str(line).unwrap());
        lines.map(|line: serde_json::Value| line["version"].as_str().unwrap().to_owned()).collect()
    };
    let first = listed(&host);
    let pinned = format!("echo@{}", first[0]);
    run(&host, &["deployments", "update", "front", "--model", &pinned]);
    let was = run(&host, &["deployments", "get", "front"]);
    let large = Variant::of(guests::ECHO, &[("\"64Mi\"", "\"160Mi\"")]);
    run(&host, &["upload", large.path()]);
    let version = listed(&host).into_iter().find(|version| !first.contains(version)).unwrap();
    let other = format!("echo@{version}");
    let said = refused(&host, &["deployments", "update", "front", "--model", &other]);
    assert!(said.contains("do not fit") && said.contains("lab/large"), "{said}");
    assert_eq!(run(&host, &["deployments", "get", "front"]), was);
    let one = ["deployments", "scale", "front", "--min-replicas", "1", "--max-replicas", "1"];
    run(&host, &one);
    run(&host, &["deployments", "update", "front", "--model", &other]);
    host.wait_until("one runs", |host| {
        host.metric("ringfence_reserved_memory_bytes") == f64::from(160 << 20)
    });
    run(&host, &["deployments", "update", "front", "--nodepool", "local/default"]);
    assert!(run(&host, &["deployments", "get", "front"]).contains("local/default"));
    predict(&host, "echo");
    // Nothing of it is left where it was.
    host.wait_until("it has moved", |host| {
        host.metric("ringfence_reserved_memory_bytes") == f64::from(160 << 20)
            && replicas(host, "echo") == 1.0
    });
    run(&host, &["nodepools", "delete", "lab/large"]);
    assert!(host.terminate().success());
    check(&data_dir);
}

/// Whichever comes first: there is a deployment of a model that is there, or none.
#[test]
fn a_model_that_is_deleted_while_it_is_deployed_leaves_no_deployment() {
    const ROUNDS: usize = 12;
    let scratch = TempDir::new().unwrap();
    let data_dir = scratch.path().join("data");
    let host = start(&data_dir);
    for round in 0..ROUNDS {
        upload(&host, "echo");
        let create = ["deployments", "create", "d", "--model", "echo", "--min-replicas", "1"];
        std::thread::scope(|scope| {
            let deploying = scope.spawn(|| host.ringfence(&create));
            // Sooner and later.
            std::thread::sleep(Duration::from_millis(3 * (round as u64 % 6)));
            run(&host, &["models", "delete", "echo"]);
            let told = deploying.join().unwrap();
            let refused = text(&told).contains("there is no model");
            assert!(told.status.success() || refused, "{}", text(&told));
        });
        assert_eq!(run(&host, &["deployments", "list"]), "");
        host.wait_until("nothing is reserved", |host| {
            host.metric("ringfence_reserved_memory_bytes") == 0.0
        });
    }
    assert!(host.terminate().success());
    check(&data_dir);
    let host = start(&data_dir);
    assert!(!host.log().contains("not there"), "{}", host.log());
    assert_eq!(run(&host, &["deployments", "list"]), "");
}
