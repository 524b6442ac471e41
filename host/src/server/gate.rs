//! The token is looked at before the body, and only here.
//!
//! A library that decodes a request before a service sees it does that work for
//! anybody. Here a request that may not be made loses its body first: the
//! service gets an empty message instead, and refuses it as any other.

use super::App;
use super::inbound::{Inbound, Received};
use super::listener::UPLOAD;
use super::pace::Paced;
use super::policy::{Rule, rule, sends_a_stream};
use crate::auth::{AuthError, Caller};
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper::body::Incoming;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tonic::body::Body;

/// A gRPC frame with a message of no bytes: not compressed, length 0.
const EMPTY_MESSAGE: [u8; 5] = [0; 5];

/// Who is on the other end of a connection.
#[derive(Debug, Clone)]
pub(crate) enum Peer {
    /// Whoever can reach this address; a token says who it is.
    Address(IpAddr),
    /// Whoever can open the socket in the data directory.
    Operator,
}

/// Who calls, as the services find it in a request's extensions.
type Called = Result<Caller, AuthError>;

/// The request as the services get it, and how long it should wait: with the
/// [`Caller`] that its token proves among its extensions, or without its body.
pub(crate) fn gate(
    app: &Arc<App>,
    peer: &Peer,
    inbound: &Arc<Inbound>,
    request: Request<Incoming>,
    message_timeout: Duration,
) -> (Request<Body>, Duration) {
    let (mut head, body) = request.into_parts();
    let is_unary = !sends_a_stream(head.uri.path());
    let paced = |received| Body::new(Paced::new(body, is_unary, message_timeout, received));
    let Some(rule) = rule(head.uri.path()) else {
        // Where there is no such RPC, the library says so.
        return (Request::from_parts(head, paced(None)), Duration::ZERO);
    };
    let authorization = head.headers.get("authorization");
    let proved = match peer {
        Peer::Operator => Ok(Caller::operator()),
        Peer::Address(_) => app.auth.caller(authorization.and_then(|value| value.to_str().ok())),
    };
    // Where no token is needed, one that is sent and bad is still a bad token:
    // more is told to a good one.
    let needs_delay = proved.is_err() && (rule != Rule::Anyone || authorization.is_some());
    let delay = match peer {
        Peer::Address(address) if needs_delay => app.auth.refusal_delay(*address),
        Peer::Address(_) | Peer::Operator => Duration::ZERO,
    };
    let called: Called = proved.and_then(|caller| match rule {
        Rule::Scope(scope) if !caller.may(scope) => Err(AuthError::Scope(scope)),
        Rule::Anyone | Rule::Caller | Rule::Scope(_) => Ok(caller),
    });
    let body = match &called {
        // The parts of an upload are counted by themselves.
        Ok(_) if head.uri.path() == UPLOAD => paced(None),
        Ok(caller) => {
            let received = inbound.of(caller.user_id());
            head.extensions.insert(received.clone());
            paced(Some(received))
        }
        // It is short.
        Err(_) if rule == Rule::Anyone => paced(None),
        Err(_) => Body::new(Full::new(Bytes::from_static(&EMPTY_MESSAGE))),
    };
    head.extensions.insert(called);
    (Request::from_parts(head, body), delay)
}

/// What a request that came through the gate has brought, where that is counted.
pub(crate) fn received_of<T>(request: &tonic::Request<T>) -> Option<Arc<Received>> {
    request.extensions().get().cloned()
}

/// The caller of a request that came through the gate. One that did not is
/// refused like one without a token.
pub(crate) fn caller_of<T>(request: &tonic::Request<T>) -> Result<Caller, AuthError> {
    request.extensions().get::<Called>().cloned().unwrap_or(Err(AuthError::Refused))
}
