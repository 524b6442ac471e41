//! A guest's stack, in names that its author knows.

use crate::call::TraceFrame;
use crate::text::escape_controls;
use wasmtime::WasmBacktrace;

/// The frames that wasmtime attached to an error, innermost first. Inlined
/// functions have frames of their own.
pub(super) fn frames(error: &wasmtime::Error) -> Vec<TraceFrame> {
    let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() else { return Vec::new() };
    let mut frames = Vec::new();
    for frame in backtrace.frames() {
        if frame.symbols().is_empty() {
            let function = frame.func_name().map_or_else(|| "?".to_owned(), escape_controls);
            frames.push(TraceFrame { function, place: None });
        }
        for symbol in frame.symbols() {
            let function = symbol.name().or(frame.func_name()).unwrap_or("?");
            let place = symbol.file().map(|file| match symbol.line() {
                Some(line) => escape_controls(&format!("{file}:{line}")),
                None => escape_controls(file),
            });
            frames.push(TraceFrame { function: escape_controls(function), place });
        }
    }
    frames
}
