//! What a jail is made of, and which of it a machine holds.

use super::{JailError, JailMode};
use std::fmt;

/// One wall of the jail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layer {
    /// Limits that the kernel counts for each process.
    Limits,
    /// No variables, no descriptors of others, and an empty directory to stand in.
    Environment,
    /// No capabilities, and no way to gain any.
    Privileges,
    /// A user that owns nothing.
    User,
    /// Files that were not handed over cannot be opened.
    Files,
    /// No sockets but those handed over.
    Network,
    /// No signals to other processes.
    Signals,
    /// System calls that a worker has no use for are refused, or its end.
    Calls,
    /// Namespaces of its own.
    Spaces,
}

impl Layer {
    /// All layers, in the order of a report.
    pub(crate) const ALL: [Self; 9] = [
        Self::Limits,
        Self::Environment,
        Self::Privileges,
        Self::User,
        Self::Files,
        Self::Network,
        Self::Signals,
        Self::Calls,
        Self::Spaces,
    ];

    /// Those without which there is no jail. Any kernel since 5.13 can hold them, and
    /// any user can have them.
    pub(crate) const REQUIRED: [Self; 5] =
        [Self::Limits, Self::Environment, Self::Privileges, Self::Files, Self::Calls];

    /// Which one a name is for.
    pub(crate) fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|layer| layer.as_str() == name)
    }

    /// Its name, in a few words.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Limits => "limits of a process",
            Self::Environment => "environment",
            Self::Privileges => "privileges",
            Self::User => "user",
            Self::Files => "files",
            Self::Network => "network",
            Self::Signals => "signals",
            Self::Calls => "system calls",
            Self::Spaces => "namespaces",
        }
    }
}

/// Whether a layer is in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hold {
    /// All of it.
    Held,
    /// Some of it, and what of it or why.
    Partly(String),
    /// None of it, and why.
    Missing(String),
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held => f.write_str("held"),
            Self::Partly(why) => write!(f, "held in part: {why}"),
            Self::Missing(why) => write!(f, "missing: {why}"),
        }
    }
}

/// How each layer holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Report {
    layers: Vec<(Layer, Hold)>,
    /// Whether the root directory has changed.
    pub is_rooted: bool,
}

impl Report {
    pub(super) fn new(is_rooted: bool, hold: impl Fn(Layer) -> Hold) -> Self {
        let layers = Layer::ALL.into_iter().map(|layer| (layer, hold(layer))).collect();
        Self { layers, is_rooted }
    }

    /// The layers, in the order of [`Layer::ALL`].
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Layer, &Hold)> {
        self.layers.iter().map(|(layer, hold)| (*layer, hold))
    }

    /// Fails if a layer is missing that is demanded.
    pub(super) fn checked(self, mode: JailMode) -> Result<Self, JailError> {
        match (mode, self.missing()) {
            (JailMode::Required, Some(missing)) => Err(JailError::Missing(missing)),
            (JailMode::Required | JailMode::BestEffort, _) => Ok(self),
        }
    }

    /// The required layers that are missing, with why; none if all are there.
    fn missing(&self) -> Option<String> {
        let missing: Vec<_> = self
            .iter()
            .filter(|(layer, _)| Layer::REQUIRED.contains(layer))
            .filter_map(|(layer, hold)| match hold {
                Hold::Held | Hold::Partly(_) => None,
                Hold::Missing(why) => Some(format!("{} ({why})", layer.as_str())),
            })
            .collect();
        (!missing.is_empty()).then(|| missing.join(", "))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.iter().try_for_each(|(layer, hold)| writeln!(f, "{}: {hold}", layer.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_has_a_line_for_each_layer_in_their_order() {
        let report = Report::new(false, |layer| match layer {
            Layer::User => Hold::Partly("it keeps the user of the host".to_owned()),
            _ => Hold::Held,
        });
        let text = report.to_string();
        assert_eq!(text.lines().count(), Layer::ALL.len());
        assert!(text.starts_with("limits of a process: held\nenvironment: held\n"), "{text}");
        assert!(text.contains("user: held in part: it keeps the user of the host\n"), "{text}");
        assert_eq!(report.missing(), None);
    }

    #[test]
    fn only_required_layers_are_missed() {
        let all = Report::new(false, |_| Hold::Missing("no".to_owned()));
        assert_eq!(
            all.missing().unwrap(),
            "limits of a process (no), environment (no), privileges (no), files (no), \
             system calls (no)"
        );
    }
}
