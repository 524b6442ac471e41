//! What the host tells about itself.

use std::fmt;
use std::io::IsTerminal;
use tracing_subscriber::{EnvFilter, reload};

/// What is logged unless the operator asks for something else: the host's own
/// lines and one for each call, but nothing of libraries below warnings.
const FILTER_DEFAULT: &str = "warn,ringfence=info,call=info,guest=info";

/// The form of the host's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// A log that has been started.
pub struct Logging {
    /// Puts another filter in force.
    reload: Box<dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync>,
}

impl Logging {
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

fn env_filter(filter: Option<&str>) -> anyhow::Result<EnvFilter> {
    Ok(EnvFilter::try_new(filter.unwrap_or(FILTER_DEFAULT))?)
}

/// Starts logging to standard error. `filter` is in the form of `RUST_LOG`.
///
/// Fails if the filter cannot be read or logging has already been started.
pub fn start(filter: Option<&str>, format: LogFormat) -> anyhow::Result<Logging> {
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(env_filter(filter)?)
        .with_writer(std::io::stderr)
        .with_ansi(format == LogFormat::Text && std::io::stderr().is_terminal());
    let (reload, started): (Box<dyn Fn(EnvFilter) -> _ + Send + Sync>, _) = match format {
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
    Ok(Logging { reload })
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
