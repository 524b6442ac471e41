//! `host.yaml`: what an operator decides about a host.
//!
//! Owns every setting with its default, the file that sets them, and what
//! becomes of them while the host runs. Knows nothing of models and calls.

mod current;
mod file;
mod keys;
mod page;
mod read;
pub mod tls;

#[cfg(test)]
mod tests;

pub use current::{Change, Current};
pub use file::{SettingsError, open};
pub use page::markdown;
pub use read::AddressError;
pub(crate) use read::{address, log_filter};
pub use tls::TlsFiles;

use crate::fetch::AllowedHost;
use crate::server::Options;
use crate::telemetry::LogFormat;
use crate::worker::JailMode;
use crate::yaml::{self, Document, UnknownKeys};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// The file. Nothing in it is secret: it names the file of a key.
const DOCUMENT: Document = Document { name: "host.yaml", secret_sections: &[] };

/// Everything that an operator decides.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where clients reach the host; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where the host keeps what it has to keep.
    pub data_dir: PathBuf,
    /// What the host proves itself with. Without it, nothing is encrypted.
    pub tls: Option<TlsFiles>,
    /// Model folders that are served without an upload.
    pub models: Vec<PathBuf>,
    /// Limits and choices of the front; `front.tls` stays empty here.
    pub front: Options,
    /// Hosts that inputs may be fetched from.
    pub allow_url_hosts: Vec<AllowedHost>,
    /// Where metrics are served, if anywhere.
    pub metrics_listen: Option<SocketAddr>,
    /// How the host's own log looks.
    pub log_format: LogFormat,
    /// What is logged, in the form of `RUST_LOG`; the default where absent.
    pub log_filter: Option<String>,
    /// What it means where a layer of the jail is missing, where the operator says it.
    pub jail: Option<JailMode>,
    /// ONNX Runtime's library, where the operator has it.
    pub onnxruntime: Option<PathBuf>,
    /// Folders that CUDA is in; the usual one where there are none.
    pub cuda: Vec<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            data_dir: PathBuf::from("./ringfence-data"),
            tls: None,
            models: Vec::new(),
            front: Options::default(),
            allow_url_hosts: Vec::new(),
            metrics_listen: None,
            log_format: LogFormat::default(),
            log_filter: None,
            jail: None,
            onnxruntime: None,
            cuda: Vec::new(),
        }
    }
}

impl Settings {
    /// What it means where a layer of the jail is missing.
    pub fn jail(&self) -> JailMode {
        self.jail.unwrap_or(match self.listen.ip().is_loopback() {
            true => JailMode::BestEffort,
            false => JailMode::Required,
        })
    }

    /// Reads and checks a whole file. Relative paths in it begin at `folder`.
    ///
    /// Fails with every problem that there is, each with its line.
    pub fn parse(text: &str, folder: &Path) -> Result<Self, yaml::Error> {
        Self::parse_as(DOCUMENT.name, text, folder)
    }

    /// The same of a file that errors call by a name of its own.
    pub fn parse_as(name: &str, text: &str, folder: &Path) -> Result<Self, yaml::Error> {
        yaml::read_as(&DOCUMENT, name, text, |root| Some(read::take(root, folder)))
    }
}

/// The JSON Schema of the file (draft 7), for editors. It checks no addresses,
/// times or sizes beyond their form; [`Settings::parse`] decides.
pub fn schema() -> serde_json::Value {
    yaml::schema("host.yaml of a Ringfence host", &keys::KEYS, &[], UnknownKeys::Refused)
}
