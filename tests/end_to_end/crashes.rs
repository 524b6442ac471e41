//! A host that is killed at any moment, cut off, or out of disk: what was
//! acknowledged is there, what was not is not.

use crate::author::text;
use ringfence::proto::clarifai::api;
use ringfence_tests::{Client, Host, HostOptions, Variant, block_on, guests, request, text_input};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How often the host is killed. The whole number, 200, is asked for by
/// `RINGFENCE_KILLS`; every run of the tests does some.
fn kills() -> u32 {
    std::env::var("RINGFENCE_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(12)
}

fn start(data_dir: &Path) -> Host {
    Host::start(HostOptions { data_dir: Some(data_dir.to_owned()), ..HostOptions::default() })
}

/// Folders that differ in nothing but their configuration.
fn folders(count: usize) -> Vec<Variant> {
    let threads = |n: usize| format!("num_threads: {}\nmodel:", n + 1);
    (0..count).map(|n| Variant::of(guests::ECHO, &[("model:", &threads(n))])).collect()
}

/// Every version that there is, by the store's own account.
fn listed(host: &Host) -> BTreeSet<String> {
    let output = host.ringfence(&["models", "list", "echo", "--json"]);
    if !output.status.success() {
        return BTreeSet::new();
    }
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|line| line["version"].as_str().unwrap().to_owned())
        .collect()
}

/// The version that is called where none is named.
fn called(host: &Host) -> String {
    let output = host.ringfence(&["models", "list", "--json"]);
    let line = String::from_utf8(output.stdout).unwrap();
    let line: serde_json::Value = serde_json::from_str(line.trim()).unwrap();
    line["version"].as_str().unwrap().to_owned()
}

/// OPS-02, OPS-13: SIGKILL at random moments of uploads, deletes and promotions.
#[test]
fn a_killed_host_keeps_what_it_acknowledged_and_nothing_else() {
    let scratch = TempDir::new().unwrap();
    let data_dir = scratch.path().join("data");
    let folders = folders(6);
    // What was acknowledged, and what was asked for without an answer.
    let mut there: BTreeSet<String> = BTreeSet::new();
    let mut host = start(&data_dir);
    let quota = ["users", "quota", "local", "--compilations-per-hour", "1000000"];
    assert!(host.by_socket(&quota).status.success());
    let mut seed = 7_u64;
    let mut random = move |below: u64| {
        // Knuth's linear congruence: any spread of moments will do.
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) % below
    };
    for round in 0..kills() {
        let folder = &folders[random(folders.len() as u64) as usize];
        let kind = random(4);
        let victim = there.iter().nth(random(there.len().max(1) as u64) as usize).cloned();
        let args: Vec<String> = match (kind, &victim) {
            (0, Some(version)) => vec!["models".into(), "delete".into(), format!("echo@{version}")],
            (1, Some(version)) => {
                vec!["models".into(), "promote".into(), format!("echo@{version}")]
            }
            _ => vec!["upload".into(), folder.path().into(), "--json".into()],
        };
        let mut command = Command::new(ringfence_tests::binary())
            .args(&args)
            .env_clear()
            .env("RINGFENCE_BASE", host.base())
            .env("RINGFENCE_PAT", host.pat())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(random(400)));
        host.kill();
        let mut told = String::new();
        command.stdout.take().unwrap().read_to_string(&mut told).unwrap();
        let acknowledged = command.wait().unwrap().success();

        let check = Host::command(&["store", "check", "--data-dir", data_dir.to_str().unwrap()]);
        assert!(check.status.success(), "round {round}, {args:?}: {}", text(&check));
        host = start(&data_dir);
        let found = listed(&host);
        match (kind, &victim) {
            (0, Some(version)) => {
                if acknowledged {
                    assert!(!found.contains(version), "round {round}");
                }
                if !found.contains(version) {
                    there.remove(version);
                }
            }
            (1, Some(version)) if acknowledged => {
                assert_eq!(called(&host), *version, "round {round}");
            }
            (1, Some(_)) => {}
            _ => {
                let mut version = told.lines().filter_map(|line| {
                    serde_json::from_str::<serde_json::Value>(line).ok()?["version"]
                        .as_str()
                        .map(str::to_owned)
                });
                if let Some(version) = version.next_back().filter(|_| acknowledged) {
                    assert!(found.contains(&version), "round {round}");
                    there.insert(version);
                }
                // One that was stored just before the kill may be there; it was
                // asked for, and it is whole.
                let more: Vec<_> = found.difference(&there).cloned().collect();
                assert!(more.len() <= 1, "round {round}: {more:?}");
                there.extend(more);
            }
        }
        assert_eq!(found, there, "round {round}, {args:?}");
        for version in &there {
            let answer = block_on(async {
                let client = Client::connect(host.base(), &host.pat()).await;
                let asked = api::PostModelOutputsRequest {
                    version_id: version.clone(),
                    ..request("echo", vec![text_input("hello")])
                };
                client.predict_request(asked).await
            });
            assert_eq!(answer.text(), "hello", "round {round}");
        }
    }
}

