//! The jail that a worker process shuts itself into. Nothing here reads any input.
//!
//! Its walls are what Linux on x86-64 offers, and stand in a module of their own.
//! Elsewhere another one stands in for them, which has none and says so.

#![cfg_attr(
    not(all(target_os = "linux", target_arch = "x86_64")),
    allow(dead_code, reason = "without walls, nobody says how they are made, or fail")
)]

mod limits;
mod proof;
mod report;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[path = "linux/mod.rs"]
mod walls;
#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
#[path = "elsewhere.rs"]
mod walls;

pub(crate) use proof::{Act, Outcome, judge};
pub use report::Layer;
pub(crate) use report::{Hold, Report};
pub(crate) use walls::{HAS_WALLS, attempt, enter_without, no_more_code, no_more_files};

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
    Code(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Nor is the third.
    #[error("files in memory cannot be refused")]
    Files(#[source] Box<dyn std::error::Error + Send + Sync>),
}
