//! What commands say and leave behind where they are used wrongly, and the way
//! of a new folder to a user who is not the operator.

use crate::author::text;
use crate::operators::succeeds;
use ringfence_tests::{Host, binary, guests};
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

/// Exit code 2 is for what can never be.
#[test]
fn what_is_asked_for_wrongly_is_told_from_what_fails() {
    let host = Host::serve(&[]);
    // Where a directory of the default name would be made.
    let nowhere = TempDir::new().unwrap();
    for (args, told, code) in [
        (&["pat", "create", "--scope", "bogus"][..], "bogus", 2),
        (&["users", "create", "a b"], "a b", 2),
        (&["users", "create", "me"], "`me` is what clients call", 2),
        (&["users", "disable", "nobody"], "there is no user nobody", 1),
        (&["store", "restore", "/nowhere/x.tar"], "--data-dir", 2),
    ] {
        let refused = match args[0] {
            "store" => {
                let mut command = Command::new(binary());
                command.args(args).current_dir(nowhere.path()).output().unwrap()
            }
            _ => host.by_socket(args),
        };
        assert_eq!(refused.status.code(), Some(code), "{args:?}: {}", text(&refused));
        assert!(text(&refused).contains(told), "{told} in {}", text(&refused));
    }
    assert!(host.operate(&["users", "list"]).contains("  0 models, 0 bytes"));
    assert_eq!(std::fs::read_dir(nowhere.path()).unwrap().count(), 0);
}

#[test]
fn a_backup_that_cannot_be_written_says_where_and_why() {
    let host = Host::serve(&[]);
    let refused = host.by_socket(&["store", "backup", "/nowhere/at-all/x.tar"]);
    assert_eq!(refused.status.code(), Some(1));
    for told in ["/nowhere/at-all/x.tar", "a folder that is there", "No such file or directory"] {
        assert!(text(&refused).contains(told), "{told} in {}", text(&refused));
    }
}

/// A restore that fails leaves a directory as it was.
#[test]
fn a_restore_that_fails_leaves_nothing_behind() {
    let scratch = TempDir::new().unwrap();
    let path = |name: &str| scratch.path().join(name).to_str().unwrap().to_owned();
    let host = Host::serve(&[guests::ECHO]);
    host.operate(&["store", "backup", &path("whole.tar")]);
    let whole = std::fs::read(path("whole.tar")).unwrap();
    std::fs::write(path("cut.tar"), &whole[..whole.len() / 2]).unwrap();
    std::fs::create_dir(path("empty")).unwrap();
    let restore = |file: &str, into: &str| {
        Host::command(&["store", "restore", &path(file), "--data-dir", &path(into)])
    };
    for file in ["cut.tar", "nowhere.tar"] {
        for into in ["new", "empty"] {
            let refused = restore(file, into);
            assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
        }
        assert!(!Path::new(&path("new")).exists());
        assert_eq!(std::fs::read_dir(path("empty")).unwrap().count(), 0);
    }
    succeeds(&restore("whole.tar", "empty"));
    let full = restore("whole.tar", "empty");
    assert!(text(&full).contains("there is something in"), "{}", text(&full));
    assert!(Path::new(&path("empty")).join("ringfence.db").exists(), "what was there stays");
}

/// Who owns a model is not in the folder: it is whoever uploads it.
#[test]
fn a_new_folder_is_uploaded_by_any_user() {
    let scratch = TempDir::new().unwrap();
    let folder = scratch.path().join("hello");
    let folder_text = folder.to_str().unwrap();
    succeeds(&Command::new(binary()).args(["new", folder_text]).output().unwrap());
    // The component of another model of the same world spares the build.
    let component = Path::new(guests::ECHO).join("1/model.wasm");
    std::fs::copy(component, folder.join("1/model.wasm")).unwrap();
    let host = Host::serve(&[folder_text]);
    assert_eq!(succeeds(&host.ringfence(&["predict", "hello", "--text", "x"])), "x\n");
    for user in ["alice", "bob"] {
        let pat = host.user(user, "predict,upload");
        let told = succeeds(&host.ringfence_as(&pat, &["upload", folder_text]));
        assert!(told.contains(&format!("stored; {user}/main/hello can be called")), "{told}");
        assert!(!told.contains("user_id"), "{told}");
        let answer = host.ringfence_as(&pat, &["predict", "hello", "--text", "x"]);
        assert_eq!(succeeds(&answer), "x\n");
    }
}
