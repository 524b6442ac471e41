//! Which models and versions `models list` shows to whom, and what it says of
//! them.

use crate::author::text;
use crate::operators::succeeds;
use ringfence_tests::{Host, Variant, guests};
use serde_json::Value;

const OWN: (&str, &str) = ("  user_id: local\n", "");

fn list(host: &Host, pat: &str, args: &[&str]) -> String {
    succeeds(&host.ringfence_as(pat, &[&["models", "list"], args].concat()))
}

fn names(listed: &str) -> Vec<&str> {
    listed.lines().map(|line| line.split('@').next().unwrap()).collect()
}

#[test]
fn users_list_their_own_models_and_shared_ones_and_the_operator_all() {
    let host = Host::serve(&[guests::SCRIBE]);
    let alice = host.user("alice", "predict,upload");
    let bob = host.user("bob", "predict,upload");
    let echo = Variant::of(guests::ECHO, &[OWN]);
    succeeds(&host.ringfence_as(&alice, &["upload", echo.path()]));

    let all = ["alice/main/echo", "local/main/scribe"];
    assert_eq!(names(&host.operate(&["models", "list"])), all);
    assert_eq!(names(&host.operate(&["models", "list", "--user", "alice"])), all[..1]);
    assert_eq!(names(&list(&host, &host.pat(), &["--all"])), all);
    assert_eq!(names(&list(&host, &host.pat(), &["--user", "alice"])), all[..1]);
    assert_eq!(names(&list(&host, &host.pat(), &[])), all[1..]);
    assert_eq!(names(&list(&host, &alice, &[])), all[..1]);
    for args in [&[][..], &["--user", "alice"], &["--user", "local"]] {
        assert_eq!(list(&host, &bob, args), "");
    }
    let refused = host.ringfence_as(&bob, &["models", "list", "--all"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused).contains("it needs the scope admin"), "{}", text(&refused));
    let versions = ["models", "list", "alice/main/echo"];
    let hidden = host.ringfence_as(&bob, &versions);
    assert!(text(&hidden).contains("there is no such model"), "{}", text(&hidden));
    assert_eq!(names(&host.operate(&versions)), all[..1]);

    for with in ["bob", "everyone"] {
        let share = ["models", "share", "echo", "--with", with];
        succeeds(&host.ringfence_as(&alice, &share));
        let listed = list(&host, &bob, &[]);
        assert_eq!(names(&listed), all[..1]);
        assert!(listed.trim_end().ends_with("  shared with you"), "{listed}");
        assert_eq!(names(&list(&host, &bob, &["--user", "alice"])), all[..1]);
        assert_eq!(list(&host, &bob, &["--user", "local"]), "");
        assert_eq!(names(&succeeds(&host.ringfence_as(&bob, &versions))), all[..1]);
        let own = list(&host, &alice, &[]);
        assert!(own.trim_end().ends_with(&format!("  shared with {with}")), "{own}");
        succeeds(&host.ringfence_as(&alice, &[&share[..], &["--end"]].concat()));
        assert_eq!(list(&host, &bob, &[]), "");
    }
    let kept = tempfile::TempDir::new().unwrap();
    let backup = kept.path().join("backup.tar");
    host.operate(&["store", "backup", backup.to_str().unwrap()]);
    let restored = kept.path().join("restored");
    let restored = restored.to_str().unwrap();
    succeeds(&Host::command(&[
        "store",
        "restore",
        backup.to_str().unwrap(),
        "--data-dir",
        restored,
    ]));
    let offline = Host::command(&["models", "list", "--data-dir", restored]);
    assert_eq!(names(&succeeds(&offline)), all[..1]);
}

