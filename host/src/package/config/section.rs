//! Takes the keys of a mapping one by one and says what is left.
//!
//! Owns how an error about a key is worded: the key's path, its line and the
//! fix. Knows no key itself.

use super::ConfigError;
use super::tree::{Node, Value};
use std::fmt::Display;

/// Longest piece of a file that an error repeats.
const QUOTED_CHARS_MAX: usize = 60;

/// A mapping, or what is left of it.
#[derive(Debug)]
pub(super) struct Section {
    path: String,
    line: u64,
    entries: Vec<(String, Node)>,
}

/// A text with its key and line.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) line: u64,
    pub(super) text: String,
}

/// What becomes of keys that nobody took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unknown {
    /// They are not ours to judge, but one that nearly is a key of ours is a
    /// slip that would otherwise go unnoticed.
    RefuseMisspelt,
    /// The section is ours alone.
    Refuse,
}

impl Section {
    /// A mapping; nothing at all counts as an empty one.
    pub(super) fn new(path: &str, node: Node) -> Result<Self, ConfigError> {
        let line = node.line;
        let entries = match node.value {
            Value::Null => Vec::new(),
            Value::Map(entries) => entries,
            Value::Text(_) | Value::List(_) => {
                let (key, fix) = (path, "write `key: value` lines below it");
                return Err(error(
                    if key.is_empty() { "config.yaml" } else { key },
                    line,
                    "is not a mapping",
                    fix,
                ));
            }
        };
        Ok(Self { path: path.to_owned(), line, entries })
    }

    /// Takes a key's value; nothing at all counts as an absent key.
    pub(super) fn node(&mut self, key: &str) -> Option<Node> {
        let index = self.entries.iter().position(|(name, _)| name == key)?;
        let (_, node) = self.entries.swap_remove(index);
        (!matches!(node.value, Value::Null)).then_some(node)
    }

    /// Takes a text.
    pub(super) fn text(&mut self, key: &str) -> Result<Option<Entry>, ConfigError> {
        let path = self.path_of(key);
        self.node(key).map(|node| Entry::new(path, node)).transpose()
    }

    /// Takes a text that needs no check.
    pub(super) fn plain(&mut self, key: &str) -> Result<Option<String>, ConfigError> {
        Ok(self.text(key)?.map(|entry| entry.text))
    }

    /// Takes a whole number within a range.
    pub(super) fn number(
        &mut self,
        key: &str,
        min: u64,
        max: u64,
    ) -> Result<Option<u64>, ConfigError> {
        let Some(entry) = self.text(key)? else { return Ok(None) };
        match entry.text.parse::<u64>() {
            Ok(number) if (min..=max).contains(&number) => Ok(Some(number)),
            _ => Err(entry.refused(format!("is not a whole number from {min} to {max}"))),
        }
    }

    /// Takes `true` or `false`.
    pub(super) fn boolean(&mut self, key: &str) -> Result<Option<bool>, ConfigError> {
        let Some(entry) = self.text(key)? else { return Ok(None) };
        match entry.text.as_str() {
            "true" | "True" | "TRUE" => Ok(Some(true)),
            "false" | "False" | "FALSE" => Ok(Some(false)),
            _ => Err(entry.refused("is neither true nor false")),
        }
    }

    /// Takes a mapping.
    pub(super) fn section(&mut self, key: &str) -> Result<Option<Section>, ConfigError> {
        let path = self.path_of(key);
        self.node(key).map(|node| Section::new(&path, node)).transpose()
    }

    /// Takes a list, with the path of each item.
    pub(super) fn list(&mut self, key: &str) -> Result<Vec<(String, Node)>, ConfigError> {
        let path = self.path_of(key);
        let Some(node) = self.node(key) else { return Ok(Vec::new()) };
        match node.value {
            Value::List(items) => Ok(items
                .into_iter()
                .enumerate()
                .map(|(index, item)| (format!("{path}[{index}]"), item))
                .collect()),
            Value::Null | Value::Text(_) | Value::Map(_) => Err(error(
                &path,
                node.line,
                "is not a list",
                "write it as `[...]` or as lines that begin with `- `",
            )),
        }
    }

