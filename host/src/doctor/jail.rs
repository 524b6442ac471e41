//! What the outer wall can be made of here. Whether it holds is tried elsewhere, by
//! processes that are in it.

use super::{Finding, Surroundings, kernel_version};
use crate::worker::{CgroupError, may_divide};

/// Versions of Landlock's interface, and the kernel that each came with.
const LANDLOCK: [(u32, (u32, u32)); 7] = [
    (7, (6, 15)),
    (6, (6, 12)),
    (5, (6, 10)),
    (4, (6, 7)),
    (3, (6, 2)),
    (2, (5, 19)),
    (1, (5, 13)),
];

pub(super) fn examine(surroundings: &Surroundings) -> Vec<Finding> {
    vec![
        landlock(surroundings),
        seccomp(surroundings),
        user_namespaces(surroundings),
        cgroup(surroundings),
    ]
}

fn landlock(surroundings: &Surroundings) -> Finding {
    let topic = "jail: landlock";
    let abi = surroundings.read("/proc/sys/kernel/osrelease").and_then(|release| {
        let version = kernel_version(&release)?;
        LANDLOCK.iter().find(|(_, since)| version >= *since).map(|(abi, _)| *abi)
    });
    let Some(abi) = abi else {
        return missing(topic, "the kernel is older than 5.13", "a newer kernel has it");
    };
    match surroundings.read("/sys/kernel/security/lsm") {
        Some(list) if list.split(',').any(|name| name == "landlock") => {
            Finding::ok(topic, format!("on, ABI {abi} or later by the kernel's version"))
        }
        Some(_) => {
            missing(topic, "the kernel has it switched off", "add landlock to `lsm=` at boot")
        }
        None => Finding::ok(
            topic,
            format!(
                "ABI {abi} by the kernel's version; whether it is on cannot be seen, since \
                 securityfs is not mounted"
            ),
        ),
    }
}

fn seccomp(surroundings: &Surroundings) -> Finding {
    let topic = "jail: seccomp";
    let actions = surroundings.read("/proc/sys/kernel/seccomp/actions_avail").unwrap_or_default();
    let has = |action: &str| actions.split_whitespace().any(|there| there == action);
    match has("kill_process") && has("errno") {
        true => Finding::ok(topic, "filters can refuse and kill"),
        false => missing(
            topic,
            "the kernel offers no filters",
            "a kernel with CONFIG_SECCOMP_FILTER has",
        ),
    }
}

fn user_namespaces(surroundings: &Surroundings) -> Finding {
    let topic = "jail: user namespaces";
    let is = |path: &str, value: &str| surroundings.read(path).is_some_and(|there| there == value);
    if is("/proc/sys/user/max_user_namespaces", "0") {
        return missing(topic, "their number is limited to 0", "sysctl user.max_user_namespaces");
    }
    if surroundings.read("/proc/sys/user/max_user_namespaces").is_none() {
        return missing(topic, "the kernel offers none", "a kernel with CONFIG_USER_NS has them");
    }
    if is("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        let advice = "sysctl kernel.unprivileged_userns_clone=1";
        return missing(topic, "for root alone", advice);
    }
    if is("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") {
        let advice = "an AppArmor profile for ringfence that allows them";
        return missing(topic, "AppArmor restricts them", advice);
    }
    Finding::ok(topic, "offered")
}

fn cgroup(surroundings: &Surroundings) -> Finding {
    let topic = "jail: control group";
    let advice = "start it by systemd with `Delegate=yes`";
    match may_divide(&surroundings.root) {
        Ok(()) => Finding::ok(topic, "this process may divide its own"),
        Err(error @ (CgroupError::Mounted(_) | CgroupError::None)) => {
            missing(topic, &error.to_string(), "a system with control groups 2 alone has them")
        }
        Err(error) => missing(topic, &error.to_string(), advice),
    }
}

fn missing(topic: &'static str, found: &str, advice: &str) -> Finding {
    Finding::warn(topic, found, advice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::tests::Root;

    #[test]
    fn landlock_is_told_by_the_kernels_version_and_its_list() {
        let find = |release, list: Option<&str>| {
            let mut files = vec![("proc/sys/kernel/osrelease", release)];
            files.extend(list.map(|list| ("sys/kernel/security/lsm", list)));
            landlock(&Root::with(&files).surroundings()).found
        };
        assert!(find("6.18.44-x\n", Some("lockdown,landlock")).starts_with("on, ABI 7 or later"));
        assert!(find("6.2.0", Some("landlock")).starts_with("on, ABI 3"));
        assert!(find("6.1.0", Some("capability")).contains("switched off"));
        assert!(find("5.15.0", None).contains("ABI 1 by the kernel's version"));
        assert!(find("5.4.0", None).contains("older than 5.13"));
        assert!(landlock(&Root::with(&[]).surroundings()).found.contains("older"));
    }

    #[test]
    fn each_layer_that_is_missing_says_why() {
        let none = Root::with(&[]);
        for finding in examine(&none.surroundings()) {
            assert!(!finding.advice.is_empty(), "{finding:?}");
        }
        let all = Root::with(&[
            ("proc/sys/kernel/osrelease", "6.15.0"),
            ("sys/kernel/security/lsm", "landlock"),
            ("proc/sys/kernel/seccomp/actions_avail", "kill_process kill_thread errno allow"),
            ("proc/sys/user/max_user_namespaces", "1000"),
            ("proc/self/cgroup", "0::/\n"),
            ("sys/fs/cgroup/cgroup.controllers", "memory"),
            ("sys/fs/cgroup/cgroup.type", "domain"),
        ]);
        for finding in examine(&all.surroundings()) {
            assert_eq!(finding.verdict, crate::doctor::Verdict::Ok, "{finding:?}");
        }
    }
}
