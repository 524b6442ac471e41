//! From the keys of `host.yaml` to settings, each checked where it is taken.

use super::keys::{
    CONNECTIONS, DRAIN_TIMEOUT, FIRST_MESSAGE_TIMEOUT, KEEP_ALIVE, KEYS, LOG_KEYS, MESSAGE_BYTES,
    MESSAGE_TIMEOUT, METRICS_KEYS, PREFACE_TIMEOUT, STREAM_IDLE_TIMEOUT, STREAMS_PER_CONNECTION,
    TLS_KEYS,
};
use super::{Settings, TlsFiles};
use crate::fetch::AllowedHost;
use crate::limits::limit;
use crate::telemetry::LogFormat;
use crate::worker::JailMode;
use crate::yaml::{Entry, Section, Unknown};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{LevelFilter, ParseError};

/// Most hosts that inputs may be fetched from, and most model folders.
const LIST_MAX: usize = 1000;

/// A text that is no address to listen on.
#[derive(Debug, thiserror::Error)]
#[error("is no address to listen on; write an IP address and a port, such as \"127.0.0.1:8080\"")]
pub struct AddressError;

/// Reads an address and a port.
pub(crate) fn address(text: &str) -> Result<SocketAddr, AddressError> {
    text.trim().parse().map_err(|_| AddressError)
}

/// A text that is no filter of a log.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FilterError {
    /// Not of the form of one.
    #[error("is no filter ({0}); write such as \"info\"")]
    Form(#[from] ParseError),
    /// Taken for a part of the host, it would silence all of the others.
    #[error("has {0:?}, which is no level; write such as \"info\", or \"{0}=info\" for a part")]
    Level(String),
}

/// Checks a filter of the log.
pub(crate) fn log_filter(text: &str) -> Result<(), FilterError> {
    EnvFilter::try_new(text)?;
    let is_bare = |directive: &&str| !directive.is_empty() && !directive.contains(['=', '[']);
    let mut bare = text.split(',').filter(is_bare);
    match bare.find(|word| word.parse::<LevelFilter>().is_err()) {
        Some(word) => Err(FilterError::Level(word.to_owned())),
        None => Ok(()),
    }
}

/// Takes every key, whatever is wrong with the others.
pub(super) fn take(mut root: Section, folder: &Path) -> Settings {
    let mut settings = Settings::default();
    set(&mut settings.listen, listen(&mut root));
    set(&mut settings.data_dir, root.text("data_dir").and_then(|entry| path(&entry, folder)));
    settings.tls = tls(&mut root, folder);
    settings.models = list(&mut root, "models", |entry| path(entry, folder));
    settings.allow_url_hosts = list(&mut root, "allow_url_hosts", url_host);
    front(&mut root, &mut settings);
    if let Some(mut metrics) = root.section("metrics") {
        settings.metrics_listen = listen(&mut metrics);
        metrics.finish(&METRICS_KEYS, Unknown::Refuse);
    }
    if let Some(mut log) = root.section("log") {
        set(&mut settings.log_format, log.text("format").and_then(|entry| format(&entry)));
        settings.log_filter = log.text("filter").and_then(|entry| filter(&entry));
        log.finish(&LOG_KEYS, Unknown::Refuse);
    }
    settings.jail = root.text("jail").and_then(|entry| jail(&entry));
    settings.onnxruntime = root.text("onnxruntime").and_then(|entry| path(&entry, folder));
    settings.cuda = list(&mut root, "cuda", |entry| path(entry, folder));
    root.finish(&KEYS, Unknown::Refuse);
    settings
}

