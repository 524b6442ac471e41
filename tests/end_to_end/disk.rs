//! The disk below a host: in which order things are brought to it, and a disk
//! that is full or read-only.
//!
//! Mounting and watching another process need privileges; a test that needs them
//! runs itself once more as root of namespaces of its own. Where a machine has
//! none of that, it says `SKIPPED`, and fails where `CI=true`.

use crate::author::text;
use crate::upload::left_in;
use ringfence_tests::{
    Client, Host, HostOptions, Variant, block_on, files_below, guests, image_input, refused_start,
    request, skip, text_input,
};
use std::collections::HashMap;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Says to the inner one of two processes that it is.
const INSIDE: &str = "RINGFENCE_TEST_INSIDE";

/// Whether a machine has what a test needs; says so if it does not.
fn has(test: &str, program: &[&str], package: &str) -> bool {
    let tried = Command::new(program[0]).args(&program[1..]).output();
    if tried.is_ok_and(|output| output.status.success()) {
        return true;
    }
    let reason = format!("`{}` does not work here; {package}", program.join(" "));
    skip(test, &reason);
    false
}

/// Runs the test once more, with its name, as root of a user namespace and a mount
/// namespace, in which it returns true. Outside it returns false, after that.
fn inside(test: &str) -> bool {
    if std::env::var(INSIDE).is_ok() {
        return true;
    }
    let package = "user namespaces have to be allowed, and util-linux installed";
    if !has(test, &["unshare", "-rm", "true"], package) {
        return false;
    }
    let again = Command::new("unshare")
        .args(["-rm", "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "yes")
        .output()
        .unwrap();
    let told = text(&again);
    assert!(again.status.success() && told.contains("1 passed"), "{told}");
    false
}

fn mount(args: &[&str], place: &Path) {
    let output = Command::new("mount").args(args).arg(place).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", text(&output));
}

fn start(data_dir: &Path, under: &[&str]) -> Host {
    Host::start(HostOptions {
        data_dir: Some(data_dir.to_owned()),
        under: under.iter().map(|word| (*word).to_owned()).collect(),
        ..HostOptions::default()
    })
}

fn answer(host: &Host, input: &str) -> String {
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        client.predict_request(request("echo", vec![text_input(input)])).await.text()
    })
}

/// The folder of `echo` with a file more, and a version of its own.
fn with_file(content: &[u8]) -> Variant {
    let threads = format!("num_threads: {}\nmodel:", 2 + content.len() % 1000);
    let folder = Variant::of(guests::ECHO, &[("model:", &threads)]);
    std::fs::write(folder.folder().join("1/file.bin"), content).unwrap();
    folder
}

/// Bytes that no packing makes shorter than so many bits each.
fn noise(length: usize, bits: u32) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        // Knuth's linear congruence.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> (64 - bits)) as u8
    };
    (0..length).map(|_| next()).collect()
}

/// A refusal that says whose turn it is, and not what is on the host's disk.
fn assert_refused_for_the_disk(output: &Output, host: &Host) {
    assert_eq!(output.status.code(), Some(1), "{}", text(output));
    let told = text(output);
    assert!(told.contains("its operator has to look at"), "{told}");
    assert!(!told.contains(host.data_dir().to_str().unwrap()), "{told}");
}

/// What a traced call did, in which lines of the trace.
#[derive(Debug)]
struct Traced {
    began: usize,
    ended: usize,
    call: String,
    /// Of the file that it wrote or flushed, or of what it renamed and to what.
    paths: Vec<String>,
}

/// The calls of a trace that did not fail. One that others came between is in
/// two lines.
fn traced(trace: &str) -> Vec<Traced> {
    let mut open: HashMap<&str, (usize, String)> = HashMap::new();
    let mut calls = Vec::new();
    for (number, line) in trace.lines().enumerate() {
        let Some((thread, what)) = line.split_once(' ') else { continue };
        let what = what.trim_start();
        let (began, whole) = if let Some(head) = what.strip_suffix(" <unfinished ...>") {
            open.insert(thread, (number, head.to_owned()));
            continue;
        } else if what.starts_with("<... ") {
            let (began, head) = open.remove(thread).unwrap();
            (began, head + what.split_once("resumed>").unwrap().1)
        } else {
            (number, what.to_owned())
        };
        let Some((call, rest)) = whole.split_once('(') else { continue };
        if whole.contains(" = -1 ") {
            continue;
        }
        let (opening, closing) = if call.starts_with("rename") || call.starts_with("mkdir") {
            ('"', '"')
        } else {
            ('<', '>')
        };
        let paths = rest.split(opening).skip(1);
        let paths: Vec<String> = match opening {
            '"' => paths.step_by(2).map(str::to_owned).collect(),
            _ => paths.filter_map(|path| Some(path.split_once(closing)?.0.to_owned())).collect(),
        };
        calls.push(Traced { began, ended: number, call: call.to_owned(), paths });
    }
    calls
}

