//! A data directory is opened once, kept private and never downgraded.

use super::*;
use crate::package::config::ModelName;
use rustix::fs::OFlags;
use sha2::{Digest, Sha256};
use std::fs::{self, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use tempfile::TempDir;

fn token(user_id: &str, hash: KeyedHash) -> TokenRow {
    TokenRow {
        id: "token-1".into(),
        user_id: user_id.into(),
        hash,
        name: String::new(),
        scopes: "predict".into(),
        created_at: 1,
        expires_at: None,
        revoked_at: None,
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn everything_in_a_new_data_directory_is_private() {
    let parent = TempDir::new().unwrap();
    let data_dir = parent.path().join("a/data");
    let store = Store::open(&data_dir).unwrap();
    store.add_user("local").unwrap();
    store.add_token(&token("local", store.key().hash(b"t")), |_| Ok(())).unwrap();
    assert_eq!(mode(&data_dir), 0o700);
    let mut count = 0;
    for file in fs::read_dir(&data_dir).unwrap() {
        let path = file.unwrap().path();
        let expected = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode(&path), expected, "{}", path.display());
        count += 1;
    }
    assert!(count >= 4, "database, its log, key and lock");
}

#[test]
fn rows_and_key_are_there_after_reopening() {
    let dir = TempDir::new().unwrap();
    let store = Store::open(dir.path()).unwrap();
    store.add_user("alice").unwrap();
    let hash = store.key().hash(b"t");
    store.add_token(&token("alice", hash), |_| Ok(())).unwrap();
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.tokens().unwrap(), [token("alice", hash)]);
    assert_eq!(store.key().hash(b"t"), hash);
}

#[test]
fn a_token_is_not_added_when_what_comes_before_fails() {
    let dir = TempDir::new().unwrap();
    let store = Store::open(dir.path()).unwrap();
    store.add_user("alice").unwrap();
    let token = token("alice", store.key().hash(b"t"));
    let fails = |path: &Path| Err(StoreError::InUse { path: path.to_owned() });
    assert!(store.add_token(&token, fails).is_err());
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
    let store = Store::open(dir.path()).unwrap();
    store.add_user("alice").unwrap();
    store.add_token(&token("alice", store.key().hash(b"t")), |_| Ok(())).unwrap();
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

/// A check beside a host that works says nothing of what comes and goes meanwhile.
#[test]
fn a_check_sees_the_store_as_of_one_moment() {
    let dir = TempDir::new().unwrap();
    let store = with_model(dir.path());
    add(&store, "stays").unwrap();
    std::thread::scope(|scope| {
        let changing = scope.spawn(|| {
            for _ in 0..100 {
                let row = new(add(&store, "goes").unwrap());
                store.delete_version(&row.name, &row.id).unwrap();
            }
        });
        while !changing.is_finished() {
            let problems = store.check().unwrap().problems;
            assert!(problems.is_empty(), "{problems:?}");
        }
    });
}

/// OPS-18.
#[test]
fn a_newer_schema_is_left_alone() {
    let dir = TempDir::new().unwrap();
    drop(Store::open(dir.path()).unwrap());
    let database = dir.path().join(DATABASE);
    let connection = Connection::open(&database).unwrap();
    connection.pragma_update(None, "user_version", schema::SCHEMA + 1).unwrap();
    drop(connection);
    let before = fs::read(&database).unwrap();
    let error = Store::open(dir.path()).unwrap_err();
    let (known, newer) = (schema::SCHEMA, schema::SCHEMA + 1);
    let expected = format!("has schema {newer}, this program knows {known}");
    assert!(error.to_string().contains(&expected), "{error}");
    assert_eq!(fs::read(&database).unwrap(), before);
}

#[test]
fn a_file_that_is_no_database_is_told() {
    let dir = TempDir::new().unwrap();
    let database = dir.path().join(DATABASE);
    fs::write(&database, "not a database, and long enough to be looked at".repeat(100)).unwrap();
    fs::set_permissions(&database, Permissions::from_mode(0o600)).unwrap();
    let error = Store::open(dir.path()).unwrap_err().to_string();
    assert!(error.contains("is damaged") && error.contains("restore"), "{error}");
}

#[test]
fn writes_are_on_disk_when_they_are_done() {
    let dir = TempDir::new().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let connection = store.connection();
    let pragma =
        |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(pragma("synchronous"), 2);
    let mode: String =
        connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
    assert_eq!(mode, "wal");
}

fn model(id: &str) -> ModelName {
    ModelName::new("alice", "main", id).unwrap()
}

/// A store with a model, and files of some contents to make versions of.
fn with_model(dir: &Path) -> Store {
    let store = Store::open(dir).unwrap();
    store.add_user("alice").unwrap();
    store.ensure_app("alice", "main").unwrap();
    store.ensure_model(&model("m"), "any-to-any").unwrap();
    store
}

fn files(contents: &[(&str, &str)]) -> Vec<VersionFile> {
    let files = contents.iter().map(|(path, content)| VersionFile::of(path, content.as_bytes()));
    files.collect()
}

fn add(store: &Store, component: &str) -> Result<Stored, StoreError> {
    let mut files = files(&[("config.yaml", "model: {}"), ("1/model.wasm", component)]);
    let listed = files.iter().map(|file| (file.path.as_str(), file.bytes, &file.sha256));
    let row = VersionRow {
        name: model("m"),
        id: crate::package::folder::version_of(listed),
        number: 0,
        created_at: 1,
        model_type_id: "any-to-any".into(),
        concepts: 0,
        methods: String::new(),
        bytes: files.iter().map(|file| file.bytes).sum(),
    };
    store.add_version(&row, &mut files)
}

fn new(stored: Stored) -> VersionRow {
    match stored {
        Stored::New(row) => row,
        Stored::Same(row) => panic!("{row:?} was there"),
    }
}

#[test]
fn versions_are_numbered_and_the_same_content_is_the_same_version() {
    let dir = TempDir::new().unwrap();
    let store = with_model(dir.path());
    let first = new(add(&store, "one").unwrap());
    let second = new(add(&store, "two").unwrap());
    assert_eq!((first.number, second.number), (1, 2));
    assert_eq!(add(&store, "one").unwrap(), Stored::Same(first.clone()));
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.versions().unwrap(), [first, second]);
    assert_eq!(store.check().unwrap().problems, Vec::<String>::new());
}

#[test]
fn other_content_under_the_same_id_is_refused() {
    let dir = TempDir::new().unwrap();
    let store = with_model(dir.path());
    let first = new(add(&store, "one").unwrap());
    let mut other = files(&[("config.yaml", "model: {}"), ("1/model.wasm", "two")]);
    let refused = store.add_version(&first, &mut other).unwrap_err();
    assert!(matches!(refused, StoreError::OtherContent { .. }), "{refused}");
    assert_eq!(store.files(&model("m"), &first.id).unwrap().len(), 2);
}

#[test]
fn a_deleted_version_frees_what_only_it_had() {
    let dir = TempDir::new().unwrap();
    let store = with_model(dir.path());
    let first = new(add(&store, "one").unwrap());
    let second = new(add(&store, "two").unwrap());
    store.update_model(&model("m"), |model| model.promoted = Some(first.id.clone())).unwrap();
    assert_eq!(store.blobs.all().unwrap().len(), 3, "the configuration is shared");
    store.delete_version(&model("m"), &first.id).unwrap();
    assert_eq!(store.model(&model("m")).unwrap().unwrap().promoted, None);
    assert_eq!(store.blobs.all().unwrap().len(), 2);
    assert_eq!(store.check().unwrap().problems, Vec::<String>::new());
    store.delete_model(&model("m")).unwrap();
    assert!(store.blobs.all().unwrap().is_empty());
    assert!(store.delete_version(&model("m"), &second.id).is_err());
}

/// OPS-06.
#[test]
fn every_kind_of_damage_is_named() {
    let dir = TempDir::new().unwrap();
    let store = with_model(dir.path());
    let version = new(add(&store, "one").unwrap());
    let component: Sha256Digest = Sha256::digest("one").into();
    let path = store.content_path(&component);
    let problems = || store.check().unwrap().problems;
    assert_eq!(problems(), Vec::<String>::new());

    fs::write(&path, "onE").unwrap();
    assert!(problems()[0].contains("another content than its name says"));
    fs::remove_file(&path).unwrap();
    assert!(problems()[0].contains(&path.display().to_string()));
    assert_eq!(add(&store, "one").unwrap(), Stored::Same(version.clone()));
    assert_eq!(problems(), Vec::<String>::new(), "storing it again mends it");

    fs::write(path.with_file_name("note"), "").unwrap();
    assert!(problems()[0].ends_with("note is no content"));
    fs::remove_file(path.with_file_name("note")).unwrap();

    let broken = |statement: &str| {
        let connection = store.connection();
        connection.pragma_update(None, "foreign_keys", false).unwrap();
        connection.execute_batch(statement).unwrap();
    };
    broken("UPDATE models SET promoted='x'");
    assert!(problems()[0].contains("a row of the table models is damaged: alice/main/m"));
    store.update_model(&model("m"), |_| {}).unwrap_err();
    broken("DELETE FROM models");
    assert!(
        problems()[0].contains("a row of versions refers to none of models"),
        "{:?}",
        problems()
    );
}

#[test]
fn what_nothing_refers_to_is_counted_and_freed() {
    let dir = TempDir::new().unwrap();
    let store = with_model(dir.path());
    add(&store, "one").unwrap();
    let orphan: Sha256Digest = Sha256::digest("orphan").into();
    store.blobs.put(&orphan, 6, &b"orphan"[..]).unwrap();
    let code = crate::sealed::Sealed::of(&b"code"[..]).unwrap();
    store.keep_compiled(&Sha256::digest("one").into(), "c0", &code).unwrap();
    store.keep_compiled(&orphan, "c0", &code).unwrap();
    let report = store.check().unwrap();
    assert_eq!((report.unreferenced, report.unreferenced_bytes), (1, 6));
    assert_eq!(report.problems, Vec::<String>::new());
    assert_eq!(store.collect_garbage(Some("c0")).unwrap(), Freed { files: 1, bytes: 42 });
    assert_eq!(store.check().unwrap().unreferenced, 0);
    assert!(store.has_compiled(&Sha256::digest("one").into(), "c0"));
}

/// A row that was changed behind the host's back is not believed.
#[test]
fn a_damaged_database_is_refused_at_the_start_with_the_backup_to_restore() {
    let dir = TempDir::new().unwrap();
    let elsewhere = TempDir::new().unwrap();
    let backup = elsewhere.path().join("backup.tar");
    let store = with_model(dir.path());
    let version = new(add(&store, "one").unwrap());
    store.backup(&backup).unwrap();
    store.connection().execute("UPDATE versions SET bytes=1", []).unwrap();
    drop(store);
    let error = Store::open(dir.path()).unwrap_err().to_string();
    assert!(error.contains("a row of the table versions is damaged: alice/main/m/"), "{error}");
    let advice = format!("ringfence store restore {} --data-dir", backup.display());
    assert!(error.contains(&advice), "{error}");

    let restored = elsewhere.path().join("data");
    Store::restore(&backup, &restored).unwrap();
    let store = Store::open(&restored).unwrap();
    assert_eq!(store.versions().unwrap(), [version]);
    assert_eq!(store.check().unwrap().problems, Vec::<String>::new());
}

#[test]
fn a_backup_is_private_whole_and_restored_into_an_empty_directory_only() {
    let dir = TempDir::new().unwrap();
    let elsewhere = TempDir::new().unwrap();
    let backup = elsewhere.path().join("backup.tar");
    let store = with_model(dir.path());
    add(&store, "one").unwrap();
    let hash = store.key().hash(b"t");
    store.backup(&backup).unwrap();
    assert_eq!(mode(&backup), 0o600);
    assert!(matches!(store.backup(&backup), Err(StoreError::Exists { .. })));
    let full = Store::restore(&backup, dir.path()).unwrap_err().to_string();
    assert!(full.contains("restore into a new or an empty directory"), "{full}");

    let bytes = fs::read(&backup).unwrap();
    for cut in [0, 100, bytes.len() / 2] {
        let broken = elsewhere.path().join("broken.tar");
        fs::write(&broken, &bytes[..cut]).unwrap();
        let into = elsewhere.path().join(format!("into-{cut}"));
        let error = Store::restore(&broken, &into).unwrap_err();
        assert!(matches!(error, StoreError::Backup { .. }), "{cut}: {error}");
        assert!(!into.exists(), "{cut}: what was restored stays");
    }
    let restored = elsewhere.path().join("data");
    assert!(Store::restore(&backup, &restored).unwrap().is_empty());
    assert_eq!(Store::open(&restored).unwrap().key().hash(b"t"), hash);
}

/// OPS-06: one damaged content costs its own version, and neither the backup nor
/// what is restored of it.
#[test]
fn a_backup_without_a_damaged_content_says_so_and_is_restored_with_all_others() {
    let dir = TempDir::new().unwrap();
    let elsewhere = TempDir::new().unwrap();
    let store = with_model(dir.path());
    add(&store, "one").unwrap();
    let whole = elsewhere.path().join("whole.tar");
    assert!(store.backup(&whole).unwrap().left_out.is_empty());
    add(&store, "two").unwrap();
    let content = store.content_path(&Sha256::digest(b"two").into());
    fs::set_permissions(&content, Permissions::from_mode(0o600)).unwrap();
    fs::write(&content, b"twp").unwrap();
    let partial = elsewhere.path().join("partial.tar");
    let left_out = store.backup(&partial).unwrap().left_out;
    assert!(left_out.len() == 1 && left_out[0].contains("another content"), "{left_out:?}");
    let newest = fs::read_to_string(dir.path().join("newest-backup")).unwrap();
    assert_eq!(Path::new(&newest), whole, "the whole one has more");

    let restored = elsewhere.path().join("data");
    let problems = Store::restore(&partial, &restored).unwrap();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(Store::open(&restored).unwrap().versions().unwrap().len(), 2);
}

/// A restoring that fails removes what it wrote, and never what a host has begun
/// there meanwhile.
#[test]
fn no_host_starts_in_a_directory_that_is_being_restored() {
    let scratch = TempDir::new().unwrap();
    let (backup, into) = (scratch.path().join("backup.tar"), scratch.path().join("into"));
    // It is read once there is a writer.
    assert!(std::process::Command::new("mkfifo").arg(&backup).status().unwrap().success());
    std::thread::scope(|scope| {
        let restoring = scope.spawn(|| Store::restore(&backup, &into));
        let mut options = fs::OpenOptions::new();
        options.write(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed());
        // There is no writer without a reader: it has the directory by then.
        let writer = loop {
            match options.open(&backup) {
                Ok(writer) => break writer,
                Err(_) => std::thread::yield_now(),
            }
        };
        assert!(matches!(Store::open(&into), Err(StoreError::InUse { .. })));
        drop(writer);
        restoring.join().unwrap().unwrap_err();
    });
    assert!(!into.exists());
}

/// Schema 3 did not say who has stopped a model.
#[test]
fn what_was_stopped_before_is_the_operators() {
    let dir = TempDir::new().unwrap();
    let store = with_model(dir.path());
    let name = store.models().unwrap()[0].name.clone();
    store.update_model(&name, |model| model.stopped = Some(StoppedBy::Owner)).unwrap();
    drop(store);
    let path = dir.path().join("ringfence.db");
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.pragma_update(None, "user_version", 3).unwrap();
    drop(connection);
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.model(&name).unwrap().unwrap().stopped, Some(StoppedBy::Operator));
    assert_eq!(store.check().unwrap().problems, Vec::<String>::new());
}

