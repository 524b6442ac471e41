//! Who the process is, what it may do as that, and with whom it ends.

use super::{Hold, Jail, JailError};
use rustix::io;
use rustix::process::{
    DumpableBehavior, Gid, Pid, Signal, Uid, geteuid, getppid, set_dumpable_behavior,
    set_parent_process_death_signal,
};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};

/// "nobody": the number that the kernel itself uses for a user it has no name for.
const NOBODY: u32 = 65534;

/// The kernel's capabilities are numbered from 0; it knows fewer than these.
const CAPABILITIES_MAX: u32 = 64;

/// Becomes a user that owns nothing, which only root can.
pub(super) fn leave() -> Hold {
    if !geteuid().is_root() {
        return Hold::Partly("it keeps the user of the host".to_owned());
    }
    // With root goes the right to do this.
    drop_bounding_set();
    match change() {
        Ok(()) => Hold::Held,
        Err(error) => Hold::Missing(format!("it stays root: {error}")),
    }
}

/// These change the one thread that calls, which is all there are.
fn change() -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    set_thread_groups(&[])?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)
}

/// Gives up all capabilities, and every way to gain some by executing a file.
pub(super) fn drop_privileges(jail: &Jail<'_>) -> Hold {
    match try_drop_privileges(jail) {
        Ok(sets) if sets == none() => match jail.driver {
            Some(_) => Hold::Partly("its user may trace it, as a driver needs it to be".to_owned()),
            None => Hold::Held,
        },
        Ok(_) => Hold::Missing("capabilities are left".to_owned()),
        Err(error) => Hold::Missing(error.to_string()),
    }
}

fn try_drop_privileges(jail: &Jail<'_>) -> io::Result<CapabilitySets> {
    drop_bounding_set();
    clear_ambient_capability_set()?;
    set_capabilities(None, none())?;
    set_no_new_privs(true)?;
    // No core, no tracer of the same user, and nothing in /proc that it could open. A driver
    // names its threads there.
    set_dumpable_behavior(match jail.driver {
        Some(_) => DumpableBehavior::Dumpable,
        None => DumpableBehavior::NotDumpable,
    })?;
    capabilities(None)
}

/// Without the right to do so it stays, and does no harm: it bounds what a file could
/// give, and no file gives anything after `set_no_new_privs`.
fn drop_bounding_set() {
    for number in 0..CAPABILITIES_MAX {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if remove_capability_from_bounding_set(capability).is_err() {
            return;
        }
    }
}

fn none() -> CapabilitySets {
    let empty = CapabilitySet::empty();
    CapabilitySets { effective: empty, permitted: empty, inheritable: empty }
}

/// Ends this process with the thread of `parent` that has started it.
pub(super) fn die_with(parent: i32) -> Result<(), JailError> {
    // It fails for no signal that there is.
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(|_| JailError::Parent)?;
    // It may have ended before that was said.
    match getppid().map(Pid::as_raw_nonzero) {
        Some(pid) if pid.get() == parent => Ok(()),
        Some(_) | None => Err(JailError::Parent),
    }
}
