//! What monitoring is answered, and who keeps it out.

use super::*;
use std::io;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

/// A request without its end.
const HEAD: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: h\r\n";

fn app() -> Arc<App> {
    let folder = tempfile::TempDir::new().unwrap();
    Arc::new(App::of_nothing(folder.path()))
}

/// A listener that is served until this is dropped.
struct Served {
    address: SocketAddr,
    serving: JoinHandle<()>,
}

impl Served {
    async fn start(timeout: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Self { address, serving: tokio::spawn(serve_within(listener, app(), timeout)) }
    }

    /// As many connections as there may be, which say nothing.
    async fn filled(&self) -> Vec<TcpStream> {
        let mut silent = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            silent.push(TcpStream::connect(self.address).await.unwrap());
        }
        silent
    }

    /// One that has sent a request with this end.
    async fn asked(&self, end: &str) -> TcpStream {
        let mut asking = TcpStream::connect(self.address).await.unwrap();
        asking.write_all(&[HEAD, end.as_bytes()].concat()).await.unwrap();
        asking
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// What comes until the connection ends, and how that does.
async fn answer_of(asking: &mut TcpStream) -> (String, io::Result<usize>) {
    let mut answer = Vec::new();
    let reading = asking.read_to_end(&mut answer);
    let ended = tokio::time::timeout(Duration::from_secs(20), reading).await.unwrap();
    (String::from_utf8(answer).unwrap(), ended)
}

fn asked(app: &App, method: Method, path: &str) -> u16 {
    let request = Request::builder().method(method).uri(path).body(()).unwrap();
    answer(app, &request).status().as_u16()
}

#[test]
fn only_two_paths_are_answered_and_only_to_get() {
    let app = app();
    for (method, path, status) in [
        (Method::GET, "/metrics", 200),
        (Method::GET, "/healthz", 200),
        (Method::GET, "/", 404),
        (Method::GET, "/metrics/", 404),
        (Method::POST, "/metrics", 405),
        (Method::HEAD, "/healthz", 405),
    ] {
        assert_eq!(asked(&app, method.clone(), path), status, "{method} {path}");
    }
    app.telemetry.draining.cancel();
    assert_eq!(asked(&app, Method::GET, "/healthz"), 503);
    assert_eq!(asked(&app, Method::GET, "/metrics"), 200);
}

#[tokio::test]
async fn connections_beyond_their_number_wait() {
    let served = Served::start(Duration::from_secs(60)).await;
    let mut silent = served.filled().await;
    let mut asking = served.asked("\r\n").await;
    let early = tokio::time::timeout(Duration::from_millis(200), asking.readable()).await;
    assert!(early.is_err(), "it was served beside the others");
    silent.pop();
    let (answer, ended) = answer_of(&mut asking).await;
    ended.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn a_head_beyond_its_limit_is_refused() {
    let served = Served::start(Duration::from_secs(60)).await;
    for (bytes, is_fine) in [(4 << 10, true), (9 << 10, false)] {
        let mut asking = served.asked(&format!("x: {}\r\n\r\n", "x".repeat(bytes))).await;
        // What was not read may end the connection before its answer has come.
        let (answer, _) = answer_of(&mut asking).await;
        assert_eq!(answer.starts_with("HTTP/1.1 200"), is_fine, "{bytes} bytes");
    }
}

/// Connections that say nothing hold their places no longer than their time.
#[tokio::test]
async fn silent_connections_do_not_keep_the_operator_out_for_ever() {
    let served = Served::start(Duration::from_millis(200)).await;
    let _silent = served.filled().await;
    let mut asking = served.asked("\r\n").await;
    let (answer, ended) = answer_of(&mut asking).await;
    ended.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok\n"), "{answer}");
}
