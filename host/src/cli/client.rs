//! A connection to a host, and what every call needs of it.
//!
//! Owns where the base and the PAT come from and what an answer's status means
//! to the user. Knows nothing of inputs and outputs.

use super::{GlobalArgs, Usage, trust};
use crate::package::config::{ModelName, NameError};
use crate::proto::clarifai::api::UserAppIdSet;
use crate::proto::clarifai::api::status::{Status, StatusCode};
use crate::proto::clarifai::api::v2_client::V2Client;
use anyhow::{Context, anyhow};
use std::error::Error;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;
use tonic::Code;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};

const BASE_DEFAULT: &str = "http://127.0.0.1:8080";
const BASE_VARIABLES: [&str; 2] = ["RINGFENCE_BASE", "CLARIFAI_API_BASE"];
const PAT_VARIABLES: [&str; 2] = ["RINGFENCE_PAT", "CLARIFAI_PAT"];
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// What a host may send at once; it keeps its own limits.
const MESSAGE_BYTES_MAX: usize = 1 << 30;

/// A model as it is written on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ModelRef {
    pub(super) name: ModelName,
    /// Empty for the latest.
    pub(super) version: String,
}

/// A text that names no model.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ModelRefError {
    #[error("write USER/APP/MODEL[@VERSION], or MODEL[@VERSION] for one in your app `main`")]
    Parts,
    #[error("{0:?} {1}")]
    Name(String, NameError),
    /// A version where the model is meant.
    #[error("this is about the model; leave @{0} out")]
    Version(String),
}

impl FromStr for ModelRef {
    type Err = ModelRefError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (path, version) = match text.split_once('@') {
            Some((_, "")) => return Err(ModelRefError::Parts),
            Some(parts) => parts,
            None => (text, ""),
        };
        let parts: Vec<&str> = path.split('/').collect();
        let name = match parts[..] {
            [id] => ModelName::new(ModelName::USER_ME, ModelName::APP_DEFAULT, id),
            [user_id, app_id, id] => ModelName::new(user_id, app_id, id),
            _ => return Err(ModelRefError::Parts),
        };
        let name = name.map_err(|error| ModelRefError::Name(path.to_owned(), error))?;
        Ok(Self { name, version: version.to_owned() })
    }
}

impl ModelRef {
    /// Of a text that must not name a version.
    pub(super) fn of_model(text: &str) -> Result<Self, ModelRefError> {
        let model: Self = text.parse()?;
        match model.version.as_str() {
            "" => Ok(model),
            version => Err(ModelRefError::Version(version.to_owned())),
        }
    }

    /// The model as a person may write it.
    pub(super) fn label(&self) -> String {
        match (self.name.user_id(), self.name.app_id()) {
            (ModelName::USER_ME, ModelName::APP_DEFAULT) => self.name.id().to_owned(),
            _ => self.name.to_string(),
        }
    }

    pub(super) fn user_app_id(&self) -> UserAppIdSet {
        UserAppIdSet {
            user_id: self.name.user_id().to_owned(),
            app_id: self.name.app_id().to_owned(),
        }
    }
}

/// A host that answers.
pub(super) struct Client {
    pub(super) rpc: V2Client<Channel>,
    channel: Channel,
    base: String,
    authorization: Option<MetadataValue<Ascii>>,
    /// Where the PAT was found.
    pat_source: String,
}

impl Client {
    /// Connects to the host that the arguments or the environment name.
    pub(super) async fn connect(global: &GlobalArgs) -> anyhow::Result<Self> {
        let base = match &global.base {
            Some(base) => base.clone(),
            None => {
                variable(BASE_VARIABLES).map_or_else(|| BASE_DEFAULT.to_owned(), |(_, base)| base)
            }
        };
        let base = checked_base(&base)?;
        let pat = match &global.pat_file {
            Some(path) => Some((path.display().to_string(), pat_of_file(path)?)),
            None => variable(PAT_VARIABLES).map(|(name, pat)| (name.to_owned(), pat)),
        };
        let (pat_source, pat) = pat.unzip();
        let pat_source = pat_source.unwrap_or_default();
        let authorization = pat.as_deref().map(authorization).transpose()?;
        let mut endpoint = Endpoint::from_shared(base.clone())
            .map_err(|_| Usage(format!("{base:?} is no address; write http://HOST:PORT")))?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true);
        if let Some(tls) = trust::of(global, &base)? {
            endpoint = endpoint.tls_config(tls)?;
        }
        let connected = endpoint.connect().await;
        if let Some(why) = connected.as_ref().err().and_then(|error| trust::distrust(error)) {
            return Err(anyhow!("there is no safe connection to {base}: {why}"));
        }
        let channel = connected.with_context(|| {
            format!("no host answers at {base}; start one with `ringfence serve`, or name another with --base")
        })?;
        let rpc = V2Client::new(channel.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        Ok(Self { rpc, channel, base, authorization, pat_source })
    }

