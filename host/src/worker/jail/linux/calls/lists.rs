//! Which calls a worker needs, and which are its end.

use super::rules::{Rules, bits, is, null};
use seccompiler::BackendError;

/// What a process opens that it has not been handed open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opens {
    /// Nothing.
    Nothing,
    /// Files, for reading.
    Files,
    /// Those, and libraries among them.
    Libraries,
    /// Those, and the nodes of devices.
    Nodes,
}

/// What nothing here, nor any library in it, ever does.
pub(super) fn deadly(opens: Opens) -> Result<Rules, BackendError> {
    let rules = Rules::default().any(DEADLY);
    if opens == Opens::Nodes {
        // A driver looks for a helper and for its daemons, and goes on without.
        return Ok(rules);
    }
    let rules = rules.any(DRIVERS_TRY);
    #[cfg(target_arch = "x86_64")]
    let rules = rules.any(&[libc::SYS_fork, libc::SYS_vfork]);
    // A process, where a thread is a thread. `clone3` has its flags in memory, where a
    // filter cannot see them; it is in no list, and libc falls back to this one.
    rules.one(libc::SYS_clone, [bits(0, libc::CLONE_THREAD.cast_unsigned(), 0)])
}

const DRIVERS_TRY: &[libc::c_long] = &[
    // Other programs.
    libc::SYS_execve,
    libc::SYS_execveat,
    // Sockets besides those handed over.
    libc::SYS_socket,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
];

const DEADLY: &[libc::c_long] = &[
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_perf_event_open,
    // Other files.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_open_tree,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_by_handle_at,
    libc::SYS_unshare,
    libc::SYS_setns,
    // The kernel.
    libc::SYS_bpf,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_userfaultfd,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_kexec_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
];

/// What a worker needs.
pub(super) fn allowed(opens: Opens) -> Result<Rules, BackendError> {
    let rules = conditional(Rules::default().any(ALLOWED))?;
    #[cfg(target_arch = "x86_64")]
    let rules = rules.any(&[libc::SYS_epoll_wait, libc::SYS_poll, libc::SYS_dup2, libc::SYS_time]);
    match opens {
        Opens::Nothing => Ok(rules),
        // Nothing that is opened can be written to, whatever a file's rights are.
        Opens::Files => rules.any(READS).one(libc::SYS_openat, [bits(2, WRITING, 0)]),
        Opens::Libraries => {
            let rules = rules.any(READS).any(LIBRARIES);
            rules.one(libc::SYS_openat, [bits(2, WRITING, 0)])
        }
        Opens::Nodes => nodes(rules.any(READS).any(LIBRARIES).any(DRIVER)),
    }
}

/// What the driver of a device needs beside. What may be written to is Landlock's to know.
fn nodes(rules: Rules) -> Result<Rules, BackendError> {
    // The last is what a file without a name is asked for by.
    let unnamed = libc::O_TMPFILE & !libc::O_DIRECTORY;
    let made = libc::O_CREAT | libc::O_TRUNC | libc::O_APPEND | unnamed;
    rules
        .one(libc::SYS_openat, [bits(2, made.cast_unsigned(), 0)])?
        .one(libc::SYS_sched_setaffinity, [is(0, 0)])?
        // What it asks of a device, and of the memory that it shares with one.
        .one(libc::SYS_ioctl, [bits(1, IOCTL_KIND, NVIDIA)])?
        .one(libc::SYS_ioctl, [bits(1, !UVM_MAX, 0)])?
        .each(libc::SYS_ioctl, 1, &UVM)?
        // It listens under an abstract name, which is one of the network's namespace, and does
        // not begin without. Paths are Landlock's to refuse.
        .one(libc::SYS_socket, [is(0, UNIX), bits(1, KIND_OF_SOCKET, SEQUENCED)])?
        .one(
            libc::SYS_setsockopt,
            [is(1, libc::SOL_SOCKET.cast_unsigned()), is(2, libc::SO_PASSCRED.cast_unsigned())],
        )
        .map(|rules| rules.any(&[libc::SYS_bind, libc::SYS_listen]))
}

/// The direction and the type of a device's command, as the kernel numbers commands
/// (`_IOC_DIR` and `_IOC_TYPE`), and those of NVIDIA's: both ways, and `NV_IOCTL_MAGIC` of
/// its open kernel modules.
const IOCTL_KIND: u32 = 0xc000_ff00;
const NVIDIA: u32 = 0xc000_0000 | (b'F' as u32) << 8;

/// The commands of its memory manager: small numbers, and `UVM_INITIALIZE` and
/// `UVM_DEINITIALIZE` there.
const UVM_MAX: u32 = 0x7f;
const UVM: [u32; 2] = [0x3000_0001, 0x3000_0002];

