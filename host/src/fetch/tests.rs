//! Fetches over loopback, with limits that are quickly reached.

use super::{FetchError, FetchLimits, Fetcher, Media};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// Longer than anything here takes.
const BOUND: Duration = Duration::from_secs(20);

/// Nothing more comes after this, and the connection stays.
const STALLS: &str = "STALLS";

/// A server that sends for each path what is written for it, and tells the head
/// of each request, then an empty text when the client has gone.
struct Server {
    address: SocketAddr,
    heads: mpsc::Receiver<String>,
}

impl Server {
    async fn start(answer: impl Fn(&str, SocketAddr) -> String + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, heads) = mpsc::channel(64);
        let answer = Arc::new(answer);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (sender, answer) = (sender.clone(), answer.clone());
                tokio::spawn(async move {
                    // A client that has gone is what some of these wait for.
                    let _ = serve(stream, sender, |path| answer(path, address)).await;
                });
            }
        });
        Self { address, heads }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn fetcher(&self, limits: FetchLimits) -> Fetcher {
        let flag = format!("http://{}", self.address).parse().unwrap();
        Fetcher::with_limits(vec![flag], None, limits).unwrap()
    }

    async fn fetch(&self, limits: FetchLimits, path: &str) -> Result<Vec<u8>, FetchError> {
        let fetcher = self.fetcher(limits);
        let url = self.url(path);
        let fetching = fetcher.fetch(&url, Media::Text, u64::MAX);
        tokio::time::timeout(BOUND, fetching).await.expect("an end of the fetch")
    }
}

async fn serve(
    mut stream: TcpStream,
    heads: mpsc::Sender<String>,
    answer: impl Fn(&str) -> String,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap();
    let path = head.split(' ').nth(1).unwrap().to_owned();
    heads.send(head).await.unwrap();
    let answer = answer(&path);
    let (sent, stalls) = match answer.strip_suffix(STALLS) {
        Some(sent) => (sent, true),
        None => (answer.as_str(), false),
    };
    let written = stream.write_all(sent.as_bytes()).await;
    if stalls {
        // A client that has not read everything goes with an error.
        let gone = stream.read(&mut [0]).await;
        assert!(matches!(gone, Ok(0) | Err(_)), "{gone:?}");
        heads.send(String::new()).await.unwrap();
    }
    written
}

fn ok(fields: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n{body}")
}

fn plain(body: &str) -> String {
    ok(&format!("content-type: text/plain\r\ncontent-length: {}", body.len()), body)
}

