//! Compiles the protocol files without an installed `protoc`.

use prost::Message;
use std::error::Error;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from("../proto");
    let files = ["clarifai/api/service.proto"];
    for folder in ["clarifai/api", "clarifai/api/status"] {
        println!("cargo::rerun-if-changed=../proto/{folder}");
    }
    let descriptors = protox::compile(files, [&root])?;

    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
