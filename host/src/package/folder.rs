//! A model folder on disk to a `Package`.
//!
//! Owns which files are read, how much of them, and the version's id. Reads
//! `config.yaml` and what is below `1/`, and nothing else; follows no symbolic
//! link. Writes nothing but a private copy of the assets.

mod files;

#[cfg(test)]
mod tests;

pub use files::version_of;

use super::checkpoint::{self, Lock};
use super::config::{CONFIG_BYTES_MAX, Checkpoints, Config, ConfigError, GraphAction, Labels};
use super::{AssetFile, Assets, AssetsFolder, GraphFile, Package};
use crate::limits::limit;
use bytes::Bytes;
use cap_std::ambient_authority;
use cap_std::fs::Dir;
use files::Listing;
use std::io;
use std::path::{Path, PathBuf};

/// Largest `1/model.wasm`.
pub const COMPONENT_BYTES_MAX: u64 = 64 << 20;
/// Largest graph: protobuf, which ONNX is, goes no further.
pub const GRAPH_BYTES_MAX: u64 = 2 << 30;
/// Largest package, all files together.
pub const PACKAGE_BYTES_MAX: u64 = 16 << 30;
/// Most files and folders below `1/`.
pub const ENTRIES_MAX: usize = 4096;
/// Most graphs; each is an open file of a replica.
pub const GRAPHS_MAX: usize = 256;
/// Deepest nesting of folders below `1/`.
pub const DEPTH_MAX: usize = 16;
/// Longest path of a file, in bytes.
pub const PATH_BYTES_MAX: usize = 512;

const CONFIG: &str = CONFIG_PATH;
const CODE: &str = "1";
const SOURCE: &str = "model.rs";
const COMPONENT: &str = "model.wasm";
/// What every package has.
pub const REQUIRED: [&str; 2] = [CONFIG, COMPONENT_PATH];
/// Where the configuration is.
pub const CONFIG_PATH: &str = "config.yaml";
/// Where the component is.
pub const COMPONENT_PATH: &str = "1/model.wasm";
const GRAPH_EXTENSION: &str = ".onnx";

