//! The section `ringfence:`, which the other platform ignores.
//!
//! Owns its keys; all of it is ours, so a key that is not known is an error.

use crate::limits::{Batching, EngineName, Isolation, Limits};
use crate::yaml::{Entry, Form, Key, Section, Unknown, key};
use std::time::Duration;

const CALL_TIMEOUT_MIN: Duration = Duration::from_millis(1);
const CALL_TIMEOUT_MAX: Duration = Duration::from_hours(1);
const CONCURRENCY_MAX: u64 = 1024;
const OUTPUT_BYTES_MIN: u64 = 1 << 10;
const OUTPUT_BYTES_MAX: u64 = 1 << 30;
const ROWS_MAX: u64 = 1024;
const BATCH_WAIT_MIN: Duration = Duration::from_millis(1);
const BATCH_WAIT_MAX: Duration = Duration::from_secs(1);
/// What `batching` has where it does not say.
const BATCHING: Batching = Batching { rows_max: 8, wait_max: Duration::from_millis(2) };
/// Longest name of a graph.
const GRAPH_NAME_BYTES_MAX: usize = 256;

/// `ringfence`.
pub(super) const KEYS: [Key; 9] = [
    key(
        "isolation",
        Form::OneOf(&["call", "caller"]),
        "Who shares a sandbox: nobody, or calls of one caller",
    ),
    key(
        "call_timeout",
        Form::Duration(CALL_TIMEOUT_MIN, CALL_TIMEOUT_MAX),
        "Longest time of a call, such as \"30s\", up to \"1h\"",
    ),
    key("max_fuel_per_call", Form::Number(1, i64::MAX.unsigned_abs()), "Most fuel of a call"),
    key("max_concurrency", Form::Number(1, CONCURRENCY_MAX), "Most calls at a time"),
    key(
        "max_output_bytes",
        Form::Bytes(OUTPUT_BYTES_MIN, OUTPUT_BYTES_MAX),
        "Most bytes of a call's outputs, from \"1Ki\" to \"1Gi\"",
    ),
    key("engine", Form::OneOf(&EngineName::WORDS), "What runs the graphs"),
    key(
        "accelerator_cpu_nodes",
        Form::Texts,
        "Nodes of graphs that may be computed on the CPU though there is an accelerator",
    ),
    key("batching", Form::OwnSection(&BATCHING_KEYS), "Computes of several calls become one"),
    key(
        "graphs",
        Form::Names,
        "A graph's path below 1/ without .onnx: its name, or false to leave it out",
    ),
];

/// `ringfence.batching`.
const BATCHING_KEYS: [Key; 2] = [
    key("max_size", Form::Number(2, ROWS_MAX), "Most rows of the first axis together"),
    key(
        "max_wait",
        Form::Duration(BATCH_WAIT_MIN, BATCH_WAIT_MAX),
        "How long the first compute waits for others, such as \"2ms\"",
    ),
];

/// What `ringfence.graphs` says about one graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GraphRule {
    /// Path below `1/` without the extension.
    pub path: String,
    /// What becomes of it.
    pub action: GraphAction,
}

/// What becomes of a graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GraphAction {
    /// Guests open it by this name.
    Rename(String),
    /// It is no part of the package.
    LeaveOut,
}

/// Writes what the section says into the limits, and returns its graph rules.
pub(super) fn read(section: Option<Section>, limits: &mut Limits) -> Vec<GraphRule> {
    let Some(mut section) = section else { return Vec::new() };
    if let Some(entry) = section.text("isolation") {
        match entry.text.as_str() {
            "call" => limits.isolation = Isolation::Call,
            "caller" => limits.isolation = Isolation::Caller,
            _ => drop(entry.refuse::<()>("is not an isolation; write \"call\" or \"caller\"")),
        }
    }
    if let Some(entry) = section.text("engine") {
        limits.engine = EngineName::of(&entry.text)
            .or_else(|| entry.refuse("is not an engine; write \"tract\" or \"onnxruntime\""));
    }
    limits.accelerator_cpu_nodes = section.texts("accelerator_cpu_nodes");
    if let Some(mut batching) = section.section("batching") {
        let rows_max = batching.number("max_size", 2, ROWS_MAX);
        let rows_max = rows_max.and_then(|rows| u32::try_from(rows).ok());
        let wait_max = batching.duration("max_wait", BATCH_WAIT_MIN, BATCH_WAIT_MAX);
        batching.finish(&BATCHING_KEYS, Unknown::Refuse);
        limits.batching = Some(Batching {
            rows_max: rows_max.unwrap_or(BATCHING.rows_max),
            wait_max: wait_max.unwrap_or(BATCHING.wait_max),
        });
    }
    if let Some(timeout) = section.duration("call_timeout", CALL_TIMEOUT_MIN, CALL_TIMEOUT_MAX) {
        limits.call_timeout = timeout;
    }
    if let Some(fuel) = section.number("max_fuel_per_call", 1, i64::MAX.unsigned_abs()) {
        limits.fuel_per_call_max = Some(fuel);
    }
    if let Some(calls) = section.number("max_concurrency", 1, CONCURRENCY_MAX) {
        limits.concurrency_max = usize::try_from(calls).unwrap_or(usize::MAX);
    }
    if let Some(bytes) = section.bytes("max_output_bytes", OUTPUT_BYTES_MIN, OUTPUT_BYTES_MAX) {
        limits.output_bytes_max = bytes;
    }
    let rules = match section.section("graphs") {
        Some(graphs) => graphs.rest().into_iter().filter_map(rule).collect(),
        None => Vec::new(),
    };
    section.finish(&KEYS, Unknown::Refuse);
    rules
}

fn rule((path, entry): (String, Entry)) -> Option<GraphRule> {
    let action = match entry.text.as_str() {
        "false" => GraphAction::LeaveOut,
        name if is_graph_name(name) => GraphAction::Rename(name.to_owned()),
        _ => {
            return entry.refuse(
                "is not a graph's name; write a name such as \"digits\", or false to leave it out",
            );
        }
    };
    Some(GraphRule { path, action })
}

fn is_graph_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= GRAPH_NAME_BYTES_MAX
        && text != "true"
        && text.chars().all(|c| !c.is_control())
}
