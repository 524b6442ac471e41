//! Namespaces, and a root directory in which there is next to nothing. All of it is a second
//! wall behind others, and none of it fails a start.
//!
//! There is no PID namespace: it would take in children alone, and nothing here forks. Nor
//! is a worker made the first process of one, which loses the signals that say how it ended.
//! There is no mount namespace either: from an empty root there is nothing to reach.

use super::{Hold, Root, raw};
use rustix::io;
use rustix::process::{chroot, geteuid};
use rustix::thread::UnshareFlags;

/// What was left.
pub(super) struct Left {
    pub(super) hold: Hold,
    pub(super) is_rooted: bool,
}

/// Leaves what can be left. Root does so as root, and has to before it becomes somebody
/// else. Any other user needs a user namespace for it; that has no map, so that nobody
/// in it is anybody outside. The working directory, or what is above it, becomes the
/// root, if `environment` has found that it is empty.
pub(super) fn leave(environment: &Hold, root: Root) -> Left {
    let left = raw::unshare(wanted());
    let root = match environment {
        Hold::Held => match root {
            Root::Here => chroot("."),
            Root::Above => chroot(".."),
            Root::Kept => return kept(left),
        },
        Hold::Partly(_) | Hold::Missing(_) => Err(io::Errno::NOTEMPTY),
    };
    let is_rooted = root.is_ok();
    let hold = match (left, root) {
        (Ok(()), Ok(())) => Hold::Partly("network, IPC and root, but not processes".to_owned()),
        (Ok(()), Err(error)) => {
            Hold::Partly(format!("network and IPC, but not processes; root directory: {error}"))
        }
        (Err(error), Ok(())) => Hold::Partly(format!("root directory alone; others: {error}")),
        (Err(error), Err(_)) => Hold::Missing(error.to_string()),
    };
    Left { hold, is_rooted }
}

/// The same without another root.
fn kept(left: io::Result<()>) -> Left {
    let hold = match left {
        Ok(()) => Hold::Partly("network and IPC, but neither processes nor root".to_owned()),
        Err(error) => Hold::Missing(error.to_string()),
    };
    Left { hold, is_rooted: false }
}

fn wanted() -> UnshareFlags {
    let all = UnshareFlags::NEWNET | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS;
    match geteuid().is_root() {
        true => all,
        false => all | UnshareFlags::NEWUSER,
    }
}