/// OPS-18.
#[test]
fn the_first_schema_is_copied_and_brought_up_to_date() {
    let dir = TempDir::new().unwrap();
    let database = dir.path().join(DATABASE);
    drop(Store::open(dir.path()).unwrap());
    fs::remove_file(&database).unwrap();
    let old = Connection::open(&database).unwrap();
    old.execute_batch(
        "CREATE TABLE tokens (id INTEGER PRIMARY KEY, user_id TEXT NOT NULL, hash BLOB NOT NULL
            UNIQUE CHECK (length(hash) = 32), created_at INTEGER NOT NULL) STRICT;
         INSERT INTO tokens VALUES (7, 'local', zeroblob(32), 5);
         PRAGMA user_version = 1;",
    )
    .unwrap();
    drop(old);
    fs::set_permissions(&database, Permissions::from_mode(0o600)).unwrap();
    let store = Store::open(dir.path()).unwrap();
    let token = store.tokens().unwrap().remove(0);
    assert_eq!((token.id.as_str(), token.user_id.as_str()), ("token-7", "local"));
    assert_eq!((token.scopes.as_str(), token.created_at), ("predict upload admin", 5));
    let copy = Connection::open(dir.path().join("ringfence.db.schema-1")).unwrap();
    let count: i64 = copy.query_row("SELECT count(*) FROM tokens", [], |row| row.get(0)).unwrap();
    assert_eq!(count, 1);
    assert_eq!(mode(&dir.path().join("ringfence.db.schema-1")), 0o600);
}

#[test]
fn the_last_call_of_a_version_is_kept_and_goes_with_it() {
    let dir = TempDir::new().unwrap();
    let store = with_model(dir.path());
    let version = new(add(&store, "one").unwrap());
    let called = |id: &str, called_at_ms| VersionCallRow {
        name: model("m"),
        version_id: id.to_owned(),
        called_at_ms,
    };
    store.note_calls(&[called(&version.id, 1), called("deleted", 2)]).unwrap();
    assert_eq!(store.calls().unwrap(), [called(&version.id, 1)]);
    store.note_calls(&[called(&version.id, 3)]).unwrap();
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.calls().unwrap(), [called(&version.id, 3)]);
    store.connection().execute("UPDATE version_calls SET called_at_ms=4", []).unwrap();
    let problems = store.check().unwrap().problems;
    assert!(problems[0].contains("a row of the table version_calls is damaged"), "{problems:?}");
    store.note_calls(&[called(&version.id, 5)]).unwrap();
    store.delete_version(&model("m"), &version.id).unwrap();
    assert_eq!(store.calls().unwrap(), []);
    assert_eq!(store.check().unwrap().problems, Vec::<String>::new());
}