/// The first call of a kind about a path that began after a line.
fn next<'a>(calls: &'a [Traced], kind: &str, path: &str, after: usize) -> &'a Traced {
    let is_next = |call: &&Traced| {
        call.call.contains(kind)
            && call.began > after
            && call.paths.first().is_some_and(|of| of == path)
    };
    calls.iter().find(is_next).unwrap_or_else(|| panic!("no {kind} of {path} after {after}"))
}

/// OPS-02: a content is written beside its place, flushed, renamed, and its folder
/// flushed; then its rows are written and flushed; then it is acknowledged. A kill
/// never tests this, since what a killed process wrote is in the page cache.
#[test]
fn an_acknowledged_upload_was_brought_to_the_disk_in_order() {
    const TEST: &str = "disk::an_acknowledged_upload_was_brought_to_the_disk_in_order";
    if !has(TEST, &["strace", "-o", "/dev/null", "true"], "apt-get install strace") || !inside(TEST)
    {
        return;
    }
    let scratch = TempDir::new().unwrap();
    let data_dir = scratch.path().join("data");
    let trace = scratch.path().join("trace");
    // With -D the host is the process that was started, and not strace.
    let calls = "trace=write,pwrite64,fsync,fdatasync,rename,renameat,renameat2,mkdir,mkdirat";
    let under = ["strace", "-D", "-f", "-y", "-s", "0", "-o", trace.to_str().unwrap(), "-e", calls];
    let mut host = start(&data_dir, &under);
    let output = host.ringfence(&["upload", guests::ECHO]);
    assert!(output.status.success(), "{}", text(&output));
    // What comes after the acknowledgement is not asked about.
    host.kill();
    let began = Instant::now();
    let pid = format!("{} ", host.pid());
    let is_last =
        |line: &str| line.starts_with(&pid) && line.ends_with("+++ killed by SIGKILL +++");
    let trace = loop {
        let trace = std::fs::read_to_string(&trace).unwrap();
        if trace.lines().any(is_last) {
            break trace;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{trace}");
        std::thread::sleep(Duration::from_millis(20));
    };
    let calls = traced(&trace);
    let blobs = data_dir.join("blobs");
    let wal = data_dir.join("ringfence.db-wal");
    let wal = wal.to_str().unwrap();
    let in_order = |calls: &[Traced]| {
        let incoming = blobs.join("incoming/").to_str().unwrap().to_owned();
        let renames = calls
            .iter()
            .filter(|call| call.call.starts_with("rename") && call.paths[0].starts_with(&incoming));
        let renames: Vec<&Traced> = renames.collect();
        assert_eq!(renames.len(), 2, "config.yaml and 1/model.wasm: {renames:?}");
        let mut contents_done = 0;
        let mut contents_began = usize::MAX;
        for rename in renames {
            let [from, to] = rename.paths.as_slice() else { panic!("{rename:?}") };
            let shard = Path::new(to).parent().unwrap().to_str().unwrap();
            let written = next(calls, "write", from, 0);
            let mut flushed = next(calls, "sync", from, written.ended);
            let rewritten =
                calls.iter().filter(|call| call.call.contains("write") && call.paths[0] == *from);
            let last_written = rewritten.map(|call| call.ended).max().unwrap();
            if flushed.began < last_written {
                flushed = next(calls, "sync", from, last_written);
            }
            assert!(flushed.ended < rename.began, "{flushed:?} {rename:?}");
            let shard_made = next(calls, "mkdir", shard, 0);
            let shard_flushed = next(calls, "sync", blobs.to_str().unwrap(), shard_made.ended);
            assert!(shard_flushed.ended < rename.began, "{shard_flushed:?} {rename:?}");
            let folder = next(calls, "sync", shard, rename.ended);
            contents_began = contents_began.min(written.began);
            contents_done = contents_done.max(folder.ended);
        }
        let rows = next(calls, "write", wal, contents_began);
        assert!(rows.began > contents_done, "a row is written before its contents are there");
        // The line in the audit log says that the upload is done.
        let audit = data_dir.join("audit.log");
        let told = next(calls, "write", audit.to_str().unwrap(), contents_done);
        let of_rows = calls.iter().filter(|call| {
            call.call.contains("write") && call.paths[0] == wal && call.began < told.began
        });
        let rows_written = of_rows.map(|call| call.ended).max().unwrap();
        let committed = next(calls, "sync", wal, rows_written);
        assert!(committed.ended < told.began, "{committed:?} {told:?}");
    };
    in_order(&calls);
    // The same without the flushes would be found out.
    let without = |path: &str| {
        let kept = calls.iter().filter(|call| {
            !(call.call.contains("sync") && call.paths.first().is_some_and(|of| of == path))
        });
        let kept: Vec<Traced> = kept
            .map(|call| Traced {
                call: call.call.clone(),
                paths: call.paths.clone(),
                began: call.began,
                ended: call.ended,
            })
            .collect();
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| in_order(&kept))).is_err()
    };
    assert!(without(wal) && without(blobs.to_str().unwrap()));
}

