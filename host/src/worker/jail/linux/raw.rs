//! The few calls that no safe function makes.
//!
//! JUSTIFICATION: Descriptors that nobody in this process knows of can only be closed by
//! their numbers; `unshare` is unsafe for one of its flags, which is not used; and three
//! of the proofs are acts that safe Rust does not offer.

#![allow(unsafe_code, reason = "see JUSTIFICATION above")]

use rustix::io::Errno;
use rustix::thread::UnshareFlags;
use std::io;
use std::os::fd::RawFd;

/// Closes every descriptor but 0, 1, 2 and those of `kept`.
pub(super) fn close_all_but(kept: &mut Vec<RawFd>) -> io::Result<()> {
    kept.retain(|fd| *fd > 2);
    kept.sort_unstable();
    kept.dedup();
    let mut first = 3;
    for fd in kept.iter().filter_map(|fd| u32::try_from(*fd).ok()) {
        if first < fd {
            close_range(first, fd - 1)?;
        }
        first = fd.saturating_add(1);
    }
    close_range(first, u32::MAX)
}

fn close_range(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: No memory is handed over. `enter` demands that nobody in the process owns
    // a descriptor besides those kept, so that none is closed under its owner.
    match unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Leaves the namespaces that `flags` name, for new ones.
pub(super) fn unshare(flags: UnshareFlags) -> Result<(), Errno> {
    // Descriptors that one thread closed would go on in another.
    if flags.contains(UnshareFlags::FILES) {
        return Err(Errno::INVAL);
    }
    // SAFETY: The table of descriptors, which alone makes it unsafe, stays shared.
    unsafe { rustix::thread::unshare_unsafe(flags) }
}

/// Has the parent trace this process.
pub(super) fn trace_me() -> io::Result<()> {
    // SAFETY: This request takes no arguments and touches no memory.
    match unsafe { libc::ptrace(libc::PTRACE_TRACEME) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Loads a library of the system's that this program is not linked with. It stays.
pub(super) fn load_library() -> io::Result<()> {
    // SAFETY: this one, which reads names of hosts, does nothing as it is loaded.
    let loaded = unsafe { libloading::os::unix::Library::new("libresolv.so.2") };
    loaded.map(std::mem::forget).map_err(io::Error::other)
}

/// How memory becomes code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// It is mapped as code.
    Mapped,
    /// It is mapped as data and then changed.
    Changed,
}

/// Makes a page of code, which nobody runs, and gives it back.
pub(super) fn map_code(way: Way) -> io::Result<()> {
    const BYTES: usize = 4096;
    let first = match way {
        Way::Mapped => libc::PROT_READ | libc::PROT_EXEC,
        Way::Changed => libc::PROT_READ | libc::PROT_WRITE,
    };
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: A new mapping, where the kernel finds room, takes nothing from anyone.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), BYTES, first, flags, -1, 0) };
    if page == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let code = libc::PROT_READ | libc::PROT_EXEC;
    // SAFETY: The page is this function's own, and nothing refers into it. To change it
    // to what it is already changes nothing.
    let changed = match unsafe { libc::mprotect(page, BYTES, code) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    };
    // SAFETY: As above; it is not used again.
    unsafe { libc::munmap(page, BYTES) };
    changed
}
