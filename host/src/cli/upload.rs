//! `ringfence upload`: a model folder to a version that a host serves.
//!
//! Owns the archive and its way to the host. It is the same for the same
//! folder, so an upload that broke off goes on where it was.

use super::client::{Client, describe};
use super::serve::staleness;
use super::{GlobalArgs, UploadArgs, Usage, client};
use crate::digest::sha256_of;
use crate::package::Package;
use crate::package::checkpoint;
use crate::package::config::{Config, ModelName};
use crate::package::folder::{self, Taking};
use crate::proto::clarifai::api;
use crate::proto::clarifai::api::post_model_versions_upload_request::UploadData;
use crate::proto::clarifai::api::status::StatusCode;
use crate::server::DIGEST_METADATA;
use crate::text::{hex, printable};
use anyhow::{Context, anyhow, bail};
use cap_std::ambient_authority;
use cap_std::fs::Dir;
use flate2::Compression;
use flate2::write::GzEncoder;
use indicatif::{ProgressBar, ProgressStyle};
use std::collections::HashSet;
use std::fs::File;
use std::io::{self, IsTerminal, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Bytes of a part. The host takes larger ones; these show progress.
const PART_BYTES: usize = 1 << 20;
/// How often the host is asked how the build goes.
const POLL: Duration = Duration::from_millis(250);
/// Lines that are asked for at a time.
const LINES_PER_PAGE: u32 = 100;

pub(super) fn run(args: &UploadArgs, global: &GlobalArgs) -> anyhow::Result<()> {
    let scratch = tempfile::tempdir().context("cannot make a scratch folder")?;
    let package = folder::open(&args.dir, scratch.path(), Taking::Nothing)?;
    if let Some(note) = staleness(&args.dir) {
        writeln!(io::stderr(), "note: {note}")?;
    }
    let archive = archive(&args.dir, &package)?;
    client::block_on(async {
        let mut client = Client::connect(global).await?;
        let name = name(&mut client, &package.config).await?;
        let mut teller = Teller { json: global.json };
        if !args.again && is_there(&mut client, &name, &package.version).await? {
            return teller.end(&name, &package.version, "is there already");
        }
        prepare(&mut client, &name, &package.config).await?;
        let version = send(&mut client, &name, &package.config, &archive).await?;
        watch(&mut client, &name, &version, &mut teller).await?;
        teller.end(&name, &version, "can be called")
    })
}

/// The archive, in a file that goes with it.
struct Archive {
    file: File,
    bytes: u64,
    sha256: [u8; 32],
}

/// Packs what a package is made of, and the example. The same folder gives the
/// same bytes.
fn archive(dir: &Path, package: &Package) -> anyhow::Result<Archive> {
    let root = Dir::open_ambient_dir(dir, ambient_authority())?;
    let file = tempfile::tempfile().context("cannot make a file for the archive")?;
    // Weights hardly shrink; the fastest is the best.
    let gzip = GzEncoder::new(io::BufWriter::new(file), Compression::fast());
    let mut tar = tar::Builder::new(gzip);
    // What is a secret stays here.
    let config = Config::without_secrets(&folder::config_text(&root)?)?;
    add(&mut tar, "config.yaml", config.len() as u64, config.as_bytes())?;
    let mut paths: Vec<String> = package.listing.iter().map(|file| file.path.clone()).collect();
    paths.retain(|path| path != "config.yaml");
    for entry in root.entries()? {
        let name = entry?.file_name().into_string().unwrap_or_default();
        if name.starts_with("example.") || name == checkpoint::LOCK {
            paths.push(name);
        }
    }
    paths.sort();
    for path in &paths {
        let content = root.open(path).with_context(|| format!("cannot read {path}"))?;
        let bytes = content.metadata()?.len();
        add(&mut tar, path, bytes, content).with_context(|| format!("cannot pack {path}"))?;
    }
    let mut file = tar.into_inner()?.finish()?.into_inner().map_err(|error| error.into_error())?;
    file.seek(SeekFrom::Start(0))?;
    let (sha256, bytes) = sha256_of(&file)?;
    Ok(Archive { file, bytes, sha256 })
}

fn add<W: Write>(
    tar: &mut tar::Builder<W>,
    path: &str,
    bytes: u64,
    content: impl Read,
) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes);
    header.set_mode(0o644);
    header.set_entry_type(tar::EntryType::Regular);
    tar.append_data(&mut header, path, content.take(bytes))
}

