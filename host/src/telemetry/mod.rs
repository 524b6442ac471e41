//! What the host tells about itself: its log, its metrics, and what guests say.
//!
//! Owns the form of log lines, every metric, and the log of each version. Never
//! touches the wire; who may read what is decided elsewhere.

mod host_log;
mod metrics;
mod series;

mod version_log;
mod writer;

pub use host_log::{LogFormat, Logging, start};
pub use metrics::{CallFigures, Metrics, Open, Serving};
pub use writer::Dropped;

pub use version_log::{Entry, Kind, Level, ReadError, VersionLog, VersionLogs};

use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// What is shared by all that tell something. One for each host.
#[derive(Debug, Default)]
pub struct Telemetry {
    /// The numbers.
    pub metrics: Metrics,
    /// What guests wrote, and how their calls were stopped; nothing where
    /// nobody keeps it.
    pub logs: Option<Arc<VersionLogs>>,
    /// Lines of the host's own log that were lost.
    pub log_lines_dropped: Dropped,
    /// Cancelled when the host has been told to stop.
    pub draining: CancellationToken,
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
    if getrandom::fill(&mut bytes).is_err() {
        // The identifier only has to tell log lines apart; zeros are a poor
        // but harmless one.
        tracing::error!("the system has no random numbers");
    }
    crate::text::hex(&bytes)
}
