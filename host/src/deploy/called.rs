//! When versions were last called: in memory at once, on disk now and then, so
//! that no call waits for the disk.

use super::{Deployments, Version};
use crate::store::{VersionCallRow, now_ms};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// Versions of one write.
const ROWS_PER_WRITE: usize = 1_000;

/// When a version was last called since the host was started, and how much of
/// that the store has. In milliseconds since 1970; 0 for never.
#[derive(Debug, Default)]
pub(super) struct Called {
    at_ms: AtomicI64,
    noted_ms: AtomicI64,
}

impl Called {
    /// It is called now.
    pub(super) fn touch(&self) {
        self.at_ms.fetch_max(now_ms(), Ordering::AcqRel);
    }

    /// What the store does not have.
    pub(super) fn unnoted_ms(&self) -> Option<i64> {
        let at_ms = self.at_ms.load(Ordering::Acquire);
        (at_ms > self.noted_ms.load(Ordering::Acquire)).then_some(at_ms)
    }

    /// The store has it up to this.
    fn noted(&self, at_ms: i64) {
        self.noted_ms.fetch_max(at_ms, Ordering::AcqRel);
    }
}

impl Deployments {
    /// Keeps in the store which versions were called since it last did. Blocks on
    /// the disk where there are any.
    pub fn note_calls(&self) {
        let called = self.read().called();
        for called in called.chunks(ROWS_PER_WRITE) {
            let row = |version: &Arc<Version>, called_at_ms| VersionCallRow {
                name: version.name.clone(),
                version_id: version.version.clone(),
                called_at_ms,
            };
            let rows: Vec<_> = called.iter().map(|(version, at_ms)| row(version, *at_ms)).collect();
            if let Err(error) = self.loader.store().note_calls(&rows) {
                // They are tried again the next time.
                return tracing::error!(%error, "cannot keep when versions were called");
            }
            called.iter().for_each(|(version, at_ms)| version.called.noted(*at_ms));
        }
    }
}