/// What the model will be called: its owner is the caller, and the file may not
/// say another.
async fn name(client: &mut Client, config: &Config) -> anyhow::Result<ModelName> {
    let me = api::UserAppIdSet { user_id: "me".into(), app_id: String::new() };
    let asked = api::GetUserRequest { user_app_id: Some(me), ..Default::default() };
    let request = client.request(asked);
    let answer = client.rpc.get_user(request).await;
    let answer = answer.map_err(|status| client.failed("get user", &status))?.into_inner();
    client.check("get user", answer.status.as_ref())?;
    let user = answer.user.unwrap_or_default().id;
    if config.named.user && config.name.user_id() != user {
        let text = format!(
            "config.yaml says `user_id: {}`, and the token is of {user}; take another token, or leave \
             `user_id` out",
            config.name.user_id()
        );
        return Err(Usage(text).into());
    }
    Ok(ModelName::new(&user, config.name.app_id(), config.name.id())?)
}

/// Whether the host has this very version.
async fn is_there(client: &mut Client, name: &ModelName, version: &str) -> anyhow::Result<bool> {
    Ok(state(client, name, version).await?.code == StatusCode::ModelTrained as i32)
}

/// The status of a version, or of the request that asked for it.
async fn state(
    client: &mut Client,
    name: &ModelName,
    version: &str,
) -> anyhow::Result<api::status::Status> {
    let asked = api::GetModelVersionRequest {
        user_app_id: Some(user_app_id(name)),
        model_id: name.id().to_owned(),
        version_id: version.to_owned(),
    };
    let request = client.request(asked);
    let answer = client.rpc.get_model_version(request).await;
    let answer = answer.map_err(|status| client.failed("get version", &status))?.into_inner();
    Ok(match answer.model_version.and_then(|version| version.status) {
        Some(status) => status,
        None => answer.status.unwrap_or_default(),
    })
}

/// Makes the app and the model, where they are not there yet.
async fn prepare(client: &mut Client, name: &ModelName, config: &Config) -> anyhow::Result<()> {
    let app = api::App { id: name.app_id().to_owned(), ..Default::default() };
    let asked = api::PostAppsRequest { user_app_id: Some(user_app_id(name)), apps: vec![app] };
    let request = client.request(asked);
    let answer = client.rpc.post_apps(request).await;
    let answer = answer.map_err(|status| client.failed("make the app", &status))?.into_inner();
    client.check("make the app", answer.status.as_ref())?;
    let model = api::Model {
        id: name.id().to_owned(),
        model_type_id: config.model_type_id.clone(),
        ..Default::default()
    };
    let asked = api::PostModelsRequest {
        user_app_id: Some(user_app_id(name)),
        models: vec![model],
        ..Default::default()
    };
    let request = client.request(asked);
    let answer = client.rpc.post_models(request).await;
    let answer = answer.map_err(|status| client.failed("make the model", &status))?.into_inner();
    client.check("make the model", answer.status.as_ref())
}

/// Sends what the host does not have of the archive; returns the version's id.
async fn send(
    client: &mut Client,
    name: &ModelName,
    config: &Config,
    archive: &Archive,
) -> anyhow::Result<String> {
    let (messages, stream) = mpsc::channel(1);
    let mut request = client.request(ReceiverStream::new(stream));
    request.metadata_mut().insert(DIGEST_METADATA, hex(&archive.sha256).parse()?);
    let config = api::PostModelVersionsUploadConfig {
        user_app_id: Some(user_app_id(name)),
        model_id: name.id().to_owned(),
        model_version: Some(api::ModelVersion {
            num_threads: config.num_threads.and_then(|n| i32::try_from(n).ok()).unwrap_or(0),
            ..Default::default()
        }),
        total_size: archive.bytes,
        is_v3: true,
        storage_request_size: 0,
    };
    // The channel has room for one.
    let _ = messages.send(message(UploadData::UploadConfig(config))).await;
    let answers = client.rpc.post_model_versions_upload(request).await;
    let mut answers = answers.map_err(|status| client.failed("upload", &status))?.into_inner();
    let first = answers.message().await.map_err(|status| client.failed("upload", &status))?;
    let first = first.ok_or_else(|| anyhow!("the host has ended the upload without a word"))?;
    in_progress(client, &first)?;

    let offset = archive.bytes.saturating_sub(first.bytes_remaining);
    let bar = bar(archive.bytes);
    if offset > 0 {
        bar.set_position(offset);
        bar.println(format!("going on after {offset} bytes that the host has"));
    }
    let mut file = archive.file.try_clone()?;
    file.seek(SeekFrom::Start(offset))?;
    let feeding = async move {
        let mut part_number = 0;
        loop {
            let mut data = vec![0; PART_BYTES];
            let mut length = 0;
            // A part is as long as there are bytes for it.
            while let Some(rest) = data.get_mut(length..).filter(|rest| !rest.is_empty()) {
                match file.read(rest)? {
                    0 => break,
                    count => length += count,
                }
            }
            if length == 0 {
                return io::Result::Ok(());
            }
            data.truncate(length);
            part_number += 1;
            let part = api::UploadContentPart { range_start: 0, part_number, data: data.into() };
            if messages.send(message(UploadData::ContentPart(part))).await.is_err() {
                // The host has ended it, and says why.
                return Ok(());
            }
        }
    };
    let reading = async {
        loop {
            let answer = answers.message().await;
            let answer = answer.map_err(|status| client.failed("upload", &status))?;
            let answer =
                answer.ok_or_else(|| anyhow!("the host has ended the upload without a version"))?;
            bar.set_position(archive.bytes.saturating_sub(answer.bytes_remaining));
            if !answer.model_version_id.is_empty() {
                return anyhow::Ok(answer.model_version_id);
            }
            in_progress(client, &answer)?;
        }
    };
    let (fed, version) = tokio::join!(feeding, reading);
    bar.finish_and_clear();
    let version = version?;
    fed.context("cannot read the archive")?;
    Ok(version)
}

