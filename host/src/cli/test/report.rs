//! What `test` prints: outputs, what a call took, and why one was stopped.

use super::super::render;
use super::Ran;
use super::suggest::Suggestion;
use crate::call::{End, Holder, HostCall, Phase, Receipt, Trace, TraceFrame, Verdict};
use crate::limits::CPU_BURST;
use crate::proto::clarifai::api;
use crate::sandbox::{Snapshot, Unfit};
use crate::server::status::Outcome;
use crate::text::printable;
use serde_json::json;
use std::io::{self, IsTerminal, Stdout, Write};
use std::time::Duration;

/// Lines of outputs that a person is shown of one function.
const LINES_SHOWN: usize = 40;

/// Characters of such a line.
const LINE_CHARS_SHOWN: usize = 200;

/// Characters of the name of a concept.
const NAME_CHARS_SHOWN: usize = 40;

/// Characters of the bar of a concept that is certain.
const BAR_CHARS: usize = 30;

/// Parts of paths of sources that are nobody's own: the standard library's, of
/// crates, and of the guest crate beside the model.
const LIBRARIES: [&str; 9] = [
    "/rustc/",
    "/rustlib/",
    "library/core/src/",
    "library/alloc/src/",
    "library/std/src/",
    "/registry/src/",
    "/git/checkouts/",
    "sdk/src/",
    "wasisdk://",
];

/// Where the report goes.
pub(super) struct Report {
    out: Stdout,
    json: bool,
    terminal: bool,
    on_cpu: bool,
}

impl Report {
    pub(super) fn new(json: bool) -> Self {
        let out = io::stdout();
        let terminal = out.is_terminal();
        Self { out, json, terminal, on_cpu: false }
    }

    /// Marks every result: the model asked for something else.
    pub(super) fn on_cpu(&mut self) {
        self.on_cpu = true;
    }

    pub(super) fn note(&mut self, text: &str) -> io::Result<()> {
        writeln!(io::stderr().lock(), "note: {}", printable(text))
    }

    /// One function: how it ended, its outputs, what it took.
    pub(super) fn function(&mut self, ran: &Ran) -> io::Result<()> {
        if self.json {
            let line = self.as_json(ran);
            return writeln!(self.out, "{line}");
        }
        let mut lines = vec![format!(
            "{}: {}{}",
            ran.function,
            summary(ran),
            if self.on_cpu { " (on the CPU)" } else { "" }
        )];
        let shown = lines_of(ran);
        lines.extend(shown.iter().take(LINES_SHOWN).map(|line| format!("  {}", cut(line))));
        if shown.len() > LINES_SHOWN {
            lines.push(format!("  ... {} more lines", shown.len() - LINES_SHOWN));
        }
        for failure in &ran.failures {
            lines.push(format!("  error: {}", failure.message));
        }
        if let Some(verdict) = ran.verdict.as_ref().filter(|verdict| verdict.end != End::Done) {
            lines.extend(stopped(verdict));
        }
        let calls = ran.receipt.host_calls.to_string();
        if !calls.is_empty() {
            lines.push(format!("  called {calls}"));
        }
        lines.push(format!("  {}", measures(ran)));
        lines.extend(ran.snapshot.as_ref().map(begins));
        for line in lines {
            let line = if self.terminal { printable(&line) } else { line };
            writeln!(self.out, "{line}")?;
        }
        Ok(())
    }

    /// Limits that fit, as lines for a `config.yaml`.
    pub(super) fn suggestion(&mut self, suggestion: &Suggestion) -> io::Result<()> {
        if self.json {
            let keys = suggestion.lines().map(|(_, key, value)| (key.to_owned(), value.into()));
            let keys: serde_json::Map<String, serde_json::Value> = keys.into_iter().collect();
            return writeln!(self.out, "{}", json!({ "suggested": keys }));
        }
        writeln!(self.out, "limits that fit one call at a time, with a fifth to spare:")?;
        for (section, key, value) in suggestion.lines() {
            writeln!(self.out, "  {section}.{key}: {value}")?;
        }
        writeln!(
            self.out,
            "for N calls at a time, N times that `cpu_memory`, and `max_concurrency: N`"
        )
    }

