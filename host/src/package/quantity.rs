//! Kubernetes quantities, exactly: `2`, `500m`, `13Gi`, `1e3`.
//!
//! Owns the grammar and the ranges of CPU and bytes. Knows no key of
//! `config.yaml`.
//!
//! The grammar is that of `k8s.io/apimachinery/pkg/api/resource`: a signed
//! decimal number, then one of `n u m k M G T P E`, one of
//! `Ki Mi Gi Ti Pi Ei`, or an exponent `e3`, or nothing.

use std::str::FromStr;

/// A quantity, in billionths, rounded away from zero as Kubernetes does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quantity {
    nanos: i128,
}

/// Why a text is no quantity, or a quantity is no such amount. Each text ends
/// with the fix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Not in the grammar, and this is what was probably meant.
    #[error("is not a quantity; did you mean \"{0}\"?")]
    DidYouMean(String),
    /// Not in the grammar.
    #[error("is not a quantity; write a number such as \"2\", \"500m\", \"1500Mi\" or \"13Gi\"")]
    Grammar,
    /// Larger than anything a machine has.
    #[error("is too large; write what the model needs, such as \"4\" or \"13Gi\"")]
    TooLarge,
    /// Zero or less.
    #[error("must be more than zero")]
    NotPositive,
    /// Less than a thousandth of a CPU.
    #[error("is less than a thousandth of a CPU; the least is \"1m\"")]
    CpuTooSmall,
    /// A part of a byte, and this is what was probably meant.
    #[error("is not a whole number of bytes (m is a thousandth); did you mean \"{0}\"?")]
    NotWholeBytes(String),
}

/// Longest text that is looked at; a longer one is no quantity.
const TEXT_BYTES_MAX: usize = 64;

const NANOS: i128 = 1_000_000_000;

/// What follows the number.
struct Suffix {
    exponent_2: u32,
    exponent_10: i32,
}

impl Quantity {
    /// Thousandths of a CPU, rounded up; at least one.
    pub fn cpu_millis(self) -> Result<u64, QuantityError> {
        if self.nanos <= 0 {
            return Err(QuantityError::NotPositive);
        }
        if self.nanos < NANOS / 1000 {
            return Err(QuantityError::CpuTooSmall);
        }
        let millis = (self.nanos + (NANOS / 1000 - 1)) / (NANOS / 1000);
        i64::try_from(millis).map(i64::unsigned_abs).map_err(|_| QuantityError::TooLarge)
    }

    /// A whole and positive number of bytes.
    pub fn bytes(self) -> Result<u64, QuantityError> {
        if self.nanos <= 0 {
            return Err(QuantityError::NotPositive);
        }
        if self.nanos % NANOS != 0 {
            let millis = self.nanos / (NANOS / 1000);
            return Err(QuantityError::NotWholeBytes(format!("{}Mi", millis.max(1))));
        }
        i64::try_from(self.nanos / NANOS)
            .map(i64::unsigned_abs)
            .map_err(|_| QuantityError::TooLarge)
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match parse(text) {
            Ok(quantity) => Ok(quantity),
            Err(QuantityError::Grammar) => {
                Err(suggestion(text).map_or(QuantityError::Grammar, QuantityError::DidYouMean))
            }
            Err(error) => Err(error),
        }
    }
}

fn parse(text: &str) -> Result<Quantity, QuantityError> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(QuantityError::Grammar);
    }
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (number, suffix) = split_number(unsigned);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
        return Err(QuantityError::Grammar);
    }
    let suffix = parse_suffix(suffix).ok_or(QuantityError::Grammar)?;

    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return Ok(Quantity { nanos: 0 });
    }
    let mantissa: i128 = digits.parse().map_err(|_| QuantityError::TooLarge)?;
    let mantissa =
        mantissa.checked_mul(1_i128 << suffix.exponent_2).ok_or(QuantityError::TooLarge)?;
    let places = i32::try_from(fraction.len()).map_err(|_| QuantityError::Grammar)?;
    let exponent = suffix.exponent_10 + 9 - places;
    let nanos = match 10_i128.checked_pow(exponent.unsigned_abs()) {
        Some(power) if exponent >= 0 => {
            mantissa.checked_mul(power).ok_or(QuantityError::TooLarge)?
        }
        Some(power) => mantissa / power + i128::from(mantissa % power != 0),
        None if exponent >= 0 => return Err(QuantityError::TooLarge),
        // Nothing is left of it but that it is not zero.
        None => 1,
    };
    Ok(Quantity { nanos: if negative { -nanos } else { nanos } })
}

