//! A database that is not what was written: who says so, and how it ends.

use crate::author::text;
use ringfence_tests::{Host, HostOptions, guests, refused_start};
use std::path::Path;
use tempfile::TempDir;

/// Changes a byte in every copy of a text in a file.
fn damage(path: &Path, text: &[u8]) {
    let mut bytes = std::fs::read(path).unwrap();
    let found: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(text)).collect();
    assert!(!found.is_empty());
    for at in found {
        bytes[at] ^= 1;
    }
    std::fs::write(path, bytes).unwrap();
}

/// OPS-06, of the database: it fails, which is another end than that of what is
/// wrongly asked for.
#[test]
fn a_damaged_database_ends_a_start_and_a_check_of_the_store_with_1() {
    let scratch = TempDir::new().unwrap();
    let data_dir = scratch.path().join("data");
    let host =
        Host::start(HostOptions { data_dir: Some(data_dir.clone()), ..HostOptions::default() });
    let uploaded = host.ringfence(&["upload", guests::ECHO]);
    assert!(uploaded.status.success(), "{}", text(&uploaded));
    assert!(host.terminate().success());
    let data = data_dir.to_str().unwrap();
    assert!(Host::command(&["store", "check", "--data-dir", data]).status.success());
    let listed = std::fs::read_dir(&data_dir).unwrap();
    let database = listed
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "db"))
        .unwrap();
    damage(&database, b"text-to-text");

    let serve = ["--listen", "127.0.0.1:0", "--data-dir", data];
    let (code, told) = refused_start(&serve);
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("is damaged"), "{told}");
    assert!(told.contains("restore"), "{told}");
    let check = Host::command(&["store", "check", "--data-dir", data]);
    assert_eq!(check.status.code(), Some(1), "{}", text(&check));
    assert!(text(&check).contains("is damaged"), "{}", text(&check));
}
