//! What the allocator keeps of what was freed, and what a process has needed to start,
//! given back to the system.
//!
//! glibc keeps freed memory in an arena for each of many threads, and in each as much
//! as the largest buffers that were ever freed there suggest (mallopt(3),
//! M_MMAP_THRESHOLD): calls that are over would go on holding memory that no account
//! knows of.
#![allow(
    unsafe_code,
    reason = "JUSTIFICATION: the allocator's own function is one of C, and so are those by which \
              a program finds itself in memory"
)]

use crate::clock::cpu_time;
use crate::limits::limit;
use rustix::param::page_size;
use rustix::time::ClockId;
use std::time::Duration;

/// Growth that is worth to look for what is free.
const WORTH_BYTES: u64 = 16 << 20;
/// The largest buffer that is kept when it is freed, and all that is, of each arena. glibc
/// takes no more than 32 MiB for the first.
#[cfg(target_env = "gnu")]
const KEPT_BUFFER_BYTES: libc::c_int = 4 << 20;
#[cfg(target_env = "gnu")]
const KEPT_BYTES: libc::c_int = 16 << 20;
/// In less CPU time a process does not free so much.
const WORTH_CPU: Duration = Duration::from_millis(10);

/// The heap of this process.
#[derive(Debug)]
pub(crate) struct Heap {
    /// The fewest resident bytes there were.
    resident_bytes_least: u64,
    /// What the process had run when nothing was free.
    trimmed_at: Duration,
}

impl Heap {
    /// That of a process which has run for little.
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self { resident_bytes_least: resident_bytes()?, trimmed_at: Duration::ZERO })
    }

    /// Gives back what is free, if that can be worth it. Takes some milliseconds where
    /// there is much.
    pub(crate) fn trim(&mut self) -> std::io::Result<()> {
        let resident_bytes = resident_bytes()?;
        self.resident_bytes_least = self.resident_bytes_least.min(resident_bytes);
        let worth_bytes = limit("heap", WORTH_BYTES);
        let has_grown = resident_bytes > self.resident_bytes_least.saturating_add(worth_bytes);
        let has_run = process_cpu().saturating_sub(self.trimmed_at) > WORTH_CPU;
        if has_grown && has_run {
            give_back();
            self.trimmed_at = process_cpu();
        }
        Ok(())
    }
}

/// CPU time that this process has taken.
fn process_cpu() -> Duration {
    cpu_time(ClockId::ProcessCPUTime)
}

/// proc_pid_statm(5): the second number, in pages.
fn resident_bytes() -> std::io::Result<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    let pages = pages.ok_or_else(|| std::io::Error::other("/proc/self/statm is not readable"))?;
    Ok(pages.saturating_mul(page_size() as u64))
}

/// Has the allocator keep what is freed for what is next, until it is told to give it
/// back: a buffer that comes from the system is filled page by page as it is touched,
/// which takes longer than what is done with it.
#[cfg(target_env = "gnu")]
pub(crate) fn keep_freed() {
    for (parameter, bytes) in
        [(libc::M_MMAP_THRESHOLD, KEPT_BUFFER_BYTES), (libc::M_TRIM_THRESHOLD, KEPT_BYTES)]
    {
        // SAFETY: It sets a number of the allocator (mallopt(3)).
        if unsafe { libc::mallopt(parameter, bytes) } == 0 {
            tracing::warn!(parameter, "the allocator takes no such number");
        }
    }
}

/// Other allocators keep what they like.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn keep_freed() {}

#[cfg(target_env = "gnu")]
pub(crate) fn give_back() {
    // SAFETY: It takes the allocator's own locks, and only gives back whole pages that
    // are free (malloc_trim(3)).
    unsafe { libc::malloc_trim(0) };
}

/// Other allocators give back what they like.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn give_back() {}

/// Gives back the pages of this program's own file: most were needed once, to start. What
/// is needed again is read again, from memory as long as any process has it.
#[cfg(target_os = "linux")]
pub(crate) fn give_back_program() {
    // SAFETY: The function is of the type that is wanted, keeps nothing of what it is
    // given and does not unwind (dl_iterate_phdr(3)).
    unsafe { libc::dl_iterate_phdr(Some(give_back_object), std::ptr::null_mut()) };
}

/// Elsewhere it stays.
#[cfg(not(target_os = "linux"))]
pub(crate) fn give_back_program() {}

/// The first object is the program itself, and no other is looked at.
#[cfg(target_os = "linux")]
unsafe extern "C" fn give_back_object(
    object: *mut libc::dl_phdr_info,
    _: libc::size_t,
    _: *mut libc::c_void,
) -> libc::c_int {
    const STOP: libc::c_int = 1;
    // SAFETY: The loader hands over an object, whose headers are as many as it says.
    let (base, headers) = unsafe {
        let object = &*object;
        let headers = std::slice::from_raw_parts(object.dlpi_phdr, object.dlpi_phnum.into());
        (object.dlpi_addr, headers)
    };
    // SAFETY: It takes and gives a number. libc has been told at the start (sysconf(3)), where
    // rustix would ask the kernel, which answers nothing of that in a jail.
    let Ok(page @ 1..) = u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }) else {
        return STOP;
    };
    let unchanging = |header: &&libc::Elf64_Phdr| {
        header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0
    };
    for header in headers.iter().filter(unchanging) {
        let begin = base.saturating_add(header.p_vaddr);
        let end = begin.saturating_add(header.p_memsz) / page * page;
        let begin = begin.next_multiple_of(page);
        if let Ok(bytes @ 1..) = usize::try_from(end.saturating_sub(begin)) {
            let begin = std::ptr::with_exposed_provenance_mut(begin as usize);
            // SAFETY: These are whole pages of a file that nobody writes to, and this process
            // has not changed them: what is there next is the same again (madvise(2)).
            unsafe { libc::madvise(begin, bytes, libc::MADV_DONTNEED) };
        }
    }
    STOP
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn what_a_start_has_needed_is_given_back() {
        // The third number: pages of files.
        let of_files = || {
            let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
            statm.split(' ').nth(2).unwrap().parse::<u64>().unwrap()
        };
        let before = of_files();
        give_back_program();
        let after = of_files();
        assert!(after < before, "{before} pages, then {after}");
    }

    /// Small pieces are freed on another thread, but for the last: what is before it
    /// cannot be given back by making the heap shorter.
    #[test]
    fn what_is_freed_is_given_back() {
        const PIECES: usize = 64 << 10;
        const PIECE_BYTES: usize = 1 << 10;
        let mut heap = Heap::new().unwrap();
        let kept = std::thread::spawn(|| {
            let mut pieces: Vec<_> = (0..PIECES).map(|_| vec![1_u8; PIECE_BYTES]).collect();
            pieces.split_off(PIECES - 1)
        });
        let kept = kept.join().unwrap();
        let before = resident_bytes().unwrap();
        heap.trim().unwrap();
        let given_back = before.saturating_sub(resident_bytes().unwrap());
        assert!(given_back > (PIECES * PIECE_BYTES / 2) as u64, "{given_back} bytes");
        drop(kept);
    }
}