    /// The connection, for another service of the same host.
    pub(super) fn into_parts(self) -> (Channel, Option<MetadataValue<Ascii>>) {
        (self.channel, self.authorization)
    }

    /// A request that proves who sends it.
    pub(super) fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        if let Some(authorization) = &self.authorization {
            request.metadata_mut().insert("authorization", authorization.clone());
        }
        request
    }

    /// An error for a call that the host's gRPC layer ended.
    pub(super) fn failed(&self, what: &str, status: &tonic::Status) -> anyhow::Error {
        let (base, message) = (&self.base, status.message());
        match status.code() {
            Code::ResourceExhausted => anyhow!(
                "{what} at {base}: the input is larger than the host takes at once; send less \
                 ({message})"
            ),
            Code::Unknown | Code::Unavailable | Code::Internal if is_of_transport(status) => {
                anyhow!(
                    "{what} at {base}: the connection broke, as when the host is stopped; try \
                     again when it is there ({message})"
                )
            }
            code => anyhow!("{what} at {base} failed: {message} ({code})"),
        }
    }

    /// The same in plain words, for what a person does step by step.
    pub(super) fn check_plainly(&self, what: &str, status: Option<&Status>) -> anyhow::Result<()> {
        match status.and_then(plain) {
            Some(text) => Err(anyhow!("cannot {what}: {text}")),
            None => self.check(what, status),
        }
    }

    /// The error that an answer's status stands for, if it does.
    pub(super) fn check(&self, what: &str, status: Option<&Status>) -> anyhow::Result<()> {
        let Some(status) = status else {
            return Err(anyhow!(
                "{what} at {} was answered without a status; is this a Ringfence host?",
                self.base
            ));
        };
        if status.code == StatusCode::Success as i32 {
            return Ok(());
        }
        if status.code == StatusCode::ConnKeyInvalid as i32 && self.authorization.is_none() {
            return Err(anyhow!(
                "{what} at {} was refused, since no PAT was sent; export RINGFENCE_PAT or \
                 CLARIFAI_PAT, or give --pat-file",
                self.base
            ));
        }
        if status.code == StatusCode::ConnKeyInvalid as i32 {
            return Err(anyhow!(
                "{what} at {} was refused: the PAT of {} does not count there, or not any more; \
                 whoever runs that host makes another with `ringfence pat create`",
                self.base,
                self.pat_source
            ));
        }
        Err(anyhow!("{what} at {}: {}", self.base, describe(status)))
    }
}

/// What a refusal says to a person, without the codes and the reason that are
/// for programs. Nothing where these are needed to find out what happened.
fn plain(status: &Status) -> Option<&str> {
    let is_told = !matches!(
        status.code(),
        StatusCode::Success | StatusCode::ConnKeyInvalid | StatusCode::InternalServerIssue
    );
    let (_, text) = reason_and_text(&status.details)?;
    is_told.then_some(text)
}

/// The reason for programs that a text of the wire begins with, and the rest.
pub(super) fn reason_and_text(told: &str) -> Option<(&str, &str)> {
    let (reason, text) = told.split_once(": ")?;
    let is_reason = reason.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
    is_reason.then_some((reason, text))
}

/// What a text of the wire says to whoever writes arguments: `runner_selector`
/// is one of two.
fn in_arguments(status: &Status) -> String {
    let argument = match status.code() {
        StatusCode::DeploymentDoesNotExist | StatusCode::DeploymentInvalidRequest => "--deployment",
        StatusCode::NodepoolDoesNotExist | StatusCode::ModelNotDeployed => "--nodepool",
        _ => return status.details.clone(),
    };
    status.details.replace("runner_selector", argument)
}

/// A status in one line: name, number, what and what to do.
pub(super) fn describe(status: &Status) -> String {
    let name = StatusCode::try_from(status.code).map_or("UNKNOWN", |code| code.as_str_name());
    let mut text = format!("{name} ({})", status.code);
    for part in [&status.description, &in_arguments(status)] {
        if !part.is_empty() {
            text.push_str(": ");
            text.push_str(part);
        }
    }
    if !status.req_id.is_empty() {
        text.push_str(&format!(" [call {}]", status.req_id));
    }
    text
}

/// Runs one client call to its end.
pub(super) fn block_on<T>(call: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(call)
}

/// Whether a library made the status because the connection is gone.
fn is_of_transport(status: &tonic::Status) -> bool {
    status.source().is_some()
}

