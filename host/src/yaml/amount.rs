//! Times and sizes as such files write them.
//!
//! Owns both directions, so that a default or a bound is shown as it would be
//! written.

use std::time::Duration;

/// A whole number and its unit, or nothing where the text is no time.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let millis_per_unit: u64 = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(millis_per_unit).map(Duration::from_millis)
}

/// A time in the largest unit that is exact.
pub(crate) fn duration_text(duration: Duration) -> String {
    let millis = duration.as_millis();
    let unit = [("h", 3_600_000), ("m", 60_000), ("s", 1000)]
        .into_iter()
        .find(|(_, unit)| millis > 0 && millis.is_multiple_of(*unit));
    match unit {
        Some((name, unit)) => format!("{}{name}", millis / unit),
        None if millis == 0 => "0s".to_owned(),
        None => format!("{millis}ms"),
    }
}

/// Bytes in the largest binary unit that is exact.
pub(crate) fn bytes_text(bytes: u64) -> String {
    let unit = [("Gi", 30), ("Mi", 20), ("Ki", 10)]
        .into_iter()
        .find(|(_, shift)| bytes > 0 && bytes.trailing_zeros() >= *shift);
    match unit {
        Some((name, shift)) => format!("{}{name}", bytes >> shift),
        None => bytes.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_they_are_shown() {
        for text in ["1ms", "1500ms", "2s", "90s", "1m", "61m", "3h", "0s"] {
            assert_eq!(duration_text(duration(text).unwrap()), text);
        }
        for bad in ["", "s", "1", "-1s", "+1s", "1.5s", "1 s", "1d", "1S", "99999999999999999999h"]
        {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn sizes_are_shown_as_they_are_written() {
        for (bytes, text) in
            [(0, "0"), (1000, "1000"), (1 << 10, "1Ki"), (16 << 20, "16Mi"), (3 << 30, "3Gi")]
        {
            assert_eq!(bytes_text(bytes), text);
        }
    }
}
