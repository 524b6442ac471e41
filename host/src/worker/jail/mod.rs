//! The jail that a worker process shuts itself into. The order of its walls is here;
//! what each is made of is in the modules below. Nothing here reads any input.

mod calls;
mod files;
mod limits;
mod proof;
mod raw;
mod report;
mod spaces;
mod surroundings;
mod user;

pub(crate) use calls::{no_more_code, no_more_files};
pub(crate) use proof::{Act, attempt, judge};
pub(crate) use report::{Hold, Layer, Report};

use std::os::fd::BorrowedFd;

/// Whether a process goes on without a layer of [`Layer::REQUIRED`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JailMode {
    /// It does not: the missing layers are an error.
    Required,
    /// It does, and the report says what is missing.
    BestEffort,
}

impl JailMode {
    /// The word for it in arguments and settings.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Required => "required",
            Self::BestEffort => "best-effort",
        }
    }

    /// Which one a word is for.
    pub fn of(word: &str) -> Option<Self> {
        [Self::Required, Self::BestEffort].into_iter().find(|mode| mode.as_str() == word)
    }
}

/// Whether a process may make memory that is run as code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    /// Until [`no_more_code`], and never memory that is writable at the same time.
    Maps,
    /// Never.
    Never,
}

/// What a process is left with.
#[derive(Debug, Clone)]
pub(crate) struct Jail<'a> {
    /// What a missing layer means.
    pub mode: JailMode,
    /// The process that has started this one, and with whose end this one ends.
    pub parent: i32,
    /// CPU time of all threads together. SIGXCPU comes first, and a second later the end.
    pub cpu_seconds: Option<u64>,
    /// Memory that is private and writable, stacks aside.
    pub data_bytes: u64,
    /// Open descriptors, each below this number.
    pub files_max: u64,
    /// The size of any file written, or made in memory: an image of a guest's memory too.
    pub file_bytes_max: u64,
    /// Files that may be opened for reading, and directories beneath which they may.
    pub reads: &'a [BorrowedFd<'a>],
    /// What becomes the root directory, from the working directory, which is empty.
    pub root: Root,
    /// Whether it may make code.
    pub code: Code,
}

/// What becomes the root directory of a process, where it may change that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Root {
    /// The working directory: there is nothing.
    Here,
    /// What is above it, and what else is there.
    Above,
}

/// Why a process is not in its jail, and must end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JailError {
    /// Walls are made for one thread, and would leave out the others.
    #[error("a process with {0} threads cannot be jailed; it has to be done while there is one")]
    Threads(usize),
    /// Nobody is left who would read what it writes.
    #[error("the process that started this one has gone")]
    Parent,
    /// Layers of [`Layer::REQUIRED`], with why.
    #[error("the jail is required, but this machine does not hold: {0}")]
    Missing(String),
    /// The second filter is not in place.
    #[error("executable memory cannot be refused")]
    Code(#[source] seccompiler::Error),
}

/// Shuts the process in. It must have one thread, and own no descriptor but 0, 1, 2 and
/// those of `reads`: the others are closed, whoever holds them. After an error the
/// process is neither free nor jailed, and must end. Layers in `without` are as missing as
/// if the machine lacked them, which is for tests.
pub(crate) fn enter_without(jail: &Jail<'_>, without: &[Layer]) -> Result<Report, JailError> {
    surroundings::one_thread()?;
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
    let privileges = hold(Layer::Privileges, &mut user::drop_privileges);
    // A change of the user or of the capabilities would have forgotten it.
    user::die_with(jail.parent)?;
    let (files, network, signals) = match without.contains(&Layer::Files) {
        true => files::none("left out by a test"),
        false => files::restrict(jail),
    };
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
    match (jail.mode, report.missing()) {
        (JailMode::Required, Some(missing)) => Err(JailError::Missing(missing)),
        (JailMode::Required | JailMode::BestEffort, _) => Ok(report),
    }
}

/// What Landlock does not hold is still refused by the filter of calls, if that is there.
fn with_calls(hold: &Hold, calls: &Hold) -> Hold {
    match (hold, calls) {
        (Hold::Missing(why), Hold::Held) => {
            Hold::Partly(format!("by the filter of calls alone: {why}"))
        }
        (Hold::Held | Hold::Partly(_) | Hold::Missing(_), _) => hold.clone(),
    }
}
