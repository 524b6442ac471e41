//! Which of several deployments a call goes to, and what runs where.

use crate::author::text;
use crate::compute::{deploy, occupy, pool, replicas, run, start, upload};
use ringfence_tests::{Client, Host, HostOptions, block_on, guests, request, text_input};
use tempfile::TempDir;

#[test]
fn a_call_goes_to_the_deployment_that_has_a_place_for_it() {
    let scratch = TempDir::new().unwrap();
    let host = start(&scratch.path().join("data"));
    upload(&host, "echo");
    deploy(&host, "a", "echo", &["--min-replicas", "1"]);
    deploy(&host, "b", "echo", &["--min-replicas", "1"]);
    host.wait_until("both run", |host| replicas(host, "echo") == 2.0);
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        // It has the only place of one of them for as long as it is held.
        let held = occupy(&client, "echo").await;
        let answer = client.predict_request(request("echo", vec![text_input("x")])).await;
        assert_eq!(answer.text(), "x", "{answer:?}");
        assert_eq!(replicas(&host, "echo"), 2.0);
        drop(held);
    });
}

/// It would wait for half a minute and be refused.
#[test]
fn a_call_does_not_wait_for_room_where_another_deployment_has_it() {
    let scratch = TempDir::new().unwrap();
    let data_dir = scratch.path().join("data");
    let first = start(&data_dir);
    upload(&first, "echo");
    upload(&first, "other");
    pool(&first);
    deploy(&first, "always", "other", &["--nodepool", "lab/small", "--min-replicas", "1"]);
    deploy(&first, "a", "echo", &["--nodepool", "lab/small"]);
    deploy(&first, "b", "echo", &[]);
    let answered = |host: &Host| {
        host.wait_until("the other runs", |host| replicas(host, "other") == 1.0);
        assert_eq!(run(host, &["predict", "echo", "--text", "x"]), "x\n");
        let there = host.ringfence(&["predict", "echo", "--deployment", "b", "--text", "x"]);
        assert!(there.status.success(), "{}", text(&there));
        assert_eq!((replicas(host, "echo"), replicas(host, "other")), (1.0, 1.0));
    };
    answered(&first);
    assert!(first.terminate().success());
    // It is known too of a version that has not run since the start.
    answered(&start(&data_dir));
}

#[test]
fn a_model_that_a_folder_hides_has_no_replicas_that_always_run() {
    let scratch = TempDir::new().unwrap();
    let data_dir = scratch.path().join("data");
    let first = start(&data_dir);
    upload(&first, "echo");
    upload(&first, "other");
    let always = ["--min-replicas", "1"];
    deploy(&first, "front", "echo", &always);
    deploy(&first, "beside", "other", &always);
    first.wait_until("it runs", |host| replicas(host, "echo") == 1.0);
    assert!(first.terminate().success());
    let args = ["--metrics-listen", "127.0.0.1:0"].map(str::to_owned).to_vec();
    let models = vec![guests::ECHO.into()];
    let host =
        Host::start(HostOptions { models, args, data_dir: Some(data_dir), ..Default::default() });
    // Both would have been started in one go.
    host.wait_until("the other runs", |host| replicas(host, "other") == 1.0);
    let reserved = host.metric("ringfence_reserved_memory_bytes");
    assert_eq!(reserved, f64::from(64 << 20));
    assert_eq!(replicas(&host, "echo"), 1.0, "that of the folder");
}
