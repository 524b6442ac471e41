//! Models that ask for accelerators: on a machine without any, and on one that pretends to
//! have some.

use crate::author::text;
use ringfence::proto::clarifai::api::status::StatusCode;
use ringfence_tests::device::{
    CAPABILITY, DEVICES, ENDLESS_ROWS, HELD, LOST_ROWS, NODE, ROW_BYTES,
};
use ringfence_tests::{
    Client, Host, HostOptions, Variant, binary, block_on, files_below, guests, image_input,
    refused_start, refused_start_with, request, skip, text_input,
};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

/// The memory of each device.
const DEVICE_BYTES: u64 = 32 << 20;

/// A host that pretends to have devices of these names.
fn host(devices: &[&str], models: &[&str]) -> Host {
    Host::start(HostOptions {
        models: models.iter().map(Into::into).collect(),
        args: ["--metrics-listen", "127.0.0.1:0"].map(str::to_owned).to_vec(),
        variables: vec![(DEVICES.to_owned(), named(devices))],
        ..HostOptions::default()
    })
}

fn named(devices: &[&str]) -> String {
    devices.iter().map(|name| format!("{name}:{DEVICE_BYTES} ")).collect()
}

/// `digits` that asks for so many accelerators, and what else is to be said of them.
fn digits(count: u32, more: &str) -> Variant {
    let asks = format!("  num_accelerators: {count}\n{more}");
    Variant::of(guests::DIGITS, &[("  num_accelerators: 0\n", &asks)])
}

/// One that asks for one of them, under another name.
fn named_digits(id: &str, more: &str) -> Variant {
    crate::gpu::on_device(guests::DIGITS, id, more)
}

/// A request of so many pictures, which the network is given at once.
fn rows(model: &str, rows: u32) -> ringfence::proto::clarifai::api::PostModelOutputsRequest {
    let picture = crate::digits::single("two.png");
    request(model, vec![image_input(picture); rows as usize])
}

/// A command of somebody at a machine that pretends to have these.
fn command(devices: &[&str], args: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command.args(args).env(DEVICES, named(devices)).env_remove("RINGFENCE_ONNXRUNTIME");
    command.output().unwrap()
}

fn device_bytes(host: &Host, model: &str) -> f64 {
    let labels = format!("{{model=\"local/main/{model}\",kind=\"device memory\"}}");
    host.metric(&format!("ringfence_memory_bytes{labels}"))
}

/// OPS-10: what was asked for is named, whoever asks; models that need nothing of
/// it serve, and `doctor` says what there is.
#[test]
fn a_model_that_asks_for_an_accelerator_is_refused_by_what_it_asked_for_and_others_serve() {
    let asks = [
        ("  id: echo\n", "  id: fast\n"),
        (
            "  num_accelerators: 0\n",
            "  num_accelerators: 2\n  accelerator_type: [\"NVIDIA-A10G\"]\n  \
             accelerator_memory: \"20Gi\"\n",
        ),
    ];
    let fast = Variant::of(guests::ECHO, &asks);
    let host = Host::start(HostOptions {
        models: vec![guests::TEXT_TO_TEXT.into()],
        ..HostOptions::default()
    });
    let uploaded = host.ringfence(&["upload", guests::ECHO]);
    assert!(uploaded.status.success(), "{}", text(&uploaded));
    let told = host.ringfence(&["upload", fast.path()]);
    assert_eq!(told.status.code(), Some(1), "{}", text(&told));
    let told = text(&told);
    assert!(told.contains("2 accelerators") && told.contains("NVIDIA-A10G"), "{told}");
    assert!(told.contains("this host has no accelerator"), "{told}");
    let called = host.ringfence(&["predict", "fast", "--text", "x"]);
    assert_eq!(called.status.code(), Some(1), "{}", text(&called));
    let called = host.ringfence(&["predict", "echo", "--text", "x"]);
    assert!(called.status.success(), "{}", text(&called));

    let scratch = tempfile::TempDir::new().unwrap();
    let data_dir = scratch.path().join("data");
    let data_dir = data_dir.to_str().unwrap();
    let listen = ["--listen", "127.0.0.1:0", "--data-dir", data_dir];
    for check in [&["--check"][..], &[]] {
        let args = [&listen[..], &["--model", fast.path()], check].concat();
        let (code, told) = refused_start(&args);
        assert_eq!(code, Some(2), "{told}");
        let named = if check.is_empty() { "local/main/fast" } else { fast.path() };
        assert!(told.contains(named) && told.contains("NVIDIA-A10G"), "{told}");
    }
    let doctor = Host::command(&["doctor", "--data-dir", data_dir]);
    let told = text(&doctor);
    let line = told.lines().find(|line| line.contains("accelerators:")).unwrap();
    assert!(line.contains("a model that asks for one is refused"), "{line}");
}