#[tokio::test]
async fn a_fetch_says_nothing_but_what_it_wants() {
    let mut server = Server::start(|_, _| plain("hello")).await;
    let fetched = server.fetch(FetchLimits::default(), "/a%20b?c=%7C&d#e").await;
    assert_eq!(fetched.unwrap(), b"hello");
    let head = server.heads.recv().await.unwrap();
    let mut lines: Vec<_> = head.trim_end().lines().collect();
    assert_eq!(lines.remove(0), "GET /a%20b?c=%7C&d HTTP/1.1");
    lines.sort_unstable();
    let host = format!("host: {}", server.address);
    let expected = [
        "accept-encoding: identity",
        "accept: text/*, application/json",
        "connection: close",
        &host,
        "user-agent: ringfence",
    ];
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn bodies_of_every_framing_are_read_to_their_end() {
    let server = Server::start(|path, _| match path {
        "/chunked" => ok(
            "content-type: text/plain\r\ntransfer-encoding: chunked",
            "3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n",
        ),
        "/close" => ok("content-type: text/plain", "hello"),
        "/identity" => ok(
            "content-type: text/plain\r\ncontent-length: 5\r\ncontent-encoding: Identity",
            "hello",
        ),
        _ => plain("hello"),
    })
    .await;
    for path in ["/", "/chunked", "/close", "/identity"] {
        let fetched = server.fetch(FetchLimits::default(), path).await;
        assert_eq!(fetched.as_deref(), Ok(&b"hello"[..]), "{path}");
    }
}

/// SUP-04, as far as it is about one answer.
#[tokio::test]
async fn an_answer_that_is_not_what_was_asked_for_is_refused() {
    let server = Server::start(|path, _| match path {
        "/404" => "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned(),
        "/206" => plain("hello").replace("200 OK", "206 Partial Content"),
        "/300" => "HTTP/1.1 301 Moved\r\ncontent-length: 0\r\n\r\n".to_owned(),
        "/gzip" => ok("content-type: text/plain\r\ncontent-encoding: gzip", "hello"),
        "/no-type" => ok("content-length: 5", "hello"),
        "/two-types" => {
            ok("content-type: text/plain\r\ncontent-type: text/plain\r\ncontent-length: 5", "hello")
        }
        "/octets" => ok("content-type: application/octet-stream\r\ncontent-length: 5", "hello"),
        "/short" => ok("content-type: text/plain\r\ncontent-length: 6", "hello"),
        "/two-lengths" => {
            ok("content-type: text/plain\r\ncontent-length: 5\r\ncontent-length: 6", "hello")
        }
        "/chunk" => ok("content-type: text/plain\r\ntransfer-encoding: chunked", "xyz\r\n"),
        "/nothing" => String::new(),
        "/old" => "hello".to_owned(),
        "/long-head" => ok(&format!("x: {}", "x".repeat(17 << 10)), ""),
        "/many-fields" => ok(&"x: y\r\n".repeat(200), ""),
        other => panic!("{other}"),
    })
    .await;
    let cases = [
        ("/404", "the status 404"),
        ("/206", "the status 206"),
        ("/300", "the status 301"),
        ("/gzip", "encoded"),
        ("/no-type", "no content type"),
        ("/two-types", "or two"),
        ("/octets", "application/octet-stream, and text/*"),
        ("/short", "not to the end"),
        ("/two-lengths", "not to the end"),
        ("/chunk", "not to the end"),
        ("/nothing", "not to the end"),
        ("/old", "not to the end"),
        ("/long-head", "not to the end"),
        ("/many-fields", "not to the end"),
    ];
    for (path, text) in cases {
        let refused = server.fetch(FetchLimits::default(), path).await.unwrap_err().to_string();
        assert!(refused.contains(text), "{path}: {refused}");
        assert!(refused.contains(&server.address.to_string()), "{path}: {refused}");
    }
}

#[tokio::test]
async fn a_body_over_its_limit_is_refused_by_its_length_and_by_its_count() {
    let mut server = Server::start(|path, _| match path {
        "/fits" => plain("12345678"),
        // Whoever waits for the ninth byte waits for ever.
        "/length" => ok("content-type: text/plain\r\ncontent-length: 9", STALLS),
        "/count" => ok("content-type: text/plain", &format!("123456789{STALLS}")),
        _ => ok(
            "content-type: text/plain\r\ntransfer-encoding: chunked",
            &format!("9\r\n123456789\r\n{STALLS}"),
        ),
    })
    .await;
    let limits = FetchLimits { body_bytes_max: 8, ..FetchLimits::default() };
    let fetcher = server.fetcher(limits.clone());
    let data = fetcher.fetch("data:,123456789", Media::Text, u64::MAX).await;
    assert_eq!(data, Err(FetchError::TooLarge { bytes_max: 8 }));
    assert_eq!(server.fetch(limits.clone(), "/fits").await.unwrap().len(), 8);
    server.heads.recv().await.unwrap();
    for path in ["/length", "/count", "/chunked"] {
        let refused = server.fetch(limits.clone(), path).await;
        assert_eq!(refused, Err(FetchError::TooLarge { bytes_max: 8 }), "{path}");
        server.heads.recv().await.unwrap();
        let gone = tokio::time::timeout(BOUND, server.heads.recv()).await;
        assert_eq!(gone.unwrap().unwrap(), "", "the connection is closed after {path}");
    }
    // What is left of a request's share counts as well.
    let refused = fetcher.fetch(&server.url("/fits"), Media::Text, 7).await;
    assert_eq!(refused, Err(FetchError::TooLarge { bytes_max: 7 }));
}

fn moved(to: &str) -> String {
    format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n")
}

#[tokio::test]
async fn a_url_leads_on_so_many_times_and_no_further() {
    let mut server =
        Server::start(|path, _| match path.strip_prefix("/").unwrap().parse::<u32>() {
            Ok(0) => plain("there"),
            Ok(left) => moved(&format!("{}", left - 1)),
            Err(_) => moved("/circle"),
        })
        .await;
    let limits = FetchLimits { redirects_max: 3, ..FetchLimits::default() };
    assert_eq!(server.fetch(limits.clone(), "/3").await.unwrap(), b"there");
    for _ in 0..=3 {
        server.heads.recv().await.unwrap();
    }
    let far = Err(FetchError::Redirects { redirects_max: 3 });
    assert_eq!(server.fetch(limits.clone(), "/4").await, far);
    assert_eq!(server.fetch(limits, "/circle").await, far);
    let mut asked = 0;
    while server.heads.try_recv().is_ok() {
        asked += 1;
    }
    assert_eq!(asked, 8, "as often as it leads on, and once");
}

/// SUP-06. Every hop is judged like the first, and nobody else is asked.
#[tokio::test]
async fn a_url_leads_to_no_other_host_port_or_scheme() {
    let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = other.local_addr().unwrap().port();
    let server = Server::start(move |path, own| match path {
        "/port" => moved(&format!("http://127.0.0.1:{port}/")),
        "/name" => moved(&format!("http://localhost:{}/", own.port())),
        "/mapped" => moved(&format!("http://[::ffff:127.0.0.1]:{}/", own.port())),
        "/metadata" => moved("http://169.254.169.254/latest/meta-data/"),
        "/relative-host" => moved("//h.example/"),
        "/file" => moved("file:///etc/passwd"),
        "/data" => moved("data:,x"),
        "/user" => moved(&format!("http://u:p@{own}/")),
        "/long" => moved(&format!("/{}", "x".repeat(9000))),
        _ => moved("http://[/"),
    })
    .await;
    for (path, text) in [
        ("/port", format!("off for 127.0.0.1:{port};")),
        ("/name", "off for localhost:".to_owned()),
        ("/mapped", "off for [::ffff:7f00:1]:".to_owned()),
        ("/metadata", "off for 169.254.169.254;".to_owned()),
        ("/relative-host", "off for h.example;".to_owned()),
        ("/file", "only https and data".to_owned()),
        ("/data", "only https and data".to_owned()),
        ("/user", "user name".to_owned()),
        ("/long", "longer than 8192 bytes".to_owned()),
        ("/bad", "no URL".to_owned()),
    ] {
        let refused = server.fetch(FetchLimits::default(), path).await.unwrap_err().to_string();
        assert!(refused.contains(&text), "{path}: {refused}");
    }
    let asked = tokio::time::timeout(Duration::ZERO, other.accept()).await;
    assert!(asked.is_err(), "the other port was asked");
}

#[tokio::test]
async fn a_fetch_that_takes_too_long_is_ended() {
    let server = Server::start(|_, _| ok("content-type: text/plain", STALLS)).await;
    let short = FetchLimits { fetch_timeout: Duration::from_millis(50), ..FetchLimits::default() };
    assert_eq!(server.fetch(short, "/").await, Err(FetchError::TooSlow));
}

#[tokio::test]
async fn a_fetch_that_nobody_waits_for_closes_its_connection() {
    let mut server = Server::start(|_, _| ok("content-type: text/plain", STALLS)).await;
    let fetcher = server.fetcher(FetchLimits::default());
    let url = server.url("/");
    {
        let mut fetching = std::pin::pin!(fetcher.fetch(&url, Media::Text, 1));
        tokio::select! {
            fetched = &mut fetching => panic!("{fetched:?}"),
            asked = server.heads.recv() => assert!(asked.unwrap().starts_with("GET")),
        }
    }
    let gone = tokio::time::timeout(BOUND, server.heads.recv()).await;
    assert_eq!(gone.unwrap().unwrap(), "");
}

#[tokio::test]
async fn fetches_beyond_their_number_wait_and_what_needs_none_does_not() {
    let mut server = Server::start(|path, _| match path {
        "/slow" => ok("content-type: text/plain", STALLS),
        _ => plain("quick"),
    })
    .await;
    let limits = FetchLimits { fetches_max: 1, ..FetchLimits::default() };
    let fetcher = Arc::new(server.fetcher(limits));
    let fetch = |path: &str| {
        let (fetcher, url) = (fetcher.clone(), server.url(path));
        tokio::spawn(async move { fetcher.fetch(&url, Media::Text, 64).await })
    };
    let slow = fetch("/slow");
    let quick = fetch("/quick");
    let first = tokio::time::timeout(BOUND, server.heads.recv()).await.unwrap().unwrap();
    assert!(first.starts_with("GET /slow"), "{first}");
    assert_eq!(fetcher.fetch("data:,x", Media::Text, 64).await.unwrap(), b"x");
    let off = fetcher.fetch("https://h.example/", Media::Text, 64).await;
    assert!(matches!(off, Err(FetchError::Off { .. })), "{off:?}");
    assert_eq!(fetcher.open.as_ref().unwrap().fetches.available_permits(), 0);
    assert!(server.heads.try_recv().is_err(), "the second waits");

    slow.abort();
    let quick = tokio::time::timeout(BOUND, quick).await.unwrap().unwrap();
    assert_eq!(quick.unwrap(), b"quick");
}

#[tokio::test]
async fn an_address_that_takes_no_connection_is_told_as_that_alone() {
    let address = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let url = format!("http://{address}");
    let allowed = vec![url.parse().unwrap()];
    let fetcher = Fetcher::with_limits(allowed, None, FetchLimits::default()).unwrap();
    let refused = fetcher.fetch(&url, Media::Text, 64).await;
    assert_eq!(refused, Err(FetchError::Unreachable { host: address.to_string() }));
}

#[tokio::test]
async fn what_is_no_url_is_refused_before_anybody_is_asked() {
    let fetcher = Fetcher::off();
    let long = format!("https://h.example/{}", "x".repeat(8192));
    for (url, text) in [
        ("/etc/passwd", "only https and data"),
        ("etc/passwd", "only https and data"),
        ("file:///etc/passwd", "only https and data"),
        ("FILE:/etc/passwd", "only https and data"),
        ("ftp://h.example/", "only https and data"),
        ("https://", "no URL"),
        ("https://h.example:99999/", "no URL"),
        ("https://%00/", "no URL"),
        (" ", "only https and data"),
        (&long, "longer than 8192 bytes"),
        ("https://u:p@h.example/", "user name"),
        ("https://h.example/", "url inputs are off for h.example; the operator can start the host"),
    ] {
        let refused = fetcher.fetch(url, Media::Image, 64).await.unwrap_err().to_string();
        assert!(refused.contains(text), "{url}: {refused}");
    }
}
