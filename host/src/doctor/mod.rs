//! What a machine offers to a host, and what it lacks.
//!
//! Owns the findings. Looks only: makes nothing, asks no network, and holds the
//! data directory's lock for no longer than it takes to see that it is free.

mod data_dir;
mod devices;
mod jail;
mod resources;
mod system;
mod toolchain;

use crate::deploy::Amount;
use crate::devices::{Cuda, Devices};
use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Longest file of the kernel that is read.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// As it has to be, and worth knowing.
    Note,
    /// A host starts, but something will be missing.
    Warn,
    /// A host would not start.
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What it is about.
    pub topic: &'static str,
    /// How bad it is.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do; empty where there is nothing to be done.
    pub advice: String,
}

impl Finding {
    fn ok(topic: &'static str, found: impl Into<String>) -> Self {
        Self { topic, verdict: Verdict::Ok, found: found.into(), advice: String::new() }
    }

    fn warn(topic: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { topic, verdict: Verdict::Warn, found: found.into(), advice: advice.into() }
    }

    fn fail(topic: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { topic, verdict: Verdict::Fail, found: found.into(), advice: advice.into() }
    }
}

/// How the jail holds, by processes that were in it: a line for each layer, and what was
/// not refused. Where the jail is required, that keeps a host from starting.
pub fn of_jail(
    topic: &'static str,
    layers: &[String],
    failures: &[String],
    is_required: bool,
) -> Vec<Finding> {
    const ADVICE: &str = "a host that listens beyond loopback does not start without the layers \
                          that it requires";
    const REQUIRED: &str = "this host requires its jail, and does not start";
    let layer = |line: &String| match line.contains("missing:") {
        true => Finding::warn(topic, line, "see operating.md for what each layer needs"),
        false => Finding::ok(topic, line),
    };
    let failure = |line: &String| match is_required {
        true => Finding::fail(topic, line, REQUIRED),
        false => Finding::warn(topic, line, ADVICE),
    };
    layers.iter().map(layer).chain(failures.iter().map(failure)).collect()
}

/// What a process with accelerators has that others have not: a line for each.
pub fn of_what_is_given_up(given_up: &[&str]) -> Vec<Finding> {
    let line = |line: &&str| Finding {
        verdict: Verdict::Note,
        ..Finding::ok("given up with accelerators", *line)
    };
    given_up.iter().map(line).collect()
}

/// Where to look.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// The root of the file system: `/`.
    pub root: PathBuf,
    /// The data directory of the host that is meant.
    pub data_dir: PathBuf,
    /// Folders with programs, as in `PATH`.
    pub path: OsString,
    /// Where libraries may be beside the usual folders, as in `LD_LIBRARY_PATH`.
    pub ld_library_path: OsString,
    /// ONNX Runtime's library, where a host is told to use one.
    pub onnxruntime: Option<PathBuf>,
    /// The accelerators that there are.
    pub devices: Devices,
    /// Where a host looks for CUDA.
    pub cuda: Cuda,
}

impl Surroundings {
    /// The text of a file of the kernel, without what is around it.
    fn read(&self, path: &str) -> Option<String> {
        let file = std::fs::File::open(self.at(path)).ok()?;
        let mut text = String::new();
        file.take(FILE_BYTES_MAX).read_to_string(&mut text).ok()?;
        Some(text.trim().to_owned())
    }

    fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }
}

/// What there is for replicas: CPUs and memory as far as control groups leave
/// them to this process, less what the host itself needs.
pub fn machine() -> Amount {
    resources::machine(&Surroundings {
        root: PathBuf::from("/"),
        data_dir: PathBuf::new(),
        path: OsString::new(),
        ld_library_path: OsString::new(),
        onnxruntime: None,
        devices: Devices::default(),
        cuda: Cuda::default(),
    })
}

/// The first two numbers of a kernel's release, as `/proc/sys/kernel/osrelease` has it.
pub fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse().ok());
    Some((numbers.next()?, numbers.next()?))
}

/// Looks at everything.
pub fn examine(surroundings: &Surroundings) -> Vec<Finding> {
    let mut findings =
        vec![Finding::ok("program", format!("ringfence {}", env!("CARGO_PKG_VERSION")))];
    findings.extend(toolchain::examine(surroundings));
    findings.extend(resources::examine(surroundings));
    findings.extend(system::examine(surroundings));
    findings.extend(jail::examine(surroundings));
    findings.extend(devices::examine(surroundings));
    findings.extend(data_dir::examine(surroundings));
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    /// A root of a file system with some files.
    pub(super) struct Root(TempDir);

    impl Root {
        pub(super) fn with(files: &[(&str, &str)]) -> Self {
            let root = TempDir::new().unwrap();
            for (path, content) in files {
                let path = root.path().join(path);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, content).unwrap();
            }
            Self(root)
        }

        pub(super) fn surroundings(&self) -> Surroundings {
            Surroundings {
                root: self.0.path().to_owned(),
                data_dir: self.0.path().join("data"),
                path: OsString::new(),
                ld_library_path: OsString::new(),
                onnxruntime: None,
                devices: Devices::default(),
                cuda: Cuda::default(),
            }
        }
    }

    #[test]
    fn a_jail_that_does_not_hold_keeps_a_host_from_starting_that_requires_it() {
        let verdicts = |is_required| {
            let found = of_jail("jail", &["user: held".into()], &["it could".into()], is_required);
            found.iter().map(|finding| finding.verdict).collect::<Vec<_>>()
        };
        assert_eq!(verdicts(true), [Verdict::Ok, Verdict::Fail]);
        assert_eq!(verdicts(false), [Verdict::Ok, Verdict::Warn]);
    }

    #[test]
    fn a_machine_that_tells_nothing_is_told_as_such() {
        let findings = examine(&Root::with(&[]).surroundings());
        assert!(findings.iter().all(|finding| !finding.found.is_empty()), "{findings:?}");
        let advised = |finding: &&Finding| finding.verdict != Verdict::Ok;
        assert!(findings.iter().filter(advised).all(|finding| !finding.advice.is_empty()));
        assert!(findings.iter().all(|finding| finding.verdict != Verdict::Fail), "{findings:?}");
    }
}