/// What is computed there is accounted as that, and is as it is elsewhere.
#[test]
fn a_graph_is_computed_on_the_device_that_was_asked_for() {
    let fast = named_digits("fast", "  accelerator_type: [\"fake-*\"]\n");
    let host = host(&["Fake-One"], &[fast.path(), guests::DIGITS]);
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let there = client.predict_request(rows("fast", 2)).await;
        let here = client.predict_request(rows("digits", 2)).await;
        assert_eq!(there.code(), StatusCode::Success, "{there:?}");
        assert_eq!(there.concepts(), here.concepts());
    });
    let seconds = |model: &str| {
        host.metric(&format!("ringfence_device_seconds_total{{model=\"local/main/{model}\"}}"))
    };
    assert!(seconds("fast") > 0.0);
    assert_eq!(seconds("digits"), 0.0);
    assert!(device_bytes(&host, "fast") > 0.0);
    assert_eq!(device_bytes(&host, "digits"), 0.0);
    let log = host.log();
    let device_ms = |model: &str| -> f64 {
        let mut ended = log.lines().filter(|line| line.contains("call ended"));
        let line = ended.find(|line| line.contains(&format!("main/{model}"))).unwrap();
        let (_, rest) = line.split_once("device_ms=").unwrap();
        rest.split(' ').next().unwrap().parse().unwrap()
    };
    assert!(device_ms("fast") > 0.0 && device_ms("digits") == 0.0, "{log}");
}

/// OPS-10, where there is one, but not that.
#[test]
fn what_is_asked_for_and_not_there_is_named_with_what_is() {
    for (more, count, wanted) in [
        ("  accelerator_type: [\"NVIDIA-*\", \"Fake-Two\"]\n", 1, "of type NVIDIA-* or Fake-Two"),
        ("  accelerator_memory: \"33Mi\"\n", 1, "1 accelerator with 33Mi"),
        ("", 2, "2 accelerators"),
    ] {
        let asks = digits(count, more);
        let host = host(&["Fake-One"], &[guests::ECHO]);
        let refused = host.ringfence(&["upload", asks.path()]);
        assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
        let told = text(&refused);
        assert!(told.contains(wanted) && told.contains("Fake-One with 32Mi"), "{told}");
        let tested = command(&["Fake-One"], &["test", asks.path()]);
        assert_eq!(tested.status.code(), Some(2), "{}", text(&tested));
        assert!(text(&tested).contains(wanted), "{}", text(&tested));
    }
}

/// As after a restart without the driver: the answer is not that there is no room.
#[test]
fn what_was_there_when_it_was_uploaded_and_is_not_is_named() {
    let scratch = tempfile::TempDir::new().unwrap();
    let data_dir = scratch.path().join("data");
    let start = |variables: Vec<(String, String)>| {
        Host::start(HostOptions {
            models: vec![guests::ECHO.into()],
            data_dir: Some(data_dir.clone()),
            variables,
            ..HostOptions::default()
        })
    };
    let host = start(vec![(DEVICES.to_owned(), named(&["Fake-One"]))]);
    assert!(host.log().contains("accelerators: Fake-One with 32Mi"), "{}", host.log());
    let taken = host.ringfence(&["upload", named_digits("fast", "").path()]);
    assert!(taken.status.success(), "{}", text(&taken));
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let answer = client.predict_request(rows("fast", 1)).await;
        assert_eq!(answer.code(), StatusCode::Success, "{answer:?}");
    });
    host.wait_until("its device in the log", |host| host.log().contains("on=\"Fake-One FAKE-0\""));
    drop(host);
    let host = start(vec![]);
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let answer = client.predict_request(rows("fast", 1)).await;
        assert_eq!(answer.reason(), "FEATURE_DISABLED", "{answer:?}");
        assert!(answer.status.details.contains("this host has no accelerator"), "{answer:?}");
    });
    // Nobody has to call it to find out.
    host.wait_until("what cannot be served in the log", |host| {
        host.log().contains("a stored model cannot be served: 1 accelerator")
    });
    assert!(!host.log().contains("further stored models"), "{}", host.log());
}

