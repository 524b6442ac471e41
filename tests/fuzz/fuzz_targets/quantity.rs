//! Any text as a quantity: what is accepted is the number that it looks like.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringfence::package::quantity::Quantity;

/// Suffixes and what they stand for.
const SUFFIXES: [(&str, f64); 16] = [
    ("Ki", 1024.0),
    ("Mi", 1_048_576.0),
    ("Gi", 1_073_741_824.0),
    ("Ti", 1_099_511_627_776.0),
    ("Pi", 1_125_899_906_842_624.0),
    ("Ei", 1_152_921_504_606_846_976.0),
    ("n", 1e-9),
    ("u", 1e-6),
    ("m", 1e-3),
    ("k", 1e3),
    ("M", 1e6),
    ("G", 1e9),
    ("T", 1e12),
    ("P", 1e15),
    ("E", 1e18),
    ("", 1.0),
];

/// Billionths are rounded away from zero, as Kubernetes does.
const ROUNDING: f64 = 1e-9;

/// Rounding of floating point, of the number and of the product.
const RELATIVE_ERROR_MAX: f64 = 1e-12;

fuzz_target!(|text: &str| {
    let Ok(quantity) = text.parse::<Quantity>() else { return };
    let expected = value(text).unwrap_or_else(|| panic!("{text:?} was accepted"));
    if let Ok(bytes) = quantity.bytes() {
        assert_near(text, bytes as f64, expected, ROUNDING);
    }
    if let Ok(millis) = quantity.cpu_millis() {
        // Thousandths are rounded up.
        assert_near(text, millis as f64, expected * 1000.0, 1.0 + 1000.0 * ROUNDING);
    }
    if expected <= 0.0 {
        assert!(quantity.bytes().is_err() && quantity.cpu_millis().is_err(), "{text:?}");
    }
});

fn value(text: &str) -> Option<f64> {
    if let Ok(plain) = text.parse::<f64>() {
        // `inf`, `nan` and the like are numbers of floating point alone.
        return plain.is_finite().then_some(plain);
    }
    SUFFIXES.iter().find_map(|(suffix, factor)| {
        let number: f64 = text.strip_suffix(suffix)?.parse().ok()?;
        Some(number * factor)
    })
}

fn assert_near(text: &str, ours: f64, expected: f64, rounding: f64) {
    let allowed = expected.abs() * RELATIVE_ERROR_MAX + rounding;
    assert!((ours - expected).abs() <= allowed, "{text:?}: {ours}, not {expected}");
}