    fn as_json(&self, ran: &Ran) -> serde_json::Value {
        let outcome = ran.verdict.as_ref().map_or_else(Outcome::success, Outcome::from);
        let held: serde_json::Map<String, serde_json::Value> = ran
            .held
            .iter()
            .map(|(holder, bytes)| (holder.as_str().to_owned(), (*bytes).into()))
            .collect();
        let calls = ran.receipt.host_calls.iter();
        let host_calls: serde_json::Map<String, serde_json::Value> =
            calls.map(|(call, times)| (call.as_str().to_owned(), times.into())).collect();
        let unfit = ran.snapshot.as_ref().and_then(|snapshot| snapshot.as_ref().err());
        let snapshot = ran.snapshot.as_ref().and_then(|snapshot| snapshot.as_ref().ok());
        let trace = ran.verdict.as_ref().and_then(|verdict| verdict.trace.as_deref());
        json!({
            "function": ran.function,
            "ok": ran.is_ok(),
            "reason": outcome.reason,
            "text": outcome.text,
            "on_cpu_instead": self.on_cpu,
            "no_snapshot_because": unfit.map(ToString::to_string),
            "snapshot_bytes": snapshot.map(|snapshot| snapshot.bytes),
            "outputs": ran.outputs.iter().map(render::json).collect::<Vec<_>>(),
            "errors": ran.failures.iter().map(|error| &error.message).collect::<Vec<_>>(),
            "fuel": ran.receipt.fuel,
            "fuel_is_lower_bound": ran.receipt.fuel_is_lower_bound,
            "guest_cpu_us": micros(ran.receipt.guest_cpu),
            "cpu_wait_us": micros(ran.receipt.cpu_wait),
            "engine_cpu_us": micros(ran.receipt.engine_cpu),
            "device_us": micros(ran.receipt.device),
            "wall_us": micros(ran.wall),
            "computes": ran.receipt.computes,
            "memory_bytes_peak": ran.receipt.memory_bytes_peak,
            "held_bytes_peak": held,
            "bytes_in": ran.receipt.bytes_in,
            "bytes_out": ran.receipt.bytes_out,
            "host_calls": host_calls,
            "stack": trace.map(|trace| trace.frames.iter().map(frame).collect::<Vec<_>>()),
        })
    }
}

/// What each call begins with.
fn begins(snapshot: &Result<Snapshot, Unfit>) -> String {
    match snapshot {
        Ok(Snapshot { bytes: held, .. }) => {
            format!("  each call begins with a copy of the {} that this left", bytes(*held))
        }
        Err(unfit) => {
            format!("  load-model runs for each call, since no snapshot is taken: {unfit}")
        }
    }
}

/// The outputs as lines. The pieces of a text are joined.
fn lines_of(ran: &Ran) -> Vec<String> {
    let texts: Option<Vec<&str>> = ran.outputs.iter().map(render::only_text_of).collect();
    match texts {
        Some(texts) if ran.function == "generate" => {
            texts.concat().lines().map(str::to_owned).collect()
        }
        _ => ran
            .outputs
            .iter()
            .flat_map(|output| bars(output).unwrap_or_else(|| render::lines(output)))
            .collect(),
    }
}

/// Concepts as a bar each, where an output is nothing else.
fn bars(output: &api::Output) -> Option<Vec<String>> {
    let data = output.data.as_ref()?;
    let rest = api::Data { concepts: Vec::new(), metadata: None, ..data.clone() };
    if data.concepts.is_empty() || rest != api::Data::default() {
        return None;
    }
    let name = |concept: &api::Concept| {
        let name = if concept.name.is_empty() { &concept.id } else { &concept.name };
        name.chars().take(NAME_CHARS_SHOWN).collect::<String>()
    };
    let width = data.concepts.iter().map(|concept| name(concept).chars().count()).max()?;
    let line = |concept: &api::Concept| {
        let filled = (concept.value.clamp(0.0, 1.0) * BAR_CHARS as f32).round() as usize;
        let bar = "#".repeat(filled);
        format!("{:<width$}  {bar:<BAR_CHARS$}  {:.4}", name(concept), concept.value)
    };
    Some(data.concepts.iter().take(LINES_SHOWN + 1).map(line).collect())
}

