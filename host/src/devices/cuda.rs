//! CUDA as it is installed: where its libraries and headers are, and what the driver reads of
//! the system.

use std::ffi::OsString;
use std::fmt;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Where its installers put it.
const USUAL: &str = "/usr/local/cuda";

/// Folders of libraries below one of CUDA's, where its packages put them.
const LIBRARIES: [&str; 3] = ["lib64", "lib", "targets/x86_64-linux/lib"];

/// Where containers have the driver's.
pub(super) const DRIVER: [&str; 2] = ["/usr/local/nvidia/lib64", "/usr/local/nvidia/lib"];

/// Folders of headers below it, likewise.
const HEADERS: [&str; 2] = ["include", "targets/x86_64-linux/include"];

/// Headers of the C++ library below those, newest place first.
const LIBRARY_HEADERS: [&str; 3] = ["cccl", "libcudacxx/include", "."];

/// Files that each of them has.
const HEADER: &str = "cuda_fp16.h";
const LIBRARY_HEADER: &str = "cuda/std/cstdint";

/// What the system's loader and the driver open, beside CUDA's own folders and the nodes of
/// devices. All of it is for reading, and none of it names a user or a model.
const SYSTEM: [&str; 23] = [
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/nvidia",
    "/etc/ld.so.cache",
    "/etc/nvidia",
    "/dev/urandom",
    "/proc/self",
    "/proc/driver/nvidia",
    "/proc/driver/nvidia-nvlink",
    "/proc/devices",
    "/proc/modules",
    "/proc/filesystems",
    "/proc/stat",
    "/proc/sys/vm/mmap_min_addr",
    "/proc/sys/vm/overcommit_memory",
    "/proc/meminfo",
    "/proc/cpuinfo",
    "/sys/bus/pci",
    "/sys/devices",
    "/sys/module",
    "/usr/share/nvidia",
];

/// Folders that CUDA is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cuda {
    folders: Vec<PathBuf>,
    /// Whether somebody has named them.
    are_named: bool,
}

impl Default for Cuda {
    fn default() -> Self {
        Self { folders: vec![USUAL.into()], are_named: false }
    }
}

impl Cuda {
    /// These; the usual one where there are none. Processes that begin elsewhere find them, too.
    pub fn of(folders: &[PathBuf]) -> Self {
        let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
        match folders {
            [] => Self::default(),
            folders => Self { folders: folders.iter().map(absolute).collect(), are_named: true },
        }
    }

    /// The folders that there are of them.
    pub fn folders(&self) -> impl Iterator<Item = &Path> {
        self.folders_named().filter(|folder| folder.is_dir())
    }

    fn folders_named(&self) -> impl Iterator<Item = &Path> {
        self.folders.iter().map(PathBuf::as_path)
    }

    /// What somebody has named that no host takes, each with why.
    pub fn problems(&self) -> impl Iterator<Item = (&Path, &'static str)> {
        let named = self.folders_named().filter(|_| self.are_named);
        named.filter_map(|folder| Some((folder, problem_of(folder)?)))
    }

    /// Where the loader finds libraries of it and of the driver, beside where it always looks.
    pub fn libraries(&self) -> Vec<PathBuf> {
        let below = |folder: &Path| LIBRARIES.map(|name| folder.join(name)).to_vec();
        let own = self.folders().flat_map(|folder| [vec![folder.to_owned()], below(folder)]);
        let all = DRIVER.map(PathBuf::from).into_iter().chain(own.flatten());
        all.filter(|folder| folder.is_dir()).collect()
    }

    /// Those, as the system's loader is told of them.
    pub fn loader_path(&self) -> OsString {
        // A folder with a colon is refused where folders are named.
        std::env::join_paths(self.libraries()).unwrap_or_default()
    }

    /// The folders of headers that a compiler for devices is told of, if they are there.
    pub fn headers(&self) -> Option<[PathBuf; 2]> {
        let all = self.folders().flat_map(|folder| HEADERS.map(|name| folder.join(name)));
        let headers = all.into_iter().find(|folder| folder.join(HEADER).is_file())?;
        let library = LIBRARY_HEADERS.map(|name| headers.join(name));
        let library = library.into_iter().find(|folder| folder.join(LIBRARY_HEADER).is_file())?;
        Some([headers, library])
    }

