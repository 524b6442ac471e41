//! Order, number and end of what is compiled while nobody waits for it.

use super::super::compiler::blocking;
use super::*;
use crate::deploy::{Amount, Target};
use crate::digest::sha256_of;
use crate::package::folder::{COMPONENT_PATH, CONFIG_PATH, Taking};
use crate::package::{Package, folder};
use crate::store::{Store, VersionCallRow, VersionFile, VersionRow};
use crate::worker::scripted;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex as StdMutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A compiler that says what it begins with, waits until it may go on, and gives
/// four bytes as the code of every component but `bad`.
const COMPILER: &str = r#"#!/bin/sh
read -r component
echo "$component" >> FOLDER/begun
while [ ! -e FOLDER/go ] && [ ! -e "FOLDER/go-$component" ]; do sleep 0.01; done
[ "$component" = bad ] && { echo "no machine code" >&2; exit 1; }
echo "$component" >> FOLDER/done
printf 'C\004\000\000\000\000\000\000\000code'
"#;

const MACHINE: Amount = Amount { cpu_millis: 2000, memory_bytes: 1 << 30, accelerators: 0 };

struct Place {
    scratch: TempDir,
    deployments: Deployments,
}

impl Place {
    /// With a version of one model for each component, in the order in which
    /// they came.
    fn with(components: &[&str]) -> Self {
        let scratch = TempDir::new().unwrap();
        let one_shot = scripted(scratch.path(), COMPILER);
        let run = scratch.path().join("run");
        fs::create_dir(&run).unwrap();
        let store = Arc::new(Store::open(&scratch.path().join("data")).unwrap());
        store.add_user("alice").unwrap();
        store.ensure_app("alice", "main").unwrap();
        store.ensure_model(&model(), "").unwrap();
        for (number, component) in components.iter().enumerate() {
            let config = config(number);
            let mut files = [
                VersionFile::of(CONFIG_PATH, config.as_bytes()),
                VersionFile::of(COMPONENT_PATH, format!("{component}\n").as_bytes()),
            ];
            let version = VersionRow {
                name: model(),
                id: id(number),
                number: 0,
                created_at: number as i64,
                model_type_id: String::new(),
                concepts: 0,
                methods: String::new(),
                bytes: files.iter().map(|file| file.bytes).sum(),
            };
            store.add_version(&version, &mut files).unwrap();
        }
        let loader = Loader::compiling_with(one_shot, store, run);
        Self { deployments: Deployments::open(loader, MACHINE).unwrap(), scratch }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn let_go(&self, component: &str) {
        fs::write(self.path(&format!("go-{component}")), "").unwrap();
    }

    fn let_all_go(&self) {
        fs::write(self.path("go"), "").unwrap();
    }

    fn lines(&self, file: &str) -> Vec<String> {
        let text = fs::read_to_string(self.path(file)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn begun(&self) -> Vec<String> {
        self.lines("begun")
    }

    fn called(&self, number: usize, called_at_ms: i64) {
        let row = VersionCallRow { name: model(), version_id: id(number), called_at_ms };
        self.deployments.loader().store().note_calls(&[row]).unwrap();
    }

    /// A package with a component, as a call has it.
    fn package(&self, component: &str) -> Package {
        let folder = self.path(&format!("package-{component}"));
        fs::create_dir_all(folder.join("1")).unwrap();
        fs::write(folder.join(CONFIG_PATH), config(0)).unwrap();
        fs::write(folder.join(COMPONENT_PATH), format!("{component}\n")).unwrap();
        folder::open(&folder, &self.path("run"), Taking::Nothing).unwrap()
    }

    async fn call(&self, component: &str) -> Result<(), StartError> {
        let package = self.package(component);
        self.deployments.loader().compiled(&package).await.map(drop)
    }

    async fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        until(what, || condition(self)).await;
    }
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(60), "{what} did not happen");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn model() -> ModelName {
    ModelName::new("alice", "main", "m").unwrap()
}

fn id(number: usize) -> String {
    format!("{number:032x}")
}

fn config(number: usize) -> String {
    format!("model:\n  id: m\nnum_threads: {}\n", number + 1)
}

#[tokio::test]
async fn versions_are_compiled_anew_two_at_a_time_those_first_that_were_called_last() {
    let place = Place::with(&["one", "two", "three", "four", "five"]);
    // The others were never called: the newest of them comes first.
    place.called(0, 7);
    place.called(2, 9);
    let left = StdMutex::new(Vec::new());
    let compiling = place.deployments.compile_anew(|count| left.lock().unwrap().push(count));
    let looking = async {
        place.until("two to begin", |place| place.begun().len() == 2).await;
        let mut first = place.begun();
        first.sort();
        assert_eq!(first, ["one", "three"]);
        for (go, next) in [("three", "five"), ("five", "four"), ("one", "two")] {
            place.let_go(go);
            place.until(next, |place| place.begun().last().unwrap() == next).await;
            assert_eq!(place.begun().len() - place.lines("done").len(), 2, "at a time");
        }
        place.let_all_go();
    };
    tokio::join!(compiling, looking);
    assert_eq!(*left.lock().unwrap(), [5, 4, 3, 2, 1, 0]);
    place.deployments.compile_anew(|_| panic!("there is nothing left")).await;
}

/// A call waits for its own component alone, at the head of the queue and of
/// those that are under way.
#[tokio::test]
async fn a_call_to_a_version_that_is_not_compiled_yet_waits_for_it_alone() {
    let place = Place::with(&["one", "two", "three", "four"]);
    let compiling = place.deployments.compile_anew(|_| {});
    let calling = async {
        place.until("two to begin", |place| place.begun().len() == 2).await;
        place.let_go("one");
        place.call("one").await.unwrap();
        assert_eq!(place.lines("done"), ["one"], "the others wait still");
        // It is compiled already: the call waits for that.
        place.let_go("four");
        place.call("four").await.unwrap();
        place.let_all_go();
    };
    tokio::join!(compiling, calling);
    let mut begun = place.begun();
    begun.sort();
    assert_eq!(begun, ["four", "one", "three", "two"], "none is compiled twice");
}

/// What nobody waits for begins only where nobody waits.
#[tokio::test]
async fn nothing_is_begun_ahead_while_a_call_waits() {
    let place = Place::with(&["one", "two", "three"]);
    let compiling = place.deployments.compile_anew(|_| {});
    let calling = async {
        place.until("two to begin", |place| place.begun().len() == 2).await;
        let also = async {
            place.until("the call to begin", |place| place.begun().len() == 3).await;
            place.let_go("two");
            place.let_go("three");
            place.until("both to end", |place| place.lines("done").len() == 2).await;
            assert_eq!(place.begun().len(), 3);
            place.let_all_go();
        };
        let (called, ()) = tokio::join!(place.call("called"), also);
        called.unwrap();
    };
    tokio::join!(compiling, calling);
    assert_eq!(place.begun().last().unwrap(), "one");
}

#[tokio::test]
async fn calls_of_one_component_compile_it_once() {
    let place = Place::with(&[]);
    place.let_all_go();
    let (a, b, c) = tokio::join!(place.call("one"), place.call("one"), place.call("one"));
    for called in [a, b, c] {
        called.unwrap();
    }
    assert_eq!(place.begun(), ["one"]);
}

#[tokio::test]
async fn what_cannot_be_compiled_is_left_out_and_tried_once() {
    let place = Place::with(&["one", "bad", "bad", "bad", "two", "lost", "odd"]);
    let lost = sha256_of(&b"lost\n"[..]).unwrap().0;
    fs::remove_file(place.deployments.loader().store().content_path(&lost)).unwrap();
    let odd = sha256_of(&b"odd\n"[..]).unwrap().0;
    let path = place.deployments.loader().store().content_path(&odd);
    fs::remove_file(&path).unwrap();
    fs::write(&path, "evil").unwrap();
    place.let_all_go();
    place.deployments.compile_anew(|_| {}).await;
    let mut done = place.lines("done");
    done.sort();
    assert_eq!(done, ["one", "two"]);
    // Two can begin before one of them has failed.
    let begun = place.begun();
    assert!(begun.iter().filter(|component| *component == "bad").count() <= ANEW_MAX, "{begun:?}");
    assert!(!begun.iter().any(|component| component == "evil"), "{begun:?}");
}

#[tokio::test]
async fn what_is_compiled_ahead_ends_with_whoever_asked_for_it() {
    let place = Place::with(&["one", "two", "three"]);
    {
        let mut compiling = Box::pin(place.deployments.compile_anew(|_| {}));
        tokio::select! {
            () = &mut compiling => panic!("nothing may go on yet"),
            () = place.until("two to begin", |place| place.begun().len() == 2) => {}
        }
    }
    place.let_all_go();
    // Both are free again, and what was broken off is made by who needs it.
    place.call("three").await.unwrap();
    assert_eq!(place.lines("done"), ["three"]);
}

#[tokio::test]
async fn a_call_is_kept_for_the_order_of_the_next_start() {
    let place = Place::with(&["one", "two"]);
    let versions = place.deployments.all();
    place.let_all_go();
    // What the compiler gives is no code; that it was called counts.
    let placement = place.deployments.pools().of_all().clone();
    let target = Target { version: versions[0].clone(), placement };
    place.deployments.lease(&target, None).await.unwrap_err();
    let deployments = &place.deployments;
    deployments.note_calls();
    let kept = deployments.loader().store().calls().unwrap();
    assert_eq!(kept.len(), 1);
    assert_eq!(kept[0].version_id, versions[0].version);
    assert!(kept[0].called_at_ms > 0);
    deployments.note_calls();
    assert_eq!(deployments.loader().store().calls().unwrap(), kept);
    let loader = deployments.loader().clone();
    let stale = blocking(move || Ok(loader.stale()?)).await.unwrap();
    assert_eq!(stale.first().unwrap().version, versions[0].version);
}
