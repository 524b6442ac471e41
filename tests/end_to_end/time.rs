//! How guests share the processor with the host and with each other.

use ringfence_tests::{Client, Host, Variant, block_on, guests, image_input, request, text_input};
use std::time::Duration;

const BOUND: Duration = Duration::from_secs(30);

/// The name and the niceness of each thread of a process: proc(5), fields 2 and
/// 19 of `stat`.
fn threads(pid: u32) -> Vec<(String, i32)> {
    let mut threads = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        // A thread may end between the listing and this.
        let Ok(stat) = std::fs::read_to_string(entry.unwrap().path().join("stat")) else {
            continue;
        };
        let (name, rest) = stat.split_once('(').unwrap().1.rsplit_once(')').unwrap();
        let nice = rest.split_ascii_whitespace().nth(16).unwrap().parse().unwrap();
        threads.push((name.to_owned(), nice));
    }
    threads
}

#[test]
fn guests_and_engines_are_nicer_than_the_server() {
    let host = Host::serve(&[guests::DIGITS]);
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let scan = super::digits::single("seven.png");
        let answer = client.predict("digits", vec![image_input(scan)]).await;
        assert_eq!(answer.concepts()[0].id, "7", "{answer:?}");
    });
    // The tests themselves may have been started with another niceness.
    let own = threads(std::process::id()).first().map_or(0, |(_, nice)| *nice);
    let pids = [vec![host.pid()], host.workers()].concat();
    let threads: Vec<_> = pids.iter().flat_map(|pid| threads(*pid)).collect();
    for kind in ["guest", "engine"] {
        let of_kind = threads.iter().filter(|(name, _)| name.starts_with(kind));
        assert!(of_kind.clone().count() > 0, "no thread {kind} in {threads:?}");
        assert!(of_kind.clone().all(|(_, nice)| *nice == (own + 10).min(19)), "{threads:?}");
    }
    let others: Vec<_> = threads
        .iter()
        .filter(|(name, _)| !name.starts_with("guest") && !name.starts_with("engine"))
        .collect();
    assert!(others.len() > 1 && others.iter().all(|(_, nice)| *nice == own), "{threads:?}");
    let slices: Vec<_> = pids.iter().flat_map(|pid| slices(*pid)).collect();
    if slices.is_empty() {
        println!("slices are not looked at: this kernel has none, or does not tell them");
        assert!(std::env::var_os("CI").is_none());
    }
    for (name, slice_ns) in slices {
        let is_prompt = ["server", "epoch"].iter().any(|kind| name.starts_with(kind));
        let is_not = ["guest", "engine"].iter().any(|kind| name.starts_with(kind));
        assert!(!is_prompt || slice_ns == 100_000, "{name}: {slice_ns}");
        assert!(!is_not || slice_ns > 100_000, "{name}: {slice_ns}");
    }
}

/// How long each thread wants the CPU at a time, in nanoseconds, where it can choose
/// that and the kernel tells it.
fn slices(pid: u32) -> Vec<(String, u64)> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    if ringfence::doctor::kernel_version(&release) < Some((6, 12)) {
        return Vec::new();
    }
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let of = |task: std::fs::DirEntry| {
        let name = std::fs::read_to_string(task.path().join("comm")).ok()?;
        let sched = std::fs::read_to_string(task.path().join("sched")).ok()?;
        let line = sched.lines().find(|line| line.starts_with("se.slice"))?;
        Some((name.trim().to_owned(), line.rsplit(' ').next()?.parse().ok()?))
    };
    tasks.filter_map(of).collect()
}

/// Processor time that a process has taken, in clock ticks: fields 14 and 15.
fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, rest) = stat.rsplit_once(')').unwrap();
    rest.split_ascii_whitespace().skip(11).take(2).map(|text| text.parse::<u64>().unwrap()).sum()
}

/// That of all workers of a host.
fn ticks_of_workers(host: &Host) -> u64 {
    host.workers().into_iter().map(ticks).sum()
}

/// Twice as many guests as there are threads for them spin for an hour. Were
/// none of them interrupted, nobody would answer before that.
#[test]
fn spinning_guests_leave_their_neighbours_room() {
    let count = 2 * std::thread::available_parallelism().unwrap().get();
    let places = format!("call_timeout: 1h\n  max_concurrency: {count}");
    let changes = [("call_timeout: 2s", places.as_str()), ("\"200m\"", "\"8\"")];
    let variant = Variant::of(guests::LOOP_FOREVER, &changes);
    let host = Host::serve(&[variant.path(), guests::ECHO]);
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let idle = ticks_of_workers(&host);
        let mut spinners = tokio::task::JoinSet::new();
        for _ in 0..count {
            let client = client.clone();
            let asked = request("loop-forever", vec![text_input("x")]);
            spinners.spawn(async move { client.predict_request(asked).await });
        }
        host.wait_until("a second of spinning", |host| ticks_of_workers(host) > idle + 100);
        for number in 0..20 {
            let text = format!("call {number}");
            let call = client.predict("echo", vec![text_input(&text)]);
            let answer = tokio::time::timeout(BOUND, call).await.expect("an answer");
            assert_eq!(answer.text(), text);
        }
        assert!(spinners.try_join_next().is_none(), "a spinner ended");
        assert_eq!(spinners.len(), count);
        spinners.abort_all();
    });
}
