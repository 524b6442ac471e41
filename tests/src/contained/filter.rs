//! The filter of system calls that a container has by default.
//!
//! What is refused and when are facts of `seccomp/default.json` of github.com/moby/profiles
//! at cd3bed80, which containerd has too, for Linux on x86-64 and the capabilities that
//! Docker gives by default. There the profile lists what is allowed; here stands what is
//! left of the calls that it knows, and what is newer is refused.
//!
//! Unlike in a container, a call of another architecture ends the process.
//!
//! JUSTIFICATION: Safe functions that install a filter set `no_new_privs` first, which a
//! container's processes do not have. A jail that forgot to would pass with it.

#![allow(unsafe_code, reason = "see JUSTIFICATION above")]

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};
use std::collections::BTreeMap;

/// The newest call that the profile knows: `removexattrat`.
const NEWEST: libc::c_long = 466;

/// Calls that there were for modules, before Linux 2.6, and numbers that mean nothing.
const NO_CALLS: &[libc::c_long] = &[174, 177, 178];
const NO_CALLS_BETWEEN: std::ops::Range<libc::c_long> = 336..424;

/// Of the security modules; libc has no names for them yet.
const LSM: [libc::c_long; 3] = [459, 460, 461];

/// What the profile does not allow, whatever the arguments.
const REFUSED: &[libc::c_long] = &[
    libc::SYS__sysctl,
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_afs_syscall,
    libc::SYS_bpf,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_fanotify_init,
    libc::SYS_finit_module,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_get_mempolicy,
    libc::SYS_getpmsg,
    libc::SYS_init_module,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_ioperm,
    libc::SYS_iopl,
    libc::SYS_kcmp,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_lookup_dcookie,
    libc::SYS_mbind,
    libc::SYS_migrate_pages,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_move_pages,
    libc::SYS_nfsservctl,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pivot_root,
    libc::SYS_process_madvise,
    libc::SYS_putpmsg,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_security,
    libc::SYS_set_mempolicy,
    libc::SYS_set_mempolicy_home_node,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_setns,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_sysfs,
    libc::SYS_syslog,
    libc::SYS_tuxcall,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_uselib,
    libc::SYS_userfaultfd,
    libc::SYS_ustat,
    libc::SYS_vhangup,
    libc::SYS_vserver,
];

/// Flags of `clone` that make a namespace.
const NAMESPACES: u64 = 0x7e02_0000;

/// Personalities that may be asked for, the last of which changes nothing.
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// Refuses from now on what a container's process is refused.
pub(crate) fn enter() -> anyhow::Result<()> {
    let (allow, refuse) = (SeccompAction::Allow, |error: i32| SeccompAction::Errno(error as u32));
    install(allowed()?, refuse(libc::EPERM), allow.clone())?;
    // The first allows it. The profile answers so that libraries fall back.
    let clone3 = BTreeMap::from([(libc::SYS_clone3, vec![])]);
    install(clone3, allow, refuse(libc::ENOSYS))
}

fn allowed() -> anyhow::Result<BTreeMap<libc::c_long, Vec<SeccompRule>>> {
    let is_known = |call: &libc::c_long| {
        let refused = [REFUSED, NO_CALLS, &LSM].concat();
        !refused.contains(call) && !NO_CALLS_BETWEEN.contains(call)
    };
    let mut rules: BTreeMap<_, _> =
        (0..=NEWEST).filter(is_known).map(|call| (call, vec![])).collect();
    let when = |argument, test, value| {
        let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Qword, test, value)?;
        SeccompRule::new(vec![condition])
    };
    let (alg, vsock) = (libc::AF_ALG as u64, libc::AF_VSOCK as u64);
    let sockets = [
        when(0, SeccompCmpOp::Lt, alg),
        when(0, SeccompCmpOp::Eq, alg + 1),
        when(0, SeccompCmpOp::Gt, vsock),
    ];
    rules.insert(libc::SYS_socket, sockets.into_iter().collect::<Result<_, _>>()?);
    let personalities = PERSONALITIES.map(|value| when(0, SeccompCmpOp::Eq, value));
    rules.insert(libc::SYS_personality, personalities.into_iter().collect::<Result<_, _>>()?);
    let threads = when(0, SeccompCmpOp::MaskedEq(NAMESPACES), 0)?;
    rules.insert(libc::SYS_clone, vec![threads]);
    Ok(rules)
}

/// Root of a machine may do so as it is; any other user has to give something up.
fn install(
    rules: BTreeMap<libc::c_long, Vec<SeccompRule>>,
    other: SeccompAction,
    matching: SeccompAction,
) -> anyhow::Result<()> {
    let filter: BpfProgram =
        SeccompFilter::new(rules, other, matching, TargetArch::x86_64)?.try_into()?;
    let program = libc::sock_fprog {
        len: filter.len().try_into()?,
        filter: filter.as_ptr().cast::<libc::sock_filter>().cast_mut(),
    };
    let mode = libc::c_ulong::from(libc::SECCOMP_MODE_FILTER);
    // SAFETY: The kernel reads as many instructions as there are, which have the form that
    // it wants, and keeps a copy.
    if unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program) } != 0 {
        seccompiler::apply_filter(&filter)?;
    }
    Ok(())
}
