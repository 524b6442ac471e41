//! From arguments and `host.yaml` to the settings of a host.

use super::super::{ServeArgs, Usage};
use crate::devices::Cuda;
use crate::settings::tls::TlsError;
use crate::settings::{self, Settings, SettingsError};
use crate::worker::JailMode;
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
    let settings = unchecked(args)?;
    match refusals(args, &settings).into_iter().next() {
        None => Ok(settings),
        Some(first) => Err(Usage(first).into()),
    }
}

/// The same, whether a host may be so or not.
pub(super) fn unchecked(args: &ServeArgs) -> Result<Settings, ResolveError> {
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
    settings.jail = args.jail.or(settings.jail);
    if let Some(library) = &args.engines.onnxruntime {
        settings.onnxruntime = Some(library.clone());
    }
    if !args.cuda.is_empty() {
        settings.cuda.clone_from(&args.cuda);
    }
    if let Some(filter) = std::env::var(LOG_VARIABLE).ok().filter(|filter| !filter.is_empty()) {
        settings::log_filter(&filter)
            .map_err(|problem| Usage(format!("{LOG_VARIABLE} {filter:?} {problem}")))?;
        settings.log_filter = Some(filter);
    }
    if !args.allow_url_host.is_empty() {
        settings.allow_url_hosts.clone_from(&args.allow_url_host);
    }
    Ok(settings)
}

fn address(argument: &str, text: &str) -> Result<SocketAddr, Usage> {
    settings::address(text).map_err(|error| Usage(format!("{argument} {text:?} {error}")))
}

/// How an operator changes a setting: by the key of the file where the file is
/// what set it, else by the flag.
pub(super) fn setter(args: &ServeArgs, flag: Option<&str>, key: &str, name: &str) -> String {
    match (&args.host_config, flag) {
        (Some(path), None) => format!("`{key}` of {}", path.display()),
        (None, None) | (_, Some(_)) => name.to_owned(),
    }
}

/// Two ways of serving are only for loopback.
pub(super) fn refusals(args: &ServeArgs, settings: &Settings) -> Vec<String> {
    let mut refusals = Vec::new();
    let loopback = settings.listen.ip().is_loopback();
    if !loopback && args.no_auth {
        let setter = setter(args, args.listen.as_deref(), "listen", "--listen");
        refusals.push(format!(
            "--no-auth works on loopback only; choose 127.0.0.1 with {setter}, or drop it"
        ));
    }
    if !loopback && !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        let setter = setter(args, args.listen.as_deref(), "listen", "--listen");
        refusals.push(format!(
            "a host listens beyond loopback on Linux on x86-64 only; choose 127.0.0.1 with {setter}"
        ));
    }
    if !loopback && settings.jail() != JailMode::Required {
        let flag = args.jail.map(JailMode::as_str);
        let setter = setter(args, flag, "jail", "--jail");
        refusals.push(format!(
            "a host that listens beyond loopback needs its jail; write required with {setter}, or \
             leave that out"
        ));
    }
    if let Some(library) = settings.onnxruntime.as_deref().filter(|library| !library.is_file()) {
        let flag = args.engines.onnxruntime.as_ref().and_then(|path| path.to_str());
        let setter = setter(args, flag, "onnxruntime", "--onnxruntime");
        refusals.push(format!(
            "there is no library {}; name libonnxruntime.so of ONNX Runtime with {setter}, or leave \
             that out",
            library.display()
        ));
    }
    for (folder, problem) in Cuda::of(&settings.cuda).problems() {
        let flag = args.cuda.first().and_then(|path| path.to_str());
        let setter = setter(args, flag, "cuda", "--cuda");
        refusals.push(format!("{} {problem}; name one with {setter}", folder.display()));
    }
    refusals
}
