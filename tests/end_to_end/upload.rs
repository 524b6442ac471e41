//! From a model folder to a version that is called, and what is refused on the
//! way.

use crate::author::text;
use flate2::Compression;
use flate2::write::GzEncoder;
use ringfence::proto::clarifai::api;
use ringfence::proto::clarifai::api::post_model_versions_upload_request::UploadData;
use ringfence::proto::clarifai::api::status::StatusCode;
use ringfence_tests::{
    Canary, Client, Host, HostOptions, Variant, block_on, files_below, guests, request, text_input,
};
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use wasm_encoder::{
    Component, ComponentExportKind, ComponentExportSection, ComponentInstanceSection,
};

fn host(data_dir: &Path) -> Host {
    Host::start(HostOptions { data_dir: Some(data_dir.to_owned()), ..HostOptions::default() })
}

/// One that others are served by meanwhile.
fn host_with_echo(data_dir: &Path) -> Host {
    Host::start(HostOptions {
        data_dir: Some(data_dir.to_owned()),
        models: vec![guests::ECHO.into()],
        ..HostOptions::default()
    })
}

/// Uploads a folder with the command, which has to succeed.
fn upload(host: &Host, folder: &str) -> String {
    let output = host.ringfence(&["upload", folder]);
    assert!(output.status.success(), "{}\n{}", text(&output), host.log());
    text(&output)
}

fn answer(host: &Host, model: &str, input: &str) -> String {
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        client.predict_request(request(model, vec![text_input(input)])).await.text()
    })
}

/// Files below a folder that are in neither of these states for long: nothing
/// that was refused may be among them.
pub(crate) fn left_in(data_dir: &Path) -> Vec<PathBuf> {
    ["blobs", "staging"].iter().flat_map(|folder| files_below(&data_dir.join(folder))).collect()
}

#[test]
fn an_uploaded_model_is_called_and_survives_a_restart() {
    let scratch = TempDir::new().unwrap();
    let data_dir = scratch.path().join("data");
    let first = host(&data_dir);
    let told = upload(&first, guests::ECHO);
    for line in ["unpacked", "was compiled in", "load-model took", "stored; local/main/echo"] {
        assert!(told.contains(line), "{line} in {told}");
    }
    assert_eq!(answer(&first, "echo", "hello"), "hello");
    assert!(upload(&first, guests::ECHO).contains("is there already"));
    assert!(first.terminate().success());

    let second = host(&data_dir);
    assert_eq!(answer(&second, "echo", "hello"), "hello");
    assert!(second.terminate().success());
    let check = Host::command(&["store", "check", "--data-dir", data_dir.to_str().unwrap()]);
    assert!(check.status.success(), "{}", text(&check));
}

#[test]
fn a_model_with_graphs_and_assets_is_the_same_after_an_upload() {
    let scratch = TempDir::new().unwrap();
    let host = host(&scratch.path().join("data"));
    let told = upload(&host, guests::SCRIBE);
    assert!(told.contains("has answered the example") || told.contains("no example"), "{told}");
    assert!(!answer(&host, "scribe", "It was not in her power to ").is_empty());
}

/// What the Python SDK sends of a folder that was never built.
#[test]
fn a_python_only_folder_is_told_what_it_misses() {
    let scratch = TempDir::new().unwrap();
    let data_dir = scratch.path().join("data");
    let host = host(&data_dir);
    let archive = archive(&[
        ("./config.yaml", b"model:\n  id: py\n  model_type_id: text-to-text\n"),
        ("./requirements.txt", b"clarifai\n"),
        ("./Dockerfile", b"FROM scratch\n"),
        ("./1/model.py", b"class Model: pass\n"),
    ]);
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        make_model(&client, "py").await;
        let answers = send(&client, "py", &archive).await;
        let last = answers.last().unwrap();
        assert_eq!(last.status.clone().unwrap().code(), StatusCode::ModelBuilding, "{answers:?}");
        let version = last.model_version_id.clone();
        let state = state(&client, "py", &version).await;
        assert_eq!(state.code(), StatusCode::ModelBuildingFailed, "{state:?}");
        let lines = lines(&client, "py", &version).await;
        let said = "1/model.wasm is missing: this host runs WebAssembly; see Porting";
        assert!(lines.iter().any(|line| line == said), "{lines:?}");
    });
    assert_eq!(left_in(&data_dir), Vec::<PathBuf>::new());
}