/// Those of which a part would reach beyond the process.
fn conditional(rules: Rules) -> Result<Rules, BackendError> {
    let own = std::process::id();
    rules
        // Threads, in the namespaces of the process.
        .one(
            libc::SYS_clone,
            [bits(
                0,
                (libc::CLONE_THREAD | NEW).cast_unsigned(),
                libc::CLONE_THREAD.cast_unsigned(),
            )],
        )?
        // Signals to own threads: `abort` and the timers of a runtime.
        .one(libc::SYS_tgkill, [is(0, own)])?
        // Priorities of the calling thread.
        .one(libc::SYS_setpriority, [is(0, libc::PRIO_PROCESS), is(1, 0)])?
        .one(libc::SYS_sched_setattr, [is(0, 0)])?
        // Limits are read.
        .one(libc::SYS_prlimit64, [is(0, 0), null(2)])?
        .one(libc::SYS_prlimit64, [is(0, own), null(2)])?
        // A datagram socket could be sent to the path of any other: neither this wall
        // nor, before its ninth version, Landlock would know. The rest is connected.
        .one(libc::SYS_socketpair, [is(0, UNIX), bits(1, KIND_OF_SOCKET, STREAM)])?
        .one(libc::SYS_socketpair, [is(0, UNIX), bits(1, KIND_OF_SOCKET, SEQUENCED)])?
        .one(libc::SYS_sendto, [null(4)])?
        // No filters, no devices: how much is buffered, and how long is waited.
        .each_of_socket()?
        // No owner of a descriptor, who would be sent signals about it.
        .each(libc::SYS_fcntl, 1, FCNTL)?
        .each(libc::SYS_ioctl, 1, IOCTL)?
        .each(libc::SYS_prctl, 0, PRCTL)
}

impl Rules {
    fn each_of_socket(self) -> Result<Self, BackendError> {
        let level = libc::SOL_SOCKET.cast_unsigned();
        SOCKET_OPTIONS.iter().try_fold(self, |rules, option| {
            rules.one(libc::SYS_setsockopt, [is(1, level), is(2, option.cast_unsigned())])
        })
    }
}

/// All namespaces.
const NEW: libc::c_int = libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET;

const UNIX: u32 = libc::AF_UNIX as u32;
const STREAM: u32 = libc::SOCK_STREAM as u32;
const SEQUENCED: u32 = libc::SOCK_SEQPACKET as u32;

/// The rest of the argument are flags (`SOCK_TYPE_MASK` in the kernel).
const KIND_OF_SOCKET: u32 = 0xf;

const SOCKET_OPTIONS: &[libc::c_int] =
    &[libc::SO_SNDBUF, libc::SO_RCVBUF, libc::SO_SNDTIMEO, libc::SO_RCVTIMEO];

const FCNTL: &[u32] = &[
    libc::F_DUPFD as u32,
    libc::F_DUPFD_CLOEXEC as u32,
    libc::F_GETFD as u32,
    libc::F_SETFD as u32,
    libc::F_GETFL as u32,
    libc::F_SETFL as u32,
    libc::F_ADD_SEALS as u32,
    libc::F_GET_SEALS as u32,
];

const IOCTL: &[u32] = &[
    libc::FIONBIO as u32,
    libc::FIONREAD as u32,
    libc::FIOCLEX as u32,
    libc::TCGETS as u32,
    libc::TIOCGWINSZ as u32,
];

/// `seccomp` needs the last but one, before its second filter.
const PRCTL: &[u32] = &[
    libc::PR_SET_NAME as u32,
    libc::PR_GET_NAME as u32,
    libc::PR_SET_VMA as u32,
    libc::PR_GET_DUMPABLE as u32,
    libc::PR_GET_PDEATHSIG as u32,
    libc::PR_GET_SECCOMP as u32,
    libc::PR_CAPBSET_READ as u32,
    libc::PR_GET_TIMERSLACK as u32,
    libc::PR_SET_NO_NEW_PRIVS as u32,
    libc::PR_GET_NO_NEW_PRIVS as u32,
];

const ALLOWED: &[libc::c_long] = &[
    // What is open.
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_preadv2,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_lseek,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_ftruncate,
    libc::SYS_pipe2,
    libc::SYS_memfd_create,
    // Sockets that are open.
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_shutdown,
    libc::SYS_getsockopt,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    // Memory.
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_mincore,
    libc::SYS_membarrier,
    // Threads.
    libc::SYS_futex,
    libc::SYS_futex_waitv,
    libc::SYS_set_robust_list,
    libc::SYS_get_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_rseq,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_getscheduler,
    libc::SYS_sched_getparam,
    libc::SYS_sched_getattr,
    libc::SYS_getpriority,
    libc::SYS_getcpu,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_seccomp,
    // Waiting.
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_ppoll,
    libc::SYS_eventfd2,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_timerfd_gettime,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_restart_syscall,
    // Time.
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
    libc::SYS_times,
    // Signals.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_sigaltstack,
    // The process, and the machine.
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getppid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getrlimit,
    libc::SYS_getrusage,
    libc::SYS_getrandom,
    libc::SYS_uname,
    libc::SYS_sysinfo,
];

const READS: &[libc::c_long] = &[libc::SYS_getdents64, libc::SYS_readlinkat];

/// What CUDA's libraries call beside what others do.
const LIBRARIES: &[libc::c_long] = &[
    libc::SYS_readlink,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_getcwd,
    libc::SYS_sched_get_priority_max,
    libc::SYS_sched_get_priority_min,
];

/// What a driver's call beside those.
const DRIVER: &[libc::c_long] = &[
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_fadvise64,
    libc::SYS_get_mempolicy,
    libc::SYS_set_mempolicy,
    libc::SYS_mbind,
    libc::SYS_mlock,
    libc::SYS_munlock,
    libc::SYS_msync,
    libc::SYS_pipe,
];

/// What opens a file for more than reading.
const WRITING: u32 =
    (libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC | libc::O_APPEND).cast_unsigned();
