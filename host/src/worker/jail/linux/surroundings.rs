//! What a process has been given by whoever started it, and should not have.

use super::{Code, Hold, Jail, JailError, LOADER_PATH, raw};
use std::ffi::OsStr;
use std::fs;
use std::os::fd::AsRawFd;

/// Where there is no /proc it cannot be counted, and is taken on trust.
pub(super) fn one_thread() -> Result<(), JailError> {
    match crate::sched::threads() {
        Some(0 | 1) | None => Ok(()),
        Some(threads) => Err(JailError::Threads(threads)),
    }
}

/// Closes what is not kept, and looks whether the rest is as it should be. A variable
/// could be unset, but whoever started this process was to hand over none: secrets
/// would stay in its memory.
pub(super) fn clear(jail: &Jail<'_>) -> Hold {
    let kept = jail.reads.iter().chain(jail.driver.unwrap_or_default());
    // Marking them close-on-exec would not do: nothing is executed here.
    if let Err(error) = raw::close_all_but(&mut kept.map(AsRawFd::as_raw_fd).collect()) {
        return Hold::Missing(format!("its descriptors cannot be closed: {error}"));
    }
    let loads = jail.driver.is_some() || jail.code == Code::Libraries;
    let is_meant = |name: &OsStr| loads && name == LOADER_PATH;
    match std::env::vars_os().filter(|(name, _)| !is_meant(name)).count() {
        0 => {}
        variables => return Hold::Missing(format!("it was given {variables} variables")),
    }
    match fs::read_dir(".").map(|mut entries| entries.next().is_none()) {
        Ok(true) => Hold::Held,
        Ok(false) => Hold::Partly("its working directory is not empty".to_owned()),
        Err(error) => Hold::Partly(format!("its working directory cannot be read: {error}")),
    }
}
