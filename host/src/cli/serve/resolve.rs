//! From arguments and `host.yaml` to the settings of a host.

use super::super::{ServeArgs, Usage};
use crate::settings::tls::TlsError;
use crate::settings::{self, Settings, SettingsError};
use std::net::SocketAddr;

/// Where the filter of the log comes from before all else.
const LOG_VARIABLE: &str = "RINGFENCE_LOG";

/// Why a host cannot go by what it was told.
#[derive(Debug, thiserror::Error)]
pub(super) enum ResolveError {
    #[error(transparent)]
    File(#[from] SettingsError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Usage(#[from] Usage),
}

/// What the file says, and over it what the arguments say.
pub(super) fn settings(args: &ServeArgs) -> Result<Settings, ResolveError> {
    let mut settings = match &args.host_config {
        Some(path) => settings::open(path)?,
        None => Settings::default(),
    };
    if let Some(listen) = &args.listen {
        settings.listen = address("--listen", listen)?;
    }
    if let Some(listen) = &args.metrics_listen {
        settings.metrics_listen = Some(address("--metrics-listen", listen)?);
    }
    if let Some(format) = args.log_format {
        settings.log_format = format;
    }
    if let Some(data_dir) = &args.data_dir {
        settings.data_dir.clone_from(data_dir);
    }
    if !args.model.is_empty() {
        settings.models.clone_from(&args.model);
    }
    settings.front.reflection |= args.reflection;
    settings.unsafe_no_jail |= args.unsafe_no_jail;
    if let Ok(filter) = std::env::var(LOG_VARIABLE) {
        settings.log_filter = Some(filter);
    }
    if !args.allow_url_host.is_empty() {
        settings.allow_url_hosts.clone_from(&args.allow_url_host);
    }
    allowed(args, &settings)?;
    Ok(settings)
}

fn address(argument: &str, text: &str) -> Result<SocketAddr, Usage> {
    settings::address(text).map_err(|error| Usage(format!("{argument} {text:?} {error}")))
}

/// Two ways of serving are only for loopback as long as a guest has one wall.
fn allowed(args: &ServeArgs, settings: &Settings) -> Result<(), Usage> {
    let loopback = settings.listen.ip().is_loopback();
    if !loopback && args.no_auth {
        let text = "--no-auth works on loopback only; listen on 127.0.0.1 or drop it";
        return Err(Usage(text.to_owned()));
    }
    if !loopback && !settings.unsafe_no_jail {
        let text = "guests run in this process, inside one wall; to listen beyond loopback \
                    all the same, add --unsafe-no-jail";
        return Err(Usage(text.to_owned()));
    }
    Ok(())
}
