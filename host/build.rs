//! Compiles the protocol files without an installed `protoc`, and gathers the
//! files that `ringfence new` and `ringfence wit` write.

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
        // A part of an upload stays where it was received.
        .bytes(".clarifai.api.UploadContentPart.data")
        .compile_fds(descriptors)?;
    Ok(())
}

/// Makes a table of each of three folders, from paths below it to contents.
fn embedded(out: &Path) -> Result<()> {
    let root = Path::new(&std::env::var("CARGO_MANIFEST_DIR")?).join("..").canonicalize()?;
    let mut code = String::new();
    for (table, folder) in [("SDK", "guests/sdk"), ("TEMPLATES", "guests/template"), ("WIT", "wit")]
    {
        let folder = root.join(folder);
        let mut paths = Vec::new();
        walk(&folder, Path::new(""), &mut paths)?;
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

/// The files below a folder, but for what building leaves there.
fn walk(root: &Path, below: &Path, paths: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(root.join(below))? {
        let name = entry?.file_name();
        let path = below.join(&name);
        match name.to_str() {
            Some("target" | "Cargo.lock" | "model.wasm") => {}
            _ if root.join(&path).is_dir() => walk(root, &path, paths)?,
            _ => paths.push(path),
        }
    }
    Ok(())
}
