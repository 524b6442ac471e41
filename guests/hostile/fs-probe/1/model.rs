//! Looks around: files outside and inside `/model`, writing, the environment,
//! the arguments, standard input; and sets impossible times (HST-17).
//!
//! Expected: an output. Each line of its text begins with `denied`, `empty` or
//! `GOT`; the only `GOT` lines are those of `/model` itself, where the
//! package's assets can be read.

use std::fmt::Display;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::{env, path::Path};

use ringfence_guest::{Error, Input, Model, Output, Params};
use wasip2::clocks::wall_clock::Datetime;
use wasip2::filesystem::preopens;
use wasip2::filesystem::types::{ErrorCode, NewTimestamp, PathFlags};

struct Attack;

impl Model for Attack {
    fn load() -> Result<Self, Error> {
        Ok(Attack)
    }

    fn predict(&self, _input: Input, _params: &Params) -> Result<Output, Error> {
        let mut seen = Vec::new();
        for path in [
            "/etc/passwd",
            "/model/../etc/passwd",
            "/model/../../../../etc/passwd",
            "/proc/self/environ",
            "/dev/zero",
            "etc/passwd",
            "/model/config.yaml",
            "/model/model.wasm",
            "/model/notes.txt",
        ] {
            let mut first = [0; 64];
            let read = File::open(path).and_then(|mut file| file.read(&mut first));
            seen.push(line("read", path, read));
        }
        for path in ["/", ".", "..", "/model/..", "/tmp", "/model"] {
            let listed = fs::read_dir(path).map(|entries| {
                let names = entries.flatten().map(|entry| entry.file_name());
                names.map(|name| format!("{name:?}")).collect::<Vec<_>>().join(" ")
            });
            seen.push(line("list", path, listed));
        }
        for path in ["/model/planted", "/planted", "/tmp/planted", "planted"] {
            seen.push(line("write", path, fs::write(path, "x").map(|()| "written")));
        }
        let notes = Path::new("/model/notes.txt");
        let appended = OpenOptions::new().append(true).open(notes);
        seen.push(line("append", "/model/notes.txt", appended.map(|_| "opened")));
        seen.push(line("remove", "/model/notes.txt", fs::remove_file(notes).map(|()| "removed")));
        let renamed = fs::rename(notes, "/model/moved.txt");
        seen.push(line("rename", "/model/notes.txt", renamed.map(|()| "renamed")));
        let made = fs::create_dir("/model/folder");
        seen.push(line("make", "/model/folder", made.map(|()| "made")));
        let late = Datetime { seconds: u64::MAX, nanoseconds: u32::MAX };
        for (folder, name) in preopens::get_directories() {
            let time = || NewTimestamp::Timestamp(late);
            let set = folder.set_times(time(), time());
            seen.push(time_line(&name, set));
            let set = folder.set_times_at(PathFlags::empty(), "notes.txt", time(), time());
            seen.push(time_line("notes.txt", set));
        }
        seen.push(found("environment", env::vars_os().map(|(name, _)| name)));
        seen.push(found("arguments", env::args_os()));
        let mut first = [0; 64];
        let bytes = io::stdin().read(&mut first);
        seen.push(match bytes {
            Ok(0) => "empty: standard input".into(),
            other => line("read", "standard input", other),
        });
        Ok(Output::text(seen.join("\n")))
    }
}

/// HST-17.
fn time_line(path: &str, set: Result<(), ErrorCode>) -> String {
    match set {
        Ok(()) => format!("GOT times {path}"),
        Err(error) => format!("denied times {path}: {error}"),
    }
}

fn line<T: Display>(what: &str, path: &str, result: io::Result<T>) -> String {
    match result {
        Ok(got) => format!("GOT {what} {path}: {got}"),
        Err(error) => format!("denied {what} {path}: {error}"),
    }
}

fn found<T: std::fmt::Debug>(what: &str, items: impl Iterator<Item = T>) -> String {
    let items: Vec<String> = items.map(|item| format!("{item:?}")).collect();
    if items.is_empty() {
        format!("empty: {what}")
    } else {
        format!("GOT {what}: {}", items.join(" "))
    }
}

ringfence_guest::export!(innocent::Or<Attack>);
