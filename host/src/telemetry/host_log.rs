//! The host's own log: its form, its filter, and that it stops nobody.

use super::writer::{Dropped, LogWriter};
use std::fmt;
use std::io::IsTerminal;
use std::time::Duration;
use tracing_subscriber::{EnvFilter, reload};

/// What is logged unless the operator asks for something else: the host's own
/// lines and one for each call, but nothing of libraries below warnings.
const FILTER_DEFAULT: &str = "warn,ringfence=info,call=info";

/// Time in which lines that wait are written when the host ends.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The form of the host's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// A log that has been started. Writes what still waits when it is dropped, if
/// that can be done soon.
pub struct Logging {
    writer: LogWriter,
    /// Puts another filter in force.
    reload: Reload,
}

type Reload = Box<dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync>;

impl Logging {
    /// Counts the lines that were lost.
    pub fn dropped(&self) -> Dropped {
        self.writer.dropped()
    }

    /// From now on logs what another filter lets through; the default where
    /// there is none.
    ///
    /// Fails if the filter cannot be read; the old one stays then.
    pub fn set_filter(&self, filter: Option<&str>) -> anyhow::Result<()> {
        Ok((self.reload)(env_filter(filter)?)?)
    }
}

impl fmt::Debug for Logging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Logging(..)")
    }
}

impl Drop for Logging {
    fn drop(&mut self) {
        self.writer.flush(FLUSH_TIMEOUT);
    }
}

fn env_filter(filter: Option<&str>) -> anyhow::Result<EnvFilter> {
    Ok(EnvFilter::try_new(filter.unwrap_or(FILTER_DEFAULT))?)
}

/// Starts logging to standard error. `filter` is in the form of `RUST_LOG`.
///
/// A line never waits for whoever reads it: a thread of its own writes, and
/// lines that it cannot keep up with, or that cannot be written, are counted.
///
/// Fails if the filter cannot be read, logging has already been started, or
/// there is no thread.
pub fn start(filter: Option<&str>, format: LogFormat) -> anyhow::Result<Logging> {
    let filter = env_filter(filter)?;
    let writer = LogWriter::start(std::io::stderr())?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer.clone())
        .with_ansi(format == LogFormat::Text && std::io::stderr().is_terminal());
    let (reload, started): (Reload, _) = match format {
        LogFormat::Text => {
            let subscriber = subscriber.with_filter_reloading();
            let handle = subscriber.reload_handle();
            (Box::new(move |filter| handle.reload(filter)), subscriber.try_init())
        }
        LogFormat::Json => {
            let subscriber = subscriber.json().flatten_event(true).with_filter_reloading();
            let handle = subscriber.reload_handle();
            (Box::new(move |filter| handle.reload(filter)), subscriber.try_init())
        }
    };
    started.map_err(|error| anyhow::anyhow!("{error}"))?;
    std::panic::set_hook(Box::new(|panic| {
        // What an engine's panic becomes is a line of the guest that caused it,
        // at that guest's rate.
        if !std::thread::current().name().is_some_and(|name| name.starts_with("engine")) {
            tracing::error!(%panic, "the host panicked");
        }
    }));
    Ok(Logging { writer, reload })
}