/// A connection through here ends after so many bytes to the host, once.
struct Cutter {
    address: std::net::SocketAddr,
    sent: Arc<AtomicU64>,
}

impl Cutter {
    fn start(base: &str, cut_after: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let host = base.strip_prefix("http://").unwrap().to_owned();
        let sent = Arc::new(AtomicU64::new(0));
        let counted = sent.clone();
        // It ends with the test's process.
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (client, server) = (client.unwrap(), TcpStream::connect(&host).unwrap());
                let back = (server.try_clone().unwrap(), client.try_clone().unwrap());
                std::thread::spawn(move || pump(back.0, back.1, |_| true));
                let counted = counted.clone();
                std::thread::spawn(move || {
                    pump(client, server, move |bytes| {
                        let before = counted.fetch_add(bytes, Ordering::SeqCst);
                        // Only the passage over the mark cuts.
                        !(before < cut_after && before + bytes >= cut_after)
                    });
                });
            }
        });
        Self { address, sent }
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, mut goes_on: impl FnMut(u64) -> bool) {
    let mut buffer = [0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if !goes_on(count as u64) || to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(std::net::Shutdown::Both);
    let _ = to.shutdown(std::net::Shutdown::Both);
}

#[test]
fn an_upload_that_was_cut_goes_on_where_it_was() {
    let scratch = TempDir::new().unwrap();
    let host = start(&scratch.path().join("data"));
    let folder = Variant::of(guests::ECHO, &[]);
    // Bytes that do not shrink, so that the archive is about as long, and long
    // enough that the parts on their way at the cut are few of it.
    let mut noise = vec![0_u8; 48 << 20];
    let mut state = 1_u64;
    for byte in &mut noise {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        *byte = (state >> 40) as u8;
    }
    std::fs::write(folder.folder().join("1/noise.bin"), &noise).unwrap();
    let whole = noise.len() as u64;
    let cutter = Cutter::start(host.base(), whole * 6 / 10);
    let base = format!("http://{}", cutter.address);
    let upload = || {
        Command::new(ringfence_tests::binary())
            .args(["upload", folder.path(), "--base", &base])
            .env_clear()
            .env("RINGFENCE_PAT", host.pat())
            .output()
            .unwrap()
    };
    let first = upload();
    assert!(!first.status.success(), "{}", text(&first));
    let before = cutter.sent.load(Ordering::SeqCst);
    // The host may not have seen yet that the first has gone.
    let began = Instant::now();
    let second = loop {
        let second = upload();
        if second.status.success() || began.elapsed() > Duration::from_secs(30) {
            break second;
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    assert!(second.status.success(), "{}", text(&second));
    let sent_again = cutter.sent.load(Ordering::SeqCst) - before;
    assert!(sent_again < whole * 45 / 100, "{sent_again} of {whole} were sent again");
}
