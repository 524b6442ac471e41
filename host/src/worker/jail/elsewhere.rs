//! A system for which nobody has written walls: what it shares with Linux are limits of a
//! process. A host is for its own user there, and says at its start what is missing.

use super::{Act, Code, Hold, Jail, JailError, Layer, Need, Outcome, Report, limits};
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

/// There are none.
pub(crate) const HAS_WALLS: bool = false;

const WHY: &str = "it is there on Linux on x86-64 only";

/// Sets the limits, and reports the rest as missing.
pub(crate) fn enter_without(jail: &Jail<'_>, without: &[Layer]) -> Result<Report, JailError> {
    let missing = || Hold::Missing(WHY.to_owned());
    let limits = match without.contains(&Layer::Limits) {
        true => missing(),
        false => limits::set(jail),
    };
    let report = Report::new(false, |layer| match layer {
        Layer::Limits => limits.clone(),
        Layer::Environment
        | Layer::Privileges
        | Layer::User
        | Layer::Files
        | Layer::Network
        | Layer::Signals
        | Layer::Calls
        | Layer::Spaces => missing(),
    });
    report.checked(jail.mode)
}

/// Nothing here would refuse it.
pub(crate) fn attempt(_: Act, _: BorrowedFd<'_>) -> Outcome {
    Outcome::Done
}

/// Nothing here is in its way, and no driver is used.
pub(crate) fn try_need(_: Need, _: &[PathBuf]) -> Outcome {
    Outcome::Done
}

/// Fails: whoever needs this needs another system.
pub(crate) fn no_more_code(_: Code) -> Result<(), JailError> {
    Err(JailError::Missing(WHY.to_owned()))
}

/// The same.
pub(crate) fn no_more_files() -> Result<(), JailError> {
    no_more_code(Code::None)
}
