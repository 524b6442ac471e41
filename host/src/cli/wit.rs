//! `ringfence wit`: the world `model-runner` and what it imports, for projects
//! that do without our guest crate.

use super::embedded::{self, WIT};
use super::{GlobalArgs, Usage, WitArgs};
use anyhow::Context;
use std::io::Write;
use std::path::Path;

/// The world's own file. It may lie beside files of its package only.
const WORLD: &str = "model.wit";

pub(super) fn run(args: &WitArgs, global: &GlobalArgs) -> anyhow::Result<()> {
    let dir = &args.dir;
    if let Some(name) = stranger(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let text = format!(
            "{} holds {name}, of another package; remove it, or name another folder",
            dir.display()
        );
        return Err(Usage(text).into());
    }
    for file in WIT {
        let path = dir.join(file.path);
        match std::fs::read(&path) {
            Ok(there) if there == file.bytes => continue,
            Ok(_) => {
                let text = format!("{} differs from this version's; remove it", path.display());
                return Err(Usage(text).into());
            }
            Err(_) => embedded::write_new(&path, file.bytes)
                .with_context(|| format!("cannot write {}", path.display()))?,
        }
    }
    let mut out = std::io::stdout().lock();
    if global.json {
        let files: Vec<_> = WIT.iter().map(|file| dir.join(file.path)).collect();
        writeln!(out, "{}", serde_json::json!({ "files": files }))?;
    } else {
        let shown = dir.display();
        writeln!(out, "{shown}: package ringfence:model@0.1.0, world model-runner")?;
        writeln!(out, "\nfor cargo component, in Cargo.toml, with paths from there:\n")?;
        writeln!(out, "[package.metadata.component.target]\npath = \"{shown}\"")?;
        writeln!(out, "world = \"model-runner\"\n")?;
        writeln!(out, "[package.metadata.component.target.dependencies]")?;
        writeln!(out, "\"wasi:nn\" = {{ path = \"{shown}/deps/nn\" }}")?;
        writeln!(out, "\nfor wit-bindgen:\n")?;
        writeln!(out, "wit_bindgen::generate!({{")?;
        writeln!(
            out,
            "    path: \"{shown}\",\n    world: \"model-runner\",\n    generate_all,\n}});"
        )?;
    }
    Ok(())
}

/// A WIT file in the folder that is not ours: all of a folder's files are one
/// package.
fn stranger(dir: &Path) -> std::io::Result<Option<String>> {
    if !dir.exists() {
        return Ok(None);
    }
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".wit") && name != WORLD {
            return Ok(Some(name));
        }
    }
    Ok(None)
}
