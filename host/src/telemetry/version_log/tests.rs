//! The bounds of versions' logs, on a real disk.

use super::files::{FILE_BYTES_MAX, VERSIONS_MAX};
use super::*;
use crate::call::{End, Receipt};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use tempfile::TempDir;

const VERSION: &str = "0123456789abcdef0123456789abcdef";

fn model(id: &str) -> ModelName {
    ModelName::new("user", "app", id).unwrap()
}

fn origin() -> Origin {
    Origin { call: "c".into(), user: "u".into() }
}

fn bytes_below(folder: &Path) -> u64 {
    fs::read_dir(folder).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum()
}

async fn texts(log: &VersionLog) -> Vec<String> {
    log.entries().await.unwrap().into_iter().map(|entry| entry.text).collect()
}

#[tokio::test]
async fn what_was_written_is_read_in_order_and_by_a_later_host() {
    let scratch = TempDir::new().unwrap();
    let folder = scratch.path().join("logs");
    let logs = VersionLogs::open(&folder).unwrap();
    let log = logs.of(&model("m"), VERSION);
    assert!(matches!(log.entries().await, Err(ReadError::Missing)));
    for number in 0..3 {
        log.output(&origin(), Level::Info, format!("line {number}"));
    }
    assert_eq!(texts(&log).await, ["line 0", "line 1", "line 2"]);
    let ids: std::collections::HashSet<String> =
        log.entries().await.unwrap().into_iter().map(|entry| entry.id).collect();
    assert_eq!(ids.len(), 3);
    for path in [folder.clone(), fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path()] {
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o077, 0);
    }
    drop((log, logs));
    let later = VersionLogs::open(&folder).unwrap().of(&model("m"), VERSION);
    later.output(&origin(), Level::Info, "line 3".into());
    let entries = later.entries().await.unwrap();
    assert_eq!(entries.last().unwrap().text, "line 3");
    assert!(!ids.contains(&entries.last().unwrap().id));
    later.forget();
    assert!(matches!(later.entries().await, Err(ReadError::Missing)));
}

#[test]
fn a_flood_stays_within_two_files_and_keeps_the_newest() {
    let scratch = TempDir::new().unwrap();
    let mut files = Files::open(scratch.path()).unwrap();
    let mut entry = entry_of("x".repeat(4 << 10));
    for number in 0..1000 {
        entry.id = number.to_string();
        files.append("key", &entry).unwrap();
    }
    assert!(bytes_below(scratch.path()) <= 2 * FILE_BYTES_MAX);
    let kept = files::read(scratch.path(), "key").unwrap();
    assert_eq!(kept.last().unwrap().id, "999");
    let first: usize = kept[0].id.parse().unwrap();
    assert_eq!(kept.len(), 1000 - first, "none is missing between");
    assert!(kept.len() as u64 > FILE_BYTES_MAX / (5 << 10), "{}", kept.len());
}

#[test]
fn versions_beyond_their_number_replace_the_one_that_was_silent_longest() {
    let scratch = TempDir::new().unwrap();
    let mut files = Files::open(scratch.path()).unwrap();
    let entry = entry_of("hello".into());
    for number in 0..VERSIONS_MAX {
        files.append(&format!("key{number}"), &entry).unwrap();
    }
    files.append("key0", &entry).unwrap();
    files.append("one more", &entry).unwrap();
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), VERSIONS_MAX);
    assert!(files::read(scratch.path(), "key0").is_ok());
    assert!(matches!(files::read(scratch.path(), "key1"), Err(ReadError::Missing)));
    // A later host counts what is there.
    let mut files = Files::open(scratch.path()).unwrap();
    files.append("another", &entry).unwrap();
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), VERSIONS_MAX);
}

