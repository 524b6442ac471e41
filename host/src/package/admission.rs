//! What a component may import and must export, read from its header.
//!
//! Nothing is compiled or run here. wasmtime checks the types afterwards; this
//! names what is wrong in words that its author can act on.

use wasmparser::{ComponentExternalKind, Encoding, Parser, Payload};

/// Interfaces of WASI that are linked, in any version 0.2.x.
const WASI: &[&str] = &[
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stderr",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stderr",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/wall-clock",
    "wasi:filesystem/preopens",
    "wasi:filesystem/types",
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
    "wasi:random/random",
];

/// Interfaces that are linked in exactly one version.
const EXACT: &[&str] = &[
    "ringfence:model/types@0.1.0",
    "ringfence:model/context@0.1.0",
    "ringfence:model/streams@0.1.0",
    "wasi:nn/tensor@0.2.0-rc-2024-10-28",
    "wasi:nn/graph@0.2.0-rc-2024-10-28",
    "wasi:nn/inference@0.2.0-rc-2024-10-28",
    "wasi:nn/errors@0.2.0-rc-2024-10-28",
];

const RUNNER: &str = "ringfence:model/runner@0.1.0";

/// Bytes of a page of wasm's memory.
const PAGE_BYTES: u64 = 64 << 10;

/// Why a component is not admitted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdmissionError {
    /// Not WebAssembly at all, or broken.
    #[error(
        "1/model.wasm is not a WebAssembly component; build it again, with `ringfence build` ({0})"
    )]
    NotWasm(String),
    /// A core module.
    #[error(
        "1/model.wasm is a core module and no component; build it for wasm32-wasip2, \
         for instance with `ringfence build`"
    )]
    CoreModule,
    /// It imports what this host does not give.
    #[error(
        "1/model.wasm imports {}, which this host does not give to models; remove what needs it",
        named(.0)
    )]
    Imports(Vec<String>),
    /// It does not export the world's functions.
    #[error(
        "1/model.wasm does not export {RUNNER}; its author must implement the world model-runner"
    )]
    NoRunner,
    /// It starts with more memory than it may ever have.
    #[error(
        "1/model.wasm starts with {bytes} bytes of memory, and cpu_memory allows {bytes_max}; \
         raise cpu_memory"
    )]
    Memory {
        /// Bytes of one of its memories at the start.
        bytes: u64,
        /// The limit.
        bytes_max: u64,
    },
}

/// Checks a component against the world and against `cpu_memory`.
pub fn admit(component: &[u8], memory_bytes_max: u64) -> Result<(), AdmissionError> {
    let broken = |error: wasmparser::BinaryReaderError| AdmissionError::NotWasm(first_line(&error));
    let mut depth = 0_u32;
    let mut refused = Vec::new();
    let mut runner = false;
    for payload in Parser::new(0).parse_all(component) {
        match payload.map_err(broken)? {
            Payload::Version { encoding: Encoding::Module, .. } if depth == 0 => {
                return Err(AdmissionError::CoreModule);
            }
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    let name = import.map_err(broken)?.name.name;
                    if !is_linked(name) {
                        refused.push(name.to_owned());
                    }
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    let export = export.map_err(broken)?;
                    runner |= export.kind == ComponentExternalKind::Instance
                        && export.name.name == RUNNER;
                }
            }
            Payload::MemorySection(section) => {
                for memory in section {
                    let bytes = memory.map_err(broken)?.initial.saturating_mul(PAGE_BYTES);
                    if bytes > memory_bytes_max {
                        return Err(AdmissionError::Memory { bytes, bytes_max: memory_bytes_max });
                    }
                }
            }
            _ => {}
        }
    }
    match (refused.is_empty(), runner) {
        (false, _) => Err(AdmissionError::Imports(refused)),
        (true, false) => Err(AdmissionError::NoRunner),
        (true, true) => Ok(()),
    }
}

/// Every import that is admitted, in one version.
#[cfg(test)]
pub(crate) fn admitted() -> impl Iterator<Item = String> {
    let wasi = WASI.iter().map(|interface| format!("{interface}@0.2.0"));
    EXACT.iter().map(|interface| (*interface).to_owned()).chain(wasi)
}

