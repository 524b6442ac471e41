//! Limits that fit: what the calls of a model need, with a fifth to spare.
//!
//! Owns how the least memory is found: by trying, since what a guest does with
//! less than it wants cannot be known otherwise.

use super::super::TestArgs;
use super::{Asked, Ran, Seeded, call_all};
use crate::limits::FUEL_PER_CPU_SECOND;
use crate::package::folder;
use anyhow::{Context, bail};
use std::path::Path;
use std::time::Duration;

/// What is suggested, against what is needed.
const SPARE: f64 = 1.2;

/// The share of a suggestion at which a call has to be stopped.
const TOO_LITTLE: f64 = 0.7;

/// Memory is found to this share.
const EXACT: f64 = 1.03;

/// A page of wasm's memory.
const PAGE_BYTES: u64 = 64 << 10;

/// How much longer than it took a call may take, on a machine that is busy.
const PATIENCE: u32 = 10;

const CPU_MILLIS_MIN: u64 = 10;
const MEMORY_BYTES_MIN: u64 = 1 << 20;
const TIMEOUT_MIN: Duration = Duration::from_secs(1);

/// Limits for a `config.yaml`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Suggestion {
    pub(super) cpu_millis: u64,
    pub(super) memory_bytes: u64,
    pub(super) call_timeout: Duration,
}

impl Suggestion {
    /// Section, key and value of each. The memory is that of one call, and all
    /// calls at a time share it, so the others have to wait.
    pub(super) fn lines(&self) -> [(&'static str, &'static str, String); 4] {
        let info = "inference_compute_info";
        [
            (info, "cpu_limit", format!("\"{}m\"", self.cpu_millis)),
            (info, "cpu_memory", format!("\"{}Ki\"", self.memory_bytes >> 10)),
            ("ringfence", "call_timeout", format!("{}s", self.call_timeout.as_secs())),
            ("ringfence", "max_concurrency", "1".to_owned()),
        ]
    }
}

/// Finds them, from calls that went well.
pub(super) async fn suggest(
    args: &TestArgs,
    on: &Seeded,
    asked: &Asked,
    ran: &[Ran],
) -> anyhow::Result<Suggestion> {
    let ran_for = |ran: &Ran| ran.wall.saturating_sub(ran.receipt.cpu_wait);
    let wall = ran.iter().map(ran_for).max().unwrap_or_default();
    let timeout = (wall * PATIENCE).max(TIMEOUT_MIN).as_secs_f64().ceil();
    let fuel = ran.iter().map(|ran| ran.receipt.fuel).max().unwrap_or_default() as f64;
    // As much of a CPU as it had while it ran, so that it is not held back.
    let cpus = |ran: &Ran| {
        let cpu = ran.receipt.guest_cpu + ran.receipt.engine_cpu;
        cpu.as_secs_f64() / ran_for(ran).max(Duration::from_micros(1)).as_secs_f64()
    };
    let cpus = ran.iter().map(cpus).fold(0.0, f64::max);
    let cpus = cpus.max(fuel / FUEL_PER_CPU_SECOND as f64 / timeout);
    let cpu_millis = ((cpus * SPARE * 1000.0).ceil() as u64).max(CPU_MILLIS_MIN);

    let held: u64 = ran
        .iter()
        .map(|ran| ran.held.iter().map(|(_, bytes)| bytes).sum())
        .max()
        .unwrap_or_default();
    // Whole pages, so that what lies between two of them is always another.
    let (mut little, mut enough) = (0, held.max(PAGE_BYTES).next_multiple_of(PAGE_BYTES));
    while !passes(args, on, asked, enough).await? {
        little = enough;
        enough *= 2;
    }
    while enough as f64 > little as f64 * EXACT && enough - little > PAGE_BYTES {
        let middle = (little + (enough - little) / 2).next_multiple_of(PAGE_BYTES);
        match passes(args, on, asked, middle).await? {
            true => enough = middle,
            false => little = middle,
        }
    }
    let spare = (enough as f64 * SPARE) as u64;
    let memory_bytes = spare.next_multiple_of(PAGE_BYTES).max(MEMORY_BYTES_MIN);
    let too_little = (memory_bytes as f64 * TOO_LITTLE) as u64;
    if !passes(args, on, asked, memory_bytes).await? || passes(args, on, asked, too_little).await? {
        bail!("the memory that the calls need differs from run to run; set cpu_memory by hand");
    }
    let call_timeout = Duration::from_secs_f64(timeout);
    Ok(Suggestion { cpu_millis, memory_bytes, call_timeout })
}

