//! What a component can do and where it comes from, read from its bytes.
//!
//! Owns the plain words for what is imported. Runs and compiles nothing.

use std::collections::BTreeSet;
use wasmparser::{Encoding, KnownCustom, Parser, Payload};

/// What a component says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Every interface that it imports, in its order.
    pub imports: Vec<String>,
    /// Every interface that it exports.
    pub exports: Vec<String>,
    /// Compilers, languages and tools that made it, with their versions.
    pub producers: BTreeSet<String>,
}

/// The bytes are no WebAssembly component.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it is no WebAssembly component: {0}")]
pub struct NoComponent(String);

/// Reads a component's header and what its tools have left in it.
pub fn read(component: &[u8]) -> Result<Capabilities, NoComponent> {
    let broken = |error: wasmparser::BinaryReaderError| NoComponent(error.to_string());
    let mut found = Capabilities::default();
    let mut depth = 0_u32;
    for payload in Parser::new(0).parse_all(component) {
        match payload.map_err(broken)? {
            Payload::Version { encoding: Encoding::Module, .. } if depth == 0 => {
                return Err(NoComponent("it is a core module".to_owned()));
            }
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    found.imports.push(import.map_err(broken)?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    found.exports.push(export.map_err(broken)?.name.name.to_owned());
                }
            }
            Payload::CustomSection(section) => {
                if let KnownCustom::Producers(fields) = section.as_known() {
                    for field in fields {
                        for value in field.map_err(broken)?.values {
                            let value = value.map_err(broken)?;
                            let made_by = format!("{} {}", value.name, value.version);
                            found.producers.insert(crate::text::escape_controls(made_by.trim()));
                        }
                    }
                }
            }
            _ => {}
        }
    }
    Ok(found)
}

/// What an import lets a guest do, for somebody who has never read WIT; nothing
/// for one that only declares types.
pub fn in_words(import: &str) -> Option<&'static str> {
    let interface = import.split('@').next().unwrap_or(import);
    Some(match interface {
        "ringfence:model/types" | "wasi:io/error" | "wasi:nn/errors" => return None,
        "ringfence:model/context" => {
            "may ask for its own name, concepts, graphs and assets, read its assets, and log"
        }
        "ringfence:model/streams" => "may read the messages of its call and answer them",
        "wasi:nn/tensor" | "wasi:nn/graph" | "wasi:nn/inference" => "may run graphs of its package",
        "wasi:filesystem/types" | "wasi:filesystem/preopens" => "may read its own /model files",
        "wasi:clocks/monotonic-clock" | "wasi:clocks/wall-clock" => {
            "may ask the time, in steps of a millisecond"
        }
        "wasi:random/random" | "wasi:random/insecure" | "wasi:random/insecure-seed" => {
            "may ask for random numbers"
        }
        "wasi:io/poll" | "wasi:io/streams" => "may wait",
        "wasi:cli/environment" => "may ask for variables and arguments; there are none",
        "wasi:cli/exit" => "may end its own call",
        "wasi:cli/stdin" => "may read standard input; it is closed",
        "wasi:cli/stdout" | "wasi:cli/stderr" => "may write to the log",
        "wasi:cli/terminal-input"
        | "wasi:cli/terminal-output"
        | "wasi:cli/terminal-stdin"
        | "wasi:cli/terminal-stdout"
        | "wasi:cli/terminal-stderr" => "may ask whether there is a terminal; there is none",
        _ => "asks for something that this host does not give",
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::package::admission;

    #[test]
    fn everything_that_is_admitted_has_words() {
        for import in admission::admitted() {
            let words = in_words(&import).unwrap_or_default();
            assert!(!words.contains("does not give"), "{import}");
        }
        assert!(in_words("wasi:sockets/tcp@0.2.0").unwrap().contains("does not give"));
    }

    #[test]
    fn what_is_no_component_is_told() {
        assert!(read(b"\0asm\x01\0\0\0").unwrap_err().to_string().contains("core module"));
        assert!(read(b"text").is_err());
        assert_eq!(read(b"\0asm\x0d\0\x01\0").unwrap(), Capabilities::default());
    }
}
