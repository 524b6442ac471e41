//! Accepting connections, serving them, and letting them end.

use super::App;
use super::calls::StreamTimeouts;
use super::content_type::{is_grpc, unsupported};
use super::gate::{Peer, gate};
use super::health::HealthService;
use super::inbound::Inbound;
use super::operations;
use super::places::Places;
use super::receipt::with_receipt;
use super::remap::remap;
use super::rewound::Rewound;
use super::untaken::{PIECE_BYTES, Untaken};
use super::v2::Service;
use crate::limits::limit;
use crate::proto::clarifai::api::v2_server::V2Server;
use crate::proto::ringfence::v1::operations_server::OperationsServer;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio_rustls::{TlsAcceptor, rustls};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;
use tower::Service as _;
use tower::util::Either;

/// Limits and choices of the front.
#[derive(Debug, Clone)]
pub struct Options {
    /// Connections at a time; more wait in the kernel's backlog.
    pub connections_max: usize,
    /// Connections at a time of one IPv4 address, or of one IPv6 network of 56
    /// bits; more are closed.
    pub connections_per_address_max: usize,
    /// Calls at a time on one connection.
    pub streams_per_connection_max: u32,
    /// Bytes of one message of a client.
    pub message_bytes_max: usize,
    /// Bytes of one message of an upload: the Python SDK sends parts of 127 MiB.
    pub upload_message_bytes_max: usize,
    /// Time in which a new connection has to say that it speaks HTTP/2.
    pub preface_timeout: Duration,
    /// Time in which a stream has to say what it calls.
    pub first_message_timeout: Duration,
    /// Time in which one side of a stream has to say something.
    pub stream_idle_timeout: Duration,
    /// Time in which 256 KiB of a message, or its rest, have to come.
    pub message_timeout: Duration,
    /// How long a client may be behind the 32 KiB of an answer that it has to take in a
    /// second.
    pub answer_timeout: Duration,
    /// A ping is sent this often on a connection, and has to be answered within
    /// the same time.
    pub keep_alive: Duration,
    /// Time that calls may go on after the host was told to stop.
    pub drain_timeout: Duration,
    /// Whether clients may ask what the services look like.
    pub reflection: bool,
    /// What connections are encrypted with, if they are.
    pub tls: Option<Arc<rustls::ServerConfig>>,
}

impl Options {
    /// For a host whose options do not change.
    pub fn fixed(self) -> watch::Receiver<Self> {
        watch::Sender::new(self).subscribe()
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connections_max: 1024,
            connections_per_address_max: 256,
            streams_per_connection_max: 256,
            message_bytes_max: 16 << 20,
            upload_message_bytes_max: crate::limits::UPLOAD_MESSAGE_BYTES_MAX,
            preface_timeout: Duration::from_secs(10),
            first_message_timeout: Duration::from_secs(60),
            stream_idle_timeout: Duration::from_secs(300),
            message_timeout: Duration::from_secs(30),
            answer_timeout: Duration::from_secs(60),
            keep_alive: Duration::from_secs(20),
            drain_timeout: Duration::from_secs(30),
            reflection: false,
            tls: None,
        }
    }
}

impl Options {
    /// Without the one that a test has taken away, if it is one of these.
    fn lifted(self) -> Self {
        let of_address = limit("connections_per_address", self.connections_per_address_max);
        let of_connection = limit("streams_per_connection", self.streams_per_connection_max);
        Self {
            connections_max: limit("connections", self.connections_max),
            connections_per_address_max: of_address,
            streams_per_connection_max: of_connection,
            message_bytes_max: limit("message_bytes", self.message_bytes_max),
            upload_message_bytes_max: limit("upload_message", self.upload_message_bytes_max),
            preface_timeout: limit("preface_timeout", self.preface_timeout),
            first_message_timeout: limit("first_message_timeout", self.first_message_timeout),
            stream_idle_timeout: limit("stream_idle_timeout", self.stream_idle_timeout),
            message_timeout: limit("message_timeout", self.message_timeout),
            answer_timeout: limit("answer_timeout", self.answer_timeout),
            keep_alive: limit("keep_alive", self.keep_alive),
            drain_timeout: limit("drain_timeout", self.drain_timeout),
            ..self
        }
    }
}

/// What the paths of its RPCs begin with.
const V2: &str = "/clarifai.api.V2/";

/// The one RPC of larger messages. The library's limit is one of a service, so
/// there are two of the service.
pub(super) const UPLOAD: &str = "/clarifai.api.V2/PostModelVersionsUpload";

/// Bytes of a message of whoever needs no token.
const ANYONES_MESSAGE_BYTES_MAX: usize = 1 << 10;

/// How long to wait after a failed `accept`: running out of file descriptors
/// fails at once, and again at once.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

