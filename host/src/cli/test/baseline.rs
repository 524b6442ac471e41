//! Figures of an earlier run, to be held against those of this one.

use super::super::usage;
use super::Ran;
use anyhow::{Context, bail};
use std::collections::BTreeMap;
use std::path::Path;

/// Fuel and bytes of linear memory of each function.
pub(super) type Baseline = BTreeMap<String, (u64, u64)>;

/// Reads the output of `ringfence test --json`.
pub(super) fn read(path: &Path) -> anyhow::Result<Baseline> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the baseline {}", path.display()))
        .map_err(usage)?;
    let mut baseline = Baseline::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let figures: Option<(String, u64, u64)> =
            serde_json::from_str(line).ok().and_then(|value: serde_json::Value| {
                let number = |key: &str| value.get(key)?.as_u64();
                let function = value.get("function")?.as_str()?.to_owned();
                Some((function, number("fuel")?, number("memory_bytes_peak")?))
            });
        let Some((function, fuel, memory)) = figures else {
            return Err(usage(anyhow::anyhow!(
                "{} is no output of `ringfence test --json`",
                path.display()
            )));
        };
        baseline.insert(function, (fuel, memory));
    }
    Ok(baseline)
}

/// Fails where something has grown by more than the share that may.
pub(super) fn compare(earlier: &Baseline, ran: &[Ran], tolerance: f64) -> anyhow::Result<()> {
    let mut grown = Vec::new();
    for ran in ran {
        let Some((fuel, memory)) = earlier.get(&ran.function) else {
            grown.push(format!("{} is not in the baseline", ran.function));
            continue;
        };
        let figures = [
            ("fuel", *fuel, ran.receipt.fuel),
            ("linear memory", *memory, ran.receipt.memory_bytes_peak),
        ];
        for (what, then, now) in figures {
            if now as f64 > then as f64 * (1.0 + tolerance) {
                grown.push(format!("{}: {what} was {then} and is {now}", ran.function));
            }
        }
    }
    for function in earlier.keys() {
        if !ran.iter().any(|ran| ran.function == *function) {
            grown.push(format!("{function} is in the baseline and was not called"));
        }
    }
    match grown.is_empty() {
        true => Ok(()),
        false => bail!("beyond the baseline: {}", grown.join("; ")),
    }
}
