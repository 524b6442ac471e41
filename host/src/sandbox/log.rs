//! What a guest writes to its log, bounded per call and per version.
//!
//! Owns cutting, counting and dropping lines. Every line goes to the log of its
//! version, with control characters escaped; where nobody keeps one, it is told to
//! `tracing` under the target `guest`.

use crate::call::Origin;
use crate::limits::{Limits, limit};
use crate::telemetry::{Level, Rate};
use crate::text::{cut, escape_controls};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

/// Lines per second that one version may log in the long run.
const LINES_PER_SECOND: f64 = 100.0;

/// Lines that it may log at once.
const LINES_BURST: f64 = 400.0;

/// How a Rust panic announces itself, in a log line and on standard error.
const PANIC_MARK: &str = "panicked at";

/// Where the lines of a version's guests go; clones go to the same place.
#[derive(Clone)]
pub struct Lines(Arc<Take>);

/// Takes one line of a call.
type Take = dyn Fn(&Origin, Level, String) + Send + Sync;

impl Lines {
    /// To whoever takes them. It must not wait.
    pub fn to(take: impl Fn(&Origin, Level, String) + Send + Sync + 'static) -> Self {
        Self(Arc::new(take))
    }
}

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lines")
    }
}

/// The log of one sandbox; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct GuestLog(Arc<Mutex<Inner>>);

#[derive(Debug)]
pub(crate) struct Inner {
    model: Arc<str>,
    kept: Option<Lines>,
    /// The call; one without a name while the model loads.
    origin: Origin,
    rate: Arc<Rate>,
    lines_left: u32,
    bytes_left: usize,
    lines_dropped: u32,
    line_bytes_max: usize,
    last_words_bytes_max: usize,
    partial: Vec<u8>,
    last_words: Option<String>,
}

impl GuestLog {
    pub(crate) fn new(
        model: Arc<str>,
        kept: Option<Lines>,
        rate: Arc<Rate>,
        limits: &Limits,
    ) -> Self {
        #[cfg(test)]
        let limits = &limits.clone().lifted();
        Self(Arc::new(Mutex::new(Inner {
            model,
            kept,
            origin: Origin::from(""),
            rate,
            lines_left: limits.log_lines_per_call_max,
            bytes_left: limits.log_bytes_per_call_max,
            lines_dropped: 0,
            line_bytes_max: limits.log_line_bytes_max,
            last_words_bytes_max: limits.error_text_bytes_max,
            partial: Vec::new(),
            last_words: None,
        })))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic while the lock is held leaves nothing half done that matters.
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Inner {
    /// Starts the count of a call afresh after the lines of `load-model`.
    pub(crate) fn start_call(&mut self, origin: Origin, limits: &Limits) {
        self.finish();
        self.origin = origin;
        self.lines_left = limits.log_lines_per_call_max;
        self.bytes_left = limits.log_bytes_per_call_max;
        self.last_words = None;
    }

    /// One line, or several in one text, of `context.log`.
    pub(crate) fn line(&mut self, level: Level, text: &str) {
        if level == Level::Error && (text.contains(PANIC_MARK) || self.last_words.is_some()) {
            self.remember(text);
        }
        self.emit(level, text);
    }

    /// Bytes of standard output or standard error.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        if self.lines_left == 0 && self.last_words.is_none() {
            // Nothing of it would be kept; a flood should cost no more than this.
            self.lines_dropped = self.lines_dropped.saturating_add(1);
            return;
        }
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let room = self.line_bytes_max.saturating_add(1).saturating_sub(self.partial.len());
            self.partial.extend(piece.iter().take(room));
            if piece.ends_with(b"\n") {
                self.flush_partial();
            }
        }
    }

    /// Tells how many lines were dropped. Called once, when the call is over.
    pub(crate) fn finish(&mut self) {
        self.flush_partial();
        let dropped = std::mem::take(&mut self.lines_dropped);
        if dropped > 0 && self.rate.take() {
            self.tell(Level::Warn, format!("{dropped} log lines dropped"));
        }
    }

    /// The panic message, if the guest has told one.
    pub(crate) fn take_last_words(&mut self) -> Option<String> {
        self.flush_partial();
        self.last_words.take()
    }

    fn flush_partial(&mut self) {
        if self.partial.is_empty() {
            return;
        }
        let bytes = std::mem::take(&mut self.partial);
        let text = String::from_utf8_lossy(&bytes);
        let text = text.trim_end_matches(['\n', '\r']);
        if text.contains(PANIC_MARK) || self.last_words.is_some() {
            self.remember(text);
        }
        self.emit(Level::Info, text);
    }

    fn remember(&mut self, text: &str) {
        let max = self.last_words_bytes_max;
        let words = self.last_words.get_or_insert_default();
        if !words.is_empty() {
            words.push(' ');
        }
        words.push_str(text.trim());
        cut(words, max);
    }

    fn emit(&mut self, level: Level, text: &str) {
        // A flood should cost no more than this.
        let line = (self.lines_left > 0).then(|| shown(text, self.line_bytes_max));
        let left = line.as_ref().and_then(|line| self.bytes_left.checked_sub(line.len()));
        match (line, left) {
            (Some(line), Some(left)) if self.rate.take() => {
                (self.lines_left, self.bytes_left) = (self.lines_left - 1, left);
                self.tell(level, line);
            }
            _ => self.lines_dropped = self.lines_dropped.saturating_add(1),
        }
    }

    fn tell(&self, level: Level, line: String) {
        if let Some(kept) = &self.kept {
            return kept.0(&self.origin, level, line);
        }
        let (model, req_id) = (&self.model, &self.origin.call);
        match level {
            Level::Debug => tracing::debug!(target: "guest", %model, %req_id, "{line}"),
            Level::Info => tracing::info!(target: "guest", %model, %req_id, "{line}"),
            Level::Warn => tracing::warn!(target: "guest", %model, %req_id, "{line}"),
            Level::Error => tracing::error!(target: "guest", %model, %req_id, "{line}"),
        }
    }
}

