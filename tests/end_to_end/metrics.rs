//! The operator's numbers, and the host's health.

use ringfence_tests::{
    Client, Host, HostOptions, Variant, block_on, guests, health_of, request, text_input,
};
use serde_json::Value;
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;

/// A host that tells its numbers at a free port.
pub(crate) fn host(models: &[&str]) -> Host {
    Host::start(HostOptions {
        models: models.iter().map(Into::into).collect(),
        args: vec!["--metrics-listen".into(), "127.0.0.1:0".into()],
        ..HostOptions::default()
    })
}

fn calls(model: &str, function: &str, verdict: &str) -> String {
    format!(
        "ringfence_calls_total{{model=\"{model}\",function=\"{function}\",verdict=\"{verdict}\"}}"
    )
}

#[test]
fn the_numbers_move_by_exactly_what_calls_did() {
    let host = host(&[guests::ECHO, guests::PANIC, guests::DIGITS]);
    let of_echo = |name: &str| format!("ringfence_{name}{{model=\"local/main/echo\"}}");
    let watched = [
        (calls("local/main/echo", "predict", "OK"), 3.0),
        (calls("local/main/echo", "generate", "OK"), 1.0),
        (calls("local/main/echo", "stream", "OK"), 1.0),
        (calls("local/main/panic", "predict", "GUEST_TRAP"), 2.0),
        (calls("none", "predict", "NO_SUCH_MODEL"), 1.0),
        (of_echo("queue_duration_seconds_count"), 5.0),
        ("ringfence_graph_computes_total{model=\"local/main/digits\"}".to_owned(), 1.0),
        ("ringfence_models".to_owned(), 0.0),
    ];
    let read = || -> Vec<f64> { watched.iter().map(|(name, _)| host.metric(name)).collect() };
    let summed = ["guest_fuel_total", "input_bytes_total", "output_bytes_total"];
    let sums = || summed.map(|name| host.metric(&of_echo(name)));
    let (before, sums_before) = (read(), sums());

    // What the receipts of the calls of `echo` say together.
    let mut receipts = [0.0; 3];
    let mut add = |trailers: &tonic::metadata::MetadataMap| {
        for (sum, name) in receipts.iter_mut().zip(["fuel", "bytes-in", "bytes-out"]) {
            let value = trailers.get(format!("ringfence-{name}")).unwrap();
            *sum += value.to_str().unwrap().parse::<f64>().unwrap();
        }
    };
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let echo = || request("echo", vec![text_input("to be counted")]);
        for _ in 0..3 {
            let sent = client.with_token(echo());
            let answer = client.v2().post_model_outputs(sent).await.unwrap();
            add(answer.metadata());
        }
        for mut answers in [
            client.generate(echo()).await,
            client.stream(tokio_stream::iter([echo(), echo()])).await,
        ] {
            while answers.message().await.unwrap().is_some() {}
            add(&answers.trailers().await.unwrap().unwrap());
        }
        for _ in 0..2 {
            client.predict("panic", vec![text_input("x")]).await;
        }
        client.predict("no-such-model-of-mine", vec![text_input("x")]).await;
        let scan = super::digits::single("seven.png");
        client.predict("digits", vec![ringfence_tests::image_input(scan)]).await;
    });

    let after = read();
    for (((name, moved), before), after) in watched.iter().zip(before).zip(after) {
        assert_eq!(after - before, *moved, "{name}");
    }
    for ((now, before), said) in sums().into_iter().zip(sums_before).zip(receipts) {
        assert_eq!(now - before, said, "{receipts:?}");
    }
    let (_, text) = host.operator_get("/metrics");
    assert!(!text.contains("no-such-model-of-mine"), "a client's name became a label");
    // The last is made when the call before it is over.
    host.wait_until("sandboxes", |host| host.metric(&of_echo("sandboxes_made_total")) >= 5.0);
    assert!(host.metric("ringfence_connections_total") >= 1.0);
    let memory = "ringfence_memory_bytes{model=\"local/main/digits\",kind=\"graphs\"}";
    assert!(host.metric(memory) > 0.0, "{text}");
    assert!(host.metric("ringfence_tensor_cpu_seconds_total{model=\"local/main/digits\"}") > 0.0);
}

/// LEAK-08: metrics tell of all models, so the callers' listener has none.
#[test]
fn metrics_are_not_on_the_listener_of_callers_and_off_by_default() {
    let host = Host::serve(&[guests::ECHO]);
    assert!(!host.greeting().iter().any(|line| line.contains("metrics")));
    let with = self::host(&[guests::ECHO]);
    assert_eq!(with.operator_get("/").0, 404);
    block_on(async {
        let path = "/metrics";
        let address = with.base().strip_prefix("http://").unwrap();
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let (client, connection) = h2::client::handshake(stream).await.unwrap();
        let driving = tokio::spawn(connection);
        let asked = http::Request::get(format!("{}{path}", with.base())).body(()).unwrap();
        let mut client = client.ready().await.unwrap();
        let (answer, _) = client.send_request(asked, true).unwrap();
        let mut body = answer.await.unwrap().into_body();
        while let Some(data) = body.data().await {
            assert!(!String::from_utf8_lossy(&data.unwrap()).contains("ringfence_"));
        }
        driving.abort();
    });
}

#[test]
fn healthz_says_when_the_host_drains() {
    let variant = Variant::of(guests::SLEEPER, &[("call_timeout: 2s", "call_timeout: 20s")]);
    let host = host(&[variant.path()]);
    assert_eq!(host.operator_get("/healthz"), (200, "ok\n".to_owned()));
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let mut open = client.generate(request("sleeper", vec![text_input("z")])).await;
        open.message().await.unwrap().unwrap();
        host.ask_to_stop();
        host.wait_until("503", |host| host.operator_get("/healthz").0 == 503);
        assert_eq!(host.operator_get("/healthz").1, "draining\n");
        drop(open);
    });
    assert!(host.wait().success());
}

