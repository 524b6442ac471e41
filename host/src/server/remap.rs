//! gRPC codes that the library chooses and this host does not.
//!
//! A message that cannot be read is the client's fault and not an internal
//! error, and one that is too large exhausts a resource and is not out of
//! range. Only errors that the library makes before a service is asked arrive
//! here; services of this host use neither code.

use http::{HeaderValue, Response};
use tonic::Code;

const STATUS: &str = "grpc-status";

/// Gives an error response of the library the code that this host promises.
pub(crate) fn remap<B>(mut response: Response<B>) -> Response<B> {
    let code = response.headers().get(STATUS).map(|code| Code::from_bytes(code.as_bytes()));
    let better = match code {
        Some(Code::Internal) => Some("3"),
        Some(Code::OutOfRange) => Some("8"),
        _ => None,
    };
    if let Some(better) = better {
        response.headers_mut().insert(STATUS, HeaderValue::from_static(better));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remapped(code: &'static str) -> Code {
        let response = Response::builder().header(STATUS, code).body(()).unwrap();
        Code::from_bytes(remap(response).headers()[STATUS].as_bytes())
    }

    #[test]
    fn malformed_and_oversized_messages_are_the_clients_fault() {
        assert_eq!(remapped("13"), Code::InvalidArgument);
        assert_eq!(remapped("11"), Code::ResourceExhausted);
    }

    #[test]
    fn other_codes_stay_as_they_are() {
        assert_eq!(remapped("12"), Code::Unimplemented);
        assert_eq!(remapped("0"), Code::Ok);
    }
}