fn cut(line: &str) -> String {
    match line.char_indices().nth(LINE_CHARS_SHOWN) {
        Some((end, _)) => format!("{}...", line.get(..end).unwrap_or_default()),
        None => line.to_owned(),
    }
}

fn summary(ran: &Ran) -> String {
    let outputs = match (ran.function.as_str(), ran.outputs.len()) {
        ("load-model", _) => String::new(),
        (_, 1) => ", 1 output".to_owned(),
        (_, count) => format!(", {count} outputs"),
    };
    match ran.verdict.as_ref().map(|verdict| &verdict.end) {
        None | Some(End::Done) if ran.failures.is_empty() => format!("ok{outputs}"),
        None | Some(End::Done) => format!("failed{outputs}"),
        Some(End::GuestError(_)) => format!("returned an error{outputs}"),
        Some(_) => format!("stopped{outputs}"),
    }
}

/// The kill report: which limit or trap, where the guest was, what it had done
/// last, and what to change.
fn stopped(verdict: &Verdict) -> Vec<String> {
    let outcome = Outcome::from(verdict);
    let mut lines = vec![match &verdict.end {
        End::Panic(message) => format!("  {}: {message}", outcome.reason),
        _ => format!("  {}: {}", outcome.reason, outcome.text),
    }];
    if let End::HostBug(text) = &verdict.end {
        lines.push(format!("  host      {text}"));
    }
    if let Some(key) = key_to_change(verdict) {
        lines.push(format!("  change    {key}"));
    }
    if let Some(trace) = verdict.trace.as_deref() {
        lines.extend(traced(trace, verdict));
    }
    lines
}

fn traced(trace: &Trace, verdict: &Verdict) -> Vec<String> {
    let mut lines = Vec::new();
    let last = trace.last_host_call.map_or("none of the world's functions", HostCall::as_str);
    lines.push(format!("  last call {last}"));
    let peak = verdict.receipt.memory_bytes_peak;
    lines.push(match verdict.phase {
        Phase::Load => {
            format!("  memory    {} at most, grown {} times", bytes(peak), trace.memory_growths)
        }
        Phase::Call => format!(
            "  memory    {} when it was called, {} at most, grown {} times",
            bytes(trace.memory_bytes_start),
            bytes(peak),
            trace.memory_growths
        ),
    });
    match trace.frames.as_slice() {
        [] => lines.push("  stack     it waited in the host".to_owned()),
        frames => {
            lines.push("  stack     innermost first".to_owned());
            let (authors, others) = authors_first(frames);
            lines.extend(authors.iter().map(|one| format!("    {}", frame(one))));
            if others > 0 {
                lines.push(format!("    and {others} of libraries; --json shows them"));
            }
        }
    }
    lines
}

/// The frames of the author's own source, and how many others there are; all of
/// them where none is the author's.
fn authors_first(frames: &[TraceFrame]) -> (Vec<&TraceFrame>, usize) {
    let is_of_library = |place: &str| LIBRARIES.iter().any(|part| place.contains(part));
    let is_authors =
        |frame: &&TraceFrame| frame.place.as_deref().is_some_and(|place| !is_of_library(place));
    let authors: Vec<_> = frames.iter().filter(is_authors).collect();
    match authors.len() {
        0 => (frames.iter().collect(), 0),
        count => (authors, frames.len() - count),
    }
}

fn frame(frame: &TraceFrame) -> String {
    match &frame.place {
        Some(place) => format!("{} at {place}", frame.function),
        None => frame.function.clone(),
    }
}

/// The key of `config.yaml` that sets the limit, where there is one.
fn key_to_change(verdict: &Verdict) -> Option<&'static str> {
    let Receipt { guest_cpu, engine_cpu, cpu_wait, .. } = verdict.receipt;
    match &verdict.end {
        End::FuelExhausted { .. } => Some(
            "inference_compute_info.cpu_limit, ringfence.call_timeout, or ringfence.max_fuel_per_call \
             where it is set",
        ),
        // It was held back for longer than it ran.
        End::DeadlinePassed if cpu_wait > (guest_cpu + engine_cpu).max(CPU_BURST) => {
            Some("inference_compute_info.cpu_limit, for which it waited, or ringfence.call_timeout")
        }
        End::DeadlinePassed => Some("ringfence.call_timeout"),
        End::MemoryLimit { holder: Holder::Device, .. } => {
            Some("inference_compute_info.accelerator_memory")
        }
        End::MemoryLimit { .. } => Some("inference_compute_info.cpu_memory"),
        End::OutputLimit { .. } => Some("ringfence.max_output_bytes"),
        End::Done
        | End::GuestError(_)
        | End::Trap(_)
        | End::Panic(_)
        | End::Exit(_)
        | End::Contract(_)
        | End::HandleLimit { .. }
        | End::HostcallLimit { .. }
        | End::Unread { .. }
        | End::Cancelled
        | End::DeviceLost(_)
        | End::WorkerDied(_)
        | End::HostBug(_) => None,
    }
}

