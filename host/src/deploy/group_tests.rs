//! How often a version is tried again that does not start.

use super::*;
use crate::auth::Caller;
use crate::deploy::details::DeploymentDetail;
use crate::deploy::{Deployments, Target};
use crate::package::config::ModelName;
use crate::package::folder::{COMPONENT_PATH, CONFIG_PATH, version_of};
use crate::store::{DeploymentRow, Store, StoreError, VersionFile, VersionRow};
use crate::worker::{OneShot, Processes, Workers, launcher_of};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const MACHINE: Amount = Amount { cpu_millis: 2000, memory_bytes: 1 << 30, accelerators: 0 };

/// A configuration of which one replica is little of the machine.
const SMALL: &[u8] = b"model:\n  id: m\n\
    inference_compute_info:\n  cpu_limit: \"100m\"\n  cpu_memory: \"64Mi\"\n";

/// A version that does not start, deployed to run always.
struct Place {
    deployments: Deployments,
    version: Arc<Version>,
    group: Arc<Group>,
    _scratch: TempDir,
}

/// What is not there any more of a version's files.
enum Loss {
    Component,
    None,
}

impl Place {
    /// Its component is lost: a start fails without a process.
    fn new() -> Self {
        Self::with(Loss::Component, |_, store, run| {
            Loader::compiling_with(OneShot::of_this_program(), store, run)
        })
    }

    /// Its processes end before they are ready.
    fn crashing() -> Self {
        const PROGRAM: &str = "#!/bin/sh\ncase \"$1\" in\n\
            compile-worker) printf 'C\\004\\000\\000\\000\\000\\000\\000\\000code';;\n\
            *) kill -SEGV $$;;\nesac\n";
        Self::with(Loss::None, |scratch, store, run| {
            let launcher = launcher_of(scratch, PROGRAM);
            let processes = Processes::new(launcher.clone(), 1, None);
            let workers = Workers::Processes(Arc::new(processes));
            Loader::new(workers, OneShot::of(launcher), "0".to_owned(), store, run, None)
        })
    }

    fn with(loss: Loss, loader: impl FnOnce(&Path, Arc<Store>, PathBuf) -> Loader) -> Self {
        let scratch = TempDir::new().unwrap();
        let run = scratch.path().join("run");
        std::fs::create_dir(&run).unwrap();
        let store = Arc::new(Store::open(&scratch.path().join("data")).unwrap());
        store.add_user("alice").unwrap();
        store.ensure_app("alice", "main").unwrap();
        store.ensure_model(&model(), "").unwrap();
        let component = VersionFile::of(COMPONENT_PATH, b"component");
        let sha256 = component.sha256;
        let mut files = [VersionFile::of(CONFIG_PATH, SMALL), component];
        let listed = files.iter().map(|file| (file.path.as_str(), file.bytes, &file.sha256));
        let row = VersionRow { id: version_of(listed), ..row("0") };
        store.add_version(&row, &mut files).unwrap();
        let loader = loader(scratch.path(), store.clone(), run);
        let deployments = Deployments::open(loader, MACHINE).unwrap();
        let version = deployments.all().pop().unwrap();
        // Looked at by the deployment, and known from then on.
        version.set_needs(Amount { cpu_millis: 1, memory_bytes: 1, accelerators: 0 });
        match loss {
            Loss::Component => std::fs::remove_file(store.content_path(&sha256)).unwrap(),
            Loss::None => {}
        }
        let said = DeploymentDetail { replicas_min: 1, replicas_max: 1, ..Default::default() };
        let row = DeploymentRow {
            user_id: "alice".to_owned(),
            id: "d".to_owned(),
            created_at: 0,
            modified_at: 0,
            model: model(),
            version_id: None,
            cluster_id: "local".to_owned(),
            nodepool_id: "default".to_owned(),
            detail: String::new(),
        };
        deployments.deploy(&Caller::operator(), row, &said).unwrap();
        let group = version.all_groups().pop().unwrap();
        Self { deployments, version, group, _scratch: scratch }
    }

    fn attempts(&self) -> u32 {
        self.group.failures.load(Ordering::Acquire)
    }

    /// So much time is as if it had passed since the last attempt.
    fn pass(&self, time: Duration) {
        let mut state = self.group.state.write().unwrap();
        if let State::Failed { at, until, .. } = &mut *state {
            *at = at.checked_sub(time).unwrap();
            *until = until.checked_sub(time).unwrap();
        }
    }

    /// Waits for the start that was just begun, if one was.
    async fn settled(&self) {
        drop(self.group.starting.lock().await);
        tokio::task::yield_now().await;
        drop(self.group.starting.lock().await);
    }
}

fn model() -> ModelName {
    ModelName::new("alice", "main", "m").unwrap()
}

fn row(digit: &str) -> VersionRow {
    VersionRow {
        name: model(),
        id: digit.repeat(32),
        number: 0,
        created_at: 0,
        model_type_id: String::new(),
        concepts: 0,
        methods: String::new(),
        bytes: 1,
    }
}

/// OPS-16, as far as there are processes to start: the host looks every second,
/// and tries ever more rarely.
#[tokio::test]
async fn a_version_that_never_starts_is_tried_ever_more_rarely() {
    let place = Place::new();
    place.settled().await;
    let (mut waits, mut waited, mut attempts) = (Vec::new(), 0_u64, place.attempts());
    assert_eq!(attempts, 1, "its deployment tries it at once");
    for _second in 0..3000 {
        place.pass(Duration::from_secs(1));
        waited += 1;
        place.deployments.keep();
        place.settled().await;
        if place.attempts() > attempts {
            waits.push(waited);
            (waited, attempts) = (0, place.attempts());
        }
    }
    let expected = [10, 20, 40, 80, 160].into_iter().chain([320].repeat(8));
    assert_eq!(waits.len(), 13, "{waits:?}");
    for (wait, expected) in waits.iter().zip(expected) {
        // The test itself takes some time as well.
        assert!((expected / 2 + 1..=expected).contains(wait), "{waits:?}");
    }
}

