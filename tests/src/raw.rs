//! A call on bare HTTP/2, without what a gRPC library does on the side.

use crate::Host;
use bytes::Bytes;
use http::Request;
use prost::Message;

/// Bytes before each message: a flag for compression, and the length.
const PREFIX_BYTES: usize = 5;

/// Sends one message with further headers, the host's token unless they bring
/// another, and returns the bytes of the first
/// message of the answer.
pub async fn raw_call(
    host: &Host,
    path: &str,
    headers: &[(&str, &str)],
    message: &impl Message,
) -> Vec<u8> {
    let own = format!("Key {}", host.pat());
    let mut headers = headers.to_vec();
    if !headers.iter().any(|(name, _)| *name == "authorization") {
        headers.push(("authorization", &own));
    }
    let answer = raw_answer(host.base(), path, &headers, message).await;
    answer.message.unwrap_or_else(|| panic!("no message, and the code {:?}", answer.code))
}

/// What came back of a call.
#[derive(Debug)]
pub struct RawAnswer {
    /// The bytes of the first message, if one came.
    pub message: Option<Vec<u8>>,
    /// The code that the call ended with, where it ended before a message.
    pub code: Option<u32>,
    /// The status of HTTP.
    pub status: u16,
}

/// Sends one message with these headers alone, to whatever is at a path, and
/// waits for the first message of the answer or its end.
pub async fn raw_answer(
    base: &str,
    path: &str,
    headers: &[(&str, &str)],
    message: &impl Message,
) -> RawAnswer {
    raw_answer_to(base, path, headers, &message.encode_to_vec()).await
}

/// The same of bytes that need be no message.
pub async fn raw_answer_to(
    base: &str,
    path: &str,
    headers: &[(&str, &str)],
    message: &[u8],
) -> RawAnswer {
    let mut unread = raw_unread(base, path, headers, message).await;
    let body = &mut unread.body;
    let mut answer = Vec::new();
    let mut message = None;
    while message.is_none()
        && let Some(data) = body.data().await
    {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        answer.extend(data);
        message = first_message(&answer);
    }
    let mut code = code_of(&unread.head.headers);
    if message.is_none() && code.is_none() {
        code = body.trailers().await.unwrap().as_ref().and_then(code_of);
    }
    RawAnswer { message, code, status: unread.head.status.as_u16() }
}

/// An answer that has begun, on a connection of its own.
#[derive(Debug)]
pub struct Unread {
    head: http::response::Parts,
    body: h2::RecvStream,
    connection: tokio::task::JoinHandle<Result<(), h2::Error>>,
}

impl Drop for Unread {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// Sends one message and waits for the head of the answer. No more than the client's
/// window of the rest comes.
pub async fn raw_unread(
    base: &str,
    path: &str,
    headers: &[(&str, &str)],
    message: &[u8],
) -> Unread {
    let address = base.strip_prefix("http://").unwrap();
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut request = Request::post(format!("{base}{path}")).header("te", "trailers");
    if !headers.iter().any(|(name, _)| *name == "content-type") {
        request = request.header("content-type", "application/grpc");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut frame = vec![0];
    frame.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    frame.extend(message);

    let mut client = client.ready().await.unwrap();
    let (response, mut body) = client.send_request(request.body(()).unwrap(), false).unwrap();
    // A host that refuses the token answers without reading, so the stream may be
    // over before this; the answer tells.
    let _ = body.send_data(Bytes::from(frame), true);
    let (head, body) = response.await.unwrap().into_parts();
    Unread { head, body, connection }
}

/// A field of a protobuf message that has a length: bytes, a text or a message.
pub fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![number << 3 | 2];
    prost::encode_length_delimiter(content.len(), &mut bytes).unwrap();
    bytes.extend(content);
    bytes
}

fn first_message(bytes: &[u8]) -> Option<Vec<u8>> {
    let (prefix, rest) = bytes.split_at_checked(PREFIX_BYTES)?;
    let length = u32::from_be_bytes(prefix[1..].try_into().unwrap());
    rest.get(..length as usize).map(<[u8]>::to_vec)
}

fn code_of(headers: &http::HeaderMap) -> Option<u32> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}
