//! Landlock: files that may be opened, and what may leave the process by the network or
//! by signals. What is open already stays usable.

use super::{Hold, Jail};
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, LandlockStatus, PathBeneath, RestrictionStatus,
    Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, Scope, make_bitflags,
};

/// The newest interface that is known here. On older kernels the rest is left out.
const NEWEST: ABI = ABI::V10;

/// Files, network and signals.
pub(super) type Holds = (Hold, Hold, Hold);

/// Refuses all but what `jail` allows.
pub(super) fn restrict(jail: &Jail<'_>) -> Holds {
    match try_restrict(jail) {
        Ok(status) => judge(status.landlock),
        Err(error) => none(&format!("Landlock: {error}")),
    }
}

/// Nothing of it is there.
pub(super) fn none(why: &str) -> Holds {
    let missing = Hold::Missing(why.to_owned());
    (missing.clone(), missing.clone(), missing)
}

fn try_restrict(jail: &Jail<'_>) -> Result<RestrictionStatus, RulesetError> {
    let mut ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?;
    // Of these, a rule for a file takes what makes sense for a file.
    for fd in jail.reads {
        ruleset = ruleset.add_rule(PathBeneath::new(fd, reading()))?;
    }
    for node in jail.driver.unwrap_or_default() {
        ruleset = ruleset.add_rule(PathBeneath::new(node, reaching()))?;
    }
    ruleset.restrict_self()
}

fn reading() -> BitFlags<AccessFs> {
    make_bitflags!(AccessFs::{ReadFile | ReadDir})
}

/// What is done with the node of a device.
fn reaching() -> BitFlags<AccessFs> {
    make_bitflags!(AccessFs::{ReadFile | WriteFile | IoctlDev})
}

/// What a kernel with this interface holds.
fn judge(landlock: LandlockStatus) -> Holds {
    let abi = match landlock {
        LandlockStatus::NotImplemented => return none("Landlock is not in this kernel"),
        LandlockStatus::NotEnabled => return none("Landlock is switched off in this kernel"),
        LandlockStatus::Available { effective_abi, .. } => effective_abi,
    };
    let older = |since: &str| format!("this kernel's Landlock is older than that of {since}");
    // Before the third, an open file could not be truncated by this, but by its name.
    let files = match abi >= ABI::V3 {
        true => Hold::Held,
        false => Hold::Partly(format!("a file may be cut short: {}", older("6.2"))),
    };
    let network = match (abi >= ABI::V4, abi >= ABI::V6) {
        (_, true) => Hold::Held,
        (true, false) => Hold::Partly(format!("TCP alone: {}", older("6.12"))),
        (false, false) => Hold::Missing(older("6.7")),
    };
    let signals = match abi >= ABI::V6 {
        true => Hold::Held,
        false => Hold::Missing(older("6.12")),
    };
    (files, network, signals)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kernel_holds_what_its_interface_has() {
        let holds = |abi| judge(LandlockStatus::Available { effective_abi: abi, kernel_abi: None });
        assert_eq!(holds(ABI::V6), (Hold::Held, Hold::Held, Hold::Held));
        assert_eq!(holds(ABI::V7), holds(ABI::V6));
        let (files, network, signals) = holds(ABI::V4);
        assert_eq!(files, Hold::Held);
        assert!(matches!(network, Hold::Partly(_)) && matches!(signals, Hold::Missing(_)));
        let (files, network, _) = holds(ABI::V1);
        assert!(matches!(files, Hold::Partly(_)) && matches!(network, Hold::Missing(_)));
        let (files, ..) = judge(LandlockStatus::NotImplemented);
        assert_eq!(files, Hold::Missing("Landlock is not in this kernel".to_owned()));
    }
}