/// What a parser's error says first; the rest is a dump of bytes.
fn first_line(error: &wasmparser::BinaryReaderError) -> String {
    error.to_string().lines().next().unwrap_or_default().trim_end_matches(':').to_owned()
}

/// Imports that are refused, with what usually causes them, once for those of
/// the same cause.
fn named(imports: &[String]) -> String {
    let same_cause = |a: &String, b: &String| culprit(a) == culprit(b);
    let group = |group: &[String]| {
        let names = group.join(", ");
        match group.first().and_then(|import| culprit(import)) {
            Some(culprit) => format!("{names} ({culprit})"),
            None => names,
        }
    };
    imports.chunk_by(same_cause).map(group).collect::<Vec<_>>().join(", ")
}

/// What in a guest's code usually asks for an interface.
fn culprit(import: &str) -> Option<&'static str> {
    const CULPRITS: &[(&str, &str)] = &[
        (
            "wasi:sockets/",
            "the standard library's `net`, or a crate that connects, such as tokio with `net`, ureq, reqwest",
        ),
        ("wasi:http/", "a crate that speaks HTTP, such as wstd, waki, reqwest"),
        ("wasi:threads", "std::thread, or a crate that starts threads, such as rayon"),
        ("wasi:clocks/timezone", "a crate that asks for the time zone"),
        ("wasi:keyvalue/", "bindings to a key-value store"),
        ("wasi:config/", "bindings to wasi:config; parameters come with each call"),
        ("wasi:nn/", "bindings to another version of wasi:nn than 0.2.0-rc-2024-10-28"),
        ("wasi:", "bindings to WASI that are not of 0.2, or the wasi crate itself"),
        ("ringfence:model/", "a guest crate of another version of the world"),
        ("env", "C code or wasm-bindgen, which expect a browser or a linker of their own"),
        (
            "__wbindgen",
            "wasm-bindgen, by a feature such as `js` of getrandom or `wasmbind` of chrono",
        ),
    ];
    CULPRITS.iter().find(|(prefix, _)| import.starts_with(prefix)).map(|(_, culprit)| *culprit)
}

fn is_linked(import: &str) -> bool {
    EXACT.contains(&import)
        || import.split_once('@').is_some_and(|(interface, version)| {
            version.starts_with("0.2.") && WASI.contains(&interface)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_linked_is_not_admitted() {
        assert!(is_linked("wasi:io/streams@0.2.9"));
        assert!(is_linked("wasi:nn/graph@0.2.0-rc-2024-10-28"));
        assert!(!is_linked("wasi:sockets/tcp@0.2.9"));
        assert!(!is_linked("wasi:http/types@0.2.9"));
        assert!(!is_linked("wasi:io/streams@0.3.0"));
        assert!(!is_linked("wasi:io/streams"));
    }

    #[test]
    fn a_refused_import_is_told_with_what_causes_it() {
        let refused = AdmissionError::Imports(vec![
            "wasi:sockets/tcp@0.2.9".to_owned(),
            "wasi:sockets/udp@0.2.9".to_owned(),
            "acme:odd/thing".to_owned(),
        ]);
        let text = refused.to_string();
        assert_eq!(text.matches("standard library").count(), 1, "{text}");
        assert!(
            text.contains("wasi:sockets/tcp@0.2.9, wasi:sockets/udp@0.2.9 (the standard library's"),
            "{text}"
        );
        assert!(text.contains(", acme:odd/thing, which"), "{text}");
    }

    /// PKG-01, PKG-02, and PKG-05 as far as exports are missing.
    #[test]
    fn bytes_that_are_no_component_are_refused() {
        let max = u64::MAX;
        assert_eq!(admit(b"\0asm\x01\0\0\0", max), Err(AdmissionError::CoreModule));
        assert_eq!(admit(b"\0asm\x0d\0\x01\0", max), Err(AdmissionError::NoRunner));
        for bytes in [&b""[..], b"(component)", b"\x7fELF\x02\x01\x01\0"] {
            assert!(matches!(admit(bytes, max), Err(AdmissionError::NotWasm(_))), "{bytes:?}");
        }
    }
}
