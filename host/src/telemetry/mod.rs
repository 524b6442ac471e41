//! What the host tells about itself: its log, its metrics, and what guests say.
//!
//! Owns the form of log lines, every metric, and the log of each version. Never
//! touches the wire; who may read what is decided elsewhere.

mod host_log;
mod metrics;
mod rate;
mod series;

mod version_log;
mod writer;

pub use host_log::{LogFormat, Logging, start};
pub use metrics::{CallFigures, Metrics, Open, Serving};
pub use rate::Rate;
pub use writer::Dropped;

pub use version_log::{Entry, Kind, Level, ReadError, VersionLog, VersionLogs};

use crate::limits::limit;
use rand::Rng;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// What is shared by all that tell something. One for each host.
#[derive(Debug)]
pub struct Telemetry {
    /// The numbers.
    pub metrics: Metrics,
    /// What guests wrote, and how their calls were stopped; nothing where
    /// nobody keeps it.
    pub logs: Option<Arc<VersionLogs>>,
    /// Lines of the host's own log that were lost.
    pub log_lines_dropped: Dropped,
    /// How often it is told that somebody without a token that counts has called.
    pub refusals: Rate,
    /// Cancelled when the host has been told to stop.
    pub draining: CancellationToken,
}

/// Lines a second, and at once, of what anybody can cause. Metrics count all.
const REFUSALS_PER_SECOND: f64 = 10.0;
const REFUSALS_BURST: f64 = 100.0;

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            metrics: Metrics::default(),
            logs: None,
            log_lines_dropped: Dropped::default(),
            refusals: Rate::new(REFUSALS_PER_SECOND, limit("refusal_lines", REFUSALS_BURST)),
            draining: CancellationToken::default(),
        }
    }
}

impl Telemetry {
    /// All metrics, as a text of OpenMetrics.
    pub fn exposition(&self, serving: &[Serving]) -> String {
        let guests = self.logs.as_ref().map_or(0, |logs| logs.entries_lost());
        self.metrics.encode(serving, self.log_lines_dropped.count(), guests)
    }
}

/// A fresh identifier of a request: 32 hexadecimal digits.
pub fn request_id() -> String {
    let mut bytes = [0; 16];
    // Of a generator that the system has seeded: there are several for each call.
    rand::rng().fill_bytes(&mut bytes);
    crate::text::hex(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_whoever_has_no_token_so_many_lines_are_told_at_once() {
        let Telemetry { refusals, .. } = Telemetry::default();
        let told = (0..1000).filter(|_| refusals.take()).count();
        // Some more have been filled up meanwhile.
        assert!((100..200).contains(&told), "{told}");
    }
}