/// The engine computes on one.
#[test]
fn more_devices_than_an_engine_takes_are_refused_by_its_name() {
    let asks = digits(2, "");
    let host = host(&["Fake-One", "Fake-One"], &[guests::ECHO]);
    let refused = host.ringfence(&["upload", asks.path()]);
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
    let told = text(&refused);
    assert!(told.contains("on 2 accelerators, and fake computes on 1 at most"), "{told}");
}

/// An engine that leaves a part of a graph where nobody asked for it.
#[test]
fn a_node_on_the_cpu_is_refused_unless_it_is_listed() {
    let graphs = |more: &str| {
        let name =
            format!("  num_accelerators: 1\n\nringfence:\n  graphs: {{digits: partly}}\n{more}");
        Variant::of(guests::DIGITS, &[("  num_accelerators: 0\n", &name)])
    };
    let host = host(&["Fake-One"], &[guests::ECHO]);
    let refused = host.ringfence(&["upload", graphs("").path()]);
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
    let told = text(&refused);
    assert!(told.contains("softmax") && told.contains("accelerator_cpu_nodes"), "{told}");
    let listed = graphs("  accelerator_cpu_nodes: [softmax]\n");
    let taken = host.ringfence(&["upload", listed.path()]);
    assert!(taken.status.success(), "{}", text(&taken));

    // Its author may know before.
    let unlisted = "on the CPU, and not in ringfence.accelerator_cpu_nodes: softmax";
    let needless = "in ringfence.accelerator_cpu_nodes, and not on the CPU in any graph: none";
    for (more, is_refused, is_noted) in [
        ("", true, false),
        ("  accelerator_cpu_nodes: [softmax]\n", false, false),
        ("  accelerator_cpu_nodes: [softmax, none]\n", false, true),
    ] {
        let model = graphs(more);
        let told = text(&command(&["Fake-One"], &["inspect", "--accelerator", model.path()]));
        assert_eq!(told.contains(unlisted), is_refused, "{told}");
        assert_eq!(told.contains(needless), is_noted, "{told}");
        assert_eq!(told.contains("may stay on the CPU: softmax"), !is_refused, "{told}");
    }
}

/// One call's end, and not its neighbours'.
#[test]
fn device_memory_beyond_accelerator_memory_is_the_end_of_one_call() {
    const MIB: u64 = 8;
    let fast = named_digits("fast", &format!("  accelerator_memory: \"{MIB}Mi\"\n"));
    let host = host(&["Fake-One"], &[fast.path()]);
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let held = device_bytes(&host, "fast");
        assert!(held > 0.0);
        let few = client.predict_request(rows("fast", 2)).await;
        assert_eq!(few.code(), StatusCode::Success, "{few:?}");
        let too_many = u32::try_from((MIB << 20) / ROW_BYTES).unwrap();
        let many = client.predict_request(rows("fast", too_many)).await;
        assert_eq!(many.reason(), "MEMORY_LIMIT", "{many:?}");
        assert!(many.status.details.contains("raise accelerator_memory"), "{many:?}");
        let next = client.predict_request(rows("fast", 2)).await;
        assert_eq!(next.code(), StatusCode::Success, "{next:?}");
        host.wait_until("its room", |host| device_bytes(host, "fast") == held);
    });
}

/// A graph for which the device has no room.
#[test]
fn a_graph_that_does_not_fit_into_accelerator_memory_is_refused() {
    let little = digits(1, "");
    let variables = [(DEVICES, "Fake-One:4096".to_owned())];
    let args = ["--listen", "127.0.0.1:0", "--model", little.path()];
    let (code, told) = refused_start_with(&args, &variables);
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("does not fit into accelerator_memory"), "{told}");
}