#[test]
fn a_listing_says_which_version_is_called_and_why_and_what_is_stopped() {
    let host = Host::serve(&[]);
    let alice = host.user("alice", "predict,upload");
    let run = |args: &[&str]| succeeds(&host.ringfence_as(&alice, args));
    for threads in ["2", "3"] {
        let threads = format!("num_threads: {threads}\nmodel:");
        let variant = Variant::of(guests::ECHO, &[OWN, ("model:", &threads)]);
        run(&["upload", variant.path()]);
    }
    let ids: Vec<String> = run(&["models", "list", "echo", "--json"])
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|line| line["version"].as_str().unwrap().to_owned())
        .collect();
    let [second, first] = ids.as_slice() else { panic!("{ids:?}") };
    let states = || -> Vec<String> {
        let listed = run(&["models", "list", "echo"]);
        listed.lines().map(|line| line.splitn(3, "  ").skip(2).collect()).collect()
    };
    assert_eq!(states(), ["called (the newest)", ""]);
    assert!(!run(&["models", "list"]).contains("promoted"));

    let told = run(&["models", "promote", &format!("echo@{first}")]);
    assert_eq!(told, format!("promoted echo@{first}, which is called now\n"));
    assert_eq!(states(), ["", "called (promoted)"]);
    assert!(run(&["models", "list"]).contains("  promoted"));
    run(&["models", "stop", "echo"]);
    assert_eq!(states(), ["", "stopped (promoted)"]);
    let listed = run(&["models", "list", "--json"]);
    let model: Value = serde_json::from_str(listed.trim()).unwrap();
    assert_eq!((&model["stopped"], &model["promoted"]), (&true.into(), &true.into()), "{listed}");
    assert_eq!((&model["shared"], &model["version"]), (&false.into(), &first.as_str().into()));
    run(&["models", "start", "echo"]);

    // What the operator stops, its owner does not start, nor by stopping it again.
    host.operate(&["models", "stop", "alice/main/echo"]);
    run(&["models", "stop", "echo"]);
    assert_eq!(states(), ["", "stopped by the operator (promoted)"]);
    let refused = host.ringfence_as(&alice, &["models", "start", "echo"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused).contains("the operator has stopped the model"), "{}", text(&refused));
    let kept = host.ringfence_as(&alice, &["models", "delete", "echo"]);
    assert!(text(&kept).contains("the operator has stopped the model"), "{}", text(&kept));
    let call = host.ringfence_as(&alice, &["predict", "echo", "--text", "x"]);
    assert!(text(&call).contains("STOPPED"), "{}", text(&call));
    host.operate(&["models", "start", "alice/main/echo"]);
    assert_eq!(states(), ["", "called (promoted)"]);
    // The operator's own token is of the user `local`, whose models are no exception.
    let own = host.token("local", "predict,upload");
    let local = Variant::of(guests::ECHO, &[]);
    succeeds(&host.ringfence_as(&own, &["upload", local.path()]));
    host.operate(&["models", "stop", "local/main/echo"]);
    let refused = host.ringfence_as(&own, &["models", "start", "echo"]);
    assert!(text(&refused).contains("the operator has stopped the model"), "{}", text(&refused));

    let told = run(&["models", "promote", "echo"]);
    assert_eq!(told, format!("echo follows its newest version; {second} is called now\n"));
    assert_eq!(states(), ["called (the newest)", ""]);
}

/// What goes with a model is told, and a bare name is the caller's own.
#[test]
fn a_model_that_is_deleted_names_the_deployments_that_go_with_it() {
    let host = Host::serve(&[]);
    let alice = host.user("alice", "predict,upload");
    let run = |args: &[&str]| succeeds(&host.ringfence_as(&alice, args));
    run(&["upload", Variant::of(guests::ECHO, &[OWN]).path()]);
    assert_eq!(run(&["predict", "echo", "--text", "hi"]), "hi\n");
    let made = run(&["deployments", "create", "front", "--model", "echo"]);
    assert!(made.starts_with("front  alice/main/echo on"), "{made}");
    run(&["deployments", "create", "back", "--model", "echo"]);
    let told = run(&["models", "delete", "echo"]);
    assert_eq!(told, "deleted echo, and 2 deployments of it: back, front\n");
    let gone = host.ringfence_as(&alice, &["predict", "echo", "--text", "hi"]);
    assert!(text(&gone).contains("MODEL_DOES_NOT_EXIST"), "{}", text(&gone));
}
