//! A guest's stack, in names that its author knows.

use crate::call::TraceFrame;
use crate::text::{cut, escape_controls};
use wasmtime::WasmBacktrace;

/// Longest name of a function; generic ones go on for lines.
const NAME_BYTES_MAX: usize = 120;

/// A function's name as its author wrote it.
fn readable(name: &str) -> String {
    let mut name = escape_controls(&format!("{:#}", rustc_demangle::demangle(name)));
    if name.len() > NAME_BYTES_MAX {
        cut(&mut name, NAME_BYTES_MAX);
        name.push('…');
    }
    name
}

/// The frames that wasmtime attached to an error, innermost first. Inlined
/// functions have frames of their own.
pub(super) fn frames(error: &wasmtime::Error) -> Vec<TraceFrame> {
    let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() else { return Vec::new() };
    let mut frames = Vec::new();
    for frame in backtrace.frames() {
        if frame.symbols().is_empty() {
            let function = frame.func_name().map_or_else(|| "?".to_owned(), readable);
            frames.push(TraceFrame { function, place: None });
        }
        for symbol in frame.symbols() {
            let function = symbol.name().or(frame.func_name()).unwrap_or("?");
            let place = symbol.file().map(|file| match symbol.line() {
                Some(line) => escape_controls(&format!("{file}:{line}")),
                None => escape_controls(file),
            });
            frames.push(TraceFrame { function: readable(function), place });
        }
    }
    frames
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_were_written() {
        assert_eq!(
            readable("_ZN4core9panicking5panic17h0123456789abcdefE"),
            "core::panicking::panic"
        );
        assert_eq!(readable("_RNvCs1234_7mycrate3foo"), "mycrate::foo");
        assert_eq!(readable("main"), "main");
        assert!(readable(&"x".repeat(1000)).len() < 130);
    }
}
