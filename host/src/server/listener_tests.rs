//! What a connection may do, held on real sockets of loopback.

use super::*;
use crate::proto::clarifai::api::status::StatusCode;
use crate::proto::clarifai::api::v2_client::V2Client;
use bytes::Bytes;
use h2::client::SendRequest;
use std::collections::BTreeMap;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Long enough for anything that is going to happen.
const BOUND: Duration = Duration::from_secs(20);

/// How an HTTP/2 connection begins, and a frame of settings without any.
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Types of frames: RFC 9113, section 6.
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;

/// The flag of a frame of headers that is not continued.
const END_HEADERS: u8 = 4;

/// RFC 9113, section 7: the stream was not looked at.
const REFUSED_STREAM: u32 = 7;

/// RFC 9113, section 6.9.2: the window of a connection before any update.
const CONNECTION_WINDOW_FIRST: u32 = 65_535;

struct Running {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    served: JoinHandle<anyhow::Result<()>>,
}

async fn start(options: Options) -> Running {
    start_with(options, None).await
}

async fn start_with(options: Options, socket: Option<UnixListener>) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let dir = tempfile::TempDir::new().unwrap();
    let app = App::of_nothing(dir.path());
    let served = tokio::spawn(run(listener, socket, Arc::new(app), options.fixed(), async {
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

/// A connection of a library's that is kept up until its task is aborted.
async fn http2(address: SocketAddr) -> (SendRequest<Bytes>, JoinHandle<Result<(), h2::Error>>) {
    http2_as(address, &h2::client::Builder::new()).await
}

/// The same with settings of its own.
async fn http2_as(
    address: SocketAddr,
    settings: &h2::client::Builder,
) -> (SendRequest<Bytes>, JoinHandle<Result<(), h2::Error>>) {
    let stream = TcpStream::connect(address).await.unwrap();
    let (client, connection) = settings.handshake(stream).await.unwrap();
    let driving = tokio::spawn(connection);
    (client.ready().await.unwrap(), driving)
}

const HEALTH: &str = "/grpc.health.v1.Health/Check";

/// A call whose headers are still to be completed.
fn grpc(path: &str) -> http::request::Builder {
    http::Request::post(format!("http://localhost{path}"))
        .header("content-type", "application/grpc")
}

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl Frame {
    /// RFC 9113, section 4.1: length, type, flags, stream, payload.
    async fn read(stream: &mut TcpStream) -> Self {
        let reading = async {
            let mut head = [0; 9];
            stream.read_exact(&mut head).await.unwrap();
            let [a, b, c, kind, flags, id @ ..] = head;
            let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
            stream.read_exact(&mut payload).await.unwrap();
            Self { kind, flags, stream: u32::from_be_bytes(id), payload }
        };
        tokio::time::timeout(BOUND, reading).await.unwrap()
    }

    async fn write(&self, stream: &mut TcpStream) {
        let mut bytes = u32::try_from(self.payload.len()).unwrap().to_be_bytes()[1..].to_vec();
        bytes.extend([self.kind, self.flags]);
        bytes.extend(self.stream.to_be_bytes());
        bytes.extend(&self.payload);
        stream.write_all(&bytes).await.unwrap();
    }

    /// The next frame of one kind.
    async fn next_of(stream: &mut TcpStream, kind: u8) -> Self {
        loop {
            let frame = Self::read(stream).await;
            if frame.kind == kind {
                return frame;
            }
        }
    }

    fn number(&self) -> u32 {
        u32::from_be_bytes(self.payload.as_slice().try_into().unwrap())
    }
}

/// The headers of a call whose messages are still to come. Each is a literal
/// that is not indexed: RFC 7541, section 6.2.2.
fn open_call(stream: u32) -> Frame {
    let mut payload = Vec::new();
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/clarifai.api.V2/StreamModelOutputs"),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ] {
        payload.push(0);
        for text in [name, value] {
            payload.push(u8::try_from(text.len()).unwrap());
            payload.extend(text.as_bytes());
        }
    }
    Frame { kind: HEADERS, flags: END_HEADERS, stream, payload }
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
async fn a_connection_that_answers_no_ping_is_closed() {
    let options = Options { keep_alive: Duration::from_millis(50), ..Options::default() };
    let running = start(options).await;
    let mut silent = greeted(running.address).await;
    let closed = async { while read(&mut silent).await > 0 {} };
    tokio::time::timeout(BOUND, closed).await.expect("the end of the connection");
}

/// It says that it is there, and has room for nothing.
#[tokio::test]
async fn a_client_that_does_not_take_its_answer_is_left() {
    let answer_timeout = Duration::from_millis(300);
    let running = start(Options { answer_timeout, ..Options::default() }).await;
    for window in [65_535, 0] {
        let mut settings = h2::client::Builder::new();
        settings.initial_window_size(window);
        let (mut client, driving) = http2_as(running.address, &settings).await;
        let request = grpc(HEALTH).body(()).unwrap();
        let (answer, mut body) = client.send_request(request, false).unwrap();
        body.send_data(Bytes::from_static(&[0; 5]), true).unwrap();
        let answer = tokio::time::timeout(BOUND, answer).await.unwrap().unwrap();
        if window == 0 {
            let left = tokio::time::timeout(BOUND, driving).await;
            assert!(left.is_ok(), "it waits for a client that takes nothing");
        } else {
            let taken = answer.into_body().data().await.unwrap().unwrap();
            assert!(!taken.is_empty());
            tokio::time::sleep(3 * answer_timeout).await;
            assert!(!driving.is_finished(), "it has taken its answer");
        }
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
async fn an_address_has_so_many_connections_and_one_more_is_closed() {
    let running = start(Options { connections_per_address_max: 1, ..Options::default() }).await;
    let mut first = greeted(running.address).await;
    assert!(read(&mut first).await > 0);
    let mut second = TcpStream::connect(running.address).await.unwrap();
    // It may be closed already.
    let _ = second.write_all(HELLO).await;
    assert_eq!(read(&mut second).await, 0);
    drop(first);
    let again = async {
        loop {
            let mut stream = TcpStream::connect(running.address).await.unwrap();
            // One that is closed already cannot be written to.
            let _ = stream.write_all(HELLO).await;
            if read(&mut stream).await > 0 {
                break;
            }
        }
    };
    tokio::time::timeout(BOUND, again).await.expect("a place");
}

/// Whoever takes every connection does not keep the operator out.
#[tokio::test]
async fn the_operator_has_places_of_its_own() {
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().join("socket");
    let socket = UnixListener::bind(&path).unwrap();
    let options = Options { connections_max: 1, ..Options::default() };
    let running = start_with(options, Some(socket)).await;
    let mut flood = greeted(running.address).await;
    assert!(read(&mut flood).await > 0);
    let mut operator = UnixStream::connect(&path).await.unwrap();
    operator.write_all(HELLO).await.unwrap();
    let mut bytes = [0; 256];
    let count = tokio::time::timeout(BOUND, operator.read(&mut bytes)).await.unwrap().unwrap();
    assert!(count > 0);
    drop(flood);
}

/// CLI-05: a message that does not come to its end, one that comes byte by byte,
/// and a call of one message whose end does not come.
#[tokio::test]
async fn a_message_that_comes_too_slowly_ends_its_call() {
    let message_timeout = Duration::from_millis(100);
    let running = start(Options { message_timeout, ..Options::default() }).await;
    let says = b"\0\0\0\x04\0";
    for (first, then) in [(&says[..2], None), (&says[..], Some(b"x")), (&[0; 5][..], None)] {
        let (mut client, driving) = http2(running.address).await;
        let request = grpc(HEALTH).body(()).unwrap();
        let (response, mut body) = client.send_request(request, false).unwrap();
        body.send_data(Bytes::copy_from_slice(first), false).unwrap();
        let dripping = async {
            while let Some(more) = then {
                tokio::time::sleep(message_timeout / 5).await;
                // It may be over.
                let _ = body.send_data(Bytes::from_static(more), false);
            }
            std::future::pending().await
        };
        let answered = async {
            tokio::select! {
                response = response => response.unwrap(),
                () = dripping => unreachable!(),
            }
        };
        let answer = tokio::time::timeout(BOUND, answered).await.expect("an end");
        let code = answer.headers()["grpc-status"].to_str().unwrap();
        assert_eq!(code, (tonic::Code::DeadlineExceeded as i32).to_string(), "{first:?}");
        driving.abort();
    }
}

/// One frame of gRPC: not compressed.
fn message(bytes: usize) -> Vec<u8> {
    let mut frame = vec![0];
    frame.extend(u32::try_from(bytes).unwrap().to_be_bytes());
    frame.resize(frame.len() + bytes, 0);
    frame
}

/// Whatever its length, as long as it goes on.
#[tokio::test]
async fn a_long_message_that_keeps_its_pace_arrives() {
    let message_timeout = Duration::from_millis(400);
    let running = start(Options { message_timeout, ..Options::default() }).await;
    let (mut client, driving) = http2(running.address).await;
    let request = grpc("/clarifai.api.V2/PostModelOutputs").body(()).unwrap();
    let (response, mut body) = client.send_request(request, false).unwrap();
    let whole = message(10 << 18);
    let began = std::time::Instant::now();
    for part in whole.chunks(1 << 18) {
        body.send_data(Bytes::copy_from_slice(part), false).unwrap();
        tokio::time::sleep(message_timeout / 4).await;
    }
    // It is answered as soon as it is whole.
    let _ = body.send_data(Bytes::new(), true);
    let answer = tokio::time::timeout(BOUND, response).await.expect("an answer").unwrap();
    assert!(began.elapsed() > message_timeout);
    // It is no message of that type, and was read.
    let code = answer.headers().get("grpc-status").map(|code| code.to_str().unwrap().to_owned());
    assert_eq!(code, Some((tonic::Code::InvalidArgument as i32).to_string()));
    driving.abort();
}

/// Between its messages a stream may be silent, and a call of one message has one.
#[tokio::test]
async fn a_stream_may_be_silent_between_messages_and_a_call_has_one_message() {
    let message_timeout = Duration::from_millis(50);
    let options = Options { message_timeout, reflection: true, ..Options::default() };
    let running = start(options).await;
    let (mut client, driving) = http2(running.address).await;
    let request = grpc("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo");
    let (response, mut body) = client.send_request(request.body(()).unwrap(), false).unwrap();
    let mut answers = 0;
    let mut received = None;
    let mut response = Some(response);
    for _ in 0..2 {
        // `list_services`, field 7: a text of no letters.
        body.send_data(Bytes::from_static(b"\0\0\0\0\x02\x3a\0"), false).unwrap();
        if let Some(response) = response.take() {
            let head = tokio::time::timeout(BOUND, response).await.unwrap().unwrap();
            assert!(head.headers().get("grpc-status").is_none(), "{head:?}");
            received = Some(head.into_body());
        }
        let data = received.as_mut().unwrap().data();
        let data = tokio::time::timeout(BOUND, data).await.unwrap();
        answers += usize::from(data.is_some_and(|data| data.is_ok()));
        tokio::time::sleep(4 * message_timeout).await;
    }
    assert_eq!(answers, 2);

    let (response, mut body) = client.send_request(grpc(HEALTH).body(()).unwrap(), false).unwrap();
    body.send_data([message(0), message(0)].concat().into(), false).unwrap();
    let answer = tokio::time::timeout(BOUND, response).await.expect("an end").unwrap();
    let code = answer.headers()["grpc-status"].to_str().unwrap();
    assert_eq!(code, (tonic::Code::InvalidArgument as i32).to_string());
    driving.abort();
}

/// Calls, windows, frames and headers. The library holds a client to what it was told.
#[tokio::test]
async fn a_client_is_told_what_it_may_send() {
    const MAX_CONCURRENT_STREAMS: u16 = 3;
    const INITIAL_WINDOW_SIZE: u16 = 4;
    const MAX_FRAME_SIZE: u16 = 5;
    const MAX_HEADER_LIST_SIZE: u16 = 6;
    let running = start(Options::default()).await;
    let mut stream = greeted(running.address).await;
    let settings = Frame::next_of(&mut stream, SETTINGS).await;
    let told: BTreeMap<u16, u32> = settings
        .payload
        .chunks(6)
        .map(|setting| {
            let (id, value) = setting.split_at(2);
            (
                u16::from_be_bytes(id.try_into().unwrap()),
                u32::from_be_bytes(value.try_into().unwrap()),
            )
        })
        .collect();
    assert_eq!(told.get(&MAX_CONCURRENT_STREAMS), Some(&256));
    assert_eq!(told.get(&INITIAL_WINDOW_SIZE), Some(&(512 << 10)));
    assert_eq!(told.get(&MAX_FRAME_SIZE), Some(&(64 << 10)));
    assert_eq!(told.get(&MAX_HEADER_LIST_SIZE), Some(&(16 << 10)));
    let update = Frame::next_of(&mut stream, WINDOW_UPDATE).await;
    assert_eq!((update.stream, update.number() + CONNECTION_WINDOW_FIRST), (0, 4 << 20));
}

#[tokio::test]
async fn a_call_beyond_those_of_a_connection_is_refused() {
    let options = Options { streams_per_connection_max: 2, ..Options::default() };
    let running = start(options).await;
    let mut stream = greeted(running.address).await;
    for id in [1, 3, 5] {
        open_call(id).write(&mut stream).await;
    }
    let reset = Frame::next_of(&mut stream, RST_STREAM).await;
    assert_eq!((reset.stream, reset.number()), (5, REFUSED_STREAM));
}

#[tokio::test]
async fn headers_beyond_their_limit_are_refused() {
    let running = start(Options::default()).await;
    for (bytes, refused) in [(8 << 10, false), (17 << 10, true)] {
        let (mut client, driving) = http2(running.address).await;
        let request = grpc(HEALTH).header("x-long", "x".repeat(bytes)).body(()).unwrap();
        let (response, _) = client.send_request(request, true).unwrap();
        let response = tokio::time::timeout(BOUND, response).await.unwrap();
        let status = response.unwrap().status();
        let expected = match refused {
            true => http::StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            false => http::StatusCode::OK,
        };
        assert_eq!(status, expected, "{bytes} bytes");
        driving.abort();
    }
}

#[tokio::test]
async fn a_stream_that_does_not_say_what_it_calls_is_ended() {
    let first_message_timeout = Duration::from_millis(50);
    let running = start(Options { first_message_timeout, ..Options::default() }).await;
    let mut client = V2Client::connect(format!("http://{}", running.address)).await.unwrap();
    let asked = client.stream_model_outputs(futures_util::stream::pending());
    let answered = async { asked.await.unwrap().into_inner().message().await.unwrap().unwrap() };
    let answer = tokio::time::timeout(BOUND, answered).await.expect("an answer");
    let status = answer.status.unwrap();
    assert_eq!(status.code(), StatusCode::RpcRequestTimeout, "{status:?}");
    assert!(status.details.starts_with("WALL_DEADLINE"), "{status:?}");
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

/// What a client gets that proposes these protocols inside this version of TLS:
/// the protocol that was agreed on, and whether HTTP/2 is spoken then.
async fn over_tls(
    running: &Running,
    roots: &rustls::RootCertStore,
    version: &'static rustls::SupportedProtocolVersion,
    protocols: &[&str],
) -> Option<(Option<Vec<u8>>, bool)> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots.clone())
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    let stream = TcpStream::connect(running.address).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let name = "localhost".try_into().unwrap();
    let mut stream = connector.connect(name, stream).await.ok()?;
    let agreed = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
    // It may be over before this is sent.
    let _ = stream.write_all(HELLO).await;
    let mut bytes = [0; 256];
    let read = tokio::time::timeout(BOUND, stream.read(&mut bytes)).await.unwrap();
    Some((agreed, read.is_ok_and(|count| count > 0)))
}

#[tokio::test]
async fn over_tls_only_http2_is_spoken_and_only_where_it_is_asked_for() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let key = made.signing_key.into();
    let tls = crate::settings::tls::config(vec![made.cert.der().clone()], key).unwrap();
    let running = start(Options { tls: Some(tls), ..Options::default() }).await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let with = |protocols| over_tls(&running, &roots, version, protocols);
        assert_eq!(with(&["h2"]).await, Some((Some(b"h2".to_vec()), true)));
        assert_eq!(with(&["http/1.1", "h2"]).await, Some((Some(b"h2".to_vec()), true)));
        assert_eq!(with(&[]).await, Some((None, false)));
        assert!(!with(&["http/1.1"]).await.is_some_and(|(_, spoken)| spoken));
    }
}
