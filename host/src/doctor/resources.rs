//! CPUs and memory, as far as control groups leave them to this process.

use super::{Finding, Surroundings};
use crate::deploy::Amount;
use crate::yaml::bytes_text;
use std::path::{Path, PathBuf};

/// Less than this is little for a model with its default of 1Gi.
const MEMORY_BYTES_MIN: u64 = 1 << 30;

/// What the host itself needs beside its replicas.
const HOST_BYTES: u64 = 256 << 20;

const CGROUP: &str = "/sys/fs/cgroup";

pub(super) fn examine(surroundings: &Surroundings) -> Vec<Finding> {
    vec![cpus(), memory(surroundings), threads_of_a_core(surroundings)]
}

/// What there is for replicas, in whole mebibytes. A host that cannot know takes
/// one CPU and 1Gi.
pub(super) fn machine(surroundings: &Surroundings) -> Amount {
    let cpus = crate::sched::cpus() as u64;
    let all = machine_bytes(surroundings).unwrap_or(MEMORY_BYTES_MIN);
    let all = limit_bytes(surroundings).map_or(all, |limit| limit.min(all));
    let left = all.saturating_sub(HOST_BYTES) >> 20 << 20;
    Amount { cpu_millis: cpus.saturating_mul(1000), memory_bytes: left, accelerators: 0 }
}

fn cpus() -> Finding {
    match std::thread::available_parallelism() {
        Ok(count) => {
            Finding::ok("cpus", format!("{count} for this process, by affinity and control group"))
        }
        Err(error) => Finding::warn(
            "cpus",
            format!("their number is not known ({error}); a host takes one"),
            "mount /proc and /sys",
        ),
    }
}

fn memory(surroundings: &Surroundings) -> Finding {
    let Some(machine) = machine_bytes(surroundings) else {
        return Finding::warn(
            "memory",
            "/proc/meminfo does not say how much there is",
            "mount /proc",
        );
    };
    let limit = limit_bytes(surroundings).filter(|limit| *limit < machine);
    let found = match limit {
        Some(limit) => format!("{} by control group, of {}", shown(limit), shown(machine)),
        None => format!("{}, no control group limits it", shown(machine)),
    };
    match limit.unwrap_or(machine) < MEMORY_BYTES_MIN {
        true => Finding::warn(
            "memory",
            found,
            "give it more, or models a smaller `cpu_memory` than its default of 1Gi",
        ),
        false => Finding::ok("memory", found),
    }
}

/// To the mebibyte, which is exact enough for people.
fn shown(bytes: u64) -> String {
    bytes_text(bytes >> 20 << 20)
}

fn machine_bytes(surroundings: &Surroundings) -> Option<u64> {
    let meminfo = surroundings.read("/proc/meminfo")?;
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

/// The smallest limit of this process's control group and those above it, of
/// either version. The files: `memory.max` of version 2, `memory.limit_in_bytes`
/// of version 1, which has a number for "none" that no machine has.
fn limit_bytes(surroundings: &Surroundings) -> Option<u64> {
    let groups = surroundings.read("/proc/self/cgroup")?;
    let limits = groups.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let (base, file) = match controllers {
            "" => (version_2(surroundings)?, "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                (Path::new(CGROUP).join("memory"), "memory.limit_in_bytes")
            }
            _ => return None,
        };
        let group = base.join(path.trim_start_matches('/'));
        // A path may be of another namespace and not be there; its ancestors are.
        group
            .ancestors()
            .take_while(|group| group.starts_with(&base))
            .filter_map(|group| surroundings.read(group.join(file).to_str()?)?.parse::<u64>().ok())
            .min()
    });
    limits.min()
}

/// Where version 2 is mounted, alone or beside version 1.
fn version_2(surroundings: &Surroundings) -> Option<PathBuf> {
    [CGROUP.into(), Path::new(CGROUP).join("unified")]
        .into_iter()
        .find(|base| surroundings.at(base.join("cgroup.controllers")).is_file())
}

fn threads_of_a_core(surroundings: &Surroundings) -> Finding {
    let found = match surroundings.read("/sys/devices/system/cpu/smt/active").as_deref() {
        Some("1") => {
            "on: guests of different owners can share a core and see each other's timing there"
        }
        Some("0") => "off",
        _ => "the kernel does not say whether threads share cores",
    };
    Finding::ok("smt", found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::tests::Root;

    fn limit(files: &[(&str, &str)]) -> Option<u64> {
        limit_bytes(&Root::with(files).surroundings())
    }

    #[test]
    fn the_smallest_limit_of_either_version_counts() {
        assert_eq!(limit(&[]), None);
        let group = ("proc/self/cgroup", "0::/a/b\n");
        let controllers = ("sys/fs/cgroup/cgroup.controllers", "memory");
        assert_eq!(limit(&[group, controllers]), None);
        let inner = ("sys/fs/cgroup/a/b/memory.max", "max\n");
        assert_eq!(limit(&[group, controllers, inner]), None);
        let outer = ("sys/fs/cgroup/a/memory.max", "1048576\n");
        assert_eq!(limit(&[group, controllers, inner, outer]), Some(1 << 20));
        // Inside a container the group's own path is not to be seen.
        let of_container = ("sys/fs/cgroup/memory.max", "2097152\n");
        assert_eq!(limit(&[group, controllers, of_container]), Some(2 << 20));
        assert_eq!(
            limit(&[
                ("proc/self/cgroup", "3:cpu:/x\n2:hugetlb,memory:/c\n0::/\n"),
                ("sys/fs/cgroup/memory/c/memory.limit_in_bytes", "4194304"),
                ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712"),
                ("sys/fs/cgroup/unified/cgroup.controllers", ""),
            ]),
            Some(4 << 20)
        );
    }

    #[test]
    fn memory_is_told_with_its_limit() {
        let root = Root::with(&[
            ("proc/meminfo", "MemTotal:        8388608 kB\nMemFree: 1 kB\n"),
            ("proc/self/cgroup", "0::/\n"),
            ("sys/fs/cgroup/cgroup.controllers", "memory"),
            ("sys/fs/cgroup/memory.max", "536870912"),
        ]);
        let finding = memory(&root.surroundings());
        assert_eq!(finding.verdict, crate::doctor::Verdict::Warn);
        assert_eq!(finding.found, "512Mi by control group, of 8Gi");
        assert_eq!(memory(&Root::with(&[]).surroundings()).advice, "mount /proc");
    }
}