/// Bytes of all headers of a request, as RFC 9113, section 6.5.2, counts them.
const HEADER_BYTES_MAX: u32 = 16 << 10;

/// Window of one stream, and of all streams of a connection together: what a
/// client may send before the host has looked at it.
const STREAM_WINDOW_BYTES: u32 = 512 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

/// Longest frame of HTTP/2 that a client may send, which is read as a whole. What is sent
/// in short ones is read in many pieces.
const FRAME_BYTES_MAX: u32 = 64 << 10;

/// Serves until `stop` resolves, then lets calls end within the drain timeout.
/// Each connection goes by the options of its beginning. How many there are at a
/// time, and what a message may be, is decided at the start.
pub async fn run(
    listener: TcpListener,
    socket: Option<UnixListener>,
    app: Arc<App>,
    options: watch::Receiver<Options>,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let first = options.borrow().clone().lifted();
    let routes = routes(app.clone(), &first)?;
    let inbound = Inbound::new(first.message_bytes_max);
    let places = Places::new(first.connections_max, first.connections_per_address_max);
    let tasks = TaskTracker::new();
    let draining = app.telemetry.draining.clone();
    let killed = CancellationToken::new();
    tokio::pin!(stop);
    loop {
        let remote = async {
            let place = places.one().await;
            (place, listener.accept().await.map(Accepted::of_address))
        };
        let operator = async {
            let place = places.one_of_operator().await;
            (place, local(socket.as_ref()).await.map(Accepted::Local))
        };
        let (place, accepted) = tokio::select! {
            biased;
            () = &mut stop => break,
            accepted = operator => accepted,
            accepted = remote => accepted,
        };
        match accepted {
            Ok(accepted) => {
                let of_address = match &accepted {
                    Accepted::Local(_) => None,
                    Accepted::Remote(_, address) => match places.of(*address) {
                        Some(place) => Some(place),
                        None => {
                            app.telemetry.metrics.connection_refused();
                            continue;
                        }
                    },
                };
                let open = app.telemetry.metrics.connection();
                let options = options.borrow().clone().lifted();
                let front =
                    Front { app: app.clone(), routes: routes.clone(), inbound: inbound.clone() };
                let (draining, killed) = (draining.clone(), killed.clone());
                tasks.spawn(async move {
                    match accepted {
                        Accepted::Remote(stream, address) => {
                            let peer = Peer::Address(address);
                            connection(stream, peer, front, options, draining, killed).await;
                        }
                        Accepted::Local(stream) => {
                            // It is a file of this machine; nobody listens in.
                            let options = Options { tls: None, ..options };
                            let peer = Peer::Operator;
                            connection(stream, peer, front, options, draining, killed).await;
                        }
                    }
                    drop((open, of_address, place));
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
    let drain_timeout = options.borrow().clone().lifted().drain_timeout;
    tracing::info!(
        connections = tasks.len(),
        seconds_at_most = drain_timeout.as_secs(),
        "told to stop: open calls may end; a second signal does not wait for them"
    );
    drop(listener);
    draining.cancel();
    tasks.close();
    if tokio::time::timeout(drain_timeout, tasks.wait()).await.is_err() {
        tracing::warn!(open = tasks.len(), "calls still ran at the end of the drain");
        killed.cancel();
        tasks.wait().await;
    }
    Ok(())
}

/// Serves the operator on one connection, to its end.
pub async fn serve_operator(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    app: Arc<App>,
    options: Options,
) -> anyhow::Result<()> {
    let inbound = Inbound::new(options.message_bytes_max);
    let front = Front { routes: routes(app.clone(), &options)?, app, inbound };
    let never = CancellationToken::new();
    connection(stream, Peer::Operator, front, options, never.clone(), never).await;
    Ok(())
}

/// A connection that has come.
enum Accepted {
    Remote(TcpStream, IpAddr),
    Local(UnixStream),
}

impl Accepted {
    fn of_address((stream, address): (TcpStream, SocketAddr)) -> Self {
        // Small answers must not wait for the next one.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        Self::Remote(stream, address.ip())
    }
}

async fn local(socket: Option<&UnixListener>) -> io::Result<UnixStream> {
    match socket {
        Some(socket) => {
            let stream = socket.accept().await?.0;
            let uid = stream.peer_cred()?.uid();
            // The file's permissions say the same; they are set a moment after
            // it is there.
            match uid == rustix::process::geteuid().as_raw() || uid == 0 {
                true => Ok(stream),
                false => Err(io::ErrorKind::PermissionDenied.into()),
            }
        }
        None => std::future::pending().await,
    }
}

/// What every connection needs.
#[derive(Clone)]
struct Front {
    app: Arc<App>,
    routes: AllRoutes,
    inbound: Arc<Inbound>,
}

/// What a request can be for.
#[derive(Clone)]
struct AllRoutes {
    upload: V2Server<Service>,
    /// Most requests are for this service, so no router looks for it.
    v2: V2Server<Service>,
    others: Routes,
}

impl AllRoutes {
    /// What a request with this path is for.
    fn of(&self, path: &str) -> Either<V2Server<Service>, Routes> {
        match path {
            UPLOAD => Either::Left(self.upload.clone()),
            path if path.starts_with(V2) => Either::Left(self.v2.clone()),
            _ => Either::Right(self.others.clone()),
        }
    }
}

fn routes(app: Arc<App>, options: &Options) -> anyhow::Result<AllRoutes> {
    let operations = OperationsServer::new(operations::Service { app: app.clone() })
        .max_decoding_message_size(options.message_bytes_max);
    let health = HealthService::new(app.clone(), app.telemetry.draining.clone());
    let timeouts = StreamTimeouts {
        first_message: options.first_message_timeout,
        idle: options.stream_idle_timeout,
    };
    let service = Service { app, timeouts };
    let v2 = V2Server::new(service.clone())
        .max_decoding_message_size(options.message_bytes_max)
        .max_encoding_message_size(usize::MAX);
    let upload = V2Server::new(service).max_decoding_message_size(options.upload_message_bytes_max);
    let of_anyone = limit("anyones_message", ANYONES_MESSAGE_BYTES_MAX);
    let health = HealthServer::new(health).max_decoding_message_size(of_anyone);
    let mut routes = Routes::new(operations).add_service(health);
    if options.reflection {
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(crate::proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()?;
        routes = routes.add_service(reflection.max_decoding_message_size(of_anyone));
    }
    Ok(AllRoutes { upload, v2, others: routes.prepare() })
}

/// Serves one connection to its end, whatever it came over.
async fn connection(
    stream: impl Stream,
    peer: Peer,
    front: Front,
    options: Options,
    draining: CancellationToken,
    killed: CancellationToken,
) {
    let begun = tokio::select! {
        biased;
        () = draining.cancelled() => return,
        begun = tokio::time::timeout(options.preface_timeout, begin(stream, &options)) => begun,
    };
    let stream = match begun {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "a connection did not begin well"),
        Err(_) => return tracing::debug!("a connection did not begin in time"),
    };
    let mut builder = auto::Builder::new(TokioExecutor::new()).http2_only();
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(options.streams_per_connection_max)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES_MAX)
        .max_header_list_size(limit("header_bytes", HEADER_BYTES_MAX))
        .max_send_buf_size(PIECE_BYTES)
        .keep_alive_interval(options.keep_alive)
        .keep_alive_timeout(options.keep_alive);
    let untaken = Untaken::new(options.answer_timeout);
    let watched = untaken.clone();
    let service = tower::service_fn(move |request: http::Request<Incoming>| {
        let Front { app, routes, inbound } = &front;
        let mut service = routes.of(request.uri().path());
        let supported = is_grpc(request.headers());
        let (request, delay) = gate(app, &peer, inbound, request, options.message_timeout);
        let untaken = watched.clone();
        async move {
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            let response = match supported {
                true => service.call(request).await.map(remap).map(with_receipt),
                false => Ok(unsupported()),
            };
            response.map(|response| untaken.watch(response))
        }
    });
    let service = TowerToHyperService::new(service);
    let serving = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(serving);
    let stalled = untaken.stalled();
    tokio::pin!(stalled);
    let mut told = false;
    loop {
        tokio::select! {
            biased;
            () = killed.cancelled() => return,
            () = stalled.as_mut() => {
                return tracing::info!("a client did not take its answers; its connection is closed");
            }
            () = draining.cancelled(), if !told => {
                told = true;
                serving.as_mut().graceful_shutdown();
            }
            ended = serving.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection ended");
                }
                return;
            }
        }
    }
}

/// What a connection can come over.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for S {}

/// All that has to happen before HTTP does: the handshake of TLS, where it is
/// spoken, and the preface.
async fn begin(stream: impl Stream, options: &Options) -> io::Result<Rewound<Box<dyn Stream>>> {
    let stream: Box<dyn Stream> = match &options.tls {
        None => Box::new(stream),
        Some(config) => {
            let stream = TlsAcceptor::from(config.clone()).accept(stream).await?;
            if stream.get_ref().1.alpn_protocol().is_none() {
                return Err(io::Error::other("the client did not ask for HTTP/2 by ALPN"));
            }
            Box::new(stream)
        }
    };
    Rewound::after_preface(stream).await
}

#[cfg(test)]
#[path = "listener_tests.rs"]
mod tests;
