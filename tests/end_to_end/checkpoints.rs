//! A repository of weights to `1/checkpoints`: whole or not at all, from a hub
//! on loopback that answers as the real one does.

use crate::author::{target_dir, text};
use hf_hub::Cache;
use ringfence::cli::checkpoints::hub::Patience;
use ringfence::cli::checkpoints::{Settings, Wanted, ensure};
use ringfence::package::config::Config;
use ringfence_tests::hub::{Access, Hub, Manner, TOKEN, TOKEN_OF_STRANGER};
use ringfence_tests::{binary, guests};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;
use tempfile::TempDir;

const REPO: &str = "ada/colours";

/// A model folder with a component and checkpoints, and a hub.
struct Author {
    scratch: TempDir,
    hub: Hub,
    wait_max: Duration,
}

impl Author {
    fn new() -> Self {
        let author = Self {
            scratch: TempDir::new().unwrap(),
            hub: Hub::start(),
            wait_max: Duration::from_secs(5),
        };
        std::fs::create_dir_all(author.folder().join("1")).unwrap();
        author.write("config.yaml", &config(""));
        author
    }

    fn folder(&self) -> PathBuf {
        self.scratch.path().join("model")
    }

    fn write(&self, name: &str, bytes: &str) {
        std::fs::write(self.folder().join(name), bytes).unwrap();
    }

    fn read(&self, name: &str) -> Option<Vec<u8>> {
        std::fs::read(self.folder().join("1/checkpoints").join(name)).ok()
    }

    fn settings(&self, token: Option<&str>) -> Settings {
        Settings {
            endpoint: self.hub.endpoint(),
            cache: Cache::new(self.scratch.path().join("home/hub")),
            token: token.map(str::to_owned),
            patience: Patience { wait_max: self.wait_max, attempts_max: 3, pause: Duration::ZERO },
        }
    }

    /// What `ringfence build` does before it compiles.
    fn fetch_with(&self, token: Option<&str>) -> Result<(), String> {
        self.fetch_as(Wanted::Pinned, token)
    }

    fn fetch_as(&self, wanted: Wanted, token: Option<&str>) -> Result<(), String> {
        let text = std::fs::read_to_string(self.folder().join("config.yaml")).unwrap();
        let checkpoints = Config::parse(&text).unwrap().checkpoints.unwrap();
        ensure(&self.folder(), &checkpoints, wanted, self.settings(token))
            .map_err(|error| format!("{error:#}"))
    }

    fn fetch(&self) -> Result<(), String> {
        self.fetch_with(None)
    }

    fn ringfence(&self, args: &[&str]) -> Output {
        Command::new(binary())
            .args(args)
            .arg(self.folder())
            .env("HF_ENDPOINT", self.hub.endpoint())
            .env("HF_HOME", self.scratch.path().join("home"))
            .env_remove("HF_TOKEN")
            .output()
            .unwrap()
    }
}

fn config(more: &str) -> String {
    format!("model: {{id: colours}}\ncheckpoints:\n  type: huggingface\n  repo_id: {REPO}\n{more}")
}

/// Longer than a piece of a download that counts.
fn large() -> Vec<u8> {
    (0..300_000_u32).map(|index| (index * 7 % 251) as u8).collect()
}