fn split_number(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    text.split_at(end)
}

fn parse_suffix(suffix: &str) -> Option<Suffix> {
    let binary = |exponent_2| Some(Suffix { exponent_2, exponent_10: 0 });
    let decimal = |exponent_10| Some(Suffix { exponent_2: 0, exponent_10 });
    match suffix {
        "n" => decimal(-9),
        "u" => decimal(-6),
        "m" => decimal(-3),
        "" => decimal(0),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(10),
        "Mi" => binary(20),
        "Gi" => binary(30),
        "Ti" => binary(40),
        "Pi" => binary(50),
        "Ei" => binary(60),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E'])?;
            let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            // Beyond four digits the answer is the same: too large, or next to nothing.
            let digits = digits.trim_start_matches('0');
            let value: i32 = if digits.len() > 4 { 9999 } else { digits.parse().unwrap_or(0) };
            decimal(if exponent.starts_with('-') { -value } else { value })
        }
    }
}

/// What the author of a near miss such as `13GiB` or `13 Gi` meant.
fn suggestion(text: &str) -> Option<String> {
    if text.len() > TEXT_BYTES_MAX {
        return None;
    }
    let compact: String = text.chars().filter(|c| !c.is_whitespace() && *c != '_').collect();
    let (number, unit) = split_number(&compact);
    let lower = unit.to_ascii_lowercase();
    let unit = match lower.as_str() {
        "k" | "kb" => "k",
        "ki" | "kib" => "Ki",
        "mb" => "M",
        "mi" | "mib" | "meg" => "Mi",
        "g" | "gb" => "G",
        "gi" | "gib" | "gig" => "Gi",
        "t" | "tb" => "T",
        "ti" | "tib" => "Ti",
        "b" | "bytes" | "cpu" | "cpus" | "core" | "cores" => "",
        _ => unit,
    };
    let candidate = format!("{number}{unit}");
    (candidate != text && parse(&candidate).is_ok()).then_some(candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Result<u64, QuantityError> {
        text.parse::<Quantity>()?.bytes()
    }

    fn cpu(text: &str) -> Result<u64, QuantityError> {
        text.parse::<Quantity>()?.cpu_millis()
    }

    #[test]
    fn quantities_are_those_of_kubernetes() {
        for (text, expected) in [
            ("1", 1),
            ("+1", 1),
            ("1.", 1),
            ("007", 7),
            ("1.5k", 1500),
            (".5k", 500),
            ("13Gi", 13 << 30),
            ("1.5Gi", 3 << 29),
            ("1500Mi", 1500 << 20),
            ("1Ki", 1024),
            ("1Ti", 1 << 40),
            ("1Pi", 1 << 50),
            ("7Ei", 7 << 60),
            ("1M", 1_000_000),
            ("1G", 1_000_000_000),
            ("1T", 1_000_000_000_000),
            ("1P", 1_000_000_000_000_000),
            ("1E", 1_000_000_000_000_000_000),
            ("1E3", 1000),
            ("1e3", 1000),
            ("1e+3", 1000),
            ("5000e-3", 5),
            ("2000m", 2),
            ("3000000u", 3),
            ("4000000000n", 4),
            ("1e-0000000000003E", 0),
        ] {
            if expected == 0 {
                assert!(bytes(text).is_err(), "{text}");
            } else {
                assert_eq!(bytes(text), Ok(expected), "{text}");
            }
        }
    }

    /// Every suffix with thousands of numbers, against exact arithmetic on
    /// fractions that knows nothing of how the text is read.
    #[test]
    fn quantities_agree_with_a_table_of_their_suffixes() {
        let suffixes: [(&str, i128, i128); 17] = [
            ("n", 1, 1_000_000_000),
            ("u", 1, 1_000_000),
            ("m", 1, 1000),
            ("", 1, 1),
            ("k", 1000, 1),
            ("M", 1_000_000, 1),
            ("G", 1_000_000_000, 1),
            ("T", 1_000_000_000_000, 1),
            ("P", 1_000_000_000_000_000, 1),
            ("Ki", 1 << 10, 1),
            ("Mi", 1 << 20, 1),
            ("Gi", 1 << 30, 1),
            ("Ti", 1 << 40, 1),
            ("e3", 1000, 1),
            ("E2", 100, 1),
            ("e-2", 1, 100),
            ("e+0", 1, 1),
        ];
        let mut random = 1_u64;
        let mut count = 0;
        for (suffix, numerator, denominator) in suffixes {
            for places in 0..4_u32 {
                for _ in 0..200 {
                    // Knuth's multiplier; any spread of numbers will do.
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let digits = i128::from(random >> 48);
                    let power = 10_i128.pow(places);
                    let width = places as usize;
                    let text = match places {
                        0 => format!("{digits}{suffix}"),
                        _ => format!("{}.{:0width$}{suffix}", digits / power, digits % power),
                    };
                    let (exact, parts) = (digits * numerator, power * denominator);
                    let whole = exact > 0 && exact % parts == 0;
                    // Kubernetes counts in 64 bits with a sign.
                    let fits = |count: i128| i64::try_from(count).ok().map(i64::unsigned_abs);
                    let expected = whole.then(|| fits(exact / parts)).flatten();
                    assert_eq!(bytes(&text).ok(), expected, "{text}");
                    let millis = (exact * 1000 + parts - 1) / parts;
                    let enough = exact * 1000 >= parts;
                    let expected = enough.then(|| fits(millis)).flatten();
                    assert_eq!(cpu(&text).ok(), expected, "{text} as CPUs");
                    count += 1;
                }
            }
        }
        assert_eq!(count, 17 * 4 * 200);
    }

    #[test]
    fn cpu_is_rounded_up_to_thousandths() {
        assert_eq!(cpu("2"), Ok(2000));
        assert_eq!(cpu("500m"), Ok(500));
        assert_eq!(cpu("0.1"), Ok(100));
        assert_eq!(cpu("1500u"), Ok(2));
        assert_eq!(cpu("1m"), Ok(1));
        assert_eq!(cpu("999u"), Err(QuantityError::CpuTooSmall));
        assert_eq!(cpu("0"), Err(QuantityError::NotPositive));
        assert_eq!(cpu("-1"), Err(QuantityError::NotPositive));
        assert_eq!(cpu("1e25"), Err(QuantityError::TooLarge));
    }

    /// MEM-14 and PKG-15.
    #[test]
    fn what_is_not_an_amount_of_memory_is_refused() {
        for text in
            ["0", "0Gi", "-5Gi", "-0.1", "1e40", "9Ei", "500m", "1.5", "1n", "1e-999999999999"]
        {
            assert!(text.parse::<Quantity>().and_then(Quantity::bytes).is_err(), "{text}");
        }
        for text in [
            "", " ", "1 ", " 1", "13 Gi", "13GiB", "13Gig", "13gi", "1K", "1KI", "1e30Gi", "1e",
            "1e1.5", "Gi", ".", "-", "1.1.1", "1..1", "--1", "+-1", "1,5", "1_000", "0x10", "1:30",
            "yes", "~", "two", "1Gi1", "1mi", "١", "inf", "nan", "1e+", "1ee3",
        ] {
            assert!(
                matches!(
                    text.parse::<Quantity>(),
                    Err(QuantityError::Grammar | QuantityError::DidYouMean(_))
                ),
                "{text}"
            );
        }
        assert!("1".repeat(65).parse::<Quantity>().is_err());
        assert_eq!("1".repeat(60).parse::<Quantity>(), Err(QuantityError::TooLarge));
    }

    #[test]
    fn near_misses_are_told_what_was_meant() {
        for (text, meant) in [
            ("13GiB", "13Gi"),
            ("13 Gi", "13Gi"),
            ("13gb", "13G"),
            ("10K", "10k"),
            ("2 cores", "2"),
            ("1_000", "1000"),
        ] {
            assert_eq!(
                text.parse::<Quantity>(),
                Err(QuantityError::DidYouMean(meant.into())),
                "{text}"
            );
        }
        assert_eq!(bytes("500m"), Err(QuantityError::NotWholeBytes("500Mi".into())));
    }
}
