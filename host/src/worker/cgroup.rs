//! Control groups, version 2, for the parent: limits for all of a worker together, which
//! the worker cannot leave. It works beneath a directory that somebody has delegated,
//! such as systemd with `Delegate=yes`.

use rustix::fs::getxattr;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Attributes of a directory by which systemd says that it is delegated.
const MARKS: [&str; 2] = ["trusted.delegate", "user.delegate"];

/// The controllers that limits need.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

/// Over how long CPU time is shared out, in microseconds: the kernel's own default.
const PERIOD_US: u64 = 100_000;

/// The least that the kernel takes as a quota, in microseconds.
const QUOTA_US_MIN: u64 = 1_000;

/// What a worker may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Quota {
    /// Thousandths of a CPU.
    pub(super) cpu_millis: u64,
    /// Memory of all kinds, including that of the kernel for it.
    pub(super) memory_bytes: u64,
    /// Threads.
    pub(super) pids_max: u64,
}

/// Why there is no control group.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// The machine has none of version 2, or the process is in none of them.
    #[error("this process is in no control group of version 2")]
    None,
    /// They are elsewhere, beside those of version 1, which has the controllers.
    #[error("there are no control groups of version 2 in {0:?}")]
    Mounted(PathBuf),
    /// It is somebody else's to divide.
    #[error("nobody has delegated the control group {0:?} to this process (systemd: Delegate=yes)")]
    NotDelegated(PathBuf),
    /// It is there, but without what limits need.
    #[error("the control group {0:?} lacks the controller {1}")]
    Controller(PathBuf, &'static str),
    /// The name would lead elsewhere.
    #[error("{0:?} is no name for a control group")]
    Name(String),
    /// A file of it could not be read or written.
    #[error("{0:?} cannot be used")]
    File(PathBuf, #[source] io::Error),
}

/// The control group of one worker. It is removed when this is dropped, with whatever
/// still runs in it.
#[derive(Debug)]
pub(super) struct Cgroup(PathBuf);

/// Makes the control group of this process ready for those of workers, if somebody has
/// delegated it to this process: what runs beside it is nobody's to move.
pub(super) fn prepare() -> Result<PathBuf, CgroupError> {
    let root = delegated(Path::new("/sys/fs/cgroup"), &read(Path::new("/proc/self/cgroup"))?)?;
    divide(&root)?;
    Ok(root)
}

/// Whether this process may divide its control group, below a root directory; nothing is
/// changed.
pub fn may_divide(root: &Path) -> Result<(), CgroupError> {
    let groups = read(&root.join("proc/self/cgroup"))?;
    delegated(&root.join("sys/fs/cgroup"), &groups).map(drop)
}

/// The directory of the control group that this process is in, where `mounted` is
/// `/sys/fs/cgroup` and `groups` what `/proc/self/cgroup` says. systemd marks what it has
/// delegated, and a container sees its own group as the root, which only the machine's
/// has no type.
fn delegated(mounted: &Path, groups: &str) -> Result<PathBuf, CgroupError> {
    if !mounted.join("cgroup.controllers").exists() {
        return Err(CgroupError::Mounted(mounted.to_owned()));
    }
    let group = groups.lines().find_map(|line| line.strip_prefix("0::/"));
    let group = group.ok_or(CgroupError::None)?;
    let root = mounted.join(group);
    let is_marked = MARKS.iter().any(|mark| {
        let mut value = [0; 8];
        getxattr(&root, *mark, &mut value[..]).is_ok_and(|length| value.get(..length) == Some(b"1"))
    });
    let is_of_container = group.is_empty() && root.join("cgroup.type").exists();
    match is_marked || is_of_container {
        true => Ok(root),
        false => Err(CgroupError::NotDelegated(root)),
    }
}

/// Makes a directory ready for the groups of workers, once, before any of them. A group
/// that has groups of its own has no processes, so those in it, this one among them, move
/// to a group `host` beneath it.
fn divide(root: &Path) -> Result<(), CgroupError> {
    let there = read(&root.join("cgroup.controllers"))?;
    for name in CONTROLLERS {
        if !there.split_whitespace().any(|controller| controller == name) {
            return Err(CgroupError::Controller(root.to_owned(), name));
        }
    }
    let host = make(root, "host")?;
    for pid in read(&root.join("cgroup.procs"))?.lines() {
        write(&host.join("cgroup.procs"), pid)?;
    }
    write(&root.join("cgroup.subtree_control"), "+cpu +memory +pids")
}

impl Cgroup {
    /// Makes a group beneath `root`, which [`divide`] has made ready. One that was left
    /// over from before is used again.
    pub(super) fn for_worker(root: &Path, name: &str, quota: Quota) -> Result<Self, CgroupError> {
        let group = Self(make(root, name)?);
        let quota_us = quota.cpu_millis.saturating_mul(PERIOD_US / 1000).max(QUOTA_US_MIN);
        group.set("cpu.max", &format!("{quota_us} {PERIOD_US}"))?;
        group.set("memory.max", &quota.memory_bytes.to_string())?;
        // Half a worker is of no use.
        group.set("memory.oom.group", "1")?;
        group.set("pids.max", &quota.pids_max.to_string())?;
        Ok(group)
    }

    /// Moves a process into it, with all its threads.
    pub(super) fn add(&self, pid: u32) -> Result<(), CgroupError> {
        self.set("cgroup.procs", &pid.to_string())
    }

    fn set(&self, file: &str, value: &str) -> Result<(), CgroupError> {
        write(&self.0.join(file), value)
    }
}

impl Drop for Cgroup {
    /// The kernel keeps a group with a process in it. One that is not gone yet leaves
    /// the group to the next worker of that name.
    fn drop(&mut self) {
        drop(self.set("cgroup.kill", "1"));
        drop(fs::remove_dir(&self.0));
    }
}

fn make(root: &Path, name: &str) -> Result<PathBuf, CgroupError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if name.is_empty() || !name.chars().all(plain) {
        return Err(CgroupError::Name(name.to_owned()));
    }
    let path = root.join(name);
    match fs::create_dir(&path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            Err(CgroupError::File(path, error))
        }
        Ok(()) | Err(_) => Ok(path),
    }
}

