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
    let address = host.base().strip_prefix("http://").unwrap();
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    let driving = tokio::spawn(connection);
    let mut request = Request::post(format!("{}{path}", host.base()))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    if !headers.iter().any(|(name, _)| *name == "authorization") {
        request = request.header("authorization", format!("Key {}", host.pat()));
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut frame = vec![0];
    frame.extend(u32::try_from(message.encoded_len()).unwrap().to_be_bytes());
    frame.extend(message.encode_to_vec());

    let mut client = client.ready().await.unwrap();
    let (response, mut body) = client.send_request(request.body(()).unwrap(), false).unwrap();
    // A host that refuses the token answers without reading, so the stream may be
    // over before this; the answer tells.
    let _ = body.send_data(Bytes::from(frame), true);
    let mut received = response.await.unwrap().into_body();
    let mut answer = Vec::new();
    while let Some(data) = received.data().await {
        let data = data.unwrap();
        received.flow_control().release_capacity(data.len()).unwrap();
        answer.extend(data);
    }
    driving.abort();
    answer.split_off(PREFIX_BYTES)
}
