//! The keys of `host.yaml`, for the reader, the schema and the page; and beside
//! them, for each, how its value is shown and when it takes effect.

use super::Settings;
use crate::telemetry::LogFormat;
use crate::yaml::{Form, Key, bytes_text, duration_text, key};
use std::path::Path;
use std::time::Duration;

pub(super) const CONNECTIONS: (u64, u64) = (1, 65_536);
pub(super) const STREAMS_PER_CONNECTION: (u64, u64) = (1, 10_000);
/// A message is some sixteen times as large in memory as on the wire.
pub(super) const MESSAGE_BYTES: (u64, u64) = (64 << 10, 128 << 20);
pub(super) const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(1), HOUR);
pub(super) const PREFACE_TIMEOUT: (Duration, Duration) =
    (Duration::from_millis(100), Duration::from_mins(5));
pub(super) const STREAM_IDLE_TIMEOUT: (Duration, Duration) = (Duration::from_millis(100), HOUR);
pub(super) const MESSAGE_TIMEOUT: (Duration, Duration) = (Duration::from_millis(100), HOUR);
pub(super) const FIRST_MESSAGE_TIMEOUT: (Duration, Duration) = (Duration::from_millis(100), HOUR);
pub(super) const DRAIN_TIMEOUT: (Duration, Duration) = (Duration::ZERO, HOUR);

const HOUR: Duration = Duration::from_hours(1);

/// Every key of the file.
pub(super) const KEYS: [Key; 21] = [
    key("listen", Form::Text, "Address and port that clients reach; port 0 takes a free one"),
    key("data_dir", Form::Text, "Folder of all that the host keeps; one host at a time"),
    key("tls", Form::OwnSection(&TLS_KEYS), "What the host proves itself with"),
    key("models", Form::Texts, "Model folders to serve without an upload"),
    key(
        "connections_max",
        Form::Number(CONNECTIONS.0, CONNECTIONS.1),
        "Connections at a time; more wait in the kernel's backlog",
    ),
    key(
        "connections_per_address_max",
        Form::Number(CONNECTIONS.0, CONNECTIONS.1),
        "Connections at a time of one IPv4 address or IPv6 network of 56 bits; more are closed",
    ),
    key(
        "streams_per_connection_max",
        Form::Number(STREAMS_PER_CONNECTION.0, STREAMS_PER_CONNECTION.1),
        "Calls at a time on one connection",
    ),
    key(
        "message_bytes_max",
        Form::Bytes(MESSAGE_BYTES.0, MESSAGE_BYTES.1),
        "Largest message of a client; in memory it may be some sixteen times as large",
    ),
    key(
        "keep_alive",
        Form::Duration(KEEP_ALIVE.0, KEEP_ALIVE.1),
        "How often a connection is asked whether it is there, and how long it may take to answer",
    ),
    key(
        "preface_timeout",
        Form::Duration(PREFACE_TIMEOUT.0, PREFACE_TIMEOUT.1),
        "Time for a new connection to shake hands and to say that it speaks HTTP/2",
    ),
    key(
        "first_message_timeout",
        Form::Duration(FIRST_MESSAGE_TIMEOUT.0, FIRST_MESSAGE_TIMEOUT.1),
        "Time in which a stream has to say what it calls",
    ),
    key(
        "stream_idle_timeout",
        Form::Duration(STREAM_IDLE_TIMEOUT.0, STREAM_IDLE_TIMEOUT.1),
        "Time in which one side of a stream has to say something",
    ),
    key(
        "message_timeout",
        Form::Duration(MESSAGE_TIMEOUT.0, MESSAGE_TIMEOUT.1),
        "Time in which 256 KiB of a message, or its rest, have to come",
    ),
    key(
        "drain_timeout",
        Form::Duration(DRAIN_TIMEOUT.0, DRAIN_TIMEOUT.1),
        "Time that calls may go on after the host was told to stop",
    ),
    key("reflection", Form::Boolean, "Whether clients may ask what the services look like"),
    key("allow_url_hosts", Form::Texts, "Hosts that inputs may be fetched from; none where absent"),
    key("metrics", Form::OwnSection(&METRICS_KEYS), "Figures for a monitoring system"),
    key("log", Form::OwnSection(&LOG_KEYS), "The host's own log, on standard error"),
    key(
        "jail",
        Form::OneOf(&["required", "best-effort"]),
        "Whether the host starts where a layer of the jail is missing; `required` beyond loopback",
    ),
    key(
        "onnxruntime",
        Form::Text,
        "The library of ONNX Runtime (`libonnxruntime.so`), which runs what tract cannot",
    ),
    key(
        "cuda",
        Form::Texts,
        "Folders of CUDA's libraries and headers, for accelerators; `/usr/local/cuda` where absent",
    ),
];

/// `tls`.
pub(super) const TLS_KEYS: [Key; 2] = [
    key("certificate", Form::Text, "PEM file of the certificate, and those between it and the CA"),
    key("key", Form::Text, "PEM file of its private key, which nobody else may read"),
];

/// `metrics`.
pub(super) const METRICS_KEYS: [Key; 1] =
    [key("listen", Form::Text, "Address and port of the metrics; not served where absent")];

