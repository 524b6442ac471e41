//! YAML files of ours: read key by key, with every problem told by its place.
//!
//! Owns the form of such a file, the limits of reading one, and how an error is
//! worded. What a key means is decided by whoever takes it. Opens no file.

mod amount;
#[cfg(test)]
mod fits;
mod key;
mod problem;
mod section;
mod tree;

pub(crate) use amount::{bytes_text, duration_text};
#[cfg(test)]
pub(crate) use fits::fits;
pub(crate) use key::{Form, Key, Unknown as UnknownKeys, key, leaves, schema};
pub use problem::{Place, Problem};
pub(crate) use section::{Entry, Section, Unknown, near};

use crate::limits::limit;
use problem::Found;

/// Longest file.
pub const BYTES_MAX: usize = 64 << 10;

/// A kind of file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Document {
    /// What errors call it.
    pub(crate) name: &'static str,
    /// Sections whose lines are never shown.
    pub(crate) secret_sections: &'static [&'static str],
}

/// Why a file is refused. Each text names the place and the fix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The file is too long.
    #[error("{file} has {bytes} bytes; {BYTES_MAX} are allowed")]
    TooLong {
        /// Its name.
        file: String,
        /// How long it is.
        bytes: usize,
    },
    /// The text is no YAML, or more of it than is read.
    #[error("{file}:{}:{}: {problem}; correct the YAML there", place.line, place.column)]
    Yaml {
        /// Its name.
        file: String,
        /// Where; line 0 is the whole file.
        place: Place,
        /// What the YAML reader says.
        problem: String,
    },
    /// Keys are missing, unknown or have values that they cannot have: all that
    /// there are, in the order of the file.
    #[error("{}", listed(file, problems))]
    Problems {
        /// Its name.
        file: String,
        /// What is wrong.
        problems: Vec<Problem>,
    },
}

fn listed(file: &str, problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
    match lines.as_slice() {
        [one] => one.clone(),
        _ => format!("{file} has {} problems\n{}", lines.len(), lines.join("\n")),
    }
}

/// Reads a whole file. `take` takes what there is, key by key; what it finds
/// wrong with them ends in the error.
pub(crate) fn read<T>(
    document: &'static Document,
    text: &str,
    take: impl FnOnce(Section) -> Option<T>,
) -> Result<T, Error> {
    read_as(document, document.name, text, take)
}

/// The same of a file that errors call by a name of its own.
pub(crate) fn read_as<T>(
    document: &'static Document,
    name: &str,
    text: &str,
    take: impl FnOnce(Section) -> Option<T>,
) -> Result<T, Error> {
    let file = name.to_owned();
    if text.len() > limit("yaml_bytes", BYTES_MAX) {
        return Err(Error::TooLong { file, bytes: text.len() });
    }
    let root = tree::parse(text).map_err(|(place, problem)| Error::Yaml {
        file: file.clone(),
        place,
        problem,
    })?;
    let found = Found::of(document, name);
    match Section::new("", root, &found).and_then(take) {
        Some(taken) if found.is_empty() => Ok(taken),
        _ => Err(Error::Problems { file, problems: found.in_order(text) }),
    }
}
