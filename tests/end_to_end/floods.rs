//! Clients that speak HTTP/2 by its letter and not in its spirit: floods of
//! frames that cost the sender next to nothing.

use ringfence_tests::{Canary, Client, Host, block_on, guests, raw_answer, request, text_input};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

/// How an HTTP/2 connection begins, and a frame of settings without any.
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Types of frames: RFC 9113, section 6.
const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
/// The flags of frames of headers that are not continued, and of padded data.
pub(crate) const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

/// Frames of one flood.
const FRAMES: u32 = 100_000;
/// What a host may hold more after all of them than before: it buffers for each
/// of some connections.
const BYTES_MORE_MAX: u64 = 96 << 20;
/// Longest time that a neighbour's call may take; a flood goes on for as long as
/// the host lets it.
const BOUND: Duration = Duration::from_secs(30);

/// RFC 9113, section 4.1: length, type, flags, stream, payload.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A header that is not indexed: RFC 7541, section 6.2.2.
pub(crate) fn header(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0];
    for text in [name, value] {
        bytes.push(u8::try_from(text.len()).unwrap());
        bytes.extend(text.as_bytes());
    }
    bytes
}

/// A header that the table keeps: RFC 7541, section 6.2.1.
fn kept_header(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0x40, u8::try_from(name.len()).unwrap()];
    bytes.extend(name.as_bytes());
    // Section 5.1: 127, and what is beyond it by seven bits at a time.
    bytes.push(127);
    let rest = value.len() - 127;
    bytes.extend([(rest % 128) as u8 | 128, u8::try_from(rest / 128).unwrap()]);
    bytes.extend(value.as_bytes());
    bytes
}

/// Headers in as many frames as they need.
fn continued(first: Vec<u8>, more: &[u8]) -> Vec<u8> {
    let mut frames = frame(HEADERS, 0, 1, &first);
    let mut parts = more.chunks(16 << 10).peekable();
    while let Some(part) = parts.next() {
        let flags = if parts.peek().is_some() { 0 } else { END_HEADERS };
        frames.extend(frame(CONTINUATION, flags, 1, part));
    }
    frames
}

/// The headers of a call whose messages are still to come.
pub(crate) fn call() -> Vec<u8> {
    let headers = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/clarifai.api.V2/StreamModelOutputs"),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    headers.iter().flat_map(|(name, value)| header(name, value)).collect()
}

/// One after the other, on a stream each.
fn streams(frames: impl Fn(u32) -> Vec<u8>) -> Vec<u8> {
    (0..FRAMES / 10).flat_map(|number| frames(2 * number + 1)).collect()
}

fn repeated(opening: Vec<u8>, one: &[u8]) -> Vec<u8> {
    [opening, one.repeat(FRAMES as usize)].concat()
}

fn floods() -> Vec<(&'static str, Vec<u8>)> {
    let open = || frame(HEADERS, END_HEADERS, 1, &call());
    vec![
        ("PING", repeated(Vec::new(), &frame(PING, 0, 0, &[0; 8]))),
        ("SETTINGS", repeated(Vec::new(), &frame(SETTINGS, 0, 0, &[]))),
        ("PRIORITY", repeated(open(), &frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 16]))),
        ("WINDOW_UPDATE", repeated(open(), &frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]))),
        ("empty DATA", repeated(open(), &frame(DATA, 0, 1, &[]))),
        ("padded DATA", repeated(open(), &frame(DATA, PADDED, 1, &[3, 0, 0, 0]))),
        (
            "CONTINUATION",
            repeated(frame(HEADERS, 0, 1, &call()), &frame(CONTINUATION, 0, 1, &header("x", "y"))),
        ),
        // Each header is another one: 16 KiB are all that a request may have.
        (
            "10,000 headers",
            continued(
                call(),
                &(0..10_000).flat_map(|n| header("x", &n.to_string())).collect::<Vec<_>>(),
            ),
        ),
        // RFC 7541, section 6: a header of 4,000 bytes is put into the table, and meant
        // again by a byte each.
        (
            "HPACK bomb",
            streams(|stream| {
                let bomb = [call(), kept_header("x", &"x".repeat(4000)), vec![0xbe; 4000]].concat();
                let again = [call(), vec![0xbe; 4000]].concat();
                frame(HEADERS, END_HEADERS, stream, if stream == 1 { &bomb } else { &again })
            }),
        ),
        (
            "rapid reset",
            streams(|stream| {
                let reset = frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes());
                [frame(HEADERS, END_HEADERS, stream, &call()), reset].concat()
            }),
        ),
    ]
}

/// Sends until everything is sent or the host does not take more, and waits for
/// its end of the connection. What the host answers is taken at once, or only
/// then. Returns how many bytes of it came.
pub(crate) fn send(base: &str, bytes: Vec<u8>, reads_at_once: bool) -> JoinHandle<u64> {
    let mut stream = TcpStream::connect(base.strip_prefix("http://").unwrap()).unwrap();
    std::thread::spawn(move || {
        stream.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
        stream.set_read_timeout(Some(BOUND)).unwrap();
        let mut answers = stream.try_clone().unwrap();
        // A connection that breaks is an end as well.
        let mut read = move || {
            let mut count = 0;
            let mut buffer = [0; 64 << 10];
            while let Ok(read @ 1..) = answers.read(&mut buffer) {
                count += read as u64;
            }
            count
        };
        let mut write = move || {
            // A host that has closed is a host that has had enough.
            let _ = stream.write_all(HELLO).and_then(|()| stream.write_all(&bytes));
            let _ = stream.shutdown(Shutdown::Write);
        };
        if reads_at_once {
            let reading = std::thread::spawn(read);
            write();
            reading.join().unwrap()
        } else {
            write();
            read()
        }
    })
}

/// CLI-09, CLI-10, CLI-11.
#[test]
fn floods_of_frames_take_no_memory_and_no_neighbours_calls() {
    let mut host = Host::serve(&[guests::ECHO]);
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let neighbour = async |what: &str| {
            let called = client.predict_request(request("echo", vec![text_input("calm")]));
            let answer = tokio::time::timeout(BOUND, called).await;
            assert_eq!(answer.unwrap_or_else(|_| panic!("{what}: no answer")).text(), "calm");
        };
        neighbour("before").await;
        let canary = Canary::start(&host).await;
        let before = host.resident_bytes();
        for (what, bytes) in floods() {
            for reads_at_once in [true, false] {
                let flood = send(host.base(), bytes.clone(), reads_at_once);
                loop {
                    neighbour(what).await;
                    if flood.is_finished() {
                        break;
                    }
                }
                println!("{what}: {} bytes came back", flood.join().unwrap());
                let more = host.resident_bytes().saturating_sub(before);
                assert!(more < BYTES_MORE_MAX, "{what}: {more} bytes more");
            }
        }
        canary.ends(&mut host, "floods").await;
    });
}

/// CLI-04: nobody is asked to unpack what a client packs.
#[test]
fn a_compressed_message_is_not_taken() {
    let host = Host::serve(&[guests::ECHO]);
    block_on(async {
        for encoding in ["gzip", "zstd", "deflate"] {
            let authorization = format!("Key {}", host.pat());
            let headers = [("authorization", authorization.as_str()), ("grpc-encoding", encoding)];
            let hello = request("echo", vec![text_input("hello")]);
            let path = "/clarifai.api.V2/PostModelOutputs";
            let answer = raw_answer(host.base(), path, &headers, &hello).await;
            assert_eq!(answer.code, Some(tonic::Code::Unimplemented as u32), "{answer:?}");
        }
    });
}