/// Whether all calls go well with this much memory.
async fn passes(
    args: &TestArgs,
    on: &Seeded,
    asked: &Asked,
    memory_bytes: u64,
) -> anyhow::Result<bool> {
    let scratch = tempfile::tempdir().context("cannot make a scratch folder")?;
    let mut package = folder::open(&args.dir, scratch.path(), folder::Taking::Copy)?;
    package.config.limits.memory_bytes_max = memory_bytes;
    // A model that does not even start with so little has too little.
    match call_all(on, package, asked, &mut |_| Ok(())).await {
        Ok((ran, _)) => Ok(ran.iter().all(Ran::is_ok)),
        Err(_) => Ok(false),
    }
}

/// Puts the suggestion into a `config.yaml`, and changes nothing else of it.
pub(super) fn write(path: &Path, suggestion: &Suggestion) -> anyhow::Result<()> {
    let mut text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    for (section, key, value) in suggestion.lines() {
        text = set(&text, section, key, &value).with_context(|| {
            format!(
                "`{section}` in {} is not written line by line; put `{key}: {value}` there",
                path.display()
            )
        })?;
    }
    let config = crate::package::config::Config::parse(&text)?;
    if config.limits.memory_bytes_max != suggestion.memory_bytes {
        bail!("{} cannot be changed by this; write the limits by hand", path.display());
    }
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// The text with one key set; nothing where its section is not in lines.
fn set(text: &str, section: &str, key: &str, value: &str) -> Option<String> {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let is_key = |line: &str, key: &str| {
        line.trim_start().strip_prefix(key).is_some_and(|rest| rest.starts_with(':'))
    };
    let Some(head) = lines.iter().position(|line| is_key(line, section) && !line.starts_with(' '))
    else {
        lines.extend([String::new(), format!("{section}:"), format!("  {key}: {value}")]);
        return Some(lines.join("\n") + "\n");
    };
    let rest = lines.get(head)?.split_once(':')?.1.trim();
    if !rest.is_empty() && !rest.starts_with('#') {
        return None;
    }
    let inside = |line: &String| line.starts_with([' ', '\t']) || line.trim().is_empty();
    let end = lines.iter().skip(head + 1).position(|line| !inside(line));
    let end = end.map_or(lines.len(), |length| head + 1 + length);
    let body = lines.get(head + 1..end)?;
    match body.iter().position(|line| is_key(line, key)) {
        Some(place) => {
            let line = lines.get_mut(head + 1 + place)?;
            let (before, after) = line.split_once(':')?;
            // What follows the value stays: spaces and a comment.
            let comment = after.find(" #").map_or("", |start| {
                let start = after.get(..start).map_or(start, |kept| kept.trim_end().len());
                after.get(start..).unwrap_or_default()
            });
            *line = format!("{before}: {value}{comment}");
        }
        None => {
            let indent = body
                .iter()
                .find(|line| !line.trim().is_empty())
                .map_or(2, |line| line.len() - line.trim_start().len());
            lines.insert(head + 1, format!("{}{key}: {value}", " ".repeat(indent)));
        }
    }
    Some(lines.join("\n") + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_key_changes_and_nothing_else() {
        let text = "# head\ninfo:   # what it gets\n    cpu: \"1\"     # one\n    # a comment\n    memory: 2Gi\nother: x\n";
        assert_eq!(
            set(text, "info", "cpu", "\"10m\"").unwrap(),
            text.replace("cpu: \"1\"     # one", "cpu: \"10m\"     # one")
        );
        assert_eq!(
            set(text, "info", "memory", "5Ki").unwrap(),
            text.replace("memory: 2Gi", "memory: 5Ki")
        );
        assert_eq!(
            set(text, "info", "new", "1").unwrap(),
            text.replace("    cpu:", "    new: 1\n    cpu:")
        );
        assert_eq!(set(text, "last", "new", "1").unwrap(), format!("{text}\nlast:\n  new: 1\n"));
        assert_eq!(set("info: {cpu: 1}\n", "info", "cpu", "2"), None);
    }
}
