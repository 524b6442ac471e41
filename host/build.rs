//! Compiles the protocol files without an installed `protoc`, and gathers the
//! files that `ringfence new`, `ringfence wit` and `ringfence demo` write.

use prost::Message;
use std::error::Error;
use std::fmt::Write;
use std::path::{Path, PathBuf};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    protocols(&out)?;
    embedded(&out)
}

fn protocols(out: &Path) -> Result<()> {
    let root = PathBuf::from("../proto");
    let files = ["clarifai/api/service.proto", "ringfence/v1/operations.proto"];
    for folder in ["clarifai/api", "clarifai/api/status", "ringfence/v1"] {
        println!("cargo::rerun-if-changed=../proto/{folder}");
    }
    let descriptors = protox::compile(files, [&root])?;
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        // What is large stays where it was received.
        .bytes(".clarifai.api")
        .compile_fds(descriptors)?;
    Ok(())
}

/// Each table, its folder, and what of that is in it.
const TABLES: [(&str, &str, &[&str]); 4] = [
    ("SDK", "guests/sdk", &[""]),
    ("TEMPLATES", "guests/template", &[""]),
    ("EXAMPLES", "guests", &["Cargo.toml", "Cargo.lock", "echo", "digits", "scribe"]),
    ("WIT", "wit", &[""]),
];

/// Makes tables from paths below a folder to contents.
fn embedded(out: &Path) -> Result<()> {
    let root = Path::new(&std::env::var("CARGO_MANIFEST_DIR")?).join("..").canonicalize()?;
    let mut code = String::new();
    for (table, folder, below) in TABLES {
        let folder = root.join(folder);
        let mut paths = Vec::new();
        for path in below {
            match folder.join(path).is_file() {
                true => paths.push(path.into()),
                false => walk(&folder, Path::new(path), &mut paths)?,
            }
        }
        paths.sort();
        writeln!(code, "pub(super) const {table}: &[File] = &[")?;
        for path in &paths {
            let full = folder.join(path);
            println!("cargo::rerun-if-changed={}", full.display());
            writeln!(code, "    File {{ path: {path:?}, bytes: include_bytes!({full:?}) }},")?;
        }
        writeln!(code, "];")?;
    }
    std::fs::write(out.join("embedded.rs"), code)?;
    Ok(())
}

/// The files below a folder, but for what building leaves there and what a
/// network was made with.
fn walk(root: &Path, below: &Path, paths: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(root.join(below))? {
        let name = entry?.file_name();
        let path = below.join(&name);
        match name.to_str() {
            Some("target" | "Cargo.lock" | "model.wasm" | "training") => {}
            _ if root.join(&path).is_dir() => walk(root, &path, paths)?,
            _ => paths.push(path),
        }
    }
    Ok(())
}