/// A line as it is logged: without control characters, and marked where it had
/// to be cut.
pub(crate) fn shown(text: &str, bytes_max: usize) -> String {
    let (kept, rest) = text.split_at(text.floor_char_boundary(bytes_max));
    let mut line = escape_controls(kept);
    if !rest.is_empty() {
        line.push_str(" [cut]");
    }
    line
}

/// What all sandboxes of a version may log together.
pub(crate) fn rate() -> Arc<Rate> {
    Arc::new(Rate::new(LINES_PER_SECOND, limit("log_rate", LINES_BURST)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(limits: &Limits) -> GuestLog {
        GuestLog::new("m".into(), None, rate(), limits)
    }

    #[test]
    fn lines_beyond_the_limit_of_a_call_are_dropped_and_counted() {
        let limits = Limits { log_lines_per_call_max: 2, ..Limits::default() };
        let log = log(&limits);
        for _ in 0..5 {
            log.lock().line(Level::Info, "hello");
        }
        assert_eq!(log.lock().lines_dropped, 3);
    }

    #[test]
    fn bytes_beyond_the_limit_of_a_call_are_dropped_and_counted() {
        let limits = Limits { log_bytes_per_call_max: 10, ..Limits::default() };
        let log = log(&limits);
        for line in ["hello", "too long", "hello", "x"] {
            log.lock().line(Level::Info, line);
        }
        assert_eq!(log.lock().lines_dropped, 2);
        log.lock().start_call(Origin::from("next"), &limits);
        log.lock().line(Level::Info, "hello");
        assert_eq!(log.lock().lines_dropped, 0);
    }

    #[test]
    fn a_long_line_is_cut_and_marked() {
        assert_eq!(shown("a\u{1b}bc", 4), "a\\u{1b}bc");
        assert_eq!(shown("aäbc", 2), "a [cut]");
        let long = shown(&"x".repeat(1 << 20), Limits::default().log_line_bytes_max);
        assert_eq!(long.len(), (4 << 10) + " [cut]".len());
    }

    #[test]
    fn a_line_without_an_end_does_not_grow_for_ever() {
        let limits = Limits::default();
        let log = log(&limits);
        for _ in 0..1000 {
            log.lock().write(&[b'x'; 1 << 16]);
        }
        assert!(log.lock().partial.len() <= limits.log_line_bytes_max + 1);
    }

    #[test]
    fn a_panic_on_standard_error_is_remembered_with_its_message() {
        let log = log(&Limits::default());
        log.lock().write(b"thread 'main' panicked at src/lib.rs:1:1:\nno such luck\n");
        let words = log.lock().take_last_words().unwrap();
        assert!(words.contains("no such luck"), "{words}");
    }

    #[test]
    fn lines_of_all_sandboxes_beyond_their_rate_are_dropped_and_counted() {
        const LINES: u32 = 5000;
        let limits = Limits {
            log_lines_per_call_max: u32::MAX,
            log_bytes_per_call_max: usize::MAX,
            ..Limits::default()
        };
        let rate = rate();
        let logs = [(); 2].map(|()| GuestLog::new("m".into(), None, rate.clone(), &limits));
        for _ in 0..LINES {
            logs.iter().for_each(|log| log.lock().line(Level::Info, "hello"));
        }
        let dropped: u32 = logs.iter().map(|log| log.lock().lines_dropped).sum();
        assert!(dropped > 2 * LINES - 2 * LINES_BURST as u32, "{dropped}");
    }

    #[test]
    fn a_version_cannot_log_faster_than_its_bucket_refills() {
        let rate = rate();
        let taken = (0..10_000).filter(|_| rate.take()).count();
        assert!(taken < 2 * LINES_BURST as usize, "{taken}");
    }
}