fn add(hub: &Hub, access: Access) -> String {
    let large = large();
    let files: [(&str, &[u8]); 5] = [
        (".gitattributes", b"*.onnx filter=lfs"),
        ("README.md", b"# Colours"),
        ("onnx/model.onnx", &large),
        ("pytorch_model.bin", b"\x80\x04."),
        ("config.json", br#"{"id2label": {"1": "blue", "0": "red"}}"#),
    ];
    hub.add(REPO, access, &files)
}

#[test]
fn a_repository_is_fetched_whole_and_pinned() {
    let author = Author::new();
    let commit = add(&author.hub, Access::Public);
    author.fetch().unwrap();
    assert_eq!(author.read("onnx/model.onnx").unwrap(), large());
    assert_eq!(author.read("README.md").unwrap(), b"# Colours");
    assert_eq!(author.read("pytorch_model.bin"), None, "its readers run code");
    assert_eq!(author.read(".gitattributes"), None);
    let lock = std::fs::read_to_string(author.folder().join("checkpoints.lock")).unwrap();
    assert!(lock.contains(&commit), "{lock}");
    // Other tools of the hub find it where they look.
    let snapshot = format!("home/hub/models--ada--colours/snapshots/{commit}/onnx/model.onnx");
    assert_eq!(std::fs::read(author.scratch.path().join(snapshot)).unwrap(), large());

    // What is there is not asked for again.
    author.hub.seen();
    author.fetch().unwrap();
    assert_eq!(author.hub.seen(), []);

    // The branch has moved, the folder was lost: it comes back as it was.
    author.hub.add(REPO, Access::Public, &[("other.onnx", b"x")]);
    std::fs::remove_dir_all(author.folder().join("1/checkpoints")).unwrap();
    author.fetch().unwrap();
    let asked = author.hub.seen();
    assert_eq!(asked.len(), 1, "all files are on this machine: {asked:?}");
    assert!(asked[0].path.contains(&commit), "{asked:?}");
    assert_eq!(author.read("onnx/model.onnx").unwrap(), large());

    // Other globs are of the same commit, until the newest is asked for.
    author.write("config.yaml", &config("  ignore_file_patterns: [\"*.md\"]\n"));
    author.fetch().unwrap();
    assert!(author.read("config.json").is_some() && author.read("README.md").is_none());
    author.fetch_as(Wanted::Newest, None).unwrap();
    assert!(author.read("other.onnx").is_some() && author.read("config.json").is_none());
}

#[test]
fn a_hub_that_says_otherwise_than_the_lock_is_not_believed() {
    for (manner, expected) in [
        (Manner::OtherCommit, "answers with commit bbbb"),
        (Manner::OtherDigests, "the hub lists another README.md"),
        (Manner::Longer, "the hub lists another README.md"),
    ] {
        let author = Author::new();
        add(&author.hub, Access::Public);
        author.fetch().unwrap();
        let lock = std::fs::read(author.folder().join("checkpoints.lock")).unwrap();
        std::fs::remove_file(author.folder().join("1/checkpoints/config.json")).unwrap();
        author.hub.behave(manner);
        let refused = author.fetch().unwrap_err();
        assert!(refused.contains(expected), "{manner:?}: {refused}");
        assert!(refused.contains("`ringfence build --update`"), "{refused}");
        assert_eq!(std::fs::read(author.folder().join("checkpoints.lock")).unwrap(), lock);
    }
}

#[test]
fn an_empty_folder_is_fetched_and_one_that_was_put_there_is_left() {
    let author = Author::new();
    add(&author.hub, Access::Public);
    std::fs::create_dir(author.folder().join("1/checkpoints")).unwrap();
    author.fetch().unwrap();
    assert_eq!(author.read("onnx/model.onnx").unwrap(), large());
    std::fs::remove_file(author.folder().join("checkpoints.lock")).unwrap();
    author.hub.seen();
    author.fetch().unwrap();
    assert_eq!(author.hub.seen(), []);
}

#[test]
fn a_folder_that_leads_elsewhere_is_refused() {
    let author = Author::new();
    add(&author.hub, Access::Public);
    let elsewhere = author.scratch.path().join("elsewhere");
    std::fs::rename(author.folder().join("1"), &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, author.folder().join("1")).unwrap();
    let refused = author.fetch().unwrap_err();
    assert!(refused.contains("1 is a symbolic link"), "{refused}");
    assert_eq!(std::fs::read_dir(elsewhere).unwrap().count(), 0);
}

#[test]
fn globs_choose_what_is_fetched_and_a_change_of_them_exchanges_the_folder() {
    let author = Author::new();
    add(&author.hub, Access::Public);
    author.write("config.yaml", &config("  allowed_file_patterns: \"*.onnx\"\n"));
    author.fetch().unwrap();
    assert!(author.read("onnx/model.onnx").is_some() && author.read("README.md").is_none());

    author.write("config.yaml", &config("  ignore_file_patterns: [\"*.md\"]\n"));
    author.fetch().unwrap();
    assert!(author.read("config.json").is_some() && author.read("README.md").is_none());

    author.write("1/checkpoints/mine.txt", "x");
    author.write("config.yaml", &config(""));
    let refused = author.fetch().unwrap_err();
    assert!(refused.contains("mine.txt"), "{refused}");
    assert_eq!(author.read("mine.txt").unwrap(), b"x");
}

#[test]
fn a_token_goes_to_the_hub_and_to_nobody_else() {
    let author = Author::new();
    add(&author.hub, Access::Private);
    author.fetch_with(Some(TOKEN)).unwrap();
    let seen = author.hub.seen();
    assert!(seen.iter().any(|request| request.elsewhere), "nothing was sent elsewhere");
    for request in seen {
        let expected = (!request.elsewhere).then(|| format!("Bearer {TOKEN}"));
        assert_eq!(request.authorization, expected, "{}", request.path);
    }
}

#[test]
fn a_token_in_the_open_is_refused() {
    let author = Author::new();
    let mut settings = author.settings(Some(TOKEN));
    settings.endpoint = "http://192.0.2.1".to_owned();
    let checkpoints = Config::parse(&config("")).unwrap().checkpoints.unwrap();
    let refused =
        ensure(&author.folder(), &checkpoints, Wanted::Pinned, settings).unwrap_err().to_string();
    assert!(refused.contains("http to") && !refused.contains(TOKEN), "{refused}");
}

#[test]
fn a_token_is_read_as_it_is_pasted_and_refused_where_it_is_none() {
    let author = Author::new();
    add(&author.hub, Access::Private);
    author.fetch_with(Some(&format!(" {TOKEN}\n"))).unwrap();
    let refused = Author::new().fetch_with(Some("hf_a\nb: c")).unwrap_err();
    assert!(refused.contains("characters that no token has"), "{refused}");
}

/// A proxy reads what goes over http, so none is asked.
#[test]
fn a_token_does_not_go_through_a_proxy_in_the_open() {
    let author = Author::new();
    add(&author.hub, Access::Private);
    let proxy = Hub::start();
    // Cargo refuses it, after the checkpoint is there.
    author.write("Cargo.toml", "");
    let fetched = Command::new(binary())
        .args(["build", author.folder().to_str().unwrap()])
        .env("HF_ENDPOINT", author.hub.endpoint())
        .env("HF_HOME", author.scratch.path().join("home"))
        .env("HF_TOKEN", TOKEN)
        .envs(["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"].map(|name| (name, proxy.endpoint())))
        .output()
        .unwrap();
    assert!(author.read("onnx/model.onnx").is_some(), "{}", text(&fetched));
    assert_eq!(proxy.seen(), []);
}

#[test]
fn private_missing_and_gated_are_told_apart() {
    let none = "does not exist, or is private";
    for (access, token, expected) in [
        (None, None, none),
        (None, Some(TOKEN), "does not exist, or the token belongs to somebody who may not"),
        (None, Some("hf_wrong"), "does not accept the token"),
        (Some(Access::Private), None, none),
        (Some(Access::Private), Some(TOKEN_OF_STRANGER), "somebody who may not read it"),
        (Some(Access::Gated), None, "is gated: accept its terms at http://127.0.0.1:"),
        (Some(Access::Gated), Some(TOKEN_OF_STRANGER), "the token has no access to it yet"),
    ] {
        let author = Author::new();
        if let Some(access) = access {
            add(&author.hub, access);
        }
        let refused = author.fetch_with(token).unwrap_err();
        assert!(refused.contains(expected), "{access:?} {token:?}: {refused}");
        for token in [TOKEN, TOKEN_OF_STRANGER, "hf_wrong"] {
            assert!(!refused.contains(token), "{refused}");
        }
        assert!(!author.folder().join("1/checkpoints").exists());
    }
    for access in [Access::Public, Access::Private, Access::Gated] {
        let author = Author::new();
        add(&author.hub, access);
        author.fetch_with(Some(TOKEN)).unwrap();
    }
}

#[test]
fn a_repository_by_another_spelling_is_found() {
    let author = Author::new();
    add(&author.hub, Access::Private);
    author.write("config.yaml", &config("").replace(REPO, "Ada/Colours"));
    author.fetch_with(Some(TOKEN)).unwrap();
    assert_eq!(author.read("onnx/model.onnx").unwrap(), large());
}

#[test]
fn a_download_that_breaks_off_goes_on_from_there() {
    let author = Author::new();
    add(&author.hub, Access::Public);
    author.hub.behave(Manner::BreaksOff(100_000));
    author.fetch().unwrap();
    assert_eq!(author.read("onnx/model.onnx").unwrap(), large());
    let ranges: Vec<_> = author.hub.seen().into_iter().filter(|seen| seen.elsewhere).collect();
    let ranges: Vec<_> = ranges.iter().map(|seen| seen.range.as_deref().unwrap()).collect();
    assert_eq!(ranges, ["bytes=0-", "bytes=100000-", "bytes=200000-"]);
}

#[test]
fn a_download_that_stalls_ends_and_the_next_goes_on_from_there() {
    let mut author = Author::new();
    add(&author.hub, Access::Public);
    author.hub.behave(Manner::Stalls(150_000));
    author.wait_max = Duration::from_millis(100);
    let refused = author.fetch().unwrap_err();
    author.wait_max = Duration::from_secs(5);
    assert!(refused.contains("onnx/model.onnx stays at 150000 of 300000 bytes"), "{refused}");
    assert!(!author.folder().join("1/checkpoints").exists(), "half a folder");
    author.hub.seen();
    author.hub.behave(Manner::Good);
    author.fetch().unwrap();
    assert_eq!(author.read("onnx/model.onnx").unwrap(), large());
    let seen = author.hub.seen();
    let range = seen.iter().find(|seen| seen.elsewhere).unwrap().range.as_deref();
    assert_eq!(range, Some("bytes=150000-"));
}

#[test]
fn a_server_without_ranges_begins_anew() {
    let mut author = Author::new();
    add(&author.hub, Access::Public);
    author.hub.behave(Manner::Stalls(70_000));
    author.wait_max = Duration::from_millis(100);
    author.fetch().unwrap_err();
    author.wait_max = Duration::from_secs(5);
    author.hub.behave(Manner::WithoutRanges);
    author.fetch().unwrap();
    assert_eq!(author.read("onnx/model.onnx").unwrap(), large());
}

/// A byte now and then, or the beginning again and again, is no download.
#[test]
fn a_hub_that_is_slow_for_ever_is_given_up() {
    for (manner, expected) in [
        (Manner::Drips, "onnx/model.onnx stays at"),
        (Manner::Turns, "onnx/model.onnx stays at"),
        (Manner::DripsListing, "127.0.0.1"),
    ] {
        let mut author = Author::new();
        add(&author.hub, Access::Public);
        author.hub.behave(manner);
        author.wait_max = Duration::from_millis(100);
        let refused = author.fetch().unwrap_err();
        assert!(refused.contains(expected), "{manner:?}: {refused}");
    }
}

#[test]
fn bytes_of_another_digest_never_arrive() {
    let author = Author::new();
    add(&author.hub, Access::Public);
    author.hub.behave(Manner::OtherBytes);
    let refused = author.fetch().unwrap_err();
    assert!(refused.contains("onnx/model.onnx came with another digest"), "{refused}");
    assert!(!author.folder().join("1/checkpoints").exists());
    // What was wrong is not taken up again.
    author.hub.behave(Manner::Good);
    author.fetch().unwrap();
    assert_eq!(author.read("onnx/model.onnx").unwrap(), large());

    // Nor is a file that rotted on this machine.
    let blobs = author.scratch.path().join("home/hub/models--ada--colours/blobs");
    for blob in std::fs::read_dir(blobs).unwrap() {
        let path = blob.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[0] ^= 1;
        std::fs::write(path, bytes).unwrap();
    }
    std::fs::remove_dir_all(author.folder().join("1/checkpoints")).unwrap();
    author.fetch().unwrap();
    assert_eq!(author.read("onnx/model.onnx").unwrap(), large());
}

#[test]
fn a_hub_that_does_not_answer_well_is_named() {
    for (manner, expected) in [
        (Manner::Unavailable, "answers 503"),
        (Manner::TooMany, "answers 429"),
        (Manner::Expired, "answers 403 Forbidden to what the hub sent us on to"),
        (Manner::Longer, "less of README.md"),
        (Manner::Circle, "us on more than 8 times"),
    ] {
        let author = Author::new();
        add(&author.hub, Access::Public);
        author.hub.behave(manner);
        let refused = author.fetch().unwrap_err();
        assert!(refused.contains(expected), "{manner:?}: {refused}");
    }
    let author = Author::new();
    let endpoint = author.hub.endpoint();
    drop(author.hub);
    let settings = |endpoint: &str| Settings {
        endpoint: endpoint.to_owned(),
        cache: Cache::new(author.scratch.path().join("hub")),
        token: None,
        patience: Patience { attempts_max: 1, ..Patience::default() },
    };
    let checkpoints = Config::parse(&config("")).unwrap().checkpoints.unwrap();
    let folder = author.scratch.path().join("model");
    for (endpoint, expected) in
        [(endpoint.as_str(), "cannot reach the hub at 127.0.0.1:"), ("ftp://x", "HF_ENDPOINT")]
    {
        let refused =
            ensure(&folder, &checkpoints, Wanted::Pinned, settings(endpoint)).unwrap_err();
        assert!(format!("{refused:#}").contains(expected), "{refused:#}");
    }
}

#[test]
fn a_repository_without_a_graph_is_of_no_use() {
    let author = Author::new();
    author.hub.add(REPO, Access::Public, &[("model.safetensors", b"x")]);
    assert_eq!(
        author.fetch().unwrap_err(),
        "ada/colours has no ONNX file; export one (guests/README.md, Exporting) or name another \
         repo_id"
    );
    // Nor is the graph of what is about to go.
    add(&author.hub, Access::Public);
    author.fetch().unwrap();
    author.hub.add(REPO, Access::Public, &[(".gitattributes", b"x"), ("pytorch_model.bin", b"x")]);
    let refused = author.fetch_as(Wanted::Newest, None).unwrap_err();
    assert!(refused.contains("ada/colours has no ONNX file"), "{refused}");
    author.hub.add(REPO, Access::Public, &[("model.safetensors", b"x")]);
    // The author's own graph will do.
    author.write("1/mine.onnx", "x");
    author.fetch_as(Wanted::Newest, None).unwrap();
    assert_eq!(author.read("model.safetensors").unwrap(), b"x");

    let author = Author::new();
    add(&author.hub, Access::Public);
    author.write("config.yaml", &config("  allowed_file_patterns: \"*.json\"\n"));
    let refused = author.fetch().unwrap_err();
    assert!(refused.contains("leave out every ONNX file"), "{refused}");
}

#[test]
fn a_name_that_leads_elsewhere_is_never_written() {
    for name in ["../../escaped.onnx", "/tmp/escaped.onnx", "a/../../../escaped.onnx"] {
        let author = Author::new();
        author.hub.add(REPO, Access::Public, &[("model.onnx", b"x"), (name, b"x")]);
        let refused = author.fetch().unwrap_err();
        assert!(refused.contains("nothing of such a repository"), "{refused}");
        let asked = author.hub.seen();
        assert_eq!(asked.len(), 1, "a file was asked for: {asked:?}");
    }
}

#[test]
fn what_is_too_long_is_refused() {
    let author = Author::new();
    let names: Vec<String> =
        (0..40_000).map(|index| format!("{index}/{}", "x".repeat(400))).collect();
    let files: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &b"x"[..])).collect();
    author.hub.add(REPO, Access::Public, &files);
    let refused = author.fetch().unwrap_err();
    assert!(refused.contains("a listing that is too long"), "{refused}");

    let long = " ".repeat((4 << 20) + 1);
    author.write("checkpoints.lock", &long);
    let refused = author.fetch().unwrap_err();
    assert!(refused.contains("checkpoints.lock has more than 4194304 bytes"), "{refused}");

    std::fs::remove_file(author.folder().join("checkpoints.lock")).unwrap();
    std::fs::create_dir(author.folder().join("1/checkpoints")).unwrap();
    author.write("1/checkpoints/config.json", &long);
    std::fs::copy(
        Path::new(guests::ECHO).join("1/model.wasm"),
        author.folder().join("1/model.wasm"),
    )
    .unwrap();
    let refused = author.ringfence(&["test"]);
    let told = "1/checkpoints/config.json has more than 4194304 bytes";
    assert!(text(&refused).contains(told), "{}", text(&refused));
}

