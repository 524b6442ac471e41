//! What is wrong with a file: all of it at once, each with its place.
//!
//! Owns how a problem is shown. A line that may hold a token or a secret is
//! never repeated.

use super::Document;
use super::section::near;
use crate::limits::limit;
use crate::text::escape_controls;
use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

/// Most problems that are told of one file.
const PROBLEMS_MAX: usize = 50;

/// Longest line of a file that is shown, in characters.
const LINE_CHARS_MAX: usize = 100;

/// Words of lines that are not shown.
const SECRET_WORDS: [&str; 9] =
    ["token", "tokn", "secret", "value", "password", "credential", "api_key", "hf_", "rf_"];

/// Where something stands, both counted from 1; nowhere is line 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: u64,
    /// The character in that line.
    pub column: u64,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file's name.
    pub file: String,
    /// Where it is.
    pub place: Place,
    /// Path of the key, with dots.
    pub key: String,
    /// What is wrong and what to write.
    pub text: String,
    /// The line and how many of its characters are meant, where it may be shown.
    shown: Option<(String, usize)>,
}

/// Problems as they are found.
#[derive(Debug, Clone)]
pub(super) struct Found {
    document: &'static Document,
    file: Rc<str>,
    problems: Rc<RefCell<Vec<Problem>>>,
}

impl Found {
    pub(super) fn of(document: &'static Document, name: &str) -> Self {
        Self { document, file: name.into(), problems: Rc::default() }
    }

    /// What the file is called.
    pub(super) fn file(&self) -> &str {
        &self.file
    }

    pub(super) fn add(&self, key: &str, place: Place, text: String) {
        let mut problems = self.problems.borrow_mut();
        if problems.len() < limit("yaml_problems", PROBLEMS_MAX) {
            let file = self.file().to_owned();
            problems.push(Problem { file, place, key: key.to_owned(), text, shown: None });
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.problems.borrow().is_empty()
    }

    /// All of them, in the order of the file, with the lines they are about.
    pub(super) fn in_order(self, source: &str) -> Vec<Problem> {
        let mut problems = self.problems.take();
        problems.sort_by_key(|problem| problem.place);
        for problem in &mut problems {
            problem.shown = shown(source, self.document.secret_sections, problem);
        }
        problems
    }
}

fn shown(source: &str, secret_sections: &[&str], problem: &Problem) -> Option<(String, usize)> {
    let section = problem.key.split(['.', '[']).next().unwrap_or_default();
    if secret_sections.contains(&section) || near(section, secret_sections).is_some() {
        return None;
    }
    let index = usize::try_from(problem.place.line.checked_sub(1)?).ok()?;
    let line = source.lines().nth(index)?;
    let lower = line.to_ascii_lowercase();
    if SECRET_WORDS.iter().any(|word| lower.contains(word)) {
        return None;
    }
    let before = usize::try_from(problem.place.column.checked_sub(1)?).ok()?;
    if before >= LINE_CHARS_MAX {
        return None;
    }
    let meant = line
        .chars()
        .skip(before)
        .take_while(|character| !character.is_whitespace() && !",]}#".contains(*character))
        .count();
    let line: String = line.chars().take(LINE_CHARS_MAX).collect();
    Some((line, meant.clamp(1, LINE_CHARS_MAX - before)))
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { line, column } = self.place;
        write!(f, "{}:{line}:{column}: `{}`: {}", self.file, self.key, self.text)?;
        let Some((source, meant)) = &self.shown else { return Ok(()) };
        let before = usize::try_from(column).unwrap_or(1).saturating_sub(1);
        // Tabs stay as they are, so that the caret stands where the text does.
        let blank: String = source
            .chars()
            .take(before)
            .map(|character| if character == '\t' { '\t' } else { ' ' })
            .collect();
        let source = match source.contains('\t') {
            true => source.clone(),
            false => escape_controls(source),
        };
        write!(f, "\n{line:>6} | {source}\n       | {blank}{}", "^".repeat(*meant))
    }
}