fn measures(ran: &Ran) -> String {
    let receipt = &ran.receipt;
    let at_least = if receipt.fuel_is_lower_bound { "at least " } else { "" };
    let held: Vec<String> = ran
        .held
        .iter()
        .filter(|(holder, held)| *held > 0 && !matches!(holder, Holder::Table | Holder::Stack))
        .map(|(holder, held)| format!("{} {}", holder.as_str(), bytes(*held)))
        .collect();
    let mut parts = vec![
        format!("fuel {at_least}{}", grouped(receipt.fuel)),
        format!("CPU {}", time(receipt.guest_cpu)),
    ];
    if receipt.cpu_wait > Duration::ZERO {
        parts.push(format!("waited {} for its CPU limit", time(receipt.cpu_wait)));
    }
    if receipt.computes > 0 {
        parts.push(format!("engine {} in {} computes", time(receipt.engine_cpu), receipt.computes));
    }
    if receipt.device > Duration::ZERO {
        parts.push(format!("device {}", time(receipt.device)));
    }
    parts.push(held.join(", "));
    if receipt.bytes_in + receipt.bytes_out > 0 {
        parts.push(format!("{} B in, {} B out", receipt.bytes_in, receipt.bytes_out));
    }
    parts.push(format!("wall {}", time(ran.wall)));
    parts.join("; ")
}

/// A count in groups of three digits.
fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn time(time: Duration) -> String {
    format!("{time:.1?}")
}

/// Bytes in the largest binary unit that they fill.
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [(u32, &str); 3] = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    for (shift, unit) in UNITS {
        if bytes >> shift > 0 {
            return format!("{:.1} {unit}", bytes as f64 / (1_u64 << shift) as f64);
        }
    }
    format!("{bytes} B")
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn concepts_are_a_bar_each() {
        let concept =
            |id: &str, name: &str, value| api::Concept { id: id.into(), name: name.into(), value };
        let concepts = vec![concept("7", "seven", 0.5), concept("x", "", 1.0)];
        let data = api::Data { concepts, ..Default::default() };
        let output = api::Output { data: Some(data), ..Default::default() };
        assert_eq!(
            bars(&output).unwrap(),
            [
                "seven  ###############                 0.5000",
                "x      ##############################  1.0000"
            ]
        );
        assert_eq!(bars(&api::Output::default()), None);
    }

    #[test]
    fn the_authors_own_frames_are_shown_where_there_are_any() {
        let frame = |place: Option<&str>| TraceFrame {
            function: "f".into(),
            place: place.map(str::to_owned),
        };
        let all = [
            frame(Some("/rustc/1/library/core/src/panicking.rs:1")),
            frame(Some("/home/a/.cargo/registry/src/h/png-1.0.0/src/lib.rs:2")),
            frame(Some("/home/a/model/1/model.rs:3")),
            frame(None),
        ];
        let (shown, others) = authors_first(&all);
        assert_eq!((shown, others), (vec![&all[2]], 3));
        let (shown, others) = authors_first(&all[..2]);
        assert_eq!((shown.len(), others), (2, 0));
    }

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!(
            (grouped(0), grouped(999), grouped(1000)),
            ("0".into(), "999".into(), "1,000".into())
        );
        assert_eq!(grouped(12_345_678), "12,345,678");
        assert_eq!(
            (bytes(1023), bytes(1 << 20), bytes(3 << 29)),
            ("1023 B".into(), "1.0 MiB".into(), "1.5 GiB".into())
        );
    }
}
