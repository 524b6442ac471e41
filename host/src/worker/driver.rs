//! What a process has beside others that is to use the driver of a device.
//!
//! Owns what that reads and reaches, and what it takes of the machine.

use super::jail::JailError;
use crate::devices::Device;
use rustix::fs::{Mode, OFlags};
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// What a driver's libraries take of the machine beside: memory, of which they map more than
/// they use, threads, and descriptors.
pub(super) const BYTES: u64 = 4 << 30;
pub(super) const THREADS: u64 = 32;
pub(super) const FILES: u64 = 256;

/// Where it names its threads, and fails if it cannot.
const THREADS_FOLDER: &str = "/proc/self/task";

/// How what a rule is about is opened: elsewhere than on Linux there are no rules.
#[cfg(target_os = "linux")]
const OPENED: OFlags = OFlags::PATH;
#[cfg(not(target_os = "linux"))]
const OPENED: OFlags = OFlags::RDONLY;

/// What a process reads and reaches that is to use the driver of a device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Driver {
    /// Files, and folders with all that is in them.
    pub reads: Vec<PathBuf>,
    /// The nodes of its devices.
    pub nodes: Vec<PathBuf>,
}

/// Those, open.
#[derive(Default)]
pub(super) struct OpenDriver {
    pub(super) reads: Vec<OwnedFd>,
    pub(super) nodes: Vec<OwnedFd>,
}

/// Most libraries beside one that are loaded with it.
const BESIDE_MAX: usize = 64;

/// Libraries in the folder of one, which loads them when it needs them: those alone, whatever
/// else is there.
pub(super) fn libraries_beside(library: &Path) -> Vec<PathBuf> {
    let folder = library.canonicalize().ok();
    let folder = folder.as_deref().and_then(Path::parent);
    let entries = folder.and_then(|folder| std::fs::read_dir(folder).ok()).into_iter().flatten();
    let is_library = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with("lib") && name.contains(".so") && path.is_file()
    };
    let paths = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    paths.filter(is_library).take(BESIDE_MAX).collect()
}

impl Driver {
    /// The same, which reaches these devices.
    pub(super) fn reaching<'a>(self, devices: impl IntoIterator<Item = &'a Device>) -> Self {
        let nodes = devices.into_iter().flat_map(|device| device.nodes.iter().cloned());
        Self { nodes: nodes.chain([THREADS_FOLDER.into()]).collect(), ..self }
    }

    /// As arguments of the process.
    pub(super) fn arguments(&self) -> Vec<OsString> {
        let pairs = |name: &'static str, paths: &[PathBuf]| {
            let pair = |path: &PathBuf| [name.into(), path.clone().into_os_string()];
            paths.iter().flat_map(pair).collect::<Vec<OsString>>()
        };
        let Self { reads, nodes } = self;
        let named = [pairs("--driver-reads", reads), pairs("--driver-node", nodes)];
        ["--driver".into()].into_iter().chain(named.concat()).collect()
    }

    /// Opens it all.
    pub(super) fn open(&self) -> Result<OpenDriver, JailError> {
        let one = |path: &PathBuf| {
            rustix::fs::open(path, OPENED | OFlags::CLOEXEC, Mode::empty())
                .map_err(|errno| JailError::Driver { path: path.clone(), source: errno.into() })
        };
        let all = |paths: &[PathBuf]| paths.iter().map(one).collect::<Result<_, _>>();
        Ok(OpenDriver { reads: all(&self.reads)?, nodes: all(&self.nodes)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_is_beside_a_library_only_libraries_are_read() {
        let folder = tempfile::TempDir::new().unwrap();
        for name in ["libonnxruntime.so.1", "libonnxruntime_providers_cuda.so", "secret.key", "lib"]
        {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        std::fs::create_dir(folder.path().join("lib.so.d")).unwrap();
        let mut beside = libraries_beside(&folder.path().join("libonnxruntime.so.1"));
        beside.sort_unstable();
        let libraries = ["libonnxruntime.so.1", "libonnxruntime_providers_cuda.so"];
        let folder = folder.path().canonicalize().unwrap();
        assert_eq!(beside, libraries.map(|name| folder.join(name)));
        assert!(libraries_beside(Path::new("/nowhere/libonnxruntime.so")).is_empty());
    }
}
