//! `ringfence bench`: that it makes the calls that it tells of.

use crate::author::text;
use ringfence_tests::{Host, HostOptions, guests};
use serde_json::Value;

fn host() -> Host {
    let args = ["--metrics-listen", "127.0.0.1:0"].map(str::to_owned).into();
    let models = vec![guests::ECHO.into(), guests::GUEST_ERROR.into()];
    Host::start(HostOptions { models, args, ..HostOptions::default() })
}

fn bench(host: &Host, more: &[&str]) -> Value {
    let told = host.ringfence(&[&["bench", "--json", "--text", "to be or not"], more].concat());
    assert!(told.status.success(), "{}", text(&told));
    serde_json::from_slice(&told.stdout).unwrap()
}

/// Calls that a model has answered, as the host counts them.
fn answered(host: &Host, model: &str, function: &str) -> u64 {
    let series = format!(
        "ringfence_calls_total{{model=\"local/main/{model}\",function=\"{function}\",verdict=\"OK\"}}"
    );
    host.metric(&series) as u64
}

#[test]
fn what_is_told_of_a_load_is_what_the_host_has_answered() {
    let host = host();
    let times = ["--duration", "400ms", "--warm-up", "0s"];
    for (function, outputs_of_each) in [("predict", 1), ("generate", 4), ("stream", 5)] {
        let before = answered(&host, "echo", function);
        let more = ["echo", "--function", function, "--messages", "5", "--concurrency", "3"];
        let told = bench(&host, &[&more[..], &times].concat());
        let side = &told["sides"][0];
        let calls = side["calls"].as_u64().unwrap();
        assert!(calls > 0 && side["failed"] == 0, "{told}");
        assert_eq!(answered(&host, "echo", function) - before, calls, "{told}");
        assert_eq!(side["outputs"].as_u64().unwrap(), outputs_of_each * calls, "{told}");
        let quantile = |of: &str, part: &str| side[of][part].as_f64().unwrap();
        assert!(quantile("whole_us", "p50") <= quantile("whole_us", "most"));
        assert!(quantile("first_output_us", "p50") <= quantile("whole_us", "most"));
    }
}

/// Calls are due whether or not earlier ones are answered, and one that is sent too late has
/// taken longer.
#[test]
fn a_load_at_a_rate_makes_so_many_calls() {
    let host = host();
    let told = bench(
        &host,
        &["echo", "--rate", "100", "--duration", "1s", "--warm-up", "0s", "--concurrency", "8"],
    );
    let side = &told["sides"][0];
    let (calls, not_made) = (side["calls"].as_u64().unwrap(), side["not_made"].as_u64().unwrap());
    assert_eq!(calls + not_made + side["failed"].as_u64().unwrap(), 100, "{told}");
    assert!(side["sent_late_us"]["p50"].as_f64().is_some(), "{told}");
    // A single caller cannot make a hundred thousand calls in a tenth of a second.
    let told = bench(
        &host,
        &[
            "echo",
            "--rate",
            "1000000",
            "--duration",
            "100ms",
            "--warm-up",
            "0s",
            "--concurrency",
            "1",
        ],
    );
    let side = &told["sides"][0];
    assert!(side["not_made"].as_u64().unwrap() > 0, "{told}");
    let late = side["sent_late_us"]["most"].as_f64().unwrap();
    assert!(side["whole_us"]["most"].as_f64().unwrap() >= late, "{told}");
}

#[test]
fn two_are_measured_in_turns_and_compared() {
    let host = host();
    let times = ["--duration", "600ms", "--warm-up", "100ms", "--rounds", "3"];
    let base = host.base().to_owned();
    let told = bench(&host, &[&["echo", "--compare", &base, "echo"][..], &times].concat());
    assert_eq!(told["sides"].as_array().unwrap().len(), 2, "{told}");
    let calls = |place: usize| told["sides"][place]["calls_per_second"].as_f64().unwrap();
    let ratio = told["second_to_first"]["calls_per_second"].as_f64().unwrap();
    assert!((ratio - calls(1) / calls(0)).abs() < 1e-9, "{told}");
    // Models need no further one.
    let told = bench(&host, &[&["--compare", "echo", "local/main/echo"][..], &times].concat());
    assert_eq!(told["sides"].as_array().unwrap().len(), 2, "{told}");
    let unnamed = host.ringfence(&["bench", "--text", "x", "--compare", "echo", &base]);
    assert_eq!(unnamed.status.code(), Some(2), "{}", text(&unnamed));
    assert!(text(&unnamed).contains("name the model to call at"), "{}", text(&unnamed));
    let told = host.ringfence(
        &[&["bench", "echo", "--text", "x", "--compare", &base, &base][..], &times].concat(),
    );
    assert!(text(&told).contains("B / A") && text(&told).contains("p99.9"), "{}", text(&told));
}

#[test]
fn a_load_of_which_nothing_succeeds_fails_and_says_why() {
    let host = host();
    let times = ["--duration", "100ms", "--warm-up", "0s"];
    let told = host.ringfence(&[&["bench", "guest-error", "--text", "x"][..], &times].concat());
    assert_eq!(told.status.code(), Some(1), "{}", text(&told));
    assert!(text(&told).contains("no call of guest-error succeeded"), "{}", text(&told));
    let told = host.ringfence(&[&["bench", "nobody", "--text", "x"][..], &times].concat());
    assert!(text(&told).contains("MODEL_DOES_NOT_EXIST"), "{}", text(&told));
    let told = host.ringfence(&["bench", "echo"]);
    assert_eq!(told.status.code(), Some(2), "{}", text(&told));
}