/// PKG-01, PKG-02, PKG-05, PKG-16, PKG-24 and a model that never loads.
#[test]
fn what_is_no_model_is_refused_with_its_reason_and_leaves_nothing() {
    let scratch = TempDir::new().unwrap();
    let data_dir = scratch.path().join("data");
    let mut host = host_with_echo(&data_dir);
    let config = |id: &str| format!("model:\n  id: {id}\n").into_bytes();
    let of =
        |id: &str, wasm: &[u8]| archive(&[("config.yaml", &config(id)), ("1/model.wasm", wasm)]);
    let guest = |guest: &str| std::fs::read(Path::new(guest).join("1/model.wasm")).unwrap();
    let limited = b"model:\n  id: bad\nringfence:\n  call_timeout: 2s\n";
    let looping =
        archive(&[("config.yaml", limited), ("1/model.wasm", &guest(guests::LOAD_LOOPS))]);
    let misspelt = b"model:\n  id: bad\ninference_compute_inf: {}\n";
    let of_another = b"model:\n  id: bad\n  user_id: mallory\n";
    let of_another =
        archive(&[("config.yaml", of_another), ("1/model.wasm", &guest(guests::ECHO))]);
    let cases: [(&str, Vec<u8>); 12] = [
        ("is not a WebAssembly component", of("bad", b"")),
        ("is not a WebAssembly component", of("bad", b"\x7fELF and more")),
        ("is not a WebAssembly component", of("bad", b"(component)")),
        ("is a core module", of("bad", b"\0asm\x01\0\0\0")),
        ("does not export", of("bad", b"\0asm\x0d\0\x01\0")),
        ("runner", of("bad", &runner_without_functions())),
        ("imports wasi:sockets", of("bad", &guest(guests::IMPORTS_SOCKETS))),
        ("load-model failed", of("bad", &guest(guests::LOAD_FAILS))),
        ("load-model failed", looping),
        ("did you mean", archive(&[("config.yaml", misspelt), ("1/model.wasm", b"")])),
        ("says that the model is mallory/main/bad", of_another),
        ("says that the model is local/main/other", of("other", &guest(guests::ECHO))),
    ];
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        make_model(&client, "bad").await;
        let canary = Canary::start(&host).await;
        for (reason, archive) in &cases {
            let answers = send(&client, "bad", archive).await;
            let version = answers.last().unwrap().model_version_id.clone();
            assert!(!version.is_empty(), "{reason}: {answers:?}");
            let state = state(&client, "bad", &version).await;
            assert_eq!(state.code(), StatusCode::ModelBuildingFailed, "{reason}: {state:?}");
            let lines = lines(&client, "bad", &version).await;
            assert!(lines.iter().any(|line| line.contains(reason)), "{reason}: {lines:?}");
            let called = client.predict_request(request("bad", vec![text_input("x")])).await;
            assert_eq!(called.reason(), "NO_VERSION", "{called:?}");
        }
        canary.ends(&mut host, "what is no model").await;
    });
    assert_eq!(left_in(&data_dir), Vec::<PathBuf>::new());
}

/// A component that exports the world's interface by name, of another type.
fn runner_without_functions() -> Vec<u8> {
    let mut instances = ComponentInstanceSection::new();
    instances.export_items(std::iter::empty::<(&str, ComponentExportKind, u32)>());
    let mut exports = ComponentExportSection::new();
    exports.export("ringfence:model/runner@0.1.0", ComponentExportKind::Instance, 0, None);
    let mut component = Component::new();
    component.section(&instances).section(&exports);
    component.finish()
}

/// PKG-10, PKG-12.
#[test]
fn an_archive_that_lies_is_refused_and_leaves_nothing() {
    let scratch = TempDir::new().unwrap();
    let data_dir = scratch.path().join("data");
    let mut host = host_with_echo(&data_dir);
    let good = archive(&[("config.yaml", b"model:\n  id: m\n")]);
    let part = |number: i64, data: &[u8]| {
        let part = api::UploadContentPart {
            range_start: 0,
            part_number: number,
            data: data.to_vec().into(),
        };
        UploadData::ContentPart(part)
    };
    let config = |bytes: usize| config_of("m", bytes);
    let (half, rest) = good.split_at(good.len() / 2);
    let mut evil = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    evil.append_link(&mut header, "1/model.wasm", "/etc/passwd").unwrap();
    let evil = evil.into_inner().unwrap().finish().unwrap();
    let cases: [(&str, Vec<UploadData>); 10] = [
        ("the first message has to be upload_config", vec![part(1, &good)]),
        ("an archive of 0 bytes", vec![config(0)]),
        ("upload_config came twice", vec![config(good.len()), config(good.len())]),
        ("part 2 came where part 1 should", vec![config(good.len()), part(2, &good)]),
        ("part 1 came where part 2 should", vec![config(good.len()), part(1, half), part(1, rest)]),
        ("ended before the whole archive had come", vec![config(good.len()), part(1, half)]),
        ("were said", vec![config(good.len() - 1), part(1, &good)]),
        ("more came than", vec![config(good.len()), part(1, &good), part(2, b"x")]),
        ("is a symbolic link", vec![config(evil.len()), part(1, &evil)]),
        ("no gzip of a tar", vec![config(4), part(1, b"junk")]),
    ];
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        make_model(&client, "m").await;
        let canary = Canary::start(&host).await;
        for (reason, messages) in cases {
            let answers = send_messages(&client, messages).await;
            let status = answers.last().unwrap().status.clone().unwrap();
            assert_eq!(status.code(), StatusCode::UploadFailed, "{reason}: {status:?}");
            assert!(status.details.contains(reason), "{reason}: {status:?}");
        }
        canary.ends(&mut host, "archives that lie").await;
    });
    assert_eq!(left_in(&data_dir), Vec::<PathBuf>::new());
}