/// `log`.
pub(super) const LOG_KEYS: [Key; 2] = [
    key("format", Form::OneOf(&["text", "json"]), "One line for people, or one JSON object"),
    key(
        "filter",
        Form::Text,
        "What is logged, each part with its level, such as `info` or `warn,call=info`",
    ),
];

/// One setting: a key that takes a value.
pub(super) struct Setting {
    pub(super) path: &'static str,
    /// Its value as the file would have it; nothing where it has none.
    pub(super) shown: fn(&Settings) -> String,
    pub(super) effect: Effect,
}

/// When a changed value takes effect.
pub(super) enum Effect {
    /// When the file is read again: copies the value.
    AtOnce(fn(&mut Settings, &Settings)),
    AtRestart,
}

use Effect::{AtOnce, AtRestart};

/// Every setting. A test holds it to [`KEYS`].
pub(super) const SETTINGS: [Setting; 23] = [
    Setting { path: "listen", shown: |s| s.listen.to_string(), effect: AtRestart },
    Setting { path: "data_dir", shown: |s| path(&s.data_dir), effect: AtRestart },
    Setting {
        path: "tls.certificate",
        shown: |s| s.tls.as_ref().map_or(String::new(), |tls| path(&tls.certificate)),
        effect: AtOnce(tls),
    },
    Setting {
        path: "tls.key",
        shown: |s| s.tls.as_ref().map_or(String::new(), |tls| path(&tls.key)),
        effect: AtOnce(tls),
    },
    Setting {
        path: "models",
        shown: |s| s.models.iter().map(|model| path(model)).collect::<Vec<_>>().join(", "),
        effect: AtRestart,
    },
    Setting {
        path: "connections_max",
        shown: |s| s.front.connections_max.to_string(),
        effect: AtRestart,
    },
    Setting {
        path: "connections_per_address_max",
        shown: |s| s.front.connections_per_address_max.to_string(),
        effect: AtRestart,
    },
    Setting {
        path: "streams_per_connection_max",
        shown: |s| s.front.streams_per_connection_max.to_string(),
        effect: AtOnce(|to, from| {
            to.front.streams_per_connection_max = from.front.streams_per_connection_max;
        }),
    },
    Setting {
        path: "message_bytes_max",
        shown: |s| bytes_text(s.front.message_bytes_max.try_into().unwrap_or(u64::MAX)),
        effect: AtRestart,
    },
    Setting {
        path: "keep_alive",
        shown: |s| duration_text(s.front.keep_alive),
        effect: AtOnce(|to, from| to.front.keep_alive = from.front.keep_alive),
    },
    Setting {
        path: "preface_timeout",
        shown: |s| duration_text(s.front.preface_timeout),
        effect: AtOnce(|to, from| to.front.preface_timeout = from.front.preface_timeout),
    },
    Setting {
        path: "first_message_timeout",
        shown: |s| duration_text(s.front.first_message_timeout),
        effect: AtRestart,
    },
    Setting {
        path: "stream_idle_timeout",
        shown: |s| duration_text(s.front.stream_idle_timeout),
        effect: AtRestart,
    },
    Setting {
        path: "message_timeout",
        shown: |s| duration_text(s.front.message_timeout),
        effect: AtOnce(|to, from| to.front.message_timeout = from.front.message_timeout),
    },
    Setting {
        path: "drain_timeout",
        shown: |s| duration_text(s.front.drain_timeout),
        effect: AtOnce(|to, from| to.front.drain_timeout = from.front.drain_timeout),
    },
    Setting { path: "reflection", shown: |s| s.front.reflection.to_string(), effect: AtRestart },
    Setting {
        path: "allow_url_hosts",
        shown: |s| {
            let hosts = s.allow_url_hosts.iter().map(ToString::to_string);
            hosts.collect::<Vec<_>>().join(", ")
        },
        effect: AtOnce(|to, from| to.allow_url_hosts.clone_from(&from.allow_url_hosts)),
    },
    Setting {
        path: "metrics.listen",
        shown: |s| s.metrics_listen.map_or(String::new(), |listen| listen.to_string()),
        effect: AtRestart,
    },
    Setting {
        path: "log.format",
        shown: |s| match s.log_format {
            LogFormat::Text => "text".to_owned(),
            LogFormat::Json => "json".to_owned(),
        },
        effect: AtRestart,
    },
    Setting {
        path: "log.filter",
        shown: |s| s.log_filter.clone().unwrap_or_default(),
        effect: AtOnce(|to, from| to.log_filter.clone_from(&from.log_filter)),
    },
    Setting { path: "jail", shown: |s| s.jail().as_str().to_owned(), effect: AtRestart },
    Setting {
        path: "onnxruntime",
        shown: |s| s.onnxruntime.as_deref().map_or_else(String::new, path),
        effect: AtRestart,
    },
    Setting {
        path: "cuda",
        shown: |s| s.cuda.iter().map(|folder| path(folder)).collect::<Vec<_>>().join(", "),
        effect: AtRestart,
    },
];

/// A listener that speaks TLS goes on to, and one that does not cannot begin.
fn tls(to: &mut Settings, from: &Settings) {
    if to.tls.is_some() && from.tls.is_some() {
        to.tls.clone_from(&from.tls);
    }
}

fn path(path: &Path) -> String {
    path.display().to_string()
}
