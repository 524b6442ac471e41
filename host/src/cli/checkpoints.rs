//! `checkpoints` of `config.yaml`: a repository of weights to `1/checkpoints`.
//!
//! Owns when something is fetched, and how the folder comes to hold all of it
//! or none. Runs on an author's machine; a host fetches nothing.

pub mod cache;
pub mod hub;
pub mod selection;

use crate::package::checkpoint::{FOLDER, LOCK, Lock, LockedFile};
use crate::package::config::{Checkpoints, Config, Secret};
use crate::package::folder;
use crate::text::printable;
use anyhow::{Context, bail};
use cache::Blobs;
use cap_std::ambient_authority;
use cap_std::fs::Dir;
use hf_hub::Cache;
use hub::{Hub, Patience};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use selection::{Selection, select};
use std::io::Write;
use std::path::{Path, PathBuf};

/// What is fetched where nothing is pinned.
const BRANCH: &str = "main";
const ENDPOINT: &str = "https://huggingface.co";
/// Where the files are put together, beside the place where they go.
const STAGING: &str = ".checkpoints.new";
/// Where the earlier ones wait meanwhile.
const EARLIER: &str = ".checkpoints.old";
/// Most names that a line lists.
const NAMES_SHOWN_MAX: usize = 5;

/// The hub that `HF_ENDPOINT`, `HF_TOKEN` and `HF_HOME` name, and how patiently
/// it is asked.
pub struct Settings {
    /// Address of the hub.
    pub endpoint: String,
    /// Where files of hubs are kept on this machine.
    pub cache: Cache,
    /// The token of the environment.
    pub token: Option<String>,
    /// How patient.
    pub patience: Patience,
}

impl Settings {
    /// As the environment says; the token is also looked for where the hub's
    /// own tools keep it.
    pub fn of_environment() -> anyhow::Result<Self> {
        let text = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let home = match text("HF_HOME") {
            Some(home) => PathBuf::from(home),
            None => std::env::home_dir()
                .context("there is no home directory; set HF_HOME to where checkpoints are kept")?
                .join(".cache/huggingface"),
        };
        let cache = Cache::new(home.join("hub"));
        let token = text("HF_TOKEN").or_else(|| cache.token());
        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned());
        Ok(Self { endpoint, cache, token, patience: Patience::default() })
    }
}

/// Fetches what the folder's `config.yaml` names, unless it is there. Says what
/// it does on standard error.
pub(super) fn ensure_of(dir: &Path) -> anyhow::Result<()> {
    let path = dir.join("config.yaml");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        // Whether there has to be one is for whoever reads the package.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    match Config::parse(&text)?.checkpoints {
        Some(checkpoints) => ensure(dir, &checkpoints, Settings::of_environment()?),
        None => Ok(()),
    }
}

/// Fetches `checkpoints` into `1/checkpoints` of the folder, unless they are
/// there: at the commit of `checkpoints.lock`, else at the newest, which is
/// then written there.
pub fn ensure(dir: &Path, checkpoints: &Checkpoints, settings: Settings) -> anyhow::Result<()> {
    let root = Dir::open_ambient_dir(dir, ambient_authority())
        .with_context(|| format!("cannot open {}", dir.display()))?;
    let lock = folder::lock(&root)?;
    let place = dir.join("1").join(FOLDER);
    let repo_id = &checkpoints.repo_id;
    let (earlier, pinned) = match lock {
        Some(lock) if lock.is_of(checkpoints) => {
            if is_there(&place, &lock.files) {
                return Ok(());
            }
            (Some(lock.clone()), Some(lock.commit))
        }
        Some(lock) => (Some(lock), None),
        None if place.exists() => {
            say(&format!("1/checkpoints has no {LOCK}: it is used as it is"));
            return Ok(());
        }
        None => (None, None),
    };
    only_of(&place, earlier.as_ref())?;

    let token = checkpoints.hf_token.as_ref().map(Secret::reveal).map(str::to_owned);
    let hub = Hub::new(&settings.endpoint, token.or(settings.token), settings.patience)?;
    let listing = hub.listing(repo_id, pinned.as_deref().unwrap_or(BRANCH))?;
    let selection = select(checkpoints, listing.files)?;
    has_onnx(dir, repo_id, &selection)?;
    if !selection.code.is_empty() {
        let names = names(&selection.code);
        say(&format!("{repo_id}: left out, as reading them runs code: {names}"));
    }

    let staging = dir.join(STAGING);
    remove_all(&staging)?;
    let blobs = Blobs::new(&settings.cache, repo_id, &listing.commit);
    let shown = Shown::new(repo_id, &listing.commit, &selection.files);
    for file in &selection.files {
        shown.begin(file);
        blobs.place(&hub, file, &staging.join(&file.name), &mut |bytes| shown.moved(bytes))?;
    }
    shown.end();

    let lock = Lock {
        repo_id: repo_id.clone(),
        allowed_file_patterns: checkpoints.allowed_file_patterns.clone(),
        ignore_file_patterns: checkpoints.ignore_file_patterns.clone(),
        commit: listing.commit,
        files: selection.files,
    };
    install(dir, &staging, &place, &lock)
}