#[tokio::test]
async fn a_disk_that_fails_is_counted_and_stops_nobody() {
    let scratch = TempDir::new().unwrap();
    let folder = scratch.path().join("logs");
    let logs = VersionLogs::open(&folder).unwrap();
    fs::remove_dir(&folder).unwrap();
    let log = logs.of(&model("m"), VERSION);
    log.output(&origin(), Level::Info, "lost".into());
    logs.flush();
    assert_eq!(logs.entries_lost(), 1);
}

#[tokio::test]
async fn two_models_of_one_version_have_two_logs() {
    let scratch = TempDir::new().unwrap();
    let logs = VersionLogs::open(scratch.path()).unwrap();
    let (one, other) = (logs.of(&model("a"), VERSION), logs.of(&model("b"), VERSION));
    one.output(&origin(), Level::Info, "of a".into());
    other.output(&origin(), Level::Info, "of b".into());
    assert_eq!(
        (texts(&one).await, texts(&other).await),
        (vec!["of a".into()], vec!["of b".into()])
    );
}

#[tokio::test]
async fn a_kill_report_has_no_words_of_the_guest_but_from_load_model() {
    let scratch = TempDir::new().unwrap();
    let log = VersionLogs::open(scratch.path()).unwrap().of(&model("m"), VERSION);
    let verdict = |end, phase| {
        let receipt = Receipt { fuel: 7, ..Receipt::default() };
        Verdict { receipt, ..Verdict::early(end, phase) }
    };
    for (end, phase) in [
        (End::Panic("a prompt".into()), Phase::Call),
        (End::FuelExhausted { fuel_max: 9 }, Phase::Call),
        (End::Panic("no graph".into()), Phase::Load),
        (End::Exit(1234), Phase::Call),
        (End::Contract("1234 results".into()), Phase::Call),
        (End::Trap("unknown handle index 1234".into()), Phase::Call),
        (End::Trap("wasm trap: out of bounds memory access".into()), Phase::Call),
        (End::Done, Phase::Call),
        (End::Unread { within: Duration::from_secs(1) }, Phase::Call),
        (End::Cancelled, Phase::Call),
    ] {
        log.ended(&origin(), &verdict(end, phase));
    }
    let entries = log.entries().await.unwrap();
    assert!(entries.iter().all(|entry| entry.kind == Kind::Kill));
    let texts: Vec<&str> = entries.iter().map(|entry| entry.text.as_str()).collect();
    let [panicked, burnt, in_load, chosen @ .., out_of_bounds] = &texts[..] else {
        panic!("{texts:?}")
    };
    assert_eq!(*panicked, "the call was ended: its code panicked");
    assert!(burnt.contains("all of its 9 fuel"), "{burnt}");
    assert!(in_load.contains("in load-model: ") && in_load.contains("no graph"), "{in_load}");
    assert!(in_load.contains("it took 7 fuel"), "{in_load}");
    assert_eq!(chosen.len(), 3);
    assert!(chosen.iter().all(|text| !text.contains(|c: char| c.is_ascii_digit())), "{chosen:?}");
    assert!(out_of_bounds.ends_with("trapped: wasm trap: out of bounds memory access"));
}

fn entry_of(text: String) -> Entry {
    Entry {
        id: String::new(),
        at_ms: 0,
        kind: Kind::Output,
        level: Level::Info,
        call: "c".into(),
        user: "u".into(),
        text,
    }
}

/// As where the disk takes nothing for a while.
#[test]
fn entries_beyond_those_that_wait_are_counted_and_nobody_waits() {
    let (logs, stalled) = VersionLogs::below(Path::new(""));
    let log = logs.of(&model("m"), VERSION);
    for _ in 0..ENTRIES_WAITING_MAX {
        log.output(&origin(), Level::Info, "line".into());
    }
    assert_eq!(logs.entries_lost(), 0);
    log.output(&origin(), Level::Info, "line".into());
    log.output(&origin(), Level::Info, "line".into());
    assert_eq!(logs.entries_lost(), 2);
    assert_eq!(stalled.try_iter().count(), ENTRIES_WAITING_MAX);
}