/// One version's matter: its process begins anew, and others go on.
#[test]
fn a_lost_device_is_one_versions_and_comes_back() {
    let (fast, other) = (named_digits("fast", ""), named_digits("other", ""));
    let mut host = host(&["Fake-One", "Fake-One"], &[fast.path(), other.path(), guests::ECHO]);
    block_on(async {
        let canary = ringfence_tests::Canary::start(&host).await;
        let client = Client::connect(host.base(), &host.pat()).await;
        let pids = || ringfence_tests::children(host.pid());
        host.wait_until("its three processes", |_| pids().len() == 3);
        let before = pids();
        let lost = client.predict_request(rows("fast", LOST_ROWS)).await;
        assert_eq!(lost.code(), StatusCode::ModelBusyPleaseRetry, "{lost:?}");
        assert_eq!(lost.reason(), "DEVICE_LOST", "{lost:?}");
        let neighbour = client.predict_request(rows("other", 2)).await;
        assert_eq!(neighbour.code(), StatusCode::Success, "{neighbour:?}");
        let again = client.predict_request(rows("fast", 2)).await;
        assert_eq!(again.code(), StatusCode::Success, "{again:?}");
        let after = pids();
        let stayed = after.iter().filter(|pid| before.contains(pid)).count();
        assert_eq!((stayed, after.len()), (2, 3), "{before:?}, {after:?}");
        canary.ends(&mut host, "a lost device").await;
    });
}

/// What an engine does not count the driver does.
#[test]
fn a_process_that_has_too_much_of_its_device_is_ended() {
    let scratch = tempfile::TempDir::new().unwrap();
    let held = scratch.path().join("held");
    let fast = named_digits("fast", "  accelerator_memory: \"8Mi\"\n");
    let host = Host::start(HostOptions {
        models: vec![fast.path().into(), guests::ECHO.into()],
        variables: vec![
            (DEVICES.to_owned(), named(&["Fake-One"])),
            (HELD.to_owned(), held.to_str().unwrap().to_owned()),
        ],
        ..HostOptions::default()
    });
    let pids = || ringfence_tests::children(host.pid());
    // What has written a snapshot is gone soon.
    host.wait_until("its two processes", |_| pids().len() == 2);
    let before = pids();
    // What libraries keep for themselves is nobody's.
    std::fs::write(&held, "1073741824").unwrap();
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert_eq!(pids(), before);
    std::fs::write(&held, "1082130433").unwrap();
    host.wait_until("the end of its process", |_| pids().len() < before.len());
    std::fs::write(&held, "0").unwrap();
    host.wait_until("its line", |host| host.log().contains("more than accelerator_memory"));
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let next = client.predict_request(rows("fast", 2)).await;
        assert_eq!(next.code(), StatusCode::Success, "{next:?}");
    });
}

/// What runs on the device ends, and nothing more is launched; the next call has it.
#[test]
fn a_cancelled_call_leaves_the_device() {
    let changes = [
        ("  num_accelerators: 0\n", "  num_accelerators: 1\n\nringfence:\n  call_timeout: 1s\n"),
        ("id: digits\n", "id: fast\n"),
    ];
    let fast = Variant::of(guests::DIGITS, &changes);
    let host = host(&["Fake-One"], &[fast.path()]);
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let held = device_bytes(&host, "fast");
        let endless = client.predict_request(rows("fast", ENDLESS_ROWS)).await;
        assert_eq!(endless.reason(), "WALL_DEADLINE", "{endless:?}");
        host.wait_until("the end of the run", |host| device_bytes(host, "fast") == held);
        // A client that leaves does so before its deadline.
        let asked = rows("fast", ENDLESS_ROWS);
        let calls = client.clone();
        let call = tokio::spawn(async move { calls.predict_request(asked).await });
        host.wait_until("the run", |host| device_bytes(host, "fast") > held);
        call.abort();
        host.wait_until("the end of the run", |host| device_bytes(host, "fast") == held);
        let next = client.predict_request(rows("fast", 2)).await;
        assert_eq!(next.code(), StatusCode::Success, "{next:?}");
    });
}