/// OPS-16: a call tries it sooner, and calls that follow at once are told the
/// same without trying.
#[tokio::test]
async fn a_call_tries_a_version_again_that_did_not_start_but_not_at_once() {
    let place = Place::new();
    place.settled().await;
    let target =
        Target { version: place.version.clone(), placement: place.group.placement.clone() };
    let call = async || place.deployments.lease(&target, None).await.unwrap_err();
    place.pass(START_AGAIN_AFTER);
    let first = place.attempts();
    assert!(call().await.to_string().contains("1/model.wasm is not there"));
    assert_eq!(place.attempts(), first + 1);
    for _ in 0..100 {
        assert!(matches!(call().await, LeaseError::Start(_)));
    }
    assert_eq!(place.attempts(), first + 1);
    place.pass(START_AGAIN_AFTER);
    call().await;
    assert_eq!(place.attempts(), first + 2);
}

/// OPS-16: a process that ends before it is ready has crashed as any other.
#[tokio::test]
async fn a_version_whose_processes_crash_as_they_start_is_left_alone() {
    let place = Place::crashing();
    place.settled().await;
    let target =
        Target { version: place.version.clone(), placement: place.group.placement.clone() };
    let call = async || match place.deployments.lease(&target, None).await.unwrap_err() {
        LeaseError::Start(error) => error,
        other => panic!("{other}"),
    };
    for attempts in 1..CRASHES_MAX {
        assert_eq!(place.attempts() as usize, attempts);
        let error = call().await;
        let is_crash = matches!(*error, StartError::Replica(StartFailure::Process(_)));
        assert!(is_crash, "{error}");
        place.pass(START_AGAIN_AFTER);
        call().await;
    }
    let told = call().await.to_string();
    assert!(told.contains("crashed three times") && told.contains("SIGSEGV"), "{told}");
    // Nobody waits for what would crash again.
    let attempts = place.attempts();
    place.pass(START_AGAIN_AFTER);
    assert!(matches!(*call().await, StartError::Crashes(_)));
    assert_eq!(place.attempts(), attempts);
    place.pass(CRASHES_WITHIN);
    call().await;
    assert_eq!(place.attempts(), attempts + 1);
}

/// What waits for a start is bounded as what waits for a place is.
#[tokio::test]
async fn calls_beyond_those_that_may_wait_for_a_start_are_told_that_the_model_is_busy() {
    let place = Place::new();
    place.settled().await;
    place.pass(START_AGAIN_AFTER);
    let held = place.group.starting.lock().await;
    let target =
        Target { version: place.version.clone(), placement: place.group.placement.clone() };
    let call = || Box::pin(place.deployments.lease(&target, None));
    let mut waiting: Vec<_> = (0..starting_max()).map(|_| call()).collect();
    for call in &mut waiting {
        assert!(futures_util::poll!(call).is_pending());
    }
    let busy = futures_util::poll!(call());
    assert!(matches!(busy, std::task::Poll::Ready(Err(LeaseError::Busy))));
    waiting.pop();
    assert!(futures_util::poll!(call()).is_pending(), "one has left");
    drop(held);
    for call in waiting {
        assert!(matches!(call.await, Err(LeaseError::Start(_))));
    }
}

/// What is stored while its model is deleted is not called, and does not come
/// back with the next start either.
#[tokio::test]
async fn a_version_whose_model_is_deleted_while_it_comes_is_not_callable() {
    let place = Place::new();
    let store = place.deployments.loader().store().clone();
    let files = || {
        [
            VersionFile::of(CONFIG_PATH, b"model:\n  id: m\n"),
            VersionFile::of(COMPONENT_PATH, b"other"),
        ]
    };
    let row = row("1");
    store.add_version(&row, &mut files()).unwrap();
    place.deployments.delete(&Caller::operator(), &model(), None).unwrap();
    assert!(!place.deployments.stored(&row).unwrap());
    assert!(place.deployments.find(&model()).is_none());
    assert!(store.model(&model()).unwrap().is_none());

    store.ensure_model(&model(), "").unwrap();
    store.add_version(&row, &mut files()).unwrap();
    assert!(place.deployments.stored(&row).unwrap());
    let found = place.deployments.find(&model()).unwrap();
    assert_eq!(found.current().unwrap().version, row.id);
}

/// Who starts a version that is about to be deleted is told that it is gone, and
/// nobody that its files are damaged.
#[tokio::test]
async fn a_version_that_is_deleted_while_it_starts_is_gone_and_not_damaged() {
    let place = Place::new();
    place.settled().await;
    place.pass(START_AGAIN_AFTER);
    let attempts = place.attempts();
    let lease = async || {
        let (version, placement) = (place.version.clone(), place.group.placement.clone());
        place.deployments.lease(&Target { version, placement }, None).await.unwrap_err()
    };
    let versions = [place.version.clone()];
    crate::deploy::models::going(&versions, || Err(StoreError::Absent { what: String::new() }))
        .unwrap_err();
    assert!(matches!(lease().await, LeaseError::Start(_)));
    place.pass(START_AGAIN_AFTER);
    crate::deploy::models::going(&versions, || Ok(())).unwrap();
    assert!(matches!(lease().await, LeaseError::NoSuchVersion));
    assert_eq!(place.attempts(), attempts + 1);
}
