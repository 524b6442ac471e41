//! How many are built at a time, and what an uploader is told of a compiler that
//! does not end. The compiler is a script.

use super::*;
use crate::deploy::{Amount, Loader};
use crate::worker::scripted;
use flate2::Compression;
use flate2::write::GzEncoder;
use std::fs;
use std::time::{Duration, Instant};
use tar::{Builder, Header};
use tempfile::TempDir;

/// Says what it begins with, waits until it may go on, and gives `code` as the
/// code of everything, which is none.
const COMPILER: &str = r#"#!/bin/sh
read -r component
echo "$component" >> FOLDER/begun
while [ ! -e "FOLDER/go-$component" ]; do sleep 0.01; done
printf 'C\004\000\000\000\000\000\000\000code'
"#;

const USERS: [&str; 3] = ["alice", "bob", "carol"];

struct Place {
    scratch: TempDir,
    uploads: Arc<Uploads>,
}

impl Place {
    fn compiling_within(timeout: Duration) -> Self {
        let scratch = TempDir::new().unwrap();
        let run = scratch.path().join("run");
        fs::create_dir(&run).unwrap();
        let store = Arc::new(Store::open(&scratch.path().join("data")).unwrap());
        for user in USERS {
            store.add_user(user).unwrap();
        }
        let one_shot = scripted(scratch.path(), COMPILER).compiling_within(timeout);
        let loader = Loader::compiling_with(one_shot, store, run);
        let machine = Amount { cpu_millis: 4000, memory_bytes: 4 << 30, accelerators: 0 };
        let deployments = Arc::new(Deployments::open(loader, machine).unwrap());
        Self { uploads: Uploads::open(deployments, |_, _, _| Ok(Example::None)).unwrap(), scratch }
    }

    /// Uploads a model of a user, whose component is the user's name. Returns the
    /// version.
    async fn upload(&self, user: &str) -> String {
        let archive = archive(user);
        let place = self.uploads.enter(&Caller::of_user(user)).unwrap();
        let bytes = archive.len() as u64;
        let begun = self.uploads.begin(place, &model(user), bytes, None, Said::default());
        let mut receiving = begun.unwrap();
        receiving.write(archive.into()).await.unwrap();
        receiving.finish().await.unwrap()
    }

    fn let_go(&self, component: &str) {
        fs::write(self.scratch.path().join(format!("go-{component}")), "").unwrap();
    }

    fn begun(&self) -> Vec<String> {
        let text = fs::read_to_string(self.scratch.path().join("begun")).unwrap_or_default();
        let mut begun: Vec<String> = text.lines().map(str::to_owned).collect();
        begun.sort();
        begun
    }

    async fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        while !condition(self) {
            assert!(began.elapsed() < Duration::from_secs(60), "{what} did not happen");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn model(user: &str) -> ModelName {
    ModelName::new(user, "main", "m").unwrap()
}

fn archive(component: &str) -> Vec<u8> {
    let encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let mut tar = Builder::new(encoder);
    let config = "model:\n  id: m\ninference_compute_info:\n  cpu_memory: 64Mi\n";
    for (path, content) in [("config.yaml", config), ("1/model.wasm", &format!("{component}\n"))] {
        let mut header = Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        tar.append_data(&mut header, path, content.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

/// PKG-09: of three users who upload at once, two are built, and the third when one of
/// them is done.
#[tokio::test]
async fn two_are_built_at_a_time_and_the_third_waits() {
    let place = Place::compiling_within(Duration::from_secs(60));
    let mut versions = Vec::new();
    for user in USERS {
        versions.push(place.upload(user).await);
    }
    // Two wait for their code; nothing keeps the third but its turn.
    let two = ["alice", "bob"];
    place.until("two to be compiled", |place| place.begun().len() >= two.len()).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(place.begun(), two);
    let third = place.uploads.build(&model("carol"), &versions[2]);
    assert_eq!(third, Some(BuildState::Building));
    USERS.iter().for_each(|user| place.let_go(user));
    place.until("the third", |place| place.begun().contains(&"carol".to_owned())).await;
    place
        .until("the end", |place| {
            let state = place.uploads.build(&model("carol"), &versions[2]);
            state != Some(BuildState::Building)
        })
        .await;
}

#[tokio::test]
async fn an_archive_of_more_bytes_than_a_package_has_is_not_begun() {
    let host = Place::compiling_within(Duration::from_secs(60));
    let begun = |bytes: u64| {
        let place = host.uploads.enter(&Caller::of_user("alice")).unwrap();
        host.uploads.begin(place, &model("alice"), bytes, None, Said::default())
    };
    assert!(begun(PACKAGE_BYTES_MAX).is_ok());
    let refused = begun(PACKAGE_BYTES_MAX + 1);
    assert!(matches!(refused, Err(UploadError::Size { .. })), "{refused:?}");
}

/// PKG-08: the uploader of a component whose compiler does not end is told so,
/// and can upload again.
#[tokio::test]
async fn an_upload_that_takes_too_long_to_compile_is_refused_with_the_limit() {
    let place = Place::compiling_within(Duration::from_secs(1));
    let version = place.upload("alice").await;
    let failed = |place: &Place| match place.uploads.build(&model("alice"), &version) {
        Some(BuildState::Failed(why)) => Some(why),
        Some(BuildState::Building | BuildState::Built) | None => None,
    };
    place.until("a refusal", |place| failed(place).is_some()).await;
    let told = failed(&place).unwrap();
    assert!(told.contains("it took more than 1 s; make it smaller"), "{told}");
    let lines = place.uploads.lines(&model("alice"), &version);
    assert_eq!(lines.last().unwrap().text, told);
    assert_eq!(fs::read_dir(place.uploads.staging()).unwrap().count(), 0, "nothing is left");
    assert_eq!(place.upload("alice").await, version);
}