/// A device is one replica's at a time; what nobody calls makes room.
#[test]
fn a_device_is_one_replicas_at_a_time() {
    let (first, second) = (named_digits("first", ""), named_digits("second", ""));
    let host = host(&["Fake-One"], &[guests::ECHO]);
    for model in [&first, &second] {
        let taken = host.ringfence(&["upload", model.path()]);
        assert!(taken.status.success(), "{}", text(&taken));
    }
    let running =
        |model: &str| host.metric(&format!("ringfence_replicas{{model=\"local/main/{model}\"}}"));
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        assert_eq!(host.metric("ringfence_machine_accelerators"), 1.0);
        for model in ["first", "second", "first"] {
            let answer = client.predict_request(rows(model, 2)).await;
            assert_eq!(answer.code(), StatusCode::Success, "{model}: {answer:?}");
            assert_eq!(running("first") + running("second"), 1.0);
            assert_eq!(host.metric("ringfence_taken_accelerators"), 1.0);
        }
        // What needs none runs beside them.
        let answer = client.predict("echo", vec![text_input("x")]).await;
        assert_eq!(answer.text(), "x");
    });
}

/// A folder has what nobody reserves, and there is nothing else to make room but what is
/// idle.
#[test]
fn an_idle_replica_makes_room_beside_a_folder_that_has_a_device() {
    let folder = named_digits("folder", "");
    let (first, second) = (named_digits("first", ""), named_digits("second", ""));
    let host = host(&["Fake-One", "Fake-One"], &[folder.path()]);
    let upload = |model: &Variant| {
        let taken = host.ringfence(&["upload", model.path()]);
        assert!(taken.status.success(), "{}", text(&taken));
        text(&taken)
    };
    let predict = |model: &'static str| {
        block_on(async {
            let client = Client::connect(host.base(), &host.pat()).await;
            let answer = client.predict_request(rows(model, 2)).await;
            assert_eq!(answer.code(), StatusCode::Success, "{model}: {answer:?}");
        });
    };
    upload(&first);
    predict("first");
    // It has to be tried, where the one has it that nobody calls.
    let told = upload(&second);
    assert!(told.contains("waits for what others have: 1 accelerator asked for"), "{told}");
    predict("first");
    predict("second");
    predict("folder");
}

/// Two of one device cannot both be there from the start.
#[test]
fn folders_that_ask_for_more_devices_than_there_are_do_not_start() {
    let (first, second) = (named_digits("first", ""), named_digits("second", ""));
    let variables = [(DEVICES, named(&["Fake-One"]))];
    let models = ["--model", first.path(), "--model", second.path()];
    let args = [&["--listen", "127.0.0.1:0"][..], &models].concat();
    let (code, told) = refused_start_with(&args, &variables);
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("others have what would do"), "{told}");
}

/// A nodepool has some of the machine's.
#[test]
fn a_nodepool_has_accelerators_of_the_machines() {
    let host = host(&["Fake-One"], &[guests::ECHO]);
    let fast = named_digits("fast", "");
    let taken = host.ringfence(&["upload", fast.path()]);
    assert!(taken.status.success(), "{}", text(&taken));
    let made = host.ringfence(&["clusters", "create", "lab"]);
    assert!(made.status.success(), "{}", text(&made));
    let pool = |id: &str, more: &[&str]| {
        let has = ["nodepools", "create", id, "--cpu-limit", "1", "--cpu-memory", "512Mi"];
        host.ringfence(&[&has[..], more].concat())
    };
    for (more, why) in [
        (&["--num-accelerators", "2"][..], "and 1 accelerator;"),
        (&["--num-accelerators", "1", "--accelerator-type", "NVIDIA-*"], "of type NVIDIA-*"),
    ] {
        let refused = pool("lab/none", more);
        assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
        assert!(text(&refused).contains(why), "{}", text(&refused));
    }
    let made = pool("lab/with", &["--num-accelerators", "1"]);
    assert!(made.status.success(), "{}", text(&made));
    let made = pool("lab/without", &[]);
    assert!(made.status.success(), "{}", text(&made));
    let deploy = |id: &str, pool: &str| {
        host.ringfence(&["deployments", "create", id, "--model", "fast", "--nodepool", pool])
    };
    let refused = deploy("a", "lab/without");
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
    assert!(text(&refused).contains("1 accelerator wanted"), "{}", text(&refused));
    let made = deploy("b", "lab/with");
    assert!(made.status.success(), "{}", text(&made));
}