#[test]
fn a_new_version_takes_over_and_a_bad_one_does_not() {
    let scratch = TempDir::new().unwrap();
    let host = host(&scratch.path().join("data"));
    upload(&host, guests::ECHO);
    let first = version_of(&host, "echo");
    let newer = Variant::of(guests::ECHO, &[("model:", "num_threads: 3\nmodel:")]);
    upload(&host, newer.path());
    let second = version_of(&host, "echo");
    assert_ne!(first, second);
    let bad = Variant::of(guests::ECHO, &[("model:", "num_threads: 4\nmodel:")]);
    std::fs::write(bad.folder().join("1/model.wasm"), "junk").unwrap();
    let refused = host.ringfence(&["upload", bad.path()]);
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
    assert_eq!(version_of(&host, "echo"), second);
    assert_eq!(answer(&host, "echo", "still"), "still");
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let older = api::PostModelOutputsRequest {
            version_id: first,
            ..request("echo", vec![text_input("a")])
        };
        assert_eq!(client.predict_request(older).await.text(), "a");
    });
}

/// The version that a model stands for.
fn version_of(host: &Host, model: &str) -> String {
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let set = api::UserAppIdSet { user_id: "me".into(), app_id: "main".into() };
        let asked = api::GetModelRequest {
            user_app_id: Some(set),
            model_id: model.into(),
            ..Default::default()
        };
        let found = client.v2().get_model(client.with_token(asked)).await.unwrap().into_inner();
        found.model.unwrap().model_version.unwrap().id
    })
}

pub(crate) fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, path, *content).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

pub(crate) fn set() -> Option<api::UserAppIdSet> {
    Some(api::UserAppIdSet { user_id: "local".into(), app_id: "main".into() })
}

pub(crate) async fn make_model(client: &Client, id: &str) {
    let model = api::Model { id: id.into(), ..Default::default() };
    let asked =
        api::PostModelsRequest { user_app_id: set(), models: vec![model], ..Default::default() };
    let made = client.v2().post_models(client.with_token(asked)).await.unwrap().into_inner();
    assert_eq!(made.status.unwrap().code(), StatusCode::Success);
    assert_eq!(made.model.unwrap().id, id);
}

pub(crate) fn config_of(model: &str, bytes: usize) -> UploadData {
    UploadData::UploadConfig(api::PostModelVersionsUploadConfig {
        user_app_id: set(),
        model_id: model.into(),
        total_size: bytes as u64,
        is_v3: true,
        ..Default::default()
    })
}

/// Sends an archive as the Python SDK does: in one part, with the place after it.
pub(crate) async fn send(
    client: &Client,
    model: &str,
    archive: &[u8],
) -> Vec<api::PostModelVersionsUploadResponse> {
    let part = api::UploadContentPart {
        range_start: archive.len() as u64,
        part_number: 1,
        data: archive.to_vec().into(),
    };
    let messages = vec![config_of(model, archive.len()), UploadData::ContentPart(part)];
    send_messages(client, messages).await
}

pub(crate) async fn send_messages(
    client: &Client,
    messages: Vec<UploadData>,
) -> Vec<api::PostModelVersionsUploadResponse> {
    let messages: Vec<_> = messages
        .into_iter()
        .map(|data| api::PostModelVersionsUploadRequest { upload_data: Some(data) })
        .collect();
    let request = client.with_token(tokio_stream::iter(messages));
    let mut stream = client.v2().post_model_versions_upload(request).await.unwrap().into_inner();
    let mut answers = Vec::new();
    while let Some(answer) = stream.message().await.unwrap() {
        answers.push(answer);
    }
    answers
}

/// The status of a version once it is built or refused.
pub(crate) async fn state(client: &Client, model: &str, version: &str) -> api::status::Status {
    loop {
        let asked = api::GetModelVersionRequest {
            user_app_id: set(),
            model_id: model.into(),
            version_id: version.into(),
        };
        let asked = client.with_token(asked);
        let found = client.v2().get_model_version(asked).await.unwrap().into_inner();
        let status = found.model_version.unwrap_or_else(|| panic!("{:?}", found.status)).status;
        let status = status.unwrap();
        if status.code() != StatusCode::ModelBuilding {
            return status;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

pub(crate) async fn lines(client: &Client, model: &str, version: &str) -> Vec<String> {
    let asked = api::ListLogEntriesRequest {
        page: 1,
        per_page: 50,
        log_type: "builder".into(),
        user_app_id: set(),
        model_id: model.into(),
        model_version_id: version.into(),
    };
    let asked = client.with_token(asked);
    let found = client.v2().list_log_entries(asked).await.unwrap().into_inner();
    found.log_entries.into_iter().map(|entry| entry.message).collect()
}
