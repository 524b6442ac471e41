//! `checkpoints` of `config.yaml`: a repository of weights to `1/checkpoints`.
//!
//! Owns when something is fetched, and how the folder comes to hold all of it
//! or none. Runs on an author's machine; a host fetches nothing.

pub mod cache;
pub mod hub;
pub mod selection;

use crate::package::checkpoint::{FOLDER, LOCK, Lock, LockedFile};
use crate::package::config::{Checkpoints, Config, Secret};
use crate::package::folder::{self, FolderError};
use crate::text::printable;
use anyhow::{Context, bail};
use cache::Blobs;
use cap_std::ambient_authority;
use cap_std::fs::Dir;
use hf_hub::Cache;
use hub::{Hub, Patience};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use selection::{Selection, select};
use std::fs::{File, Permissions, TryLockError};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
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

/// Which commit is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// That of `checkpoints.lock`; without one, the newest.
    Pinned,
    /// The newest.
    Newest,
}

/// Fetches what the folder's `config.yaml` names, unless it is there. Says what
/// it does on standard error.
pub(super) fn ensure_of(dir: &Path, wanted: Wanted) -> anyhow::Result<()> {
    let root = Dir::open_ambient_dir(dir, ambient_authority())
        .with_context(|| format!("cannot open {}", dir.display()))?;
    let text = match folder::config_text(&root) {
        // Whether there has to be one is for whoever reads the package.
        Err(FolderError::Missing { .. }) => return Ok(()),
        text => text?,
    };
    match Config::parse(&text)?.checkpoints {
        Some(checkpoints) => ensure(dir, &checkpoints, wanted, Settings::of_environment()?),
        None => Ok(()),
    }
}

/// Fetches `checkpoints` into `1/checkpoints` of the folder, unless they are
/// there, and writes their commit and digests to `checkpoints.lock`.
pub fn ensure(
    dir: &Path,
    checkpoints: &Checkpoints,
    wanted: Wanted,
    settings: Settings,
) -> anyhow::Result<()> {
    let root = Dir::open_ambient_dir(dir, ambient_authority())
        .with_context(|| format!("cannot open {}", dir.display()))?;
    let place = dir.join("1").join(FOLDER);
    let repo_id = &checkpoints.repo_id;
    let earlier = folder::lock(&root)?;
    // A commit is pinned for its repository, whatever is chosen of it.
    let pin = match wanted {
        Wanted::Pinned => earlier.as_ref().filter(|lock| lock.repo_id == *repo_id),
        Wanted::Newest => None,
    };
    if pin.is_some_and(|lock| lock.is_of(checkpoints) && folder::has_files_of(&root, lock)) {
        return Ok(());
    }
    if earlier.is_none() && !files_of_checkpoint(&root)?.is_empty() {
        say(&format!("1/checkpoints has no {LOCK}: it is used as it is"));
        return Ok(());
    }
    let _only_one = alone(dir)?;
    only_of(&root, earlier.as_ref())?;

    let token = checkpoints.hf_token.as_ref().map(Secret::reveal).map(str::to_owned);
    let hub = Hub::new(&settings.endpoint, token.or(settings.token), settings.patience)?;
    let revision = pin.map_or(BRANCH, |lock| &lock.commit);
    let listing = hub.listing(repo_id, revision)?;
    let selection = select(checkpoints, listing.files)?;
    has_onnx(&root, repo_id, &selection)?;
    if selection.files.is_empty() {
        bail!(
            "of {repo_id} nothing is left to fetch; widen `allowed_file_patterns`, or narrow \
             `ignore_file_patterns`"
        );
    }
    if let Some(lock) = pin {
        is_as_locked(lock, checkpoints, &listing.commit, &selection.files)?;
    }
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
    // Somebody may have put a file there meanwhile.
    only_of(&root, earlier.as_ref())?;
    install(dir, &staging, &place, &lock)
}

/// Keeps a second build of the folder out; ends with the value.
fn alone(dir: &Path) -> anyhow::Result<File> {
    let folder = File::open(dir).with_context(|| format!("cannot open {}", dir.display()))?;
    match folder.try_lock() {
        Ok(()) => Ok(folder),
        Err(TryLockError::WouldBlock) => {
            bail!("another build fetches the checkpoint of {}; wait for it", dir.display())
        }
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", dir.display()))
        }
    }
}

/// What a hub says of a pinned commit has to be what it said before.
fn is_as_locked(
    lock: &Lock,
    checkpoints: &Checkpoints,
    commit: &str,
    files: &[LockedFile],
) -> anyhow::Result<()> {
    let repo_id = &lock.repo_id;
    let mend = "`ringfence build --update` takes what is there now";
    if commit != lock.commit {
        bail!(
            "the hub answers with commit {commit} of {repo_id}, and {LOCK} has {}; {mend}",
            lock.commit
        );
    }
    let other = files
        .iter()
        .find(|file| lock.files.iter().any(|locked| locked.name == file.name && locked != *file));
    if let Some(file) = other {
        bail!("the hub lists another {} of {repo_id} than {LOCK} has; {mend}", file.name);
    }
    if lock.is_of(checkpoints) && lock.files != files {
        bail!("the hub lists other files of {repo_id} than {LOCK} has; {mend}");
    }
    Ok(())
}

/// The files below `1/checkpoints`, by their paths there.
fn files_of_checkpoint(root: &Dir) -> anyhow::Result<Vec<String>> {
    let names = folder::names(root)?;
    Ok(names.iter().filter_map(|name| folder::in_checkpoint(name)).map(str::to_owned).collect())
}

/// Replacing a folder that holds somebody's own work would lose it.
fn only_of(root: &Dir, earlier: Option<&Lock>) -> anyhow::Result<()> {
    let is_ours = |name: &String| {
        earlier.is_some_and(|lock| lock.files.iter().any(|file| file.name == *name))
    };
    match files_of_checkpoint(root)?.into_iter().find(|name| !is_ours(name)) {
        Some(name) => bail!(
            "1/checkpoints has {name}, which was not fetched; move it out, as the folder is about to \
             be replaced"
        ),
        None => Ok(()),
    }
}

/// A checkpoint without a graph that an engine can run is of little use, unless
/// the author has put one beside it.
fn has_onnx(root: &Dir, repo_id: &str, selection: &Selection) -> anyhow::Result<()> {
    let is_graph = |name: &str| name.ends_with(".onnx");
    let beside = folder::names(root)?;
    if selection.files.iter().any(|file| is_graph(&file.name))
        || beside.iter().any(|name| is_graph(name) && folder::in_checkpoint(name).is_none())
    {
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

/// Exchanges the whole folder. Cut off anywhere, it leaves no files that a lock
/// does not name, and what is missing is fetched again.
fn install(dir: &Path, staging: &Path, place: &Path, lock: &Lock) -> anyhow::Result<()> {
    let cannot = || format!("cannot put the checkpoint at {}", place.display());
    let path = dir.join(LOCK);
    let text = format!("{:#}\n", serde_json::to_value(lock)?);
    // A temporary file is private; what an author keeps under git is not.
    let mut file = tempfile::Builder::new()
        .permissions(Permissions::from_mode(0o644))
        .tempfile_in(dir)
        .with_context(cannot)?;
    file.write_all(text.as_bytes()).with_context(cannot)?;
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