/// What its author sees before anybody else.
#[test]
fn a_test_runs_on_the_device_and_says_what_it_took() {
    let fast = digits(1, "");
    std::fs::write(fast.folder().join("example.png"), crate::digits::single("two.png")).unwrap();
    let tested = command(&["Fake-One"], &["test", fast.path()]);
    let told = text(&tested);
    assert!(tested.status.success(), "{told}");
    assert!(told.contains("it runs on Fake-One with 32Mi"), "{told}");
    assert!(told.contains("graph digits: fake, 1 node on the device"), "{told}");
    assert!(told.contains("device "), "{told}");
    let inspected = text(&command(&[], &["inspect", fast.path()]));
    assert!(inspected.contains("1 accelerator"), "{inspected}");
    assert!(inspected.contains("runs on an accelerator"), "{inspected}");
    let inspect = ["inspect", "--accelerator", fast.path()];
    let inspected = text(&command(&["Fake-One"], &inspect));
    assert!(inspected.contains("graph digits: fake, 1 node on the device"), "{inspected}");
    let none = command(&[], &inspect);
    assert_eq!(none.status.code(), Some(2), "{}", text(&none));
    let none = command(&[], &["test", fast.path()]);
    assert_eq!(none.status.code(), Some(2), "{}", text(&none));
    let on_cpu = command(&[], &["test", "--cpu", fast.path()]);
    assert!(on_cpu.status.success(), "{}", text(&on_cpu));
}

/// Processes in it try what they must not be able to do, and what a driver does not begin
/// without; `doctor` says how that went, and what such a process has that others have not.
#[test]
fn the_jail_with_an_accelerator_holds_and_what_it_gives_up_is_told() {
    let scratch = tempfile::TempDir::new().unwrap();
    let data_dir = scratch.path().join("data");
    let args = ["doctor", "--data-dir", data_dir.to_str().unwrap()];
    let told = text(&command(&["Fake-One"], &args));
    let of_jail: Vec<&str> =
        told.lines().filter(|line| line.contains(" jail with accelerators: ")).collect();
    assert_eq!(of_jail.len(), 9, "{told}");
    for layer in [
        "limits of a process: held in part: a driver maps more memory",
        "environment: held",
        "files: held",
        "system calls: held in part: a driver has those it needs",
    ] {
        let line = format!("ok    jail with accelerators: {layer}");
        assert!(of_jail.iter().any(|there| there.starts_with(&line)), "{told}");
    }
    for failure in ["it could ", "could not ", "ended otherwise", "says nothing"] {
        assert!(!of_jail.iter().any(|line| line.contains(failure)), "{told}");
    }
    let given_up = told.matches("note  given up with accelerators: ").count();
    assert!(given_up > 3, "{told}");
    let without = text(&command(&[], &args));
    assert!(!without.contains("with accelerators"), "{without}");
}

/// What a driver maps is counted by no limit of a process; none is dumped, though it could be
/// traced.
#[test]
fn the_process_of_an_accelerator_has_limits_of_its_own() {
    let fast = named_digits("fast", "");
    let host = host(&["Fake-One"], &[fast.path()]);
    host.wait_until("its process", |host| host.workers().len() == 1);
    let pid = host.workers()[0];
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let of = |name: &str| {
        let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
        let words: Vec<&str> = line.strip_prefix(name).unwrap().split_whitespace().collect();
        [words[0], words[1]].map(str::to_owned)
    };
    assert_eq!(of("Max core file size"), ["1", "1"]);
    assert_eq!(of("Max data size"), ["unlimited", "unlimited"]);
    let files: u64 = of("Max open files")[1].parse().unwrap();
    assert!(files > 128 + 256, "{limits}");
}

