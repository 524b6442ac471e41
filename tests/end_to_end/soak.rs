//! A host under everything at once, for as long as one likes: nothing that it
//! holds grows.

use crate::author::text;
use crate::upload::{archive, make_model, send};
use ringfence::proto::clarifai::api::status::StatusCode;
use ringfence_tests::{
    Answer, Client, Host, HostOptions, Variant, binary, block_on, bytes_input, guests, image_input,
    raw_answer, request, text_input,
};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Clients that do one thing after the other.
const CLIENTS: u64 = 3;
/// Versions of the model that is uploaded and deleted again.
const VERSIONS: u64 = 4;
/// How much more a host may hold in the last quarter than in the first: what an
/// allocator keeps differs by as much from one minute to the next.
const BYTES_MORE_MAX: u64 = 48 << 20;
/// Connections that are opened and closed by the clients are among them.
const FILES_MORE_MAX: usize = 16;

fn minutes() -> u64 {
    let Ok(text) = std::env::var("RINGFENCE_SOAK_MINUTES") else { return 10 };
    text.trim_end_matches('m').parse().expect("RINGFENCE_SOAK_MINUTES is a number of minutes")
}

/// What is done next; each client has its own order of them.
struct Random(u64);

impl Random {
    fn below(&mut self, below: u64) -> u64 {
        // Knuth's linear congruence: any spread will do.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % below
    }
}

/// Something that clients do, good and bad. Whatever it is, the host has to be
/// able to answer it.
async fn case(host: &Host, client: &Client, random: &mut Random, variants: &[Variant]) {
    let path = "/clarifai.api.V2/PostModelOutputs";
    match random.below(14) {
        0..=3 => {
            let word = "x".repeat(1 << random.below(18));
            let answer = client.predict("echo", vec![text_input(&word)]).await;
            assert_eq!(answer.text(), word);
        }
        4 => {
            let asked = request("echo", vec![text_input("hello out there")]);
            let pieces = client.generate_all(asked).await;
            assert_eq!(pieces.iter().map(Answer::text).collect::<String>(), "hello out there");
        }
        5 => {
            let messages = (0..8).map(|_| request("echo", vec![text_input("x")]));
            let messages: Vec<_> = messages.collect();
            let mut answers = client.stream(tokio_stream::iter(messages)).await;
            // And leaves.
            answers.message().await.unwrap();
        }
        6 => {
            let answer = client.predict("memory-hog", vec![text_input("x")]).await;
            assert_eq!(answer.reason(), "MEMORY_LIMIT", "{answer:?}");
        }
        7 => {
            let answer = client.predict("trap", vec![text_input("x")]).await;
            assert_eq!(answer.reason(), "GUEST_TRAP", "{answer:?}");
        }
        8 => {
            let answer = client.predict("digits", vec![image_input(b"NaN".to_vec())]).await;
            assert_eq!(answer.reason(), "GUEST_ERROR", "{answer:?}");
        }
        9 => {
            let answer = client.predict("nothing", vec![bytes_input(b"x".to_vec())]).await;
            assert_eq!(answer.reason(), "NO_SUCH_MODEL", "{answer:?}");
            let authorization = format!("Key {}", host.pat());
            let headers = [("authorization", authorization.as_str())];
            // No request, but protobuf.
            let odd = prost_types::Any { type_url: "\u{1}".repeat(99), value: vec![255; 99] };
            raw_answer(host.base(), path, &headers, &odd).await;
        }
        10 => {
            let hello = request("echo", vec![text_input("x")]);
            raw_answer(host.base(), path, &[("authorization", "Key nobody")], &hello).await;
        }
        11 => {
            let garbage = archive(&[("config.yaml", b"model:\n  id: m\n"), ("1/model.wasm", b"x")]);
            send(client, "m", &garbage).await;
        }
        _ => {
            let folder = variants[random.below(variants.len() as u64) as usize].path();
            let (base, pat) = (host.base().to_owned(), host.pat());
            let delete = random.below(2) == 0;
            let args: Vec<String> = match delete {
                true => ["models", "delete", "uploaded"].map(str::to_owned).to_vec(),
                false => vec!["upload".to_owned(), folder.to_owned()],
            };
            let mut command = Command::new(binary());
            command.args(args).env_clear().env("RINGFENCE_BASE", base).env("RINGFENCE_PAT", pat);
            let output = tokio::task::spawn_blocking(move || command.output()).await;
            let output = output.unwrap().unwrap();
            // Another may upload, or have deleted it.
            let told = text(&output);
            let other = ["under way", "no such model", "MODEL_DOES_NOT_EXIST", "BUILD_FAILED"];
            assert!(
                output.status.success() || other.iter().any(|word| told.contains(word)),
                "{told}"
            );
            if !delete && output.status.success() {
                let answer = client.predict("uploaded", vec![text_input("x")]).await;
                let gone = ["NO_SUCH_MODEL", "NO_SUCH_VERSION", "NO_VERSION"];
                let is_well = answer.code() == StatusCode::Success;
                assert!(is_well || gone.contains(&answer.reason()), "{answer:?}");
            }
        }
    }
}