    /// Takes a list of texts.
    pub(super) fn texts(&mut self, key: &str) -> Result<Vec<String>, ConfigError> {
        self.list(key)?.into_iter().map(|(path, node)| Ok(Entry::new(path, node)?.text)).collect()
    }

    /// Takes a list of texts that may also be written as one text.
    pub(super) fn texts_or_text(&mut self, key: &str) -> Result<Vec<String>, ConfigError> {
        let is_text = self
            .entries
            .iter()
            .any(|(name, node)| name == key && matches!(node.value, Value::Text(_)));
        if is_text { Ok(self.plain(key)?.into_iter().collect()) } else { self.texts(key) }
    }

    /// Takes all that is left, as texts.
    pub(super) fn rest(mut self) -> Result<Vec<(String, Entry)>, ConfigError> {
        let entries = std::mem::take(&mut self.entries);
        entries
            .into_iter()
            .map(|(key, node)| {
                let entry = Entry::new(self.path_of(&key), node)?;
                Ok((key, entry))
            })
            .collect()
    }

    /// The error for a key that has to be there.
    pub(super) fn missing(&self, key: &str, fix: &str) -> ConfigError {
        error(&self.path_of(key), self.line, "is missing", fix)
    }

    /// Judges the keys that nobody took; `known` are those that could have been.
    pub(super) fn finish(self, known: &[&str], unknown: Unknown) -> Result<(), ConfigError> {
        for (key, node) in &self.entries {
            if known.contains(&key.as_str()) {
                continue;
            }
            let path = self.path_of(&shortened(key));
            let meant = known.iter().find(|name| is_near(key, name));
            match (meant, unknown) {
                (Some(meant), _) => {
                    return Err(error(
                        &path,
                        node.line,
                        "is not a key",
                        &format!("did you mean `{meant}`?"),
                    ));
                }
                (None, Unknown::Refuse) => {
                    let fix = format!("the keys here are {}", known.join(", "));
                    return Err(error(&path, node.line, "is not a key", &fix));
                }
                (None, Unknown::RefuseMisspelt) => {}
            }
        }
        Ok(())
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}

impl Entry {
    /// A scalar.
    pub(super) fn new(key: String, node: Node) -> Result<Self, ConfigError> {
        let line = node.line;
        match node.value {
            Value::Text(text) => Ok(Self { key, line, text }),
            Value::Null => {
                Err(error(&key, line, "has no value", "write one, or leave the key out"))
            }
            Value::List(_) => Err(error(&key, line, "is a list", "write one value")),
            Value::Map(_) => Err(error(&key, line, "is a mapping", "write one value")),
        }
    }

    /// The error for a text that is not what the key takes. `problem` says what
    /// is wrong with it and the fix; the text itself is repeated.
    pub(super) fn refused(&self, problem: impl Display) -> ConfigError {
        let quoted = format!("{:?} {problem}", shortened(&self.text));
        ConfigError::Key { key: self.key.clone(), line: self.line, problem: quoted }
    }

    /// The same for a text that nobody may read.
    pub(super) fn refused_secret(&self, problem: impl Display) -> ConfigError {
        ConfigError::Key { key: self.key.clone(), line: self.line, problem: problem.to_string() }
    }
}

fn error(key: &str, line: u64, problem: &str, fix: &str) -> ConfigError {
    ConfigError::Key { key: key.to_owned(), line, problem: format!("{problem}; {fix}") }
}

fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(QUOTED_CHARS_MAX).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

/// Whether one is the other with at most two letters added, lost or changed,
/// and at most a quarter of its letters.
fn is_near(key: &str, name: &str) -> bool {
    let allowed = (name.len() / 4).min(2);
    if key.len().abs_diff(name.len()) > allowed || key.eq_ignore_ascii_case(name) {
        return key.eq_ignore_ascii_case(name);
    }
    // Levenshtein's distance, a row at a time.
    let mut row: Vec<usize> = (0..=name.len()).collect();
    for (i, a) in key.bytes().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        let mut next = vec![left];
        for (b, above) in name.bytes().zip(row.iter().skip(1)) {
            let cost = (diagonal + usize::from(a != b)).min(above + 1).min(left + 1);
            diagonal = *above;
            left = cost;
            next.push(cost);
        }
        row = next;
    }
    row.last().is_some_and(|distance| *distance <= allowed)
}
