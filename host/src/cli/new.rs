//! `ringfence new`: a model folder from a template, with the guest crate beside
//! it, so that nothing outside the folder but a crate registry is needed.

use super::embedded::{self, File, SDK, TEMPLATES};
use super::{GlobalArgs, NewArgs, Usage};
use anyhow::Context;
use clap::ValueEnum;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Where the guest crate lies, as the templates say it and as a folder does.
const SDK_IN_TEMPLATE: &str = "../../sdk";
const SDK_IN_FOLDER: &str = "sdk";
/// Where a template and a new folder have the schema of `config.yaml`.
const SCHEMA_IN_TEMPLATE: &str = "$schema=../../sdk/config.schema.json";
const SCHEMA_IN_FOLDER: &str = "$schema=./sdk/config.schema.json";

/// What the manifest of a folder has beyond its template's: it belongs to no
/// workspace above it, and a release build is what the host runs.
const MANIFEST_END: &str = r#"
# This folder is a workspace of its own, whatever it lies in.
[workspace]

# Whole-program optimisation pays: the host compiles what comes out, and its time
# is charged to the model. Names and lines are for reports of what went wrong.
[profile.release]
opt-level = 3
lto = "fat"
codegen-units = 1
debug = "line-tables-only"
"#;

const IGNORED: &str =
    "/target\n/1/model.wasm\n/1/checkpoints/\n/.checkpoints.new/\n/.checkpoints.old/\n";

/// Names of crates that a model's own must not have.
const RESERVED: [&str; 6] = ["ringfence-guest", "core", "std", "alloc", "test", "image"];

/// Bytes of a model's id.
const ID_BYTES_MAX: usize = 64;

/// The templates, named by what goes in and what comes out: `model_type_id`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Template {
    /// A text to a text
    #[default]
    TextToText,
    /// A picture to concepts
    VisualClassifier,
    /// A picture to regions
    VisualDetector,
    /// A text to a vector
    TextEmbedder,
    /// Sound to a text
    AudioToText,
    /// Anything to anything
    AnyToAny,
}

impl Template {
    fn name(self) -> &'static str {
        match self {
            Self::TextToText => "text-to-text",
            Self::VisualClassifier => "visual-classifier",
            Self::VisualDetector => "visual-detector",
            Self::TextEmbedder => "text-embedder",
            Self::AudioToText => "audio-to-text",
            Self::AnyToAny => "any-to-any",
        }
    }
}

pub(super) fn run(args: &NewArgs, global: &GlobalArgs) -> anyhow::Result<()> {
    let dir = std::path::absolute(&args.dir)
        .with_context(|| format!("cannot find {}", args.dir.display()))?;
    let id = id_of(&dir)?;
    if std::fs::read_dir(&dir).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(Usage(format!("{} is not empty; name a new folder", dir.display())).into());
    }
    create(args.kind, &id, &dir).with_context(|| format!("cannot make {}", dir.display()))?;

    let mut out = std::io::stdout().lock();
    if global.json {
        writeln!(out, "{}", serde_json::json!({ "path": dir, "id": id }))?;
        return Ok(());
    }
    let shown = quoted(&args.dir);
    writeln!(out, "{shown}: model `{id}` of type {}", args.kind.name())?;
    writeln!(out, "next: ringfence build {shown}")?;
    writeln!(out, "      ringfence test {shown}")?;
    writeln!(out, "      ringfence serve --model {shown}")?;
    Ok(())
}

/// A path as it can be pasted into a shell.
fn quoted(path: &Path) -> String {
    let path = path.display().to_string();
    match path.chars().all(|c| c.is_ascii_alphanumeric() || "/._-~".contains(c)) {
        true => path,
        false => format!("'{}'", path.replace('\'', r"'\''")),
    }
}

/// The model's id, which is the folder's name; the crate has it too.
fn id_of(dir: &Path) -> Result<String, Usage> {
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    let fits =
        name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b))
            && name.starts_with(|first: char| first.is_ascii_lowercase())
            && name.len() <= ID_BYTES_MAX;
    match fits && !RESERVED.contains(&&*name) {
        true => Ok(name.into_owned()),
        false => Err(Usage(format!(
            "{name:?} cannot be a model's id, which the folder's name becomes; begin it with a \
             letter, and use lower-case letters, digits, `-` and `_`, at most {ID_BYTES_MAX}"
        ))),
    }
}

