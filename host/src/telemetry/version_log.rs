//! The log of each version: what its guests wrote, and how its calls were
//! stopped.
//!
//! Owns the files and their bounds, and the one thread that writes them. A disk
//! that fails or is slow loses entries, which are counted; it stops no call. Who
//! may read an entry is not decided here.

mod files;

use super::request_id;
use crate::call::{Origin, Phase, Verdict};
use crate::clock;
use crate::limits::limit;
use crate::package::config::ModelName;
use files::Files;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;
use tokio::sync::Semaphore;

/// Entries that may wait to be written, of all versions together.
const ENTRIES_WAITING_MAX: usize = 1024;

/// Readings at a time; each holds a version's whole log in memory.
const READINGS_MAX: usize = 4;

/// Time in which entries that wait are written before they are read.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// How serious a guest says a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the words are the world's own")]
pub enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

impl Level {
    /// The word used in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A line that a guest wrote. It may repeat what its caller sent.
    Output,
    /// How a call was stopped, in the host's own words.
    Kill,
}

impl Kind {
    /// The word used in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Output => "output",
            Self::Kill => "kill",
        }
    }
}

/// One entry of a version's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Unlike that of any other entry of the host.
    pub id: String,
    /// Milliseconds since 1970.
    pub at_ms: u64,
    /// What it is.
    pub kind: Kind,
    /// How serious it is.
    pub level: Level,
    /// The call; empty for what a model says while it loads.
    pub call: String,
    /// The user who made the call; empty where there is no call.
    pub user: String,
    /// One line without control characters.
    pub text: String,
}

/// A version's log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Nothing was ever kept of such a version, or not any more.
    #[error("there is no log of this version")]
    Missing,
    /// The disk says no.
    #[error("cannot read the log of a version")]
    Disk(#[from] std::io::Error),
}

enum Message {
    Entry(Arc<str>, Entry),
    Forget(Arc<str>),
    Flush(SyncSender<()>),
}

/// The logs of all versions of a host.
#[derive(Debug)]
pub struct VersionLogs {
    folder: PathBuf,
    sender: SyncSender<Message>,
    lost: Arc<AtomicU64>,
    readings: Semaphore,
    /// What the entries of this run of the host are told apart by.
    run: String,
    next: AtomicU64,
}

/// The log of one version; clones share it.
#[derive(Debug, Clone)]
pub struct VersionLog {
    logs: Arc<VersionLogs>,
    key: Arc<str>,
}

impl VersionLogs {
    /// Opens the logs in a folder, which is made if need be, and starts the
    /// thread that writes them. It ends with this value.
    pub fn open(folder: &Path) -> std::io::Result<Arc<Self>> {
        let mut files = Files::open(folder)?;
        let (logs, receiver) = Self::below(folder);
        let counted = logs.lost.clone();
        std::thread::Builder::new().name("version-logs".into()).spawn(move || {
            keep(&receiver, &mut files, &counted);
        })?;
        Ok(logs)
    }

    /// Those of a folder, and what is to be written there.
    fn below(folder: &Path) -> (Arc<Self>, Receiver<Message>) {
        // The channel makes room for as many.
        let waiting_max = limit("version_log_waiting", ENTRIES_WAITING_MAX).min(1 << 16);
        let (sender, receiver) = sync_channel(waiting_max);
        let logs = Self {
            folder: folder.to_owned(),
            sender,
            lost: Arc::default(),
            readings: Semaphore::new(READINGS_MAX),
            run: request_id().chars().take(12).collect(),
            next: AtomicU64::new(0),
        };
        (Arc::new(logs), receiver)
    }

    /// The log of a version.
    pub fn of(self: &Arc<Self>, model: &ModelName, version: &str) -> VersionLog {
        VersionLog { logs: self.clone(), key: key(model, version) }
    }

    /// Entries that could not be written.
    pub fn entries_lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Waits until what has been kept so far is on the disk, or a second.
    pub fn flush(&self) {
        let (done, is_done) = sync_channel(1);
        if self.sender.try_send(Message::Flush(done)).is_ok() {
            // What the disk has not taken by then is not there to be read.
            let _ = is_done.recv_timeout(FLUSH_TIMEOUT);
        }
    }

    fn send(&self, message: Message) {
        if self.sender.try_send(message).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn keep(receiver: &Receiver<Message>, files: &mut Files, lost: &AtomicU64) {
    while let Ok(message) = receiver.recv() {
        let kept = match message {
            Message::Entry(key, entry) => files.append(&key, &entry),
            Message::Forget(key) => files.remove(&key),
            Message::Flush(done) => {
                // Whoever asked may have given up.
                let _ = done.try_send(());
                Ok(())
            }
        };
        if kept.is_err() {
            lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What a version's files are called. A version belongs to a model: the same
/// package under another name has another log.
fn key(model: &ModelName, version: &str) -> Arc<str> {
    // None of the parts can have the mark between them.
    format!("{}~{}~{}~{version}", model.user_id(), model.app_id(), model.id()).into()
}

impl VersionLog {
    /// Keeps a line that a guest wrote.
    pub fn output(&self, origin: &Origin, level: Level, text: String) {
        self.add(origin, Kind::Output, level, text);
    }

    /// Keeps how a call was stopped, if it was. The guest's own words, and figures that
    /// it can choose, are left out where they may tell what a caller sent: the words are
    /// in its output, and the figures in the caller's receipt.
    pub fn ended(&self, origin: &Origin, verdict: &Verdict) {
        let in_load = verdict.phase == Phase::Load;
        let failed_load = in_load && matches!(verdict.end, crate::call::End::GuestError(_));
        if !verdict.end.is_kill() && !failed_load {
            return;
        }
        let mut text = match in_load {
            // No call has told `load-model` anything.
            true => format!(
                "the call was ended: in load-model: {}; it took {}",
                verdict.end, verdict.receipt
            ),
            false => format!("the call was ended: {}", verdict.end.without_words()),
        };
        for frame in verdict.trace.iter().flat_map(|trace| &trace.frames) {
            text.push_str(" < ");
            text.push_str(&frame.function);
        }
        self.add(origin, Kind::Kill, Level::Error, crate::text::escape_controls(&text));
    }

    /// Counts lines that were lost before they came here.
    pub fn lost(&self, lines: u64) {
        self.logs.lost.fetch_add(lines, Ordering::Relaxed);
    }

    /// Removes all that is kept, as with the version.
    pub fn forget(&self) {
        self.logs.send(Message::Forget(self.key.clone()));
    }

    /// Everything that is kept, the oldest first.
    pub async fn entries(&self) -> Result<Vec<Entry>, ReadError> {
        // It is never closed.
        let _reading = self.logs.readings.acquire().await;
        let (logs, key) = (self.logs.clone(), self.key.clone());
        let read = tokio::task::spawn_blocking(move || {
            logs.flush();
            files::read(&logs.folder, &key)
        });
        match read.await {
            Ok(entries) => entries,
            Err(panic) => Err(std::io::Error::other(panic).into()),
        }
    }

    fn add(&self, origin: &Origin, kind: Kind, level: Level, text: String) {
        let number = self.logs.next.fetch_add(1, Ordering::Relaxed);
        let entry = Entry {
            id: format!("{}-{number}", self.logs.run),
            at_ms: u64::try_from(clock::now_ms()).unwrap_or_default(),
            kind,
            level,
            call: origin.call.to_string(),
            user: origin.user.to_string(),
            text,
        };
        self.logs.send(Message::Entry(self.key.clone(), entry));
    }
}

#[cfg(test)]
#[path = "version_log/tests.rs"]
mod tests;
