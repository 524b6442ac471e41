//! Whether a request is one of gRPC at all.
//!
//! The gRPC library takes any content type for its own, also those of protocols that frame
//! their messages alike and end them otherwise.

use http::header::CONTENT_TYPE;
use http::{HeaderMap, Response, StatusCode};
use tonic::body::Body;

const GRPC: &str = "application/grpc";

/// As "gRPC over HTTP/2" has it: `application/grpc`, perhaps with `+proto`, perhaps
/// with parameters.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()) else {
        return false;
    };
    let kind = kind.split(';').next().unwrap_or_default().trim_end().to_ascii_lowercase();
    matches!(kind.strip_prefix(GRPC), Some("" | "+proto"))
}

/// The answer to all others, which has no more than its status.
pub(super) fn unsupported() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_messages_of_protobuf_are_grpc_here() {
        let of = |kind: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, kind.parse().unwrap());
            is_grpc(&headers)
        };
        for kind in ["application/grpc", "application/grpc+proto", "Application/gRPC; x=y"] {
            assert!(of(kind), "{kind}");
        }
        for kind in ["application/grpc-web", "application/grpc+json", "application/grpcx", "x", ""]
        {
            assert!(!of(kind), "{kind}");
        }
        assert!(!is_grpc(&HeaderMap::new()));
    }
}
