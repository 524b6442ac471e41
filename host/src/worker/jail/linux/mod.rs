//! The walls of the jail in their order; what each is made of is in the modules below.

mod acts;
mod calls;
mod files;
mod raw;
mod spaces;
mod surroundings;
mod user;

pub(crate) use acts::{attempt, try_need};
pub(crate) use calls::{no_more_code, no_more_files};

use super::{Code, Hold, Jail, JailError, LOADER_PATH, Layer, Report, Root, limits};

/// There are some.
pub(crate) const HAS_WALLS: bool = true;

/// Shuts the process in. It must have one thread, and own no descriptor but 0, 1, 2 and
/// those of `reads` and `driver`: the others are closed, whoever holds them. After an error the
/// process is neither free nor jailed, and must end. Layers in `without` are as missing as
/// if the machine lacked them, which is for tests.
pub(crate) fn enter_without(jail: &Jail<'_>, without: &[Layer]) -> Result<Report, JailError> {
    surroundings::one_thread()?;
    // It was started by a link, whose name says nothing to whoever lists processes.
    let _ = rustix::thread::set_name(c"ringfence-jail");
    let hold = |layer, make: &mut dyn FnMut() -> Hold| match without.contains(&layer) {
        true => Hold::Missing("left out by a test".to_owned()),
        false => make(),
    };

    let environment = hold(Layer::Environment, &mut || surroundings::clear(jail));
    let limits = hold(Layer::Limits, &mut || limits::set(jail));
    // The rights to do this may go with the user.
    let mut is_rooted = false;
    let spaces = hold(Layer::Spaces, &mut || {
        let left = spaces::leave(&environment, jail.root);
        is_rooted = left.is_rooted;
        left.hold
    });
    let user = hold(Layer::User, &mut user::leave);
    let privileges = hold(Layer::Privileges, &mut || user::drop_privileges(jail));
    // A change of the user or of the capabilities would have forgotten it.
    user::die_with(jail.parent)?;
    let (files, network, signals) = match without.contains(&Layer::Files) {
        true => files::none("left out by a test"),
        false => files::restrict(jail),
    };
    if let (Some(_), Hold::Missing(why)) = (jail.driver, &files) {
        // All that there is would be open to it.
        return Err(JailError::Missing(format!("files, for a driver ({why})")));
    }
    let calls = hold(Layer::Calls, &mut || calls::restrict(jail));

    let report = Report::new(is_rooted, |layer| match layer {
        Layer::Limits => limits.clone(),
        Layer::Environment => environment.clone(),
        Layer::Privileges => privileges.clone(),
        Layer::User => user.clone(),
        Layer::Files => files.clone(),
        Layer::Network => with_calls(&network, &calls),
        Layer::Signals => with_calls(&signals, &calls),
        Layer::Calls => calls.clone(),
        Layer::Spaces => spaces.clone(),
    });
    report.checked(jail.mode)
}

/// What Landlock does not hold is still refused by the filter of calls, if that is there.
fn with_calls(hold: &Hold, calls: &Hold) -> Hold {
    match (hold, calls) {
        (Hold::Missing(why), Hold::Held | Hold::Partly(_)) => {
            Hold::Partly(format!("by the filter of calls alone: {why}"))
        }
        (Hold::Held | Hold::Partly(_) | Hold::Missing(_), _) => hold.clone(),
    }
}
