//! A data directory that an older program has written: everything in it
//! serves, and its versions are compiled anew.

use crate::author::text;
use ringfence::proto::clarifai::api;
use ringfence_tests::{
    Client, Host, HostOptions, Variant, block_on, files_below, guests, request, text_input,
};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const VERSIONS_TO_COMPILE: &str = "ringfence_versions_to_compile";

/// Unpacks the data directory of schema 2 that `make.sh` beside it has made.
fn old_data_dir(scratch: &TempDir) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/store-schema-2/data.tar.gz");
    let data_dir = scratch.path().join("data");
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(File::open(path).unwrap()));
    archive.set_preserve_permissions(true);
    archive.unpack(&data_dir).unwrap();
    data_dir
}

fn start(data_dir: &Path) -> Host {
    let args = ["--metrics-listen", "127.0.0.1:0"].map(str::to_owned).into();
    Host::start(HostOptions {
        data_dir: Some(data_dir.to_owned()),
        args,
        variables: vec![("RINGFENCE_LOG".into(), "info,ringfence::deploy=debug".into())],
        ..HostOptions::default()
    })
}

/// The version of a database's schema, which its format has at byte 60.
fn schema_of(path: &Path) -> u32 {
    let bytes = fs::read(path).unwrap();
    u32::from_be_bytes(bytes[60..64].try_into().unwrap())
}

fn models(host: &Host) -> BTreeSet<String> {
    let listed = host.ringfence(&["models", "list"]);
    assert!(listed.status.success(), "{}", text(&listed));
    let text = String::from_utf8(listed.stdout).unwrap();
    text.lines().map(|line| line.split('@').next().unwrap().to_owned()).collect()
}

/// Every version of a model, the newest first.
fn versions(host: &Host, model: &str) -> Vec<String> {
    let listed = host.ringfence(&["models", "list", model, "--json"]);
    assert!(listed.status.success(), "{}", text(&listed));
    String::from_utf8(listed.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|line| line["version"].as_str().unwrap().to_owned())
        .collect()
}

fn answers(host: &Host, model: &str, versions: &[String]) {
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        for version in versions {
            let asked = api::PostModelOutputsRequest {
                version_id: version.clone(),
                ..request(model, vec![text_input(version)])
            };
            assert_eq!(client.predict_request(asked).await.text(), *version);
        }
    });
}

/// The models whose components the host has begun to compile, in that order.
fn compiled_anew(host: &Host) -> Vec<String> {
    let log = host.log();
    let begun = log.lines().filter(|line| line.contains("is compiled anew"));
    let model = |line: &str| line.split("model=local/main/").nth(1).unwrap()[..1].to_owned();
    begun.map(model).collect()
}

fn wait_until_compiled(host: &Host, versions: usize) {
    let begins = format!("{versions} versions are compiled anew");
    host.wait_until("the end", |host| host.log().contains("all versions have been compiled anew"));
    assert!(host.log().contains(&begins), "{}", host.log());
    assert_eq!(host.metric(VERSIONS_TO_COMPILE), 0.0);
}

/// OPS-18.
#[test]
fn a_store_of_an_older_schema_with_a_hundred_versions_serves() {
    let scratch = TempDir::new().unwrap();
    let data_dir = old_data_dir(&scratch);
    assert_eq!(schema_of(&data_dir.join("ringfence.db")), 2);
    let host = start(&data_dir);
    // What a program of then could go on with.
    assert_eq!(schema_of(&data_dir.join("ringfence.db.schema-2")), 2);
    let names = models(&host);
    assert_eq!(names.len(), 4, "{names:?}");
    let mut all = 0;
    for model in ["a", "b", "c", "d"] {
        let versions = versions(&host, model);
        answers(&host, model, &versions);
        all += versions.len();
    }
    assert_eq!(all, 100);
    wait_until_compiled(&host, 100);
    let check = host.by_socket(&["store", "check"]);
    assert!(check.status.success(), "{}", text(&check));
    assert!(text(&check).contains("looked at 100 versions"), "{}", text(&check));
    assert!(host.terminate().success());
    assert!(schema_of(&data_dir.join("ringfence.db")) > 2);
}

/// The older program did not keep calls, so the newest come first; from then on
/// those do that were called.
#[test]
fn after_an_upgrade_versions_are_compiled_anew_in_the_order_of_their_last_calls() {
    let scratch = TempDir::new().unwrap();
    let data_dir = old_data_dir(&scratch);
    let host = start(&data_dir);
    wait_until_compiled(&host, 100);
    assert_eq!(compiled_anew(&host), ["d", "c", "b", "a"]);
    for model in ["c", "d", "a", "b"] {
        answers(&host, model, &versions(&host, model)[..1]);
    }
    assert!(host.terminate().success());

    let cache = data_dir.join("cache");
    let compiled = files_below(&cache);
    // Components, and for each version that was called what is known of its snapshot, and
    // that.
    assert_eq!(compiled.len(), 4 + 4 * 2);
    let host = start(&data_dir);
    assert!(compiled_anew(&host).is_empty());
    assert!(host.terminate().success());
    // The names end in the compiler: these are of another one now.
    for file in compiled {
        let name = file.file_name().unwrap().to_str().unwrap();
        let (component, _) = name.split_once('-').unwrap();
        fs::rename(&file, cache.join(format!("{component}-0000000000000000"))).unwrap();
    }
    let host = start(&data_dir);
    wait_until_compiled(&host, 100);
    assert_eq!(compiled_anew(&host), ["b", "a", "d", "c"]);
    assert!(host.terminate().success());
}

/// What is uploaded while others are compiled anew is not held up by them.
#[test]
fn an_upload_goes_on_while_versions_are_compiled_anew() {
    let scratch = TempDir::new().unwrap();
    let host = start(&old_data_dir(&scratch));
    let uploaded = host.ringfence(&["upload", Variant::of(guests::ECHO, &[]).path()]);
    assert!(uploaded.status.success(), "{}", text(&uploaded));
    answers(&host, "echo", &versions(&host, "echo"));
}