fn read(path: &Path) -> Result<String, CgroupError> {
    fs::read_to_string(path).map_err(|error| CgroupError::File(path.to_owned(), error))
}

/// The kernel has made the files, and takes each value as one write.
fn write(path: &Path, value: &str) -> Result<(), CgroupError> {
    let written = OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|mut file| file.write_all(value.as_bytes()));
    written.map_err(|error| CgroupError::File(path.to_owned(), error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{XattrFlags, setxattr};
    use tempfile::TempDir;

    const QUOTA: Quota = Quota { cpu_millis: 1500, memory_bytes: 64 << 20, pids_max: 16 };

    /// What the kernel would have made.
    fn hierarchy(controllers: &str) -> TempDir {
        let root = TempDir::new().unwrap();
        let files: [(&str, &[(&str, &str)]); 3] = [
            (
                "",
                &[
                    ("cgroup.controllers", controllers),
                    ("cgroup.procs", "12\n"),
                    ("cgroup.subtree_control", ""),
                ],
            ),
            ("host", &[("cgroup.procs", "")]),
            (
                "worker-1",
                &[
                    ("cpu.max", "max 100000\n"),
                    ("memory.max", "max\n"),
                    ("memory.oom.group", "0\n"),
                    ("pids.max", "max\n"),
                    ("cgroup.procs", ""),
                    ("cgroup.kill", ""),
                ],
            ),
        ];
        for (group, files) in files {
            fs::create_dir_all(root.path().join(group)).unwrap();
            for (name, text) in files {
                fs::write(root.path().join(group).join(name), text).unwrap();
            }
        }
        root
    }

    fn written(root: &TempDir, file: &str) -> String {
        fs::read_to_string(root.path().join(file)).unwrap()
    }

    #[test]
    fn the_group_of_this_process_is_found_by_what_the_kernel_says() {
        let root = hierarchy("cpu memory pids\n");
        let mounted = root.path();
        let own = "4:memory:/other\n0::/worker-1\n";
        assert!(matches!(delegated(mounted, own), Err(CgroupError::NotDelegated(_))));
        let group = mounted.join("worker-1");
        // A file system without such attributes cannot say it.
        if setxattr(&group, "user.delegate", b"1", XattrFlags::empty()).is_ok() {
            assert_eq!(delegated(mounted, own).unwrap(), group);
        }
        assert!(matches!(delegated(mounted, "4:memory:/other\n"), Err(CgroupError::None)));
        let not_mounted = delegated(&mounted.join("host"), own);
        assert!(matches!(not_mounted, Err(CgroupError::Mounted(_))));
        // The machine's own root, and that of a container.
        assert!(matches!(delegated(mounted, "0::/\n"), Err(CgroupError::NotDelegated(_))));
        fs::write(mounted.join("cgroup.type"), "domain\n").unwrap();
        assert_eq!(delegated(mounted, "0::/\n").unwrap(), mounted);
    }

    #[test]
    fn a_group_is_divided_if_it_has_the_controllers() {
        let root = hierarchy("cpuset cpu io memory pids\n");
        divide(root.path()).unwrap();
        assert_eq!(written(&root, "host/cgroup.procs"), "12");
        assert_eq!(written(&root, "cgroup.subtree_control"), "+cpu +memory +pids");

        let root = hierarchy("cpu pids\n");
        let error = divide(root.path()).unwrap_err();
        assert!(matches!(error, CgroupError::Controller(_, "memory")), "{error}");
        assert_eq!(written(&root, "cgroup.subtree_control"), "");
    }

    #[test]
    fn a_worker_is_limited() {
        let root = hierarchy("cpu memory pids\n");
        let group = Cgroup::for_worker(root.path(), "worker-1", QUOTA).unwrap();
        group.add(4321).unwrap();
        // A file that is longer stays as long here, unlike the kernel's.
        assert!(written(&root, "worker-1/cpu.max").starts_with("150000 100000"));
        assert!(written(&root, "worker-1/memory.max").starts_with("67108864"));
        assert!(written(&root, "worker-1/memory.oom.group").starts_with('1'));
        assert!(written(&root, "worker-1/pids.max").starts_with("16"));
        assert_eq!(written(&root, "worker-1/cgroup.procs"), "4321");
    }

    #[test]
    fn a_group_goes_with_its_worker() {
        let root = hierarchy("cpu memory pids\n");
        let group = Cgroup::for_worker(root.path(), "worker-1", QUOTA).unwrap();
        let path = root.path().join("worker-1");
        // The kernel removes the files with the directory; here nobody does.
        for file in fs::read_dir(&path).unwrap() {
            fs::remove_file(file.unwrap().path()).unwrap();
        }
        drop(group);
        assert!(!path.exists());
    }

    #[test]
    fn a_name_does_not_lead_elsewhere() {
        let root = hierarchy("cpu memory pids\n");
        for name in ["", ".", "..", "a/b", "../host"] {
            let error = Cgroup::for_worker(root.path(), name, QUOTA).unwrap_err();
            assert!(matches!(error, CgroupError::Name(_)), "{error}");
        }
    }

    #[test]
    fn a_group_without_the_files_is_an_error_that_names_one() {
        let root = hierarchy("cpu memory pids\n");
        let error = Cgroup::for_worker(root.path(), "worker-2", QUOTA).unwrap_err();
        assert!(error.to_string().contains("worker-2/cpu.max"), "{error}");
    }
}
