//! The layers of the host: what each module must not name.

use ringfence_tests::files_below;
use std::path::{Path, PathBuf};

/// A module below `host/src`, and words that no line of its code may hold.
const FORBIDDEN: &[(&str, &[&str])] = &[
    ("cli", &["wasmtime::", "tract_"]),
    ("server", &["wasmtime::", "tract_", "std::fs", "cap_std", "rusqlite"]),
    ("settings", &["wasmtime::", "tract_", "tonic::", "crate::deploy", "crate::store"]),
    ("doctor", &["wasmtime::", "tract_", "tonic::", "std::net", "tokio::"]),
    ("yaml", &["wasmtime::", "tract_", "tonic::", "tokio::", "std::fs", "crate::settings"]),
    ("auth", &["wasmtime::", "tract_", "crate::deploy", "crate::worker", "crate::package::folder"]),
    ("devices", &["tract_", "tonic::", "wasmtime::", "crate::deploy", "crate::nn", "crate::proto"]),
    (
        "fetch",
        &[
            "wasmtime::",
            "tract_",
            "tonic::",
            "std::fs",
            "std::env",
            "rusqlite",
            "crate::auth",
            "crate::call",
            "crate::deploy",
            "crate::proto",
            "crate::sandbox",
            "crate::store",
            "crate::worker",
        ],
    ),
    ("package", &["tract_", "tonic::", "tokio::net", "std::net", "wasmtime::"]),
    ("store", &["tract_", "tonic::", "crate::proto", "wasmtime::"]),
    ("deploy", &["tract_", "tonic::", "wasmtime::", "crate::proto"]),
    ("upload", &["wasmtime::", "tract_", "tonic::", "crate::proto", "rusqlite"]),
    ("worker", &["tract_", "tonic::", "crate::proto", "wasmtime::"]),
    ("sandbox", &["tonic::", "crate::auth", "crate::store", "crate::proto", "tract_"]),
    ("nn", &["tonic::", "crate::proto", "std::fs", "crate::store"]),
    // Its values are laid out for guests; what is done with them there is done elsewhere.
    (
        "call",
        &["tonic::", "wasmtime::Engine", "wasmtime::Store", "Linker", "crate::proto", "tract_"],
    ),
    ("limits.rs", &["tonic::", "wasmtime::", "crate::proto", "tract_"]),
    ("text.rs", &["tonic::", "wasmtime::", "crate::", "tract_"]),
    ("telemetry", &["tonic::", "wasmtime::", "crate::proto", "tract_"]),
    ("proto", &["wasmtime::", "crate::sandbox", "tract_"]),
];

/// The files below a folder, or the one file.
fn sources(path: &Path) -> Vec<PathBuf> {
    if path.is_dir() { files_below(path) } else { vec![path.to_path_buf()] }
}

/// Whether the code has the word, and not only as the end of another.
fn names(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(at, _)| {
        !code[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_')
    })
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn no_module_names_what_is_not_its_own() {
    let mut offences = Vec::new();
    for (module, words) in FORBIDDEN {
        let files = sources(&root().join("host/src").join(module));
        assert!(!files.is_empty(), "{module}");
        // Tests are nobody's layer.
        for file in files.into_iter().filter(|file| !file.to_string_lossy().ends_with("tests.rs")) {
            let text = std::fs::read_to_string(&file).unwrap();
            for (number, line) in text.lines().enumerate() {
                let code = line.split("//").next().unwrap();
                for word in words.iter().filter(|word| names(code, word)) {
                    offences.push(format!("{}:{}: {word}", file.display(), number + 1));
                }
            }
        }
    }
    assert!(offences.is_empty(), "{}", offences.join("\n"));
}

/// The hub's files belong to one command; a host never asks for them.
#[test]
fn only_the_checkpoints_of_an_author_are_fetched() {
    let files = sources(&root().join("host/src"));
    let mut named = 0;
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let is_named = ["ureq::", "hf_hub::", "checkpoints::ensure"]
            .iter()
            .any(|word| text.lines().any(|line| names(line.split("//").next().unwrap(), word)));
        let path = file.display().to_string();
        let may = path.contains("cli/checkpoints") || path.ends_with("cli/build.rs");
        assert!(may || !is_named, "{path}");
        named += usize::from(is_named);
    }
    assert!(named > 2, "the words are of today");
}

/// Who connects to others: the fetch of URLs, and the client commands.
#[test]
fn only_the_fetch_of_urls_reaches_out_from_a_host() {
    let files = sources(&root().join("host/src"));
    let words = ["TcpStream::connect", "TcpSocket", "UdpSocket", "hyper::client", "TlsConnector"];
    let mut named = 0;
    for file in files {
        let path = file.display().to_string();
        if path.contains("host/src/cli") || path.ends_with("tests.rs") {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        let is_named =
            |word: &&str| text.lines().any(|line| names(line.split("//").next().unwrap(), word));
        let found: Vec<_> = words.iter().filter(|word| is_named(word)).collect();
        // What the jail refuses is tried, too.
        let may = path.contains("host/src/fetch") || path.ends_with("jail/linux/acts.rs");
        assert!(may || found.is_empty(), "{path}: {found:?}");
        named += found.len();
    }
    assert!(named > 3, "the words are of today");
}

/// OPS-11: what has a deadline is measured by a clock that does not jump. The
/// time of day is read in one file; another reads when a file was written.
#[test]
fn the_time_of_day_is_read_in_one_place() {
    let mut readers = Vec::new();
    for file in sources(&root().join("host/src")) {
        let text = std::fs::read_to_string(&file).unwrap();
        let mut code = text.lines().map(|line| line.split("//").next().unwrap());
        if code.any(|code| names(code, "SystemTime")) {
            let path = file.display().to_string();
            readers.push(path.rsplit_once("host/src/").unwrap().1.to_owned());
        }
    }
    readers.sort();
    assert_eq!(readers, ["clock.rs", "telemetry/version_log/files.rs"]);
}

#[test]
fn every_file_says_what_it_owns() {
    let files = sources(&root().join("host/src"));
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("//!"), "{}", file.display());
    }
}