    /// A folder that nobody but its owner may enter, on the way to one of these, if there is one.
    pub fn closed(&self) -> Option<PathBuf> {
        let is_closed = |folder: &&Path| {
            std::fs::metadata(folder).is_ok_and(|metadata| metadata.mode() & 0o001 == 0)
        };
        let mut all = self.folders().flat_map(Path::ancestors);
        all.find(is_closed).map(Path::to_owned)
    }

    /// All that a process may read whose libraries these are.
    pub fn reads(&self) -> Vec<PathBuf> {
        let system = SYSTEM.iter().map(PathBuf::from).filter(|path| path.exists());
        system.chain(self.folders().map(PathBuf::from)).collect()
    }
}

/// What is wrong with a folder of libraries that the host's processes run.
fn problem_of(folder: &Path) -> Option<&'static str> {
    let Some(metadata) = folder.metadata().ok().filter(Metadata::is_dir) else {
        return Some("is no folder of CUDA's");
    };
    // The loader of libraries takes what is before and after it for two.
    if folder.as_os_str().as_encoded_bytes().contains(&b':') {
        return Some("has a colon in its name, as no folder of CUDA's may");
    }
    let is_everybodys = metadata.mode() & 0o002 != 0;
    is_everybodys.then_some("can be written to by everybody, as no folder of CUDA's may")
}

/// The folders that there are, for whoever looks for something in them.
impl fmt::Display for Cuda {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let folders: Vec<_> = self.folders().map(|folder| folder.display().to_string()).collect();
        f.write_str(&if folders.is_empty() { "any folder".to_owned() } else { folders.join(", ") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    fn with(files: &[&str]) -> tempfile::TempDir {
        let root = tempfile::TempDir::new().unwrap();
        for file in files {
            let path = root.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        root
    }

    #[test]
    fn headers_are_found_where_packages_put_them() {
        for (header, library) in [
            ("include/cuda_fp16.h", "include/cccl/cuda/std/cstdint"),
            ("include/cuda_fp16.h", "include/cuda/std/cstdint"),
            (
                "targets/x86_64-linux/include/cuda_fp16.h",
                "targets/x86_64-linux/include/libcudacxx/include/cuda/std/cstdint",
            ),
        ] {
            let root = with(&[header, library]);
            let cuda = Cuda::of(&["/nowhere".into(), root.path().into()]);
            let [headers, of_library] = cuda.headers().unwrap();
            assert!(headers.join(HEADER).is_file() && of_library.join(LIBRARY_HEADER).is_file());
        }
        assert!(Cuda::of(&["cuda".into()]).folders[0].is_absolute());
        let half = with(&["include/cuda_fp16.h"]);
        assert_eq!(Cuda::of(&[half.path().into()]).headers(), None);
    }

    #[test]
    fn a_folder_that_others_may_not_enter_is_found() {
        let root = with(&["open/cuda/lib/libcudart.so.13"]);
        let folder = root.path().join("open");
        let cuda = Cuda::of(&[folder.join("cuda")]);
        let mode = |mode| std::fs::set_permissions(&folder, Permissions::from_mode(mode)).unwrap();
        mode(0o755);
        assert_ne!(cuda.closed(), Some(folder.clone()));
        mode(0o700);
        assert_eq!(cuda.closed(), Some(folder.clone()));
    }

    #[test]
    fn only_folders_that_there_are_are_looked_into() {
        let root = with(&["lib/libcudart.so.13", "include/x.h"]);
        let cuda = Cuda::of(&["/nowhere".into(), root.path().into()]);
        let libraries = cuda.libraries();
        assert!(libraries.ends_with(&[root.path().to_owned(), root.path().join("lib")]));
        assert!(libraries.iter().all(|folder| folder.is_dir()), "{libraries:?}");
        assert_eq!(cuda.reads().last().unwrap(), root.path());
        assert!(cuda.reads().iter().all(|path| path.exists()));
    }
}
