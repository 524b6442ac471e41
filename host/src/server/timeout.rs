//! The client's own deadline, as gRPC sends it.

use crate::call::Deadline;
use std::time::Duration;
use tonic::metadata::MetadataMap;

/// Digits that the protocol allows.
const DIGITS_MAX: usize = 8;

/// A `grpc-timeout` that says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("grpc-timeout is no time; write at most eight digits and one of H, M, S, m, u, n")]
pub(crate) struct NoTimeout;

/// The deadline that `grpc-timeout` asks for, from now.
pub(crate) fn deadline_of(metadata: &MetadataMap) -> Result<Option<Deadline>, NoTimeout> {
    let Some(value) = metadata.get("grpc-timeout") else { return Ok(None) };
    let timeout = value.to_str().ok().and_then(grpc_timeout).ok_or(NoTimeout)?;
    Ok(Some(Deadline::after(timeout)))
}

/// The time that a value of `grpc-timeout` means, or nothing. The format is gRPC's
/// ("gRPC over HTTP2", Timeout): at most eight digits and one of the units H, M, S, m,
/// u, n.
pub fn grpc_timeout(text: &str) -> Option<Duration> {
    let unit = text.chars().next_back()?;
    let digits = text.strip_suffix(unit)?;
    if digits.is_empty() || digits.len() > DIGITS_MAX || !digits.bytes().all(|b| b.is_ascii_digit())
    {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        'H' => Duration::from_secs(count * 3600),
        'M' => Duration::from_secs(count * 60),
        'S' => Duration::from_secs(count),
        'm' => Duration::from_millis(count),
        'u' => Duration::from_micros(count),
        'n' => Duration::from_nanos(count),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_timeouts_are_read_by_their_units() {
        assert_eq!(deadline_of(&MetadataMap::new()), Ok(None));
        assert_eq!(grpc_timeout("250m"), Some(Duration::from_millis(250)));
        assert_eq!(grpc_timeout("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        for bad in ["", "S", "1", "123456789S", "-1S", "1x", "1é"] {
            assert_eq!(grpc_timeout(bad), None, "{bad}");
            let metadata = MetadataMap::from_headers(
                [("grpc-timeout".parse().unwrap(), bad.parse().unwrap())].into_iter().collect(),
            );
            assert_eq!(deadline_of(&metadata), Err(NoTimeout), "{bad}");
        }
    }
}
