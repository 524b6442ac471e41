//! The token is looked at before the body.
//!
//! A library that decodes a request before a service sees it does that work for
//! anybody. Here a request without a valid token loses its body first: the
//! service gets an empty message instead, and refuses it in-band as any other.

use super::App;
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper::body::Incoming;
use std::sync::Arc;
use tonic::body::Body;

const PREFIX: &str = "/clarifai.api.V2/";

/// A gRPC frame with a message of no bytes: not compressed, length 0.
const EMPTY_MESSAGE: [u8; 5] = [0; 5];

/// The request as the services get it.
pub(crate) fn gate(app: &Arc<App>, request: Request<Incoming>) -> Request<Body> {
    let (head, body) = request.into_parts();
    let authorization = head.headers.get("authorization").and_then(|value| value.to_str().ok());
    let open = !head.uri.path().starts_with(PREFIX) || app.auth.caller(authorization).is_ok();
    let body = match open {
        true => Body::new(body),
        false => Body::new(Full::new(Bytes::from_static(&EMPTY_MESSAGE))),
    };
    Request::from_parts(head, body)
}