/// The first variable that is set, and its value.
fn variable(names: [&'static str; 2]) -> Option<(&'static str, String)> {
    names.into_iter().find_map(|name| {
        let value = std::env::var(name).ok().filter(|value| !value.trim().is_empty())?;
        Some((name, value))
    })
}

/// A base that is ours to call: tokens and inputs never go to the platform
/// whose variables are read here.
fn checked_base(base: &str) -> Result<String, Usage> {
    let base = base.trim();
    let base = if base.contains("://") { base.to_owned() } else { format!("http://{base}") };
    let wrong = || Usage(format!("{base:?} is no address; write http://HOST:PORT"));
    let uri: http::Uri = base.parse().map_err(|_| wrong())?;
    let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(wrong)?;
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let has_port = authority.rsplit('@').next().is_some_and(|named| named.len() > host.len());
    if has_port && uri.port_u16().is_none() {
        return Err(wrong());
    }
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    if host == "clarifai.com" || host.ends_with(".clarifai.com") {
        return Err(Usage(format!(
            "{base} is not a Ringfence host; set RINGFENCE_BASE or --base to yours, such as {BASE_DEFAULT}"
        )));
    }
    match uri.scheme_str() {
        Some("http" | "https") => Ok(base.trim_end_matches('/').to_owned()),
        _ => Err(wrong()),
    }
}

fn pat_of_file(path: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Usage(format!("cannot read the PAT file {}: {error}", path.display())))?;
    let pat = text.trim();
    if pat.is_empty() {
        return Err(Usage(format!("the PAT file {} is empty", path.display())).into());
    }
    Ok(pat.to_owned())
}

fn authorization(pat: &str) -> anyhow::Result<MetadataValue<Ascii>> {
    // The error would repeat the PAT.
    let mut value: MetadataValue<Ascii> = format!("Key {}", pat.trim())
        .parse()
        .map_err(|_| Usage("the PAT has characters that no PAT has; copy it again".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_named_in_full_or_by_their_id() {
        let model: ModelRef = "alice/lab/m-1@0af3".parse().unwrap();
        assert_eq!(
            (model.name.to_string().as_str(), model.version.as_str()),
            ("alice/lab/m-1", "0af3")
        );
        let model: ModelRef = "echo".parse().unwrap();
        assert_eq!((model.name.to_string().as_str(), model.version.as_str()), ("me/main/echo", ""));
        assert_eq!(model.label(), "echo");
        assert!(ModelRef::of_model("a/b/c").is_ok() && ModelRef::of_model("a/b/c@1").is_err());
        for wrong in ["", "a/b", "a/b/c/d", "a//c", "../x/y", "m@", "a/b/c d"] {
            assert!(wrong.parse::<ModelRef>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_other_platform_is_never_called() {
        for base in [
            "https://api.clarifai.com",
            "http://clarifai.com:80",
            "api.clarifai.com",
            "HTTP://API.CLARIFAI.COM./",
            "http://127.0.0.1@api.clarifai.com",
        ] {
            assert!(checked_base(base).is_err(), "{base}");
        }
        for (base, expected) in [
            ("http://127.0.0.1:8080/", "http://127.0.0.1:8080"),
            ("localhost:1", "http://localhost:1"),
            ("http://[::1]:8080", "http://[::1]:8080"),
            ("https://models.example:8443/", "https://models.example:8443"),
            ("http://notclarifai.com", "http://notclarifai.com"),
        ] {
            assert_eq!(checked_base(base).unwrap(), expected);
        }
        for base in ["", "http://", "ftp://h", "a b", "http://h:", "http://h:65536", "h:x"] {
            assert!(checked_base(base).is_err(), "{base:?}");
        }
    }

    #[test]
    fn a_pat_is_in_no_error_and_no_debug_text() {
        let error = authorization("rf_CANARY\nX: y").unwrap_err();
        assert!(!format!("{error:?}").contains("CANARY"));
        assert!(!format!("{:?}", authorization("rf_CANARY").unwrap()).contains("CANARY"));
    }

    #[test]
    fn a_status_reads_as_one_line() {
        let status = Status {
            code: StatusCode::ModelDoesNotExist as i32,
            description: "Model does not exist".into(),
            details: "NOT_FOUND: check the name".into(),
            ..Status::default()
        };
        assert_eq!(
            describe(&status),
            "MODEL_DOES_NOT_EXIST (21200): Model does not exist: NOT_FOUND: check the name"
        );
        assert_eq!(plain(&status), Some("check the name"));
        let status = Status {
            code: StatusCode::DeploymentDoesNotExist as i32,
            details: "NO_SUCH_DEPLOYMENT: the model has no deployment d; check runner_selector"
                .into(),
            ..Status::default()
        };
        assert!(describe(&status).ends_with("has no deployment d; check --deployment"));
        let code = StatusCode::InternalServerIssue as i32;
        assert_eq!(plain(&Status { code, details: "HOST_BUG: it failed".into(), ..status }), None);
    }
}