/// Whether every file is there in its length.
fn is_there(place: &Path, files: &[LockedFile]) -> bool {
    files.iter().all(|file| {
        std::fs::symlink_metadata(place.join(&file.name))
            .is_ok_and(|there| there.is_file() && there.len() == file.size)
    })
}

/// Replacing a folder that holds somebody's own work would lose it.
fn only_of(place: &Path, earlier: Option<&Lock>) -> anyhow::Result<()> {
    let mut folders = vec![place.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", folder.display()));
            }
        };
        for entry in entries {
            let entry = entry?;
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(place)?.to_string_lossy().into_owned();
            let is_ours = earlier.is_some_and(|lock| lock.files.iter().any(|f| f.name == name));
            if !is_ours {
                bail!(
                    "1/checkpoints has {name}, which was not fetched; move it out, as the folder is \
                     about to be replaced"
                );
            }
        }
    }
    Ok(())
}

/// A checkpoint without a graph that an engine can run is of little use.
fn has_onnx(dir: &Path, repo_id: &str, selection: &Selection) -> anyhow::Result<()> {
    let fetched = selection.files.iter().any(|file| file.name.ends_with(".onnx"));
    if fetched || has_graph(&dir.join("1"))? {
        return Ok(());
    }
    if selection.onnx_left_out > 0 {
        bail!(
            "`allowed_file_patterns` and `ignore_file_patterns` leave out every ONNX file of {repo_id}; \
             let one through"
        );
    }
    bail!(
        "{repo_id} has no ONNX file; export one (guests/README.md, Exporting) or name another repo_id"
    );
}

/// Whether the author has put a graph there.
fn has_graph(code: &Path) -> anyhow::Result<bool> {
    let mut folders = vec![code.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else if entry.file_name().to_string_lossy().ends_with(".onnx") {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Exchanges the whole folder. Cut off anywhere, it leaves no files that a lock
/// does not name, and what is missing is fetched again.
fn install(dir: &Path, staging: &Path, place: &Path, lock: &Lock) -> anyhow::Result<()> {
    let cannot = || format!("cannot put the checkpoint at {}", place.display());
    let path = dir.join(LOCK);
    let text = format!("{:#}\n", serde_json::to_value(lock)?);
    let mut file = tempfile::NamedTempFile::new_in(dir).with_context(cannot)?;
    file.write_all(text.as_bytes()).with_context(cannot)?;
    allow_others(file.path()).with_context(cannot)?;
    let earlier = dir.join(EARLIER);
    remove_all(&earlier)?;
    if place.exists() {
        std::fs::rename(place, &earlier).with_context(cannot)?;
    }
    // Without its lock the folder would pass for one that was put there by hand.
    file.persist(&path).with_context(cannot)?;
    if let Some(code) = place.parent() {
        std::fs::create_dir_all(code).with_context(cannot)?;
    }
    std::fs::rename(staging, place).with_context(cannot)?;
    remove_all(&earlier)
}

/// A temporary file is private; what an author keeps under git is not.
fn allow_others(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644))
}

fn remove_all(folder: &Path) -> anyhow::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

fn names(all: &[String]) -> String {
    let shown: Vec<&str> = all.iter().take(NAMES_SHOWN_MAX).map(String::as_str).collect();
    match all.len() - shown.len() {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// A line on standard error, where nobody may be reading.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", printable(text));
}

/// How far it is: a bar on a terminal, a line for each file elsewhere.
struct Shown {
    bar: ProgressBar,
    files: usize,
}

impl Shown {
    fn new(repo_id: &str, commit: &str, files: &[LockedFile]) -> Self {
        let bytes = files.iter().map(|file| file.size).sum();
        let short = commit.get(..12).unwrap_or(commit);
        say(&format!("{repo_id} at {short}: {} files, {bytes} bytes", files.len()));
        let bar = ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::stderr());
        let template = "{bar:30} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {msg}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self { bar, files: files.len() }
    }

    fn begin(&self, file: &LockedFile) {
        let name = printable(&file.name);
        if self.bar.is_hidden() {
            say(&format!("  {name} ({} bytes)", file.size));
        }
        self.bar.set_message(name);
    }

    fn moved(&self, bytes: i64) {
        match u64::try_from(bytes) {
            Ok(more) => self.bar.inc(more),
            Err(_) => self.bar.dec(bytes.unsigned_abs()),
        }
    }

    fn end(&self) {
        self.bar.finish_and_clear();
        say(&format!("  all {} are there, with the digests that the hub lists", self.files));
    }
}
