//! What the host tells about itself.

use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// What is logged unless the operator asks for something else: the host's own
/// lines and one for each call, but nothing of libraries below warnings.
const FILTER_DEFAULT: &str = "warn,ringfence=info,call=info,guest=info";

/// Starts logging to standard error. `filter` is in the form of `RUST_LOG`.
///
/// Fails if the filter cannot be read or logging has already been started.
pub fn start(filter: Option<&str>) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter.unwrap_or(FILTER_DEFAULT))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .try_init()
        .map_err(|error| anyhow::anyhow!("{error}"))?;
    std::panic::set_hook(Box::new(|panic| {
        // What an engine's panic becomes is a line of the guest that caused it,
        // at that guest's rate.
        if !std::thread::current().name().is_some_and(|name| name.starts_with("engine")) {
            tracing::error!(%panic, "the host panicked");
        }
    }));
    Ok(())
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