/// Why a folder is no package. Each text names the file and the fix.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// The folder itself cannot be opened.
    #[error("cannot open the model folder {path}; give the folder that holds config.yaml")]
    Open {
        /// As it was given.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no such file.
    #[error(
        "{path} is missing; a model folder has config.yaml and a folder 1, as `ringfence new` makes it"
    )]
    Missing {
        /// Below the model folder.
        path: String,
    },
    /// The model logic has not been built.
    #[error("1/model.wasm is missing in {}; run `ringfence build {}`", folder.display(), folder.display())]
    NotBuilt {
        /// The model folder.
        folder: PathBuf,
    },
    /// The weights that the config file names have not been fetched.
    #[error("the checkpoint {repo_id} is not in 1/checkpoints of {}; run `ringfence build {}`", folder.display(), folder.display())]
    NoCheckpoint {
        /// The model folder.
        folder: PathBuf,
        /// The repository on the hub.
        repo_id: String,
    },
    /// What is in 1/checkpoints is of something else.
    #[error("1/checkpoints of {} is of other `checkpoints` than those of config.yaml; run `ringfence build {}`", folder.display(), folder.display())]
    OtherCheckpoint {
        /// The model folder.
        folder: PathBuf,
    },
    /// The file that says what 1/checkpoints is of cannot be read.
    #[error("checkpoints.lock is not as `ringfence build` writes it; remove it and build again")]
    Lock,
    /// The config file is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The config file is no text.
    #[error("config.yaml is not UTF-8; save it as UTF-8")]
    ConfigEncoding,
    /// A link could lead anywhere.
    #[error("{path} is a symbolic link; put the file itself there")]
    Symlink {
        /// Below the model folder.
        path: String,
    },
    /// A socket, a device or such.
    #[error("{path} is neither a file nor a folder; remove it")]
    Special {
        /// Below the model folder.
        path: String,
    },
    /// A name that cannot be told to a guest or shown.
    #[error(
        "{path:?} has a name that is not plain text of up to {PATH_BYTES_MAX} bytes; rename it"
    )]
    Name {
        /// Below the model folder.
        path: String,
    },
    /// A file or all of them are too large.
    #[error("{path} has more than {bytes_max} bytes; make it smaller")]
    TooLarge {
        /// Below the model folder; `1` for all together.
        path: String,
        /// What is allowed.
        bytes_max: u64,
    },
    /// There are too many files.
    #[error("there are more than {ENTRIES_MAX} files and folders below 1; put fewer there")]
    TooMany,
    /// There are too many graphs.
    #[error("there are more than {GRAPHS_MAX} graphs; leave some out in `ringfence.graphs`")]
    TooManyGraphs,
    /// Folders are nested too deep.
    #[error("{path} is more than {DEPTH_MAX} folders deep; move it up")]
    TooDeep {
        /// Below the model folder.
        path: String,
    },
    /// A rule of `ringfence.graphs` is about no file.
    #[error(
        "config.yaml: `ringfence.graphs` names {path:?}, but there is no 1/{path}.onnx; correct the name"
    )]
    NoSuchGraph {
        /// The rule's path.
        path: String,
    },
    /// Two graphs would have the same name.
    #[error("two graphs are called {name:?}; rename one of them in `ringfence.graphs`")]
    SameGraphName {
        /// That name.
        name: String,
    },
    /// A file changed while it was read.
    #[error("{path} changed while it was read; try again when nothing writes to the folder")]
    Changed {
        /// Below the model folder.
        path: String,
    },
    /// Reading failed.
    #[error("cannot read {path}")]
    Read {
        /// Below the model folder.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The private copy of the assets cannot be written.
    #[error("cannot write a copy of the assets below {path}; check its space and permissions")]
    Scratch {
        /// The scratch folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// How the assets come into their private folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taking {
    /// As copies: somebody else may write to the model folder.
    Copy,
    /// As further names of the same files, which nobody else can write to.
    Link,
    /// Not at all: they are only read.
    Nothing,
}

/// Reads a model folder. The assets are taken into a private folder below
/// `scratch`, which must exist; it goes when the package is dropped.
pub fn open(dir: &Path, scratch: &Path, taking: Taking) -> Result<Package, FolderError> {
    let Looked { text, asked, code, names } = look_at(dir)?;
    let mut listing = Listing::default();
    let text = Config::without_secrets(&text)?;
    listing.add(CONFIG, text.as_bytes())?;
    let config = Config::parse_beside(&text, labels(&code, &names)?)?;
    let config = Config { notes: asked.notes, ..config };
    let scratch_error = |source| FolderError::Scratch { path: scratch.to_owned(), source };
    let folder = AssetsFolder::make(scratch).map_err(scratch_error)?;
    let copies =
        Dir::open_ambient_dir(folder.path(), ambient_authority()).map_err(scratch_error)?;

    let mut component = Bytes::new();
    let mut graphs = Graphs {
        rules: &config.graphs,
        unused: config.graphs.iter().map(|r| &*r.path).collect(),
        found: vec![],
    };
    let mut files = Vec::new();
    for name in names {
        let path = format!("{CODE}/{name}");
        let found = files::Found { code: &code, name: &name, path: &path };
        if name == SOURCE {
            continue;
        } else if name == COMPONENT {
            let bytes_max = limit("component_bytes", COMPONENT_BYTES_MAX);
            component = files::read(&code, &name, &path, bytes_max)?.into();
            listing.add(&path, &component)?;
        } else if let Some(stem) = name.strip_suffix(GRAPH_EXTENSION) {
            if let Some(called) = graphs.called(stem)? {
                if graphs.found.len() >= limit("package_graphs", GRAPHS_MAX) {
                    return Err(FolderError::TooManyGraphs);
                }
                let bytes_max = limit("graph_bytes", GRAPH_BYTES_MAX);
                let content = found.take_graph(taking, bytes_max, &mut listing)?;
                let folder = stem.rfind('/').map_or("", |end| stem.get(..=end).unwrap_or_default());
                let folder = folder.to_owned();
                graphs.found.push(GraphFile { name: called, folder, content });
            }
        } else {
            let size = found.take_asset(taking, &copies, scratch, &mut listing)?;
            files.push(AssetFile { name, size });
        }
    }
    let graphs = graphs.finish()?;
    let listing = listing.finish();
    let listed = listing.iter().map(|file| (file.path.as_str(), file.bytes, &file.sha256));
    Ok(Package {
        config,
        version: version_of(listed),
        component,
        graphs,
        assets: Assets { folder, files },
        listing,
    })
}

/// Whether a folder is one that [`open`] may take: its `config.yaml` is right, it
/// is built and its checkpoint is there. Reads no other content.
pub fn look(dir: &Path) -> Result<(), FolderError> {
    look_at(dir).map(drop)
}

/// Cuts tokens and secrets out of the `config.yaml` of a folder that is the
/// host's own, so that it is the file that [`open`] has listed.
pub fn cut_secrets(dir: &Path) -> Result<(), FolderError> {
    let root = Dir::open_ambient_dir(dir, ambient_authority())
        .map_err(|source| FolderError::Open { path: dir.to_owned(), source })?;
    let text = config_text(&root)?;
    let without = Config::without_secrets(&text)?;
    if without == text {
        return Ok(());
    }
    let written = root.remove_file(CONFIG).and_then(|()| root.write(CONFIG, without));
    written.map_err(|source| FolderError::Scratch { path: dir.to_owned(), source })
}

/// What is seen of a folder at first.
struct Looked {
    /// `config.yaml` as it was written.
    text: String,
    asked: Config,
    code: Dir,
    /// Below `1/`.
    names: Vec<String>,
}

fn look_at(dir: &Path) -> Result<Looked, FolderError> {
    let root = Dir::open_ambient_dir(dir, ambient_authority())
        .map_err(|source| FolderError::Open { path: dir.to_owned(), source })?;
    let text = config_text(&root)?;
    // Everything is said about the text as it was written, before a secret is
    // cut out of it; what is packaged never had one.
    let asked = Config::parse(&text)?;
    let code = open_code(&root)?;
    let names = files::walk(&code)?;
    if !names.iter().any(|name| name == COMPONENT) {
        return Err(FolderError::NotBuilt { folder: dir.to_owned() });
    }
    if let Some(checkpoints) = &asked.checkpoints {
        has_checkpoint(dir, &root, &code, &names, checkpoints)?;
    }
    Ok(Looked { text, asked, code, names })
}

/// Whether 1/checkpoints is there, and of what the config file says. One that
/// was put there by hand is as good as a fetched one.
fn has_checkpoint(
    dir: &Path,
    root: &Dir,
    code: &Dir,
    names: &[String],
    checkpoints: &Checkpoints,
) -> Result<(), FolderError> {
    let folder = || dir.to_owned();
    let absent = || {
        let repo_id = checkpoints.repo_id.clone();
        Err(FolderError::NoCheckpoint { folder: folder(), repo_id })
    };
    if !names.iter().any(|name| in_checkpoint(name).is_some()) {
        return absent();
    }
    match lock(root)? {
        Some(lock) if !lock.is_of(checkpoints) => {
            Err(FolderError::OtherCheckpoint { folder: folder() })
        }
        Some(lock) if !is_complete(code, &lock) => absent(),
        _ => Ok(()),
    }
}

/// Whether every file of a lock is below `1/` in its length.
fn is_complete(code: &Dir, lock: &Lock) -> bool {
    lock.files.iter().all(|file| {
        let path = format!("{}/{}", checkpoint::FOLDER, file.name);
        code.symlink_metadata(path).is_ok_and(|there| there.is_file() && there.len() == file.size)
    })
}

/// Whether a model folder has every file of a lock, in its length.
pub fn has_files_of(root: &Dir, lock: &Lock) -> bool {
    open_code(root).is_ok_and(|code| is_complete(&code, lock))
}

/// The text of `config.yaml`, of a length that is read.
pub fn config_text(root: &Dir) -> Result<String, FolderError> {
    match files::read(root, CONFIG, CONFIG, CONFIG_BYTES_MAX as u64) {
        Ok(bytes) => String::from_utf8(bytes).map_err(|_| FolderError::ConfigEncoding),
        Err(FolderError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Err(FolderError::Missing { path: CONFIG.to_owned() })
        }
        Err(error) => Err(error),
    }
}

/// The names of all files below `1/`, with `/` between their parts; none where
/// there is no such folder.
pub fn names(root: &Dir) -> Result<Vec<String>, FolderError> {
    match open_code(root) {
        Ok(code) => files::walk(&code),
        Err(FolderError::Missing { .. }) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// The path in `1/checkpoints` of a file below `1/`, if it is one of the
/// checkpoint.
pub fn in_checkpoint(name: &str) -> Option<&str> {
    name.strip_prefix(checkpoint::FOLDER)?.strip_prefix('/')
}

/// Reads `checkpoints.lock` of a model folder, if it has one.
pub fn lock(root: &Dir) -> Result<Option<Lock>, FolderError> {
    match files::read(root, checkpoint::LOCK, checkpoint::LOCK, checkpoint::FILE_BYTES_MAX) {
        Ok(bytes) => match serde_json::from_slice::<Lock>(&bytes) {
            Ok(lock) if lock.is_plain() => Ok(Some(lock)),
            _ => Err(FolderError::Lock),
        },
        Err(FolderError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The labels of the checkpoint on disk.
fn labels(code: &Dir, names: &[String]) -> Result<Labels, FolderError> {
    if !names.iter().any(|name| in_checkpoint(name).is_some()) {
        return Ok(Labels::NotThere);
    }
    let name = checkpoint::CONFIG;
    if !names.iter().any(|there| there == name) {
        return Ok(Labels::There(Ok(Vec::new())));
    }
    let path = format!("{CODE}/{name}");
    let bytes = files::read(code, name, &path, checkpoint::FILE_BYTES_MAX)?;
    Ok(Labels::There(checkpoint::labels(&bytes)))
}

fn open_code(root: &Dir) -> Result<Dir, FolderError> {
    let path = || CODE.to_owned();
    match root.symlink_metadata(CODE) {
        Ok(metadata) if metadata.is_symlink() => Err(FolderError::Symlink { path: path() }),
        Ok(metadata) if metadata.is_dir() => {
            root.open_dir(CODE).map_err(|source| FolderError::Read { path: path(), source })
        }
        Ok(_) => Err(FolderError::Missing { path: path() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(FolderError::Missing { path: path() })
        }
        Err(source) => Err(FolderError::Read { path: path(), source }),
    }
}

/// The graphs of a package, and the rules that are about none yet.
struct Graphs<'a> {
    rules: &'a [super::config::GraphRule],
    unused: Vec<&'a str>,
    found: Vec<GraphFile>,
}

impl Graphs<'_> {
    /// What guests call the graph, or nothing when it is left out.
    fn called(&mut self, stem: &str) -> Result<Option<String>, FolderError> {
        self.unused.retain(|path| *path != stem);
        let name = match self.rules.iter().find(|rule| rule.path == stem).map(|rule| &rule.action) {
            Some(GraphAction::LeaveOut) => return Ok(None),
            Some(GraphAction::Rename(name)) => name.as_str(),
            None => stem,
        };
        if self.found.iter().any(|graph| graph.name == name) {
            return Err(FolderError::SameGraphName { name: name.to_owned() });
        }
        Ok(Some(name.to_owned()))
    }

    fn finish(self) -> Result<Vec<GraphFile>, FolderError> {
        match self.unused.first() {
            Some(path) => Err(FolderError::NoSuchGraph { path: (*path).to_owned() }),
            None => Ok(self.found),
        }
    }
}
