//! The way to the operations of a host: over the network with a token, or,
//! given a data directory, by the socket of the host that has it open, or in
//! this process where none has.

use super::client::{Client, block_on, reason_and_text};
use super::{GlobalArgs, Usage, serve, socket};
use crate::auth::Auth;
use crate::fetch::Fetcher;
use crate::proto::ringfence::v1::operations_client::OperationsClient;
use crate::server::{self, App, Options};
use crate::settings::Settings;
use crate::store::{Store, StoreError};
use crate::telemetry::Dropped;
use crate::worker::Workers;
use anyhow::{Context, anyhow};
use hyper_util::rt::TokioIo;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::DuplexStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};
use tower::service_fn;

/// Bytes between the two ends of a connection in one process.
const DUPLEX_BYTES: usize = 64 << 10;

/// A connection, and who asks.
pub(super) struct Operations {
    pub(super) rpc: OperationsClient<Channel>,
    authorization: Option<MetadataValue<Ascii>>,
    /// Lives as long as the connection does.
    host: Option<(Arc<App>, Workers)>,
}

impl Operations {
    /// Connects as the arguments say.
    async fn connect(global: &GlobalArgs, data_dir: Option<&Path>) -> anyhow::Result<Self> {
        let Some(data_dir) = data_dir else {
            let client = Client::connect(global).await?;
            let (channel, authorization) = client.into_parts();
            let rpc = OperationsClient::new(channel);
            return Ok(Self { rpc, authorization, host: None });
        };
        match Store::open_existing(data_dir) {
            Ok(store) => Self::in_this_process(store).await,
            Err(StoreError::InUse { .. }) => {
                let path = data_dir.to_owned();
                let connect = service_fn(move |_| {
                    let path = path.clone();
                    async move { socket::connect(&path).await.map(TokioIo::new) }
                });
                let channel =
                    endpoint().connect_with_connector(connect).await.with_context(|| {
                        format!(
                            "a host has {} open, and does not answer at its socket there",
                            data_dir.display()
                        )
                    })?;
                let rpc = OperationsClient::new(channel);
                Ok(Self { rpc, authorization: None, host: None })
            }
            // As `serve` ends: nobody has asked wrongly.
            Err(error @ StoreError::DatabaseDamaged { .. }) => Err(error.into()),
            Err(error) => Err(super::usage(error)),
        }
    }

    /// A host that serves nobody else, for as long as the command runs.
    async fn in_this_process(store: Store) -> anyhow::Result<Self> {
        let store = Arc::new(store);
        let (auth, _) = Auth::open(store.clone())?;
        let (settings, fetcher) = (Settings::default(), Fetcher::off());
        let (app, workers) =
            serve::start(auth, store, &settings, fetcher, Dropped::default(), None).await?;
        let (ours, theirs) = tokio::io::duplex(DUPLEX_BYTES);
        tokio::spawn(server::serve_operator(theirs, app.clone(), Options::default()));
        let ours: Mutex<Option<DuplexStream>> = Mutex::new(Some(ours));
        let connect = service_fn(move |_| {
            let stream = ours.lock().unwrap_or_else(PoisonError::into_inner).take();
            let gone = || std::io::Error::from(std::io::ErrorKind::NotConnected);
            async move { stream.map(TokioIo::new).ok_or_else(gone) }
        });
        let channel = endpoint().connect_with_connector(connect).await?;
        let rpc = OperationsClient::new(channel);
        Ok(Self { rpc, authorization: None, host: Some((app, workers)) })
    }

    /// Waits for what the work has told a host in this process to do, such as
    /// removing the log of a version, but not for long.
    fn flush(&self) {
        if let Some((app, _)) = &self.host
            && let Some(logs) = &app.telemetry.logs
        {
            logs.flush();
        }
    }

    /// A request that proves who sends it.
    pub(super) fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        if let Some(authorization) = &self.authorization {
            request.metadata_mut().insert("authorization", authorization.clone());
        }
        request
    }
}

/// The address is not looked at.
fn endpoint() -> Endpoint {
    Endpoint::from_static("http://localhost")
}

/// Connects and does the work.
pub(super) fn run<T>(
    global: &GlobalArgs,
    data_dir: Option<&Path>,
    work: impl AsyncFnOnce(&mut Operations) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let connected = async {
        let mut operations = Operations::connect(global, data_dir).await?;
        let done = work(&mut operations).await;
        operations.flush();
        done
    };
    match data_dir {
        // Opening a store may start a host, whose parts need threads.
        Some(_) => serve::runtime()?.block_on(connected),
        None => block_on(connected),
    }
}

/// The reason of what is asked for wrongly, whatever there is.
const INVALID_REQUEST: &str = "INVALID_REQUEST";

/// The reason of every token that does not count, and of none.
const TOKEN_INVALID: &str = "TOKEN_INVALID";

/// The answer, or what its refusal says to a person: the text begins with a
/// reason for programs.
pub(super) fn answered<T>(answer: Result<Response<T>, Status>) -> anyhow::Result<T> {
    let status = match answer {
        Ok(response) => return Ok(response.into_inner()),
        Err(status) => status,
    };
    let message = status.message();
    Err(match reason_and_text(message) {
        Some((INVALID_REQUEST, text)) => Usage(text.to_owned()).into(),
        Some((TOKEN_INVALID, _)) => anyhow!(
            "the PAT is missing or does not count there, or not any more; export RINGFENCE_PAT or \
             CLARIFAI_PAT, or give --pat-file"
        ),
        Some((_, text)) => anyhow!("{text}"),
        None => anyhow!("{message} ({})", status.code()),
    })
}

/// A line of text, or an object.
pub(super) fn tell(
    global: &GlobalArgs,
    text: impl FnOnce() -> String,
    json: impl FnOnce() -> serde_json::Value,
) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match global.json {
        true => writeln!(out, "{}", json())?,
        false => writeln!(out, "{}", crate::text::printable(&text()))?,
    }
    Ok(())
}

/// A time as people write it: RFC 3339, in UTC.
pub(super) fn time(seconds: i64) -> String {
    let timestamp = prost_types::Timestamp { seconds, nanos: 0 };
    timestamp.to_string()
}