/// The classifier's graph comes from the hub, and so do its labels.
#[test]
fn a_model_with_checkpoints_is_built_tested_and_inspected() {
    let author = Author::new();
    std::fs::remove_dir_all(author.folder()).unwrap();
    let made = author.ringfence(&["new", "--type", "visual-classifier"]);
    assert!(made.status.success(), "{}", text(&made));
    let folder = author.folder();
    let graph = std::fs::read(folder.join("1/colours.onnx")).unwrap();
    std::fs::remove_file(folder.join("1/colours.onnx")).unwrap();
    let labels: serde_json::Map<String, serde_json::Value> =
        (0..7).map(|index| (index.to_string(), format!("label {index}").into())).collect();
    let labels = serde_json::json!({ "id2label": labels }).to_string();
    author.hub.add(
        REPO,
        Access::Private,
        &[("net.onnx", graph.as_slice()), ("config.json", labels.as_bytes())],
    );
    let text_of = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let config = text_of("config.yaml");
    let (before, after) = config.split_once("\nconcepts:").unwrap();
    let after = after.split_once("\n\n").unwrap().1;
    let graphs = "ringfence: {graphs: {checkpoints/net: colours}}";
    assert!(!after.contains("\nringfence:"), "{after}");
    author.write(
        "config.yaml",
        &format!(
            "{before}\ncheckpoints: {{repo_id: {REPO}, hf_token: {TOKEN}, when: runtime}}\n{graphs}\n\n{after}"
        ),
    );

    // Nothing works before it is there, and each says what to do.
    std::fs::copy(Path::new(guests::ECHO).join("1/model.wasm"), folder.join("1/model.wasm"))
        .unwrap();
    let sheet = author.ringfence(&["inspect"]);
    assert!(sheet.status.success() && text(&sheet).contains("not fetched yet"), "{}", text(&sheet));
    let data = author.scratch.path().join("data");
    let data = data.to_str().unwrap();
    for command in [&["test"][..], &["serve", "--no-auth", "--data-dir", data, "--model"]] {
        let refused = author.ringfence(command);
        assert_eq!(refused.status.code(), Some(2), "{}", text(&refused));
        let told = format!("the checkpoint {REPO} is not in 1/checkpoints");
        assert!(text(&refused).contains(&told), "{}", text(&refused));
        assert!(text(&refused).contains("run `ringfence build "), "{}", text(&refused));
    }

    let target_dir = target_dir();
    let built = author.ringfence(&["build", "--target-dir", target_dir.to_str().unwrap()]);
    assert!(built.status.success(), "{}", text(&built));
    assert!(text(&built).contains("config.json"), "no progress: {}", text(&built));
    let tested = author.ringfence(&["test"]);
    assert!(tested.status.success(), "{}", text(&tested));
    assert!(text(&tested).contains("label 3"), "{}", text(&tested));
    assert!(text(&tested).contains("`checkpoints.hf_token` is left out of the package"));
    for output in [&built, &tested] {
        assert!(!text(output).contains(TOKEN), "{}", text(output));
    }

    // A checkpoint without one of its files is none.
    let graph = folder.join("1/checkpoints/net.onnx");
    let aside = author.scratch.path().join("net.onnx");
    std::fs::rename(&graph, &aside).unwrap();
    let refused = author.ringfence(&["test"]);
    assert!(text(&refused).contains("is not in 1/checkpoints"), "{}", text(&refused));
    std::fs::rename(&aside, &graph).unwrap();

    // The token is no part of what the version is made of.
    let version = |config: &str| {
        author.write("config.yaml", config);
        let sheet = author.ringfence(&["inspect", "--json"]);
        let sheet: serde_json::Value = serde_json::from_slice(&sheet.stdout).unwrap();
        sheet["version"].clone()
    };
    let config = text_of("config.yaml");
    let with = version(&config);
    assert!(with.is_array());
    assert_eq!(with, version(&config.replace(TOKEN, "\"\"")));

    // Labels that cannot be used are told where they are needed, and only there.
    let labels = folder.join("1/checkpoints/config.json");
    let good = std::fs::read(&labels).unwrap();
    let bad = format!("{:<1$}", r#"{"id2label": {"0": 1}}"#, good.len());
    std::fs::write(&labels, bad).unwrap();
    let refused = author.ringfence(&["test"]);
    assert!(text(&refused).contains("\"0\" is otherwise; list them"), "{}", text(&refused));
    author.write("config.yaml", &format!("{config}\nconcepts: [{{id: a, name: a}}]\n"));
    let tested = author.ringfence(&["test"]);
    assert!(!text(&tested).contains("is otherwise"), "{}", text(&tested));
    std::fs::write(&labels, good).unwrap();

    // Another repository is not the one that is there.
    author.write("config.yaml", &config.replace(REPO, "ada/other"));
    let refused = author.ringfence(&["test"]);
    assert!(text(&refused).contains("of other `checkpoints`"), "{}", text(&refused));
}
