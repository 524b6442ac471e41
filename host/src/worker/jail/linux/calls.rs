//! Filters of system calls. Every call is in one of three lists: what a worker needs is
//! allowed, what only an intruder would try is the end of the process, and the rest does
//! not exist as far as the process can tell (ENOSYS), so that libraries fall back.
//!
//! A filter cannot be taken away, and of several the strictest answer counts.

mod lists;
mod rules;

use super::{Code, Hold, Jail, JailError};
use lists::{Opens, allowed, deadly};
use rules::{Rules, all_bits};
use seccompiler::{
    BackendError, BpfProgram, Error, SeccompAction, SeccompFilter, TargetArch, apply_filter,
    apply_filter_all_threads,
};

/// Refuses what a worker has no use for.
pub(super) fn restrict(jail: &Jail<'_>) -> Hold {
    match try_restrict(jail) {
        Ok(()) if jail.driver.is_some() => Hold::Partly("a driver has those it needs".to_owned()),
        Ok(()) => Hold::Held,
        Err(error) => Hold::Missing(error.to_string()),
    }
}

fn try_restrict(jail: &Jail<'_>) -> Result<(), Error> {
    let opens = match (jail.driver, jail.code, jail.reads.is_empty()) {
        (Some(_), _, _) => Opens::Nodes,
        (None, Code::Libraries, _) => Opens::Libraries,
        (None, Code::Made | Code::None, true) => Opens::Nothing,
        (None, Code::Made | Code::None, false) => Opens::Files,
    };
    let code = more_than(jail.code)?;
    let allowed = program(allowed(opens)?, SeccompAction::Allow, NO_SUCH_CALL)?;
    let deadly = program(deadly(opens)?, SeccompAction::KillProcess, SeccompAction::Allow)?;
    let code = match opens {
        // Memory that is shared counts towards no limit of the process.
        Opens::Nothing | Opens::Files | Opens::Libraries => {
            code.one(libc::SYS_mmap, [all_bits(3, SHARED)])?
        }
        // That of a device is.
        Opens::Nodes => code,
    };
    apply_filter(&program(code, NOT_PERMITTED, SeccompAction::Allow)?)?;
    apply_filter(&deadly)?;
    apply_filter(&allowed)
}

/// Refuses, in all threads, any more code than this.
/// The threads must have been made after [`enter`](super::enter).
pub(crate) fn no_more_code(left: Code) -> Result<(), JailError> {
    let refuse = || {
        let rules = more_than(left)?;
        apply_filter_all_threads(&program(rules, NOT_PERMITTED, SeccompAction::Allow)?)
    };
    refuse().map_err(|error: Error| JailError::Code(error.into()))
}

/// Refuses, in all threads, to make files in memory, which no limit of the process counts,
/// and further filters.
pub(crate) fn no_more_files() -> Result<(), JailError> {
    let refuse = || {
        let rules = Rules::default().any(&[libc::SYS_memfd_create, libc::SYS_seccomp]);
        apply_filter_all_threads(&program(rules, NOT_PERMITTED, SeccompAction::Allow)?)
    };
    refuse().map_err(|error: Error| JailError::Files(error.into()))
}

const SHARED: u32 = libc::MAP_SHARED as u32;
const ANONYMOUS: u32 = libc::MAP_ANONYMOUS as u32;

const NO_SUCH_CALL: SeccompAction = SeccompAction::Errno(libc::ENOSYS as u32);
const NOT_PERMITTED: SeccompAction = SeccompAction::Errno(libc::EPERM as u32);

/// What makes more code than may be.
fn more_than(code: Code) -> Result<Rules, BackendError> {
    match code {
        // Wasm is written first and made code then.
        Code::Made => making(libc::PROT_WRITE | libc::PROT_EXEC),
        Code::Libraries => {
            let executable = || all_bits(2, libc::PROT_EXEC.cast_unsigned());
            Rules::default()
                .one(
                    libc::SYS_mmap,
                    [all_bits(2, (libc::PROT_WRITE | libc::PROT_EXEC).cast_unsigned())],
                )?
                .one(libc::SYS_mmap, [executable(), all_bits(3, ANONYMOUS)])?
                .one(libc::SYS_mprotect, [executable()])?
                .one(libc::SYS_pkey_mprotect, [executable()])
        }
        Code::None => making(libc::PROT_EXEC),
    }
}

/// Memory with all of `protection`, by whichever call. What is code already may be moved.
fn making(protection: libc::c_int) -> Result<Rules, BackendError> {
    let made = || all_bits(2, protection.cast_unsigned());
    Rules::default()
        .one(libc::SYS_mmap, [made()])?
        .one(libc::SYS_mprotect, [made()])?
        .one(libc::SYS_pkey_mprotect, [made()])
}

/// Calls of another architecture, such as 32-bit ones, end the process in any case.
fn program(
    rules: Rules,
    matching: SeccompAction,
    other: SeccompAction,
) -> Result<BpfProgram, BackendError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    SeccompFilter::new(rules.into(), other, matching, arch)?.try_into()
}
