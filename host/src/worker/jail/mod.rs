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

pub(crate) use proof::{Act, Need, Outcome, judge};
pub use report::Layer;
pub(crate) use report::{Hold, Report};
pub(crate) use walls::{HAS_WALLS, attempt, enter_without, no_more_code, no_more_files, try_need};

use std::os::fd::BorrowedFd;
use std::path::PathBuf;

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

/// What a process may still have of code, beside what it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    /// What it makes, in memory that is not writable at the same time.
    Made,
    /// That of files which it opens, such as libraries, and none of memory that it wrote to.
    Libraries,
    /// None.
    None,
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
    /// Memory that is private and writable, stacks aside, where that is limited.
    pub data_bytes: Option<u64>,
    /// Open descriptors, each below this number.
    pub files_max: u64,
    /// The size of any file written, or made in memory: an image of a guest's memory too.
    pub file_bytes_max: u64,
    /// Files that may be opened for reading, and directories beneath which they may.
    pub reads: &'a [BorrowedFd<'a>],
    /// Where it is to use the driver of a device: the nodes of that, which may be opened for
    /// writing, too. A driver is told by the loader's variable where libraries are.
    pub driver: Option<&'a [BorrowedFd<'a>]>,
    /// What becomes the root directory, from the working directory, which is empty.
    pub root: Root,
    /// What of code it may have until [`no_more_code`].
    pub code: Code,
}

/// What becomes the root directory of a process, where it may change that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Root {
    /// The working directory: there is nothing.
    Here,
    /// What is above it, and what else is there.
    Above,
    /// What it is already: libraries are found by their paths.
    Kept,
}

/// What is not refused to a process that is to use a driver, and is to others.
pub const GIVEN_UP: [&str; 7] = [
    "it may ask the driver of its devices for anything; a fault of that is one of the kernel",
    "it keeps the root directory: it may read libraries, and of /proc and /sys what a driver \
     reads, and see which other files there are",
    "it may run code of files that it may read, and write to its own memory, code too, by \
     /proc/self/task",
    "it may share memory with a device; the memory of its process is limited by a control group \
     alone",
    "it may listen under an abstract name, in a network of its own where it has one; other \
     processes of its user may trace it",
    "where the host is no root's, it may have others taken before it as memory ends",
    "to start a process or a program, or to connect a socket, is refused, and not its end",
];

/// The one variable that a process is given which is to use a driver.
pub(crate) const LOADER_PATH: &str = "LD_LIBRARY_PATH";

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
    /// What a driver needs is not there.
    #[error("a driver needs {path:?}")]
    Driver {
        /// What cannot be opened.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The second filter is not in place.
    #[error("executable memory cannot be refused")]
    Code(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Nor is the third.
    #[error("files in memory cannot be refused")]
    Files(#[source] Box<dyn std::error::Error + Send + Sync>),
}