#[test]
fn a_models_health_is_told_only_to_those_who_may_see_it() {
    let foreign = Variant::of(guests::ECHO, &[("user_id: local", "user_id: alice")]);
    let host = Host::serve(&[guests::ECHO, foreign.path()]);
    let token = format!("Key {}", host.pat());
    block_on(async {
        let health = health_of(&host).await;
        let ask = |service: &str, token: Option<&str>| {
            let mut health = health.clone();
            let mut asked = Request::new(HealthCheckRequest { service: service.into() });
            if let Some(token) = token {
                asked.metadata_mut().insert("authorization", token.parse().unwrap());
            }
            async move {
                let answer = health.check(asked).await;
                answer.map(|answer| answer.into_inner().status()).map_err(|status| status.code())
            }
        };
        let echo = "local/main/echo";
        for own in ["", "clarifai.api.V2"] {
            assert_eq!(ask(own, None).await, Ok(ServingStatus::Serving), "{own}");
        }
        assert_eq!(ask(echo, Some(&token)).await, Ok(ServingStatus::Serving));
        for (service, token) in [
            (echo, None),
            (echo, Some("Key rf_0")),
            ("alice/main/echo", Some(token.as_str())),
            ("local/main/none", Some(token.as_str())),
        ] {
            assert_eq!(ask(service, token).await, Err(Code::NotFound), "{service}");
        }
    });
}

#[test]
fn whoever_needs_no_token_sends_short_messages() {
    let host = Host::serve(&[guests::ECHO]);
    block_on(async {
        let mut health = health_of(&host).await;
        for (bytes, code) in [(1000, Code::NotFound), (1100, Code::ResourceExhausted)] {
            let asked = HealthCheckRequest { service: "x".repeat(bytes) };
            assert_eq!(health.check(asked).await.unwrap_err().code(), code, "{bytes} bytes");
        }
    });
}

/// It is started by its first call.
#[test]
fn a_stored_model_serves_before_it_runs_and_not_while_it_is_stopped() {
    let host = host(&[]);
    let run = |args: &[&str]| {
        let output = host.ringfence(args);
        assert!(output.status.success(), "{output:?}");
    };
    let health = || {
        block_on(async {
            let mut health = health_of(&host).await;
            let mut asked = Request::new(HealthCheckRequest { service: "local/main/echo".into() });
            let token = format!("Key {}", host.pat()).parse().unwrap();
            asked.metadata_mut().insert("authorization", token);
            health.check(asked).await.unwrap().into_inner().status()
        })
    };
    let replicas = || host.metric("ringfence_replicas{model=\"local/main/echo\"}");
    run(&["upload", guests::ECHO]);
    assert_eq!(host.metric("ringfence_models"), 1.0);
    assert_eq!((health(), replicas()), (ServingStatus::Serving, 0.0));
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let sent = client.with_token(request("echo", vec![text_input("x")]));
        let answer = client.v2().post_model_outputs(sent).await.unwrap();
        let load = answer.metadata().get("ringfence-load-ms").unwrap().to_str().unwrap();
        assert!(load.parse::<f64>().unwrap() > 0.0, "the start is told as loading: {load}");
    });
    assert_eq!(replicas(), 1.0);
    run(&["models", "stop", "echo"]);
    assert_eq!((health(), replicas()), (ServingStatus::NotServing, 0.0));
    let called = calls("local/main/echo", "predict", "OK");
    assert_eq!(host.metric(&called), 1.0, "a model that does not run keeps its numbers");
    run(&["models", "start", "echo"]);
    assert_eq!(health(), ServingStatus::Serving);
    run(&["models", "delete", "echo"]);
    assert_eq!((host.metric(&called), host.metric("ringfence_models")), (0.0, 0.0));
}

/// A watch is a stream, and the host's end must not wait for it.
#[test]
fn a_watch_of_the_health_ends_with_the_host() {
    let host = Host::serve(&[guests::ECHO]);
    block_on(async {
        let mut health = health_of(&host).await;
        let asked = HealthCheckRequest { service: String::new() };
        let mut watch = health.watch(asked).await.unwrap().into_inner();
        let mut told = Vec::new();
        told.push(watch.message().await.unwrap().unwrap().status());
        host.ask_to_stop();
        while let Ok(Some(message)) = watch.message().await {
            told.push(message.status());
        }
        assert_eq!(told, [ServingStatus::Serving, ServingStatus::NotServing]);
    });
    assert!(host.wait().success());
}

#[test]
fn a_watch_of_the_health_ends_with_the_token_of_whoever_watches() {
    let host = Host::serve(&[guests::ECHO]);
    let create = ["pat", "create", "--user", "local", "--scope", "predict", "--json"];
    let made: Value = serde_json::from_slice(&host.by_socket(&create).stdout).unwrap();
    let (id, token) = (made["token"].as_str().unwrap(), made["pat"].as_str().unwrap());
    block_on(async {
        let mut health = health_of(&host).await;
        let service = "local/main/echo".to_owned();
        let mut asked = Request::new(HealthCheckRequest { service });
        asked.metadata_mut().insert("authorization", format!("Key {token}").parse().unwrap());
        let mut watch = health.watch(asked).await.unwrap().into_inner();
        let first = watch.message().await.unwrap().unwrap();
        assert_eq!(first.status(), ServingStatus::Serving);
        assert!(host.by_socket(&["pat", "revoke", id]).status.success());
        assert!(watch.message().await.unwrap().is_none());
    });
}
