//! What a component can do and where it comes from, read from its bytes.
//!
//! Owns the plain words for what is imported. Runs and compiles nothing.

use std::collections::BTreeSet;
use wasmparser::{Encoding, KnownCustom, Parser, Payload};

/// Most crates that are told, and the longest name and version of one.
const CRATES_MAX: usize = 10_000;
const CRATE_BYTES_MAX: usize = 128;

/// What a component says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Every interface that it imports, in its order.
    pub imports: Vec<String>,
    /// Every interface that it exports.
    pub exports: Vec<String>,
    /// Compilers, languages and tools that made it, with their versions.
    pub producers: BTreeSet<String>,
    /// Crates of a registry that its bytes name, with their versions. Rust
    /// leaves paths of sources where a panic may come from, so a crate that
    /// never panics is not told.
    pub crates: BTreeSet<String>,
}

/// The bytes are no WebAssembly component.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it is no WebAssembly component: {0}")]
pub struct NoComponent(String);

/// Reads a component's header and what its tools have left in it.
pub fn read(component: &[u8]) -> Result<Capabilities, NoComponent> {
    let broken = |error: wasmparser::BinaryReaderError| NoComponent(error.to_string());
    let mut found = Capabilities { crates: crates(component), ..Capabilities::default() };
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

/// The `NAME-VERSION` of each `registry/src/REGISTRY/NAME-VERSION/`.
fn crates(bytes: &[u8]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    // The last segments of a path, of which only these matter.
    let (mut registry, mut src, mut of_host): (&[u8], &[u8], &[u8]) = (b"", b"", b"");
    for name in bytes.split(|byte| matches!(byte, b'/' | b'\\')) {
        if registry.ends_with(b"registry")
            && src == b"src"
            && !of_host.is_empty()
            && found.len() < CRATES_MAX
        {
            found.extend(name_and_version(name));
        }
        (registry, src, of_host) = (src, of_host, name);
    }
    found
}

/// `serde_json-1.0.1` as `serde_json 1.0.1`.
fn name_and_version(segment: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(segment).ok().filter(|text| text.len() <= CRATE_BYTES_MAX)?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-+.".contains(c);
    // Both may have hyphens; a version begins with two numbers and their dots.
    let is_version = |version: &str| {
        let mut numbers = version.splitn(3, '.').take(2);
        version.matches('.').count() >= 2
            && numbers.all(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
    };
    let dashes = text.match_indices('-');
    let (name, version) = dashes
        .filter_map(|(dash, _)| Some((text.get(..dash)?, text.get(dash + 1..)?)))
        .find(|(_, version)| is_version(version))?;
    text.chars().all(is_plain).then(|| format!("{name} {version}"))
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
    fn crates_are_told_by_the_paths_of_their_sources() {
        let bytes = b"\x00/home/a/.cargo/registry/src/index.crates.io-1/png-0.18.1/src/x.rs\
            /cargo/registry/src/h/tar-rs-2-0.4.0-rc.1/src/registry/src/x/no-version/\
            registry/src/h/\xff-1.2.3/";
        let found: Vec<String> = crates(bytes).into_iter().collect();
        assert_eq!(found, ["png 0.18.1", "tar-rs-2 0.4.0-rc.1"]);
        assert_eq!(name_and_version(b"serde_json-1.0.1+x").unwrap(), "serde_json 1.0.1+x");
    }

    #[test]
    fn what_is_no_component_is_told() {
        assert!(read(b"\0asm\x01\0\0\0").unwrap_err().to_string().contains("core module"));
        assert!(read(b"text").is_err());
        assert_eq!(read(b"\0asm\x0d\0\x01\0").unwrap(), Capabilities::default());
    }
}
