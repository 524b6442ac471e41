//! A web server on loopback, for the URLs of inputs.
//!
//! It keeps the head of each request and counts clients that have gone before
//! the end. What it does wrong, it does on request.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

/// The authority of the certificate of [`Web::over_tls`], which is for
/// `localhost`, valid from 2020 to 2120. Its key is nobody's.
pub const CA_FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/tls/ca.pem");

const CERTIFICATE: &[u8] = include_bytes!("../fixtures/tls/localhost.pem");
const KEY: &[u8] = include_bytes!("../fixtures/tls/localhost.key");

/// Longer than any test.
const PATIENCE: Duration = Duration::from_secs(120);

/// Longer than what is waited for takes, and shorter than a host fetches of
/// itself.
const BOUND: Duration = Duration::from_secs(20);

/// What lies at a path.
#[derive(Debug, Clone)]
pub enum Page {
    /// A content of a type.
    Content(&'static str, Vec<u8>),
    /// A status other than 200, with fields.
    Status(&'static str, Vec<(&'static str, String)>),
    /// A content of a type and a length that does not come.
    Stalls(&'static str, u64),
    /// A content of a type that comes byte after byte and does not end.
    Drips(&'static str),
    /// A content of a type that comes fast and does not end.
    Endless(&'static str),
}

#[derive(Default)]
struct State {
    pages: HashMap<String, Page>,
    heads: Vec<String>,
    gone: usize,
    open: Vec<TcpStream>,
    ends: bool,
}

/// The server; it ends when it is dropped.
pub struct Web {
    address: SocketAddr,
    scheme: &'static str,
    name: &'static str,
    state: Arc<Mutex<State>>,
    thread: Option<JoinHandle<()>>,
}

impl Web {
    /// Without TLS, known by its address.
    pub fn start() -> Self {
        Self::listen("http", "127.0.0.1", None)
    }

    /// With TLS, known as `localhost`.
    pub fn over_tls() -> Self {
        let certificate = CertificateDer::from_pem_slice(CERTIFICATE).unwrap();
        let key = PrivateKeyDer::from_pem_slice(KEY).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        Self::listen("https", "localhost", Some(Arc::new(config)))
    }

    fn listen(scheme: &'static str, name: &'static str, tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let thread = std::thread::spawn({
            let state = state.clone();
            move || accept(&listener, &state, tls.as_ref())
        });
        Self { address, scheme, name, state, thread: Some(thread) }
    }

    /// Puts a page at a path.
    pub fn put(&self, path: &str, page: Page) {
        lock(&self.state).pages.insert(path.to_owned(), page);
    }

    /// The URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.authority())
    }

    /// Its name and port.
    pub fn authority(&self) -> String {
        format!("{}:{}", self.name, self.address.port())
    }

    /// What a host has to be given to fetch from it.
    pub fn flag(&self) -> Vec<String> {
        let prefix = if self.scheme == "http" { "http://" } else { "" };
        vec!["--allow-url-host".to_owned(), format!("{prefix}{}", self.authority())]
    }

    /// The heads of all requests since the last time.
    pub fn heads(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.state).heads)
    }

    /// Waits until a request has come.
    pub fn wait_for_a_request(&self) {
        wait("a request", || !lock(&self.state).heads.is_empty());
    }

    /// Waits until so many clients have gone before the end of a page.
    pub fn wait_for_gone(&self, clients: usize) {
        wait("that a client goes", || lock(&self.state).gone >= clients);
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        {
            let mut state = lock(&self.state);
            state.ends = true;
            for stream in &state.open {
                let _ = stream.shutdown(std::net::Shutdown::Both);
            }
        }
        // Wakes the thread that waits for a client.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn wait(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < BOUND, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn accept(listener: &TcpListener, state: &Arc<Mutex<State>>, tls: Option<&Arc<ServerConfig>>) {
    let mut threads = Vec::new();
    for stream in listener.incoming() {
        let stream = stream.unwrap();
        {
            let mut state = lock(state);
            if state.ends {
                break;
            }
            state.open.push(stream.try_clone().unwrap());
        }
        let (state, tls) = (state.clone(), tls.cloned());
        threads.push(std::thread::spawn(move || {
            let served = stream.set_read_timeout(Some(PATIENCE)).and_then(|()| match tls {
                None => serve(stream, &state),
                Some(config) => {
                    let connection = ServerConnection::new(config).map_err(io::Error::other)?;
                    serve(StreamOwned::new(connection, stream), &state)
                }
            });
            if served.is_err() {
                lock(&state).gone += 1;
            }
        }));
    }
    for thread in threads {
        let _ = thread.join();
    }
}

/// Answers one request; an error is that the client has gone.
fn serve(mut stream: impl Read + Write, state: &Mutex<State>) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let page = {
        let mut state = lock(state);
        state.heads.push(head);
        state.pages.get(&path).cloned()
    };
    let ok = |kind: &str| format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n");
    match page.unwrap_or(Page::Status("404 Not Found", Vec::new())) {
        Page::Content(kind, body) => {
            write!(stream, "{}Content-Length: {}\r\n\r\n", ok(kind), body.len())?;
            stream.write_all(&body)?;
            stream.flush()
        }
        Page::Status(status, fields) => {
            write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n")?;
            for (name, value) in fields {
                write!(stream, "{name}: {value}\r\n")?;
            }
            write!(stream, "\r\n")?;
            stream.flush()
        }
        Page::Stalls(kind, length) => {
            write!(stream, "{}Content-Length: {length}\r\n\r\n", ok(kind))?;
            stream.flush()?;
            // Until the client gives up, which it says by closing.
            stream.read_exact(&mut [0])
        }
        Page::Drips(kind) => {
            write!(stream, "{}\r\n", ok(kind))?;
            loop {
                stream.write_all(b"x")?;
                stream.flush()?;
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        Page::Endless(kind) => {
            write!(stream, "{}\r\n", ok(kind))?;
            loop {
                stream.write_all(&[b'x'; 1 << 16])?;
            }
        }
    }
}
