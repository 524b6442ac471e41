//! A data directory is opened once, kept private and never downgraded.

use super::*;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use tempfile::TempDir;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn everything_in_a_new_data_directory_is_private() {
    let parent = TempDir::new().unwrap();
    let data_dir = parent.path().join("a/data");
    let mut store = Store::open(&data_dir).unwrap();
    let hash = store.key().hash(b"t");
    store.add_token("local", &hash, |_| Ok(())).unwrap();
    assert_eq!(mode(&data_dir), 0o700);
    let mut count = 0;
    for file in fs::read_dir(&data_dir).unwrap() {
        let path = file.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
        count += 1;
    }
    assert!(count >= 4, "database, its log, key and lock");
}

#[test]
fn rows_and_key_are_there_after_reopening() {
    let dir = TempDir::new().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    let hash = store.key().hash(b"t");
    store.add_token("alice", &hash, |_| Ok(())).unwrap();
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.tokens().unwrap(), [TokenRow { user_id: "alice".into(), hash }]);
    assert_eq!(store.key().hash(b"t"), hash);
}

#[test]
fn a_token_is_not_added_when_what_comes_before_fails() {
    let dir = TempDir::new().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    let hash = store.key().hash(b"t");
    let fails = |path: &Path| Err(StoreError::InUse { path: path.to_owned() });
    assert!(store.add_token("alice", &hash, fails).is_err());
    assert!(store.tokens().unwrap().is_empty());
}

/// OPS-09.
#[test]
fn a_second_host_is_kept_out() {
    let dir = TempDir::new().unwrap();
    let first = Store::open(dir.path()).unwrap();
    let error = Store::open(dir.path()).unwrap_err();
    assert!(error.to_string().contains("in use by another host"), "{error}");
    drop(first);
    Store::open(dir.path()).unwrap();
}

/// OPS-08.
#[test]
fn what_others_could_read_or_replace_is_refused() {
    let dir = TempDir::new().unwrap();
    drop(Store::open(dir.path()).unwrap());
    let key = dir.path().join(KEY);
    for bad in [0o644, 0o640, 0o604, 0o620] {
        fs::set_permissions(&key, Permissions::from_mode(bad)).unwrap();
        let error = Store::open(dir.path()).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "{0} is open to other users (mode {bad:03o}); run `chmod 600 {0}`",
                key.display()
            )
        );
    }
    fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o770)).unwrap();
    assert!(Store::open(dir.path()).unwrap_err().to_string().contains("run `chmod 700"));
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    Store::open(dir.path()).unwrap();
}

#[test]
fn a_linked_damaged_or_lost_key_is_refused() {
    let dir = TempDir::new().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    let hash = store.key().hash(b"t");
    store.add_token("alice", &hash, |_| Ok(())).unwrap();
    drop(store);
    let key = dir.path().join(KEY);
    let moved = dir.path().join("moved");
    fs::rename(&key, &moved).unwrap();
    assert!(Store::open(dir.path()).unwrap_err().to_string().contains("it is missing"));
    symlink(&moved, &key).unwrap();
    assert!(matches!(Store::open(dir.path()), Err(StoreError::File { .. })));
    fs::remove_file(&key).unwrap();
    fs::copy(&moved, &key).unwrap();
    Store::open(dir.path()).unwrap();
    for content in [&b""[..], &[0; 31], &[0; 33]] {
        fs::write(&key, content).unwrap();
        assert!(Store::open(dir.path()).unwrap_err().to_string().contains("has not 32 bytes"));
    }
}

/// OPS-18.
#[test]
fn a_newer_schema_is_left_alone() {
    let dir = TempDir::new().unwrap();
    drop(Store::open(dir.path()).unwrap());
    let database = dir.path().join(DATABASE);
    let connection = Connection::open(&database).unwrap();
    connection.pragma_update(None, "user_version", 2).unwrap();
    drop(connection);
    let before = fs::read(&database).unwrap();
    let error = Store::open(dir.path()).unwrap_err();
    assert!(error.to_string().contains("has schema 2, this program knows 1"), "{error}");
    assert_eq!(fs::read(&database).unwrap(), before);
}

#[test]
fn a_file_that_is_no_database_is_told() {
    let dir = TempDir::new().unwrap();
    let database = dir.path().join(DATABASE);
    fs::write(&database, "not a database, and long enough to be looked at".repeat(100)).unwrap();
    fs::set_permissions(&database, Permissions::from_mode(0o600)).unwrap();
    assert!(matches!(Store::open(dir.path()), Err(StoreError::Database { .. })));
}

#[test]
fn writes_are_on_disk_when_they_are_done() {
    let dir = TempDir::new().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let pragma =
        |name| store.connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(pragma("synchronous"), 2);
    let mode: String =
        store.connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
    assert_eq!(mode, "wal");
}
