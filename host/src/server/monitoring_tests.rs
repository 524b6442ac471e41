//! What monitoring is answered, and who keeps it out.

use super::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A request without its end.
const HEAD: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: h\r\n";

fn app() -> Arc<App> {
    let folder = tempfile::TempDir::new().unwrap();
    Arc::new(App::of_nothing(folder.path()))
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
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(serve_within(listener, app(), Duration::from_secs(60)));
    let mut silent = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let mut asking = TcpStream::connect(address).await.unwrap();
    asking.write_all(&[HEAD, b"\r\n"].concat()).await.unwrap();
    let early = tokio::time::timeout(Duration::from_millis(200), asking.readable()).await;
    assert!(early.is_err(), "it was served beside the others");
    silent.pop();
    let mut answer = String::new();
    let reading = asking.read_to_string(&mut answer);
    tokio::time::timeout(Duration::from_secs(20), reading).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    serving.abort();
}

#[tokio::test]
async fn a_head_beyond_its_limit_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(serve_within(listener, app(), Duration::from_secs(60)));
    for (bytes, is_fine) in [(4 << 10, true), (9 << 10, false)] {
        let mut asking = TcpStream::connect(address).await.unwrap();
        let long = format!("x: {}\r\n\r\n", "x".repeat(bytes));
        asking.write_all(&[HEAD, long.as_bytes()].concat()).await.unwrap();
        let mut answer = Vec::new();
        let reading = asking.read_to_end(&mut answer);
        // What was not read may end the connection before its answer has come.
        let _ = tokio::time::timeout(Duration::from_secs(20), reading).await.unwrap();
        assert_eq!(answer.starts_with(b"HTTP/1.1 200"), is_fine, "{bytes} bytes");
    }
    serving.abort();
}

/// Connections that say nothing hold their places no longer than their time.
#[tokio::test]
async fn silent_connections_do_not_keep_the_operator_out_for_ever() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(serve_within(listener, app(), Duration::from_millis(200)));
    let mut silent = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let mut asking = TcpStream::connect(address).await.unwrap();
    asking.write_all(&[HEAD, b"\r\n"].concat()).await.unwrap();
    let mut answer = String::new();
    let reading = asking.read_to_string(&mut answer);
    tokio::time::timeout(Duration::from_secs(20), reading).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok\n"), "{answer}");
    serving.abort();
}
