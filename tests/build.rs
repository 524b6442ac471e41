//! Compiles every guest and lays each out as a model folder that can be
//! served. What it finds becomes constants, so that a guest without a test is a
//! test that does not compile.

use std::collections::BTreeMap;
use std::error::Error;
use std::ffi::OsStr;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const TARGET: &str = "wasm32-wasip2";

fn main() -> Result<()> {
    let guests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../guests").canonicalize()?;
    let models = find_models(&guests)?;
    for path in watched(&guests)? {
        println!("cargo::rerun-if-changed={}", path.display());
    }
    println!("cargo::rerun-if-changed=../wit");

    add_target()?;
    compile(&guests)?;

    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let laid_out = out.join("models");
    let mut constants = String::new();
    for (name, folder) in &models {
        let destination = laid_out.join(name);
        lay_out(&package_name(folder)?, folder, &guests, &destination)?;
        let constant = name.replace('-', "_").to_uppercase();
        writeln!(constants, "/// The model folder of the guest `{name}`.")?;
        writeln!(constants, "pub const {constant}: &str = {destination:?};")?;
    }
    writeln!(constants, "/// Every guest: its name as an identifier, and its folder.")?;
    writeln!(constants, "pub const ALL: &[(&str, &str)] = &[")?;
    for name in models.keys() {
        let identifier = name.replace('-', "_");
        writeln!(constants, "    ({identifier:?}, {}),", identifier.to_uppercase())?;
    }
    writeln!(constants, "];")?;
    writeln!(constants, "/// Calls a macro with the name of every guest.")?;
    writeln!(constants, "#[macro_export]\nmacro_rules! foreach_guest {{\n    ($each:ident) => {{")?;
    for name in models.keys() {
        writeln!(constants, "        $crate::__each!($each {});", name.replace('-', "_"))?;
    }
    writeln!(constants, "    }};\n}}")?;
    writeln!(
        constants,
        "#[doc(hidden)]\n#[macro_export]\nmacro_rules! __each {{\n    ($each:ident $name:ident) => {{ $each!($name); }};\n}}"
    )?;
    fs::write(out.join("guests.rs"), constants)?;
    Ok(())
}

/// Every folder with a `config.yaml`, by its name.
fn find_models(guests: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let mut models = BTreeMap::new();
    for parent in [guests.to_path_buf(), guests.join("template"), guests.join("hostile")] {
        for entry in fs::read_dir(parent)? {
            let folder = entry?.path();
            if folder.join("config.yaml").is_file() {
                let name = folder.file_name().and_then(OsStr::to_str).ok_or("odd folder name")?;
                models.insert(name.to_owned(), folder.clone());
            }
        }
    }
    Ok(models)
}

/// The name of the crate in a model folder.
fn package_name(folder: &Path) -> Result<String> {
    let manifest = folder.join("Cargo.toml");
    let text = fs::read_to_string(&manifest)?;
    let name = text.lines().find_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'));
    Ok(name.ok_or_else(|| format!("{} names no package", manifest.display()))?.to_owned())
}

/// Everything below `guests` but what cargo writes there.
fn watched(guests: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(guests)? {
        let path = entry?.path();
        if path.file_name() != Some(OsStr::new("target")) {
            paths.push(path);
        }
    }
    Ok(paths)
}

fn add_target() -> Result<()> {
    let rustup = || Command::new("rustup");
    let Ok(listed) = clean(rustup()).args(["target", "list", "--installed"]).output() else {
        println!("cargo::warning=there is no rustup; {TARGET} has to be installed already");
        return Ok(());
    };
    if String::from_utf8_lossy(&listed.stdout).lines().any(|line| line == TARGET) {
        return Ok(());
    }
    println!("cargo::warning=adding the target {TARGET} with rustup");
    let added = clean(rustup()).args(["target", "add", TARGET]).status()?;
    match added.success() {
        true => Ok(()),
        false => Err(format!("`rustup target add {TARGET}` failed").into()),
    }
}

fn compile(guests: &Path) -> Result<()> {
    let cargo = std::env::var_os("CARGO").ok_or("cargo does not say where it is")?;
    let status = clean(Command::new(cargo))
        .current_dir(guests)
        .args(["build", "--release", "--locked", "--target", TARGET])
        .status()?;
    match status.success() {
        true => Ok(()),
        false => Err("the guests do not compile".into()),
    }
}

/// Guests are built as their authors build them, without what this build says
/// of itself in the environment.
fn clean(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        let Some(text) = name.to_str() else { continue };
        let ours = text.starts_with("CARGO") || text.starts_with("RUSTC") || text == "RUSTFLAGS";
        if ours && text != "CARGO_HOME" {
            command.env_remove(name);
        }
    }
    command
}

/// Copies what an author's folder holds, and the compiled component.
fn lay_out(name: &str, folder: &Path, guests: &Path, destination: &Path) -> Result<()> {
    if destination.exists() {
        fs::remove_dir_all(destination)?;
    }
    fs::create_dir_all(destination)?;
    fs::copy(folder.join("config.yaml"), destination.join("config.yaml"))?;
    copy(&folder.join("1"), &destination.join("1"))?;
    let file = format!("{}.wasm", name.replace('-', "_"));
    let built = guests.join("target").join(TARGET).join("release").join(file);
    fs::copy(&built, destination.join("1/model.wasm"))
        .map_err(|error| format!("{}: {error}", built.display()))?;
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        let target = to.join(path.file_name().ok_or("a file without a name")?);
        match path.is_dir() {
            true => copy(&path, &target)?,
            false => {
                fs::copy(&path, &target)?;
            }
        }
    }
    Ok(())
}