/// Each place at which a disk may turn out to be full: the archive, what is
/// unpacked of it, the contents, the rows.
#[test]
fn an_upload_onto_a_full_disk_is_refused_and_all_else_goes_on() {
    if !inside("disk::an_upload_onto_a_full_disk_is_refused_and_all_else_goes_on") {
        return;
    }
    let scratch = TempDir::new().unwrap();
    mount(&["-t", "tmpfs", "-o", "size=16m", "tmpfs"], scratch.path());
    let data_dir = scratch.path().join("data");
    let host = start(&data_dir, &[]);
    assert!(host.ringfence(&["upload", guests::ECHO]).status.success());
    let stored = left_in(&data_dir);
    let refused = |folder: &Variant| {
        let output = host.ringfence(&["upload", folder.path()]);
        assert_refused_for_the_disk(&output, &host);
        assert_eq!(left_in(&data_dir), stored, "{}", text(&output));
        assert_eq!(answer(&host, "goes on"), "goes on");
    };
    // 16 MiB take neither this archive, nor what this one has in it, nor what
    // this one has in it twice.
    refused(&with_file(&noise(24 << 20, 8)));
    refused(&with_file(&noise(24 << 20, 1)));
    refused(&with_file(&noise(9 << 20, 1)));

    let filler = scratch.path().join("filler");
    let filled =
        std::io::copy(&mut std::io::repeat(0), &mut std::fs::File::create(&filler).unwrap());
    assert_eq!(filled.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    let small = with_file(b"small");
    refused(&small);
    let made = host.by_socket(&["users", "create", "late"]);
    assert_refused_for_the_disk(&made, &host);
    let check = host.by_socket(&["store", "check"]);
    assert!(check.status.success(), "{}", text(&check));
    std::fs::remove_file(&filler).unwrap();
    let output = host.ringfence(&["upload", small.path()]);
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(answer(&host, "there is room"), "there is room");
    assert!(host.terminate().success());
    let check = Host::command(&["store", "check", "--data-dir", data_dir.to_str().unwrap()]);
    assert!(check.status.success(), "{}", text(&check));
    let again = start(&data_dir, &[]);
    assert_eq!(answer(&again, "again"), "again");
}

#[test]
fn a_host_on_a_read_only_disk_is_refused_at_once_in_one_line() {
    if !inside("disk::a_host_on_a_read_only_disk_is_refused_at_once_in_one_line") {
        return;
    }
    let scratch = TempDir::new().unwrap();
    mount(&["-t", "tmpfs", "-o", "size=16m", "tmpfs"], scratch.path());
    let data_dir = scratch.path().join("data");
    assert!(start(&data_dir, &[]).terminate().success());
    mount(&["-o", "remount,ro"], scratch.path());
    for folder in [data_dir, scratch.path().join("another")] {
        let args = ["--listen", "127.0.0.1:0", "--data-dir", folder.to_str().unwrap()];
        let (code, told) = refused_start(&args);
        assert_eq!(code, Some(2), "{told}");
        assert_eq!(told.lines().count(), 1, "{told}");
        assert!(told.contains(folder.to_str().unwrap()), "{told}");
        assert!(told.contains("Read-only file system"), "{told}");
    }
}

/// What can be opened anew is read-only; what the host has open stays as it is,
/// which is as far as a mount can be turned while files on it are open.
#[test]
fn a_disk_that_turns_read_only_refuses_uploads_and_calls_go_on() {
    if !inside("disk::a_disk_that_turns_read_only_refuses_uploads_and_calls_go_on") {
        return;
    }
    let scratch = TempDir::new().unwrap();
    mount(&["-t", "tmpfs", "-o", "size=16m", "tmpfs"], scratch.path());
    let data_dir = scratch.path().join("data");
    let host = start(&data_dir, &[]);
    assert!(host.ringfence(&["upload", guests::ECHO]).status.success());
    let second = with_file(b"second");
    assert!(host.ringfence(&["upload", second.path()]).status.success());
    assert_eq!(answer(&host, "before"), "before");
    let stored = left_in(&data_dir);

    mount(&["--bind", data_dir.to_str().unwrap()], &data_dir);
    mount(&["-o", "remount,bind,ro"], &data_dir);
    let output = host.ringfence(&["upload", with_file(b"third").path()]);
    assert_refused_for_the_disk(&output, &host);
    assert_eq!(answer(&host, "after"), "after");
    // The version that nobody has called yet cannot be laid out.
    let listed = host.ringfence(&["models", "list", "echo", "--json"]);
    let first = versions(&listed).pop().unwrap();
    let cold = host.ringfence(&["predict", &format!("echo@{first}"), "--text", "x"]);
    assert_refused_for_the_disk(&cold, &host);
    // A deletion is one although the bytes stay; what is deleted is not called.
    let deleted = host.ringfence(&["models", "delete", &format!("echo@{first}")]);
    assert!(deleted.status.success(), "{}", text(&deleted));
    assert_eq!(versions(&host.ringfence(&["models", "list", "echo", "--json"])).len(), 1);
    assert_eq!(answer(&host, "still"), "still");
    assert_eq!(left_in(&data_dir), stored);
    assert!(host.terminate().success());

    let unmounted = Command::new("umount").arg(&data_dir).output().unwrap();
    assert!(unmounted.status.success(), "{}", text(&unmounted));
    let again = start(&data_dir, &[]);
    assert_eq!(answer(&again, "again"), "again");
    assert!(again.terminate().success());
    let check = Host::command(&["store", "check", "--data-dir", data_dir.to_str().unwrap()]);
    assert!(check.status.success(), "{}", text(&check));
}

/// OPS-06: for the component, a graph and the configuration alike.
#[test]
fn a_flipped_byte_in_any_file_of_a_version_stops_it_and_no_other() {
    let scratch = TempDir::new().unwrap();
    let data_dir = scratch.path().join("data");
    let host = start(&data_dir, &[]);
    for guest in [guests::ECHO, guests::DIGITS] {
        let output = host.ringfence(&["upload", guest]);
        assert!(output.status.success(), "{}", text(&output));
    }
    assert!(host.terminate().success());
    let sources = files_below(Path::new(guests::DIGITS));
    let contents = files_below(&data_dir.join("blobs"));
    let mut flipped = Vec::new();
    for content in contents {
        let whole = std::fs::read(&content).unwrap();
        let Some(source) = sources.iter().find(|path| std::fs::read(path).unwrap() == whole) else {
            continue;
        };
        let mut bytes = whole.clone();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&content, bytes).unwrap();
        let host = start(&data_dir, &[]);
        let broken = block_on(async {
            let client = Client::connect(host.base(), &host.pat()).await;
            client.predict("digits", vec![image_input(*b"any")]).await
        });
        assert_eq!(broken.reason(), "STORE_CORRUPT", "{}: {broken:?}", source.display());
        assert_eq!(answer(&host, "goes on"), "goes on");
        let check = host.by_socket(&["store", "check"]);
        assert_eq!(check.status.code(), Some(1), "{}", text(&check));
        assert!(text(&check).contains("another content than its name says"), "{}", text(&check));
        assert!(host.terminate().success());
        std::fs::write(&content, whole).unwrap();
        flipped.push(source.extension().unwrap().to_str().unwrap().to_owned());
    }
    flipped.sort();
    for kind in ["onnx", "wasm", "yaml"] {
        assert!(flipped.iter().any(|of| of == kind), "{kind}: {flipped:?}");
    }
}

/// The ids of `models list MODEL --json`, the newest first.
fn versions(listed: &Output) -> Vec<String> {
    assert!(listed.status.success(), "{}", text(listed));
    let lines = String::from_utf8(listed.stdout.clone()).unwrap();
    let version = |line: &str| -> String {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        line["version"].as_str().unwrap().to_owned()
    };
    lines.lines().map(version).collect()
}