/// Writes the folder beside its place and renames it, so that it is whole or
/// not there.
fn create(kind: Template, id: &str, dir: &Path) -> anyhow::Result<()> {
    let parent = dir.parent().context("it has no parent")?;
    std::fs::create_dir_all(parent)?;
    let folder = tempfile::Builder::new().prefix(".ringfence-new-").tempdir_in(parent)?;
    for (path, bytes) in files(kind, id) {
        let path = folder.path().join(path);
        embedded::write_new(&path, &bytes)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    allow_others(folder.path())?;
    std::fs::rename(folder.path(), dir)?;
    // It has moved, so there is nothing to remove any more.
    let _ = folder.keep();
    Ok(())
}

/// A temporary folder is private; what an author makes is not.
fn allow_others(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))
}

/// Every file of the folder, by its path in it.
fn files(kind: Template, id: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let prefix = format!("{}/", kind.name());
    let of_template = TEMPLATES.iter().filter_map(|file| {
        let path = file.path.strip_prefix(&prefix)?;
        Some((PathBuf::from(path), adapted(kind, id, path, file)))
    });
    let of_sdk = SDK.iter().map(|file| (Path::new("sdk").join(file.path), file.bytes.to_vec()));
    let ignored = (PathBuf::from(".gitignore"), IGNORED.as_bytes().to_vec());
    of_template.chain(of_sdk).chain([ignored]).collect()
}

/// A file of a template under the new name. Only texts that name the template
/// change.
fn adapted(kind: Template, id: &str, path: &str, file: &File) -> Vec<u8> {
    let text = String::from_utf8_lossy(file.bytes);
    let name = kind.name();
    match path {
        "Cargo.toml" => {
            let text = text
                .replace(&format!("name = \"{name}\""), &format!("name = \"{id}\""))
                .replace(&format!("local:{name}"), &format!("local:{}", id.replace('_', "-")))
                .replace(SDK_IN_TEMPLATE, SDK_IN_FOLDER);
            format!("{text}{MANIFEST_END}").into_bytes()
        }
        "config.yaml" => text
            .replacen(SCHEMA_IN_TEMPLATE, SCHEMA_IN_FOLDER, 1)
            .replacen(&format!("\n  id: {name} "), &format!("\n  id: {id} "), 1)
            .into_bytes(),
        "README.md" => text.replacen(&format!("# {name}\n"), &format!("# {id}\n"), 1).into_bytes(),
        _ => file.bytes.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::package::config::Config;

    #[test]
    fn every_template_takes_the_folders_name() {
        for kind in Template::value_variants() {
            let files = files(*kind, "my_model-2");
            let text = |wanted: &str| {
                let file = files.iter().find(|(path, _)| path == Path::new(wanted));
                let (_, bytes) = file.unwrap_or_else(|| panic!("{kind:?} has no {wanted}"));
                String::from_utf8(bytes.clone()).unwrap()
            };
            let manifest = text("Cargo.toml");
            assert!(manifest.contains("name = \"my_model-2\""), "{manifest}");
            assert!(manifest.contains("path = \"sdk\""), "{manifest}");
            assert!(manifest.contains("\"local:my-model-2\""), "{manifest}");
            let config = Config::parse(&text("config.yaml")).unwrap();
            assert_eq!(config.name.id(), "my_model-2");
            assert_eq!(config.model_type_id, kind.name());
            let first = "# yaml-language-server: $schema=./sdk/config.schema.json\n";
            assert!(text("config.yaml").starts_with(first), "{kind:?}");
            assert!(text("sdk/config.schema.json").contains("\"$schema\""), "{kind:?}");
            assert!(text("README.md").starts_with("# my_model-2\n"));
            assert!(text("README.md").lines().count() <= 10);
            assert!(text("1/model.rs").lines().count() < 40, "{kind:?}");
            assert!(text("sdk/wit/model.wit").contains("world model-runner"));
            assert!(files.iter().any(|(path, _)| {
                path.to_str().is_some_and(|path| path.starts_with("example."))
            }));
            assert!(!files.iter().any(|(path, _)| path.ends_with("model.wasm")));
        }
    }

    #[test]
    fn an_id_is_made_of_a_folders_name() {
        for (dir, id) in [("/x/hello", "hello"), ("/x/my_model-2", "my_model-2")] {
            assert_eq!(id_of(Path::new(dir)).unwrap(), id);
        }
        for dir in ["/", "/x/7up", "/x/-", "/x/my model", "/x/Größe", "/x/ringfence-guest"] {
            assert!(id_of(Path::new(dir)).is_err(), "{dir}");
        }
        assert!(id_of(&Path::new("/").join("a".repeat(65))).is_err());
    }

    #[test]
    fn a_folder_that_holds_something_is_left_alone() {
        let dir = tempfile::TempDir::new().unwrap();
        std::fs::write(dir.path().join("mine"), "x").unwrap();
        let args = NewArgs { dir: dir.path().to_owned(), kind: Template::TextToText };
        let global = GlobalArgs::default();
        assert!(run(&args, &global).unwrap_err().is::<Usage>());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
