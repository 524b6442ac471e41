//! What is counted, and that the number of series stays bounded.

use super::*;

fn call(model: Option<&str>) -> CallFigures<'_> {
    CallFigures {
        model,
        function: Function::Predict,
        verdict: "OK",
        wall: Duration::from_millis(20),
        queue: Some(Duration::from_millis(2)),
        first_output: None,
        receipt: Receipt { fuel: 7, bytes_in: 3, ..Receipt::default() },
    }
}

fn serving(model: &str) -> Serving {
    Serving {
        model: model.to_owned(),
        replicas: 1,
        running: 1,
        waiting: 2,
        memory_bytes: Holder::ALL.map(|holder| (holder, 5)),
        sandboxes_made: 4,
        cpu_charged: Duration::from_secs(2),
        kernel: Kernel { cpu: Duration::from_secs(3), resident_bytes: 1000, private_bytes: 100 },
    }
}

fn has(text: &str, line: &str) {
    assert!(text.lines().any(|there| there == line), "{line} in {text}");
}

#[test]
fn a_call_moves_the_numbers_of_its_model() {
    let metrics = Metrics::default();
    metrics.call(&call(Some("a/b/c")));
    metrics.call(&call(Some("a/b/c")));
    let text = metrics.encode(&[serving("a/b/c")], 8, 9);
    let calls = r#"ringfence_calls_total{model="a/b/c",function="predict",verdict="OK"} 2"#;
    for line in [
        calls,
        r#"ringfence_guest_fuel_total{model="a/b/c"} 14"#,
        r#"ringfence_input_bytes_total{model="a/b/c"} 6"#,
        r#"ringfence_queue_duration_seconds_count{model="a/b/c"} 2"#,
        r#"ringfence_call_duration_seconds_bucket{le="0.025",model="a/b/c",function="predict"} 2"#,
        r#"ringfence_load_duration_seconds_count{model="a/b/c"} 0"#,
        r#"ringfence_replicas{model="a/b/c"} 1"#,
        r#"ringfence_calls_running{model="a/b/c"} 1"#,
        r#"ringfence_memory_bytes{model="a/b/c",kind="tensors"} 5"#,
        r#"ringfence_memory_bytes{model="a/b/c",kind="device memory"} 5"#,
        r#"ringfence_sandboxes_made_total{model="a/b/c"} 4"#,
        r#"ringfence_worker_cpu_seconds{model="a/b/c"} 3.0"#,
        r#"ringfence_worker_cpu_uncharged_seconds{model="a/b/c"} 1.0"#,
        r#"ringfence_worker_resident_bytes{model="a/b/c"} 1000"#,
        r#"ringfence_worker_uncharged_bytes{model="a/b/c"} 65"#,
        "ringfence_log_lines_dropped_total 8",
        "ringfence_guest_log_entries_lost_total 9",
        "ringfence_models 1",
        "# EOF",
    ] {
        has(&text, line);
    }
    // What is read off is not added up from one scrape to the next.
    has(&metrics.encode(&[serving("a/b/c")], 8, 9), "ringfence_log_lines_dropped_total 8");
}

#[test]
fn a_model_that_is_gone_takes_its_numbers_along() {
    let metrics = Metrics::default();
    metrics.call(&call(Some("a/b/gone")));
    metrics.call(&call(None));
    assert!(metrics.encode(&[serving("a/b/gone")], 0, 0).contains("a/b/gone"));
    let text = metrics.encode(&[], 0, 0);
    assert!(!text.contains("a/b/gone"), "{text}");
    let none = r#"ringfence_calls_total{model="none",function="predict",verdict="OK"} 1"#;
    has(&text, none);
}

#[test]
fn models_beyond_their_number_share_one_label() {
    let metrics = Metrics::default();
    let names: Vec<String> = (0..2 * MODELS_LABELLED_MAX).map(|n| format!("u/a/m{n}")).collect();
    for name in &names {
        metrics.call(&call(Some(name)));
    }
    let all: Vec<Serving> = names.iter().map(|name| serving(name)).collect();
    let text = metrics.encode(&all, 0, 0);
    let series = text.lines().filter(|line| line.starts_with("ringfence_guest_fuel_total")).count();
    assert_eq!(series, MODELS_LABELLED_MAX + 1);
    has(&text, &format!("ringfence_calls_running{{model=\"other\"}} {MODELS_LABELLED_MAX}"));
    let calls = r#"ringfence_calls_total{model="other",function="predict",verdict="OK"} 256"#;
    has(&text, calls);
}

#[test]
fn a_connection_is_open_until_it_is_dropped() {
    let metrics = Metrics::default();
    let open = metrics.connection();
    has(&metrics.encode(&[], 0, 0), "ringfence_connections_open 1");
    drop(open);
    let text = metrics.encode(&[], 0, 0);
    has(&text, "ringfence_connections_open 0");
    has(&text, "ringfence_connections_total 1");
}

/// There may be thousands of stored models, of which few run.
#[test]
fn a_model_that_does_not_run_holds_no_memory_and_keeps_its_label_while_there_is_room() {
    let metrics = Metrics::default();
    metrics.call(&call(Some("a/b/idle")));
    let mut all: Vec<Serving> = (0..5000).map(|n| Serving::stopped(format!("u/a/m{n}"))).collect();
    all.push(Serving::stopped("a/b/idle".to_owned()));
    let text = metrics.encode(&all, 0, 0);
    has(&text, "ringfence_models 5001");
    has(&text, r#"ringfence_guest_fuel_total{model="a/b/idle"} 7"#);
    assert!(!text.contains("u/a/m1") && !text.contains("ringfence_memory_bytes{"), "{text}");
    for one in all.iter().take(MODELS_LABELLED_MAX) {
        metrics.call(&call(Some(&one.model)));
    }
    all.push(serving("a/b/runs"));
    assert!(!metrics.encode(&all, 0, 0).contains("a/b/idle"));
    metrics.call(&call(Some("a/b/runs")));
    has(&metrics.encode(&all, 0, 0), r#"ringfence_guest_fuel_total{model="a/b/runs"} 7"#);
}

#[test]
fn readings_of_the_configuration_are_counted_once() {
    let metrics = Metrics::default();
    metrics.config_reloads(1, 0);
    metrics.config_reloads(1, 2);
    let text = metrics.encode(&[], 0, 0);
    has(&text, "ringfence_config_reloads_total 1");
    has(&text, "ringfence_config_reloads_failed_total 2");
}