fn median<T: Ord + Copy>(samples: &[T]) -> T {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    sorted[sorted.len() / 2]
}

/// OPS-22. `RINGFENCE_SOAK_MINUTES` says how long; `just soak 10m`.
#[test]
#[ignore = "it takes as many minutes as one likes"]
fn what_a_host_holds_does_not_grow() {
    let models = [guests::ECHO, guests::DIGITS, guests::MEMORY_HOG, guests::TRAP];
    let models = models.map(Into::into).to_vec();
    let args = ["--metrics-listen", "127.0.0.1:0"].map(str::to_owned).to_vec();
    let mut host = Host::start(HostOptions { models, args, ..HostOptions::default() });
    let quota = ["users", "quota", "local", "--compilations-per-hour", "1000000"];
    host.operate(&quota);
    let threads = |n: u64| format!("num_threads: {}\nmodel:", n + 1);
    let variants: Vec<Variant> = (0..VERSIONS)
        .map(|n| {
            let changes = [("  id: echo\n", "  id: uploaded\n"), ("model:", &threads(n))];
            Variant::of(guests::ECHO, &changes)
        })
        .collect();
    let until = Duration::from_secs(60 * minutes().max(1));
    let (over, done) = (AtomicBool::new(false), AtomicU64::new(0));
    let (mut bytes, mut files) = (Vec::new(), Vec::new());
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        make_model(&client, "m").await;
        // Every case has been before anything is compared.
        let mut random = Random(7);
        for _ in 0..100 {
            case(&host, &client, &mut random, &variants).await;
        }
        let clients = futures_util::future::join_all((0..CLIENTS).map(async |number| {
            let mut random = Random(number + 1);
            while !over.load(Ordering::Relaxed) {
                // A connection for some cases, and another for the next.
                let client = Client::connect(host.base(), &host.pat()).await;
                for _ in 0..50 {
                    case(&host, &client, &mut random, &variants).await;
                    done.fetch_add(1, Ordering::Relaxed);
                    if over.load(Ordering::Relaxed) {
                        break;
                    }
                }
            }
        }));
        let sampling = async {
            let began = Instant::now();
            while began.elapsed() < until {
                tokio::time::sleep(Duration::from_millis(500)).await;
                bytes.push(host.resident_bytes());
                let open = std::fs::read_dir(format!("/proc/{}/fd", host.pid())).unwrap();
                files.push(open.count());
            }
            over.store(true, Ordering::Relaxed);
        };
        tokio::join!(clients, sampling);
    });
    let quarter = bytes.len() / 4;
    let (first, last) = (median(&bytes[..quarter]), median(&bytes[bytes.len() - quarter..]));
    println!(
        "{} cases in {until:?}; resident: {} KiB, then {} KiB, at most {} KiB",
        done.load(Ordering::Relaxed),
        first >> 10,
        last >> 10,
        host.resident_bytes_peak() >> 10
    );
    let (opened, open) = (median(&files[..quarter]), median(&files[files.len() - quarter..]));
    println!("descriptors: {opened}, then {open}, at most {:?}", files.iter().max());
    assert!(host.is_alive());
    assert!(!host.log().contains("panicked"), "{}", host.log());
    host.wait_until("no call runs", |host| {
        host.metric("ringfence_calls_running{model=\"local/main/echo\"}") == 0.0
    });
    assert!(last < first + BYTES_MORE_MAX, "{first} bytes, then {last}");
    assert!(open < opened + FILES_MORE_MAX, "{opened} descriptors, then {open}");
}