fn front(root: &mut Section, settings: &mut Settings) {
    let front = &mut settings.front;
    let connections = root.number("connections_max", CONNECTIONS.0, CONNECTIONS.1);
    set(&mut front.connections_max, connections.and_then(|count| count.try_into().ok()));
    let connections = root.number("connections_per_address_max", CONNECTIONS.0, CONNECTIONS.1);
    let connections = connections.and_then(|count| count.try_into().ok());
    set(&mut front.connections_per_address_max, connections);
    let (min, max) = STREAMS_PER_CONNECTION;
    let streams = root.number("streams_per_connection_max", min, max);
    set(&mut front.streams_per_connection_max, streams.and_then(|count| count.try_into().ok()));
    let bytes = root.bytes("message_bytes_max", MESSAGE_BYTES.0, MESSAGE_BYTES.1);
    set(&mut front.message_bytes_max, bytes.and_then(|bytes| bytes.try_into().ok()));
    let mut duration = |key, (min, max)| root.duration(key, min, max);
    set(&mut front.keep_alive, duration("keep_alive", KEEP_ALIVE));
    set(&mut front.preface_timeout, duration("preface_timeout", PREFACE_TIMEOUT));
    set(&mut front.first_message_timeout, duration("first_message_timeout", FIRST_MESSAGE_TIMEOUT));
    set(&mut front.stream_idle_timeout, duration("stream_idle_timeout", STREAM_IDLE_TIMEOUT));
    set(&mut front.message_timeout, duration("message_timeout", MESSAGE_TIMEOUT));
    set(&mut front.drain_timeout, duration("drain_timeout", DRAIN_TIMEOUT));
    set(&mut front.reflection, root.boolean("reflection"));
}

fn tls(root: &mut Section, folder: &Path) -> Option<TlsFiles> {
    let mut section = root.section("tls")?;
    let certificate = section.required("certificate", "write the path of a PEM file");
    let key = section.required("key", "write the path of a PEM file");
    section.finish(&TLS_KEYS, Unknown::Refuse);
    Some(TlsFiles { certificate: path(&certificate?, folder)?, key: path(&key?, folder)? })
}

fn set<T>(setting: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *setting = value;
    }
}

fn listen(section: &mut Section) -> Option<SocketAddr> {
    let entry = section.text("listen")?;
    match address(&entry.text) {
        Ok(address) => Some(address),
        Err(problem) => entry.refuse(problem),
    }
}

fn list<T>(root: &mut Section, key: &str, read: impl Fn(&Entry) -> Option<T>) -> Vec<T> {
    let entries = root.entries(key);
    if let Some(one_too_many) = entries.get(limit("settings_list", LIST_MAX)) {
        let _: Option<()> = one_too_many.refuse(format!("is one more than the {LIST_MAX} allowed"));
    }
    entries.iter().filter_map(read).collect()
}

/// A path; a relative one begins at the file's folder.
fn path(entry: &Entry, folder: &Path) -> Option<PathBuf> {
    Some(folder.join(text(entry)?))
}

fn text(entry: &Entry) -> Option<String> {
    match entry.text.is_empty() || entry.text.chars().any(char::is_control) {
        true => entry.refuse("is empty or has control characters; write a text without"),
        false => Some(entry.text.clone()),
    }
}

fn url_host(entry: &Entry) -> Option<AllowedHost> {
    match entry.text.parse() {
        Ok(host) => Some(host),
        Err(problem) => entry.refuse(format!("is no host to open: {problem}")),
    }
}

fn format(entry: &Entry) -> Option<LogFormat> {
    match entry.text.as_str() {
        "text" => Some(LogFormat::Text),
        "json" => Some(LogFormat::Json),
        _ => entry.refuse("is no format of a log; write \"text\" or \"json\""),
    }
}

fn jail(entry: &Entry) -> Option<JailMode> {
    let mode = JailMode::of(&entry.text);
    mode.or_else(|| entry.refuse("is no mode of the jail; write \"required\" or \"best-effort\""))
}

fn filter(entry: &Entry) -> Option<String> {
    match log_filter(&entry.text) {
        Ok(()) => Some(entry.text.clone()),
        Err(problem) => entry.refuse(problem.to_string()),
    }
}