fn in_progress(
    client: &Client,
    answer: &api::PostModelVersionsUploadResponse,
) -> anyhow::Result<()> {
    match &answer.status {
        Some(status) if status.code == StatusCode::UploadInProgress as i32 => Ok(()),
        status => client.check("upload", status.as_ref()),
    }
}

/// Prints what the host tells of the build until it is over.
async fn watch(
    client: &mut Client,
    name: &ModelName,
    version: &str,
    teller: &mut Teller,
) -> anyhow::Result<()> {
    let mut told = HashSet::new();
    loop {
        let state = state(client, name, version).await?;
        let over = state.code != StatusCode::ModelBuilding as i32;
        lines(client, name, version, &mut told, teller).await?;
        if state.code == StatusCode::ModelTrained as i32 {
            return Ok(());
        }
        if over {
            bail!("the host does not take {name}: {}", describe(&state));
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn lines(
    client: &mut Client,
    name: &ModelName,
    version: &str,
    told: &mut HashSet<String>,
    teller: &mut Teller,
) -> anyhow::Result<()> {
    for page in 1.. {
        let asked = api::ListLogEntriesRequest {
            page,
            per_page: LINES_PER_PAGE,
            log_type: "builder".to_owned(),
            user_app_id: Some(user_app_id(name)),
            model_id: name.id().to_owned(),
            model_version_id: version.to_owned(),
        };
        let request = client.request(asked);
        let answer = client.rpc.list_log_entries(request).await;
        let answer = answer.map_err(|status| client.failed("read the log", &status))?.into_inner();
        client.check("read the log", answer.status.as_ref())?;
        let count = answer.log_entries.len();
        for entry in answer.log_entries {
            if told.insert(entry.url) {
                teller.line(&entry.message)?;
            }
        }
        if count < LINES_PER_PAGE as usize {
            break;
        }
    }
    Ok(())
}

fn message(data: UploadData) -> api::PostModelVersionsUploadRequest {
    api::PostModelVersionsUploadRequest { upload_data: Some(data) }
}

fn user_app_id(name: &ModelName) -> api::UserAppIdSet {
    api::UserAppIdSet { user_id: name.user_id().to_owned(), app_id: name.app_id().to_owned() }
}

/// A bar on a terminal, nothing elsewhere: what follows is told in lines.
fn bar(bytes: u64) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = "{bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    let bar = ProgressBar::new(bytes);
    bar.set_style(
        ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    bar
}

/// Where what happens is told.
struct Teller {
    json: bool,
}

impl Teller {
    fn line(&mut self, text: &str) -> anyhow::Result<()> {
        let mut out = io::stdout().lock();
        match self.json {
            true => writeln!(out, "{}", serde_json::json!({ "log": text }))?,
            false => writeln!(out, "  {}", printable(text))?,
        }
        Ok(())
    }

    fn end(&mut self, name: &ModelName, version: &str, what: &str) -> anyhow::Result<()> {
        let mut out = io::stdout().lock();
        match self.json {
            true => writeln!(
                out,
                "{}",
                serde_json::json!({ "model": name.to_string(), "version": version })
            )?,
            false => writeln!(out, "{name}@{version} {what}")?,
        }
        Ok(())
    }
}