/// A driver does not begin without it, and its process may not make it. What needs no device
/// is served, whatever is required of the jail.
#[test]
fn a_device_that_cannot_be_reached_is_named_and_models_without_are_served() {
    let node = "/dev/ringfence-none";
    let variables = [(DEVICES, named(&["Fake-One"])), (NODE, node.to_owned())];
    let host = Host::start(HostOptions {
        models: vec![guests::ECHO.into()],
        args: ["--jail", "required"].map(str::to_owned).to_vec(),
        variables: variables.clone().map(|(name, value)| (name.to_owned(), value)).to_vec(),
        ..HostOptions::default()
    });
    assert!(host.log().contains("an accelerator is left out: Fake-One cannot be reached"));
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        assert_eq!(client.predict("echo", vec![text_input("x")]).await.text(), "x");
    });
    let refused = host.ringfence(&["upload", digits(1, "").path()]);
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
    let told = text(&refused);
    assert!(told.contains("this host has no accelerator") && told.contains(node), "{told}");
    let mut doctor = Command::new(binary());
    let told = text(&doctor.arg("doctor").envs(variables).output().unwrap());
    assert!(told.contains("warn  accelerators: nodes: Fake-One cannot be reached"), "{told}");
}

#[test]
fn what_is_no_folder_of_cudas_is_refused() {
    let scratch = tempfile::TempDir::new().unwrap();
    let colon = scratch.path().join("a:b");
    std::fs::create_dir(&colon).unwrap();
    let open = scratch.path().join("open");
    std::fs::create_dir(&open).unwrap();
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).unwrap();
    for folder in ["/nowhere", colon.to_str().unwrap(), open.to_str().unwrap()] {
        let (code, told) = refused_start(&["--listen", "127.0.0.1:0", "--cuda", folder]);
        assert_eq!(code, Some(2), "{told}");
        assert!(told.contains(folder) && told.contains("--cuda"), "{told}");
    }
}

/// By the compiler for devices, which needs none: what tract runs on one is there before
/// anything asks for it. Nobody but the host can write to it, the next start has it, and what
/// somebody has put in its place is not believed.
#[test]
fn kernels_for_a_device_are_compiled_once_in_a_jail() {
    let test = "kernels_for_a_device_are_compiled_once_in_a_jail";
    let Ok(cuda) = std::env::var("RINGFENCE_TEST_CUDA") else {
        return skip(test, "RINGFENCE_TEST_CUDA does not name a folder of CUDA's");
    };
    let fast = digits(1, "");
    let scratch = tempfile::TempDir::new().unwrap();
    let data_dir = scratch.path().join("data");
    let start = || {
        let variables = [(DEVICES, named(&["Fake-One"])), (CAPABILITY, "9.0".to_owned())];
        Host::start(HostOptions {
            models: vec![fast.path().into()],
            args: ["--cuda", &cuda].map(str::to_owned).to_vec(),
            data_dir: Some(data_dir.clone()),
            variables: variables.map(|(name, value)| (name.to_owned(), value)).to_vec(),
            ..HostOptions::default()
        })
    };
    let host = start();
    // The model is there once they are.
    let kernels = files_below(&data_dir.join("run/kernels"));
    assert_eq!(kernels.len(), 11, "{kernels:?}");
    for kernel in &kernels {
        let path = kernel.to_str().unwrap();
        assert!(path.contains("/sm_90/nvrtc-") && path.ends_with(".cubin"), "{path}");
        assert!(std::fs::read(kernel).unwrap().starts_with(b"\x7fELF"), "{path}");
        assert_eq!(kernel.metadata().unwrap().permissions().mode() & 0o777, 0o444, "{path}");
    }
    assert!(host.log().contains("compiled=11 of=11"), "{}", host.log());
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let answered = client.predict_request(rows("digits", 1)).await;
        assert_eq!(answered.code(), StatusCode::Success, "{answered:?}");
    });
    // The smallest one compiles in a moment.
    let bytes = |path: &std::path::PathBuf| path.metadata().unwrap().len();
    let smallest = kernels.iter().map(bytes).min().unwrap();
    drop(host);
    let kept = files_below(&data_dir.join("cache"));
    // Before its bytes it has a MAC of 32.
    let kept = kept.iter().find(|file| bytes(file) == smallest + 32).unwrap();
    let mut content = std::fs::read(kept).unwrap();
    *content.last_mut().unwrap() ^= 1;
    std::fs::write(kept, content).unwrap();
    let host = start();
    assert!(host.log().contains("compiled=1 of=11"), "{}", host.log());
    assert_eq!(files_below(&data_dir.join("run/kernels")).len(), 11);
}
