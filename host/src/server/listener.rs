//! Accepting connections, serving them, and letting them end.

use super::App;
use super::gate::gate;
use super::remap::remap;
use super::v2::Service;
use crate::proto::clarifai::api::v2_server::V2Server;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tonic::service::Routes;
use tower::ServiceExt;

/// Limits and choices of the front.
#[derive(Debug, Clone)]
pub struct Options {
    /// Connections at a time; more wait in the kernel's backlog.
    pub connections_max: usize,
    /// Calls at a time on one connection.
    pub streams_per_connection_max: u32,
    /// Bytes of one message of a client.
    pub message_bytes_max: usize,
    /// Time in which a new connection has to say that it speaks HTTP/2.
    pub preface_timeout: Duration,
    /// Time that calls may go on after the host was told to stop.
    pub drain_timeout: Duration,
    /// Whether clients may ask what the services look like.
    pub reflection: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connections_max: 1024,
            streams_per_connection_max: 256,
            message_bytes_max: 16 << 20,
            preface_timeout: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(30),
            reflection: false,
        }
    }
}

/// How long to wait after a failed `accept`: running out of file descriptors
/// fails at once, and again at once.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(20);
const HEADER_BYTES_MAX: u32 = 16 << 10;

/// Bytes of the connection preface: RFC 9113, section 3.4.
const PREFACE_BYTES: usize = 24;

/// Window of one stream, and of all streams of a connection together: what a
/// client may send before the host has looked at it.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

/// Serves until `stop` resolves, then lets calls end within the drain timeout.
pub async fn run(
    listener: TcpListener,
    app: Arc<App>,
    options: Options,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let routes = routes(app.clone(), &options).await?;
    let connections = Arc::new(Semaphore::new(options.connections_max));
    let tasks = TaskTracker::new();
    let draining = CancellationToken::new();
    let killed = CancellationToken::new();
    tokio::pin!(stop);
    loop {
        let accepted = async {
            let permit = connections.clone().acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            biased;
            () = &mut stop => break,
            accepted = accepted => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let connection = connection(
                    stream,
                    app.clone(),
                    routes.clone(),
                    options.clone(),
                    draining.clone(),
                    killed.clone(),
                );
                tasks.spawn(async move {
                    connection.await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
    tracing::info!(open = tasks.len(), "draining");
    drop(listener);
    draining.cancel();
    tasks.close();
    if tokio::time::timeout(options.drain_timeout, tasks.wait()).await.is_err() {
        tracing::warn!(open = tasks.len(), "calls still ran at the end of the drain");
        killed.cancel();
        tasks.wait().await;
    }
    Ok(())
}

async fn routes(app: Arc<App>, options: &Options) -> anyhow::Result<Routes> {
    let v2 = V2Server::new(Service { app })
        .max_decoding_message_size(options.message_bytes_max)
        .max_encoding_message_size(usize::MAX);
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<V2Server<Service>>().await;
    let mut routes = Routes::new(v2).add_service(health_service);
    if options.reflection {
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(crate::proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()?;
        routes = routes.add_service(reflection);
    }
    Ok(routes.prepare())
}

async fn connection(
    stream: TcpStream,
    app: Arc<App>,
    routes: Routes,
    options: Options,
    draining: CancellationToken,
    killed: CancellationToken,
) {
    // Small answers must not wait for the next one.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let spoken = tokio::select! {
        biased;
        () = draining.cancelled() => return,
        spoken = tokio::time::timeout(options.preface_timeout, preface(stream)) => spoken,
    };
    let Ok(Ok(spoken)) = spoken else { return };
    let mut builder = auto::Builder::new(TokioExecutor::new()).http2_only();
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(options.streams_per_connection_max)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_header_list_size(HEADER_BYTES_MAX)
        .keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_INTERVAL);
    let routes = ServiceExt::<http::Request<Body>>::map_response(routes, remap);
    let routes = routes.map_request(move |request| gate(&app, request));
    let service = TowerToHyperService::new(routes);
    let serving = builder.serve_connection(TokioIo::new(spoken), service);
    tokio::pin!(serving);
    let mut told = false;
    loop {
        tokio::select! {
            biased;
            () = killed.cancelled() => return,
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

/// Waits for the bytes that every HTTP/2 connection begins with, and gives the
/// connection back as it was before them. The HTTP library would wait for them
/// without end.
async fn preface(stream: TcpStream) -> io::Result<impl AsyncRead + AsyncWrite + Unpin> {
    let mut preface = [0; PREFACE_BYTES];
    let (mut reader, writer) = stream.into_split();
    reader.read_exact(&mut preface).await?;
    Ok(tokio::io::join(io::Cursor::new(preface).chain(reader), writer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Auth;
    use crate::deploy::Deployments;
    use std::net::SocketAddr;
    use tokio::io::AsyncWriteExt;
    use tokio::sync::oneshot;
    use tokio::task::JoinHandle;

    /// Long enough for anything that is going to happen.
    const BOUND: Duration = Duration::from_secs(20);

    /// How an HTTP/2 connection begins, and a frame of settings without any.
    const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

    struct Running {
        address: SocketAddr,
        stop: oneshot::Sender<()>,
        served: JoinHandle<anyhow::Result<()>>,
    }

    async fn start(options: Options) -> Running {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let app =
            App { auth: Auth::none(), deployments: Deployments::default(), default_model: None };
        let served = tokio::spawn(run(listener, Arc::new(app), options, async {
            let _ = stopped.await;
        }));
        Running { address, stop, served }
    }

    /// Reads until there is something, or the end, which is nothing.
    async fn read(stream: &mut TcpStream) -> usize {
        let mut bytes = [0; 256];
        tokio::time::timeout(BOUND, stream.read(&mut bytes)).await.unwrap().unwrap_or(0)
    }

    async fn greeted(address: SocketAddr) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(HELLO).await.unwrap();
        stream
    }

    #[tokio::test]
    async fn a_connection_that_says_nothing_is_closed() {
        let options = Options { preface_timeout: Duration::from_millis(50), ..Options::default() };
        let running = start(options).await;
        for said in [&b""[..], b"P", b"PRI * HTTP/2.0"] {
            let mut stream = TcpStream::connect(running.address).await.unwrap();
            stream.write_all(said).await.unwrap();
            assert_eq!(read(&mut stream).await, 0, "after {said:?}");
        }
    }

    #[tokio::test]
    async fn connections_beyond_their_number_wait() {
        let running = start(Options { connections_max: 1, ..Options::default() }).await;
        let mut first = greeted(running.address).await;
        assert!(read(&mut first).await > 0);
        let mut second = greeted(running.address).await;
        let early = tokio::time::timeout(Duration::from_millis(100), second.readable()).await;
        assert!(early.is_err(), "the second was served beside the first");
        drop(first);
        assert!(read(&mut second).await > 0);
    }

    #[tokio::test]
    async fn a_drain_ends_though_a_connection_stays() {
        let options = Options { drain_timeout: Duration::from_millis(50), ..Options::default() };
        let running = start(options).await;
        let mut idle = greeted(running.address).await;
        assert!(read(&mut idle).await > 0);
        let silent = TcpStream::connect(running.address).await.unwrap();
        running.stop.send(()).unwrap();
        tokio::time::timeout(BOUND, running.served).await.unwrap().unwrap().unwrap();
        drop((idle, silent));
    }
}
