//! The token is looked at before the body, and only here.
//!
//! A library that decodes a request before a service sees it does that work for
//! anybody. Here a request without a valid token loses its body first: the
//! service gets an empty message instead, and refuses it in-band as any other.

use super::App;
use crate::auth::{AuthError, Caller};
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper::body::Incoming;
use std::sync::Arc;
use tonic::body::Body;

const PREFIX: &str = "/clarifai.api.V2/";

/// A gRPC frame with a message of no bytes: not compressed, length 0.
const EMPTY_MESSAGE: [u8; 5] = [0; 5];

/// The request as the services get it: with the [`Caller`] that its token
/// proves among its extensions, or without its body.
pub(crate) fn gate(app: &Arc<App>, request: Request<Incoming>) -> Request<Body> {
    let (mut head, body) = request.into_parts();
    let authorization = head.headers.get("authorization").and_then(|value| value.to_str().ok());
    let is_v2 = head.uri.path().starts_with(PREFIX);
    let body = match app.auth.caller(authorization) {
        Ok(caller) => {
            head.extensions.insert(caller);
            Body::new(body)
        }
        // Other services are for everybody, and tell less without a token.
        Err(_) if !is_v2 => Body::new(body),
        Err(_) => Body::new(Full::new(Bytes::from_static(&EMPTY_MESSAGE))),
    };
    Request::from_parts(head, body)
}

/// The caller of a request that came through the gate. One that did not is
/// refused like one without a token.
pub(crate) fn caller_of<T>(request: &tonic::Request<T>) -> Result<Caller, AuthError> {
    request.extensions().get::<Caller>().cloned().ok_or(AuthError::Refused)
}
