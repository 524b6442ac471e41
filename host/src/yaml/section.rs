//! Takes the keys of a mapping one by one and says what is left.
//!
//! Owns how an error about a key is worded: the key's path, its line and the
//! fix. Knows no key itself.

use super::amount::{self, bytes_text, duration_text};
use super::key::Key as Known;
use super::problem::{Found, Place};
use super::tree::{Key, Node, Value};
use crate::package::quantity::Quantity;
use std::fmt::Display;
use std::time::Duration;

/// Longest piece of a file that an error repeats.
const QUOTED_CHARS_MAX: usize = 60;

/// A mapping, or what is left of it. What is wrong with it is added to what has
/// been found, and reads as absent.
#[derive(Debug)]
pub(crate) struct Section {
    path: String,
    place: Place,
    entries: Vec<(Key, Node)>,
    found: Found,
}

/// A text with its key and place.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) place: Place,
    pub(crate) text: String,
    found: Found,
}

/// What becomes of keys that nobody took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unknown {
    /// They are not ours to judge, but one that nearly is a key of ours is a
    /// slip that would otherwise go unnoticed.
    RefuseMisspelt,
    /// The section is ours alone.
    Refuse,
}

impl Section {
    /// A mapping; nothing at all counts as an empty one.
    pub(super) fn new(path: &str, node: Node, found: &Found) -> Option<Self> {
        let place = node.place;
        let entries = match node.value {
            Value::Null => Vec::new(),
            Value::Map(entries) => entries,
            Value::Text(_) | Value::List(_) => {
                let key = if path.is_empty() { found.file() } else { path };
                found.add(key, place, "is not a mapping; write `key: value` lines below it".into());
                return None;
            }
        };
        Some(Self { path: path.to_owned(), place, entries, found: found.clone() })
    }

    /// Whether a key is there, whatever its value.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|(there, _)| there.name == key)
    }

    /// Takes a key's value; nothing at all counts as an absent key.
    pub(crate) fn node(&mut self, key: &str) -> Option<Node> {
        let index = self.entries.iter().position(|(there, _)| there.name == key)?;
        let (_, node) = self.entries.swap_remove(index);
        (!matches!(node.value, Value::Null)).then_some(node)
    }

    /// Takes a text.
    pub(crate) fn text(&mut self, key: &str) -> Option<Entry> {
        let path = self.path_of(key);
        let node = self.node(key)?;
        Entry::new(path, node, &self.found)
    }

    /// Takes a text that has to be there.
    pub(crate) fn required(&mut self, key: &str, fix: &str) -> Option<Entry> {
        let path = self.path_of(key);
        match self.node(key) {
            Some(node) => Entry::new(path, node, &self.found),
            None => {
                self.missing(key, fix);
                None
            }
        }
    }

    /// Takes a text that needs no check.
    pub(crate) fn plain(&mut self, key: &str) -> Option<String> {
        Some(self.text(key)?.text)
    }

    /// Takes a whole number within a range.
    pub(crate) fn number(&mut self, key: &str, min: u64, max: u64) -> Option<u64> {
        let entry = self.text(key)?;
        match entry.text.parse::<u64>() {
            Ok(number) if (min..=max).contains(&number) => Some(number),
            _ => entry.refuse(format!("is not a whole number from {min} to {max}")),
        }
    }

    /// Takes a whole number and a unit of time within a range.
    pub(crate) fn duration(&mut self, key: &str, min: Duration, max: Duration) -> Option<Duration> {
        let entry = self.text(key)?;
        match amount::duration(&entry.text) {
            Some(duration) if (min..=max).contains(&duration) => Some(duration),
            Some(_) => entry.refuse_outside(&duration_text(min), &duration_text(max)),
            None => {
                entry.refuse("is not a time; write a number and ms, s, m or h, such as \"30s\"")
            }
        }
    }

    /// Takes a quantity of bytes within a range.
    pub(crate) fn bytes(&mut self, key: &str, min: u64, max: u64) -> Option<u64> {
        let entry = self.text(key)?;
        match entry.text.parse().and_then(Quantity::bytes) {
            Ok(bytes) if (min..=max).contains(&bytes) => Some(bytes),
            Ok(_) => entry.refuse_outside(&bytes_text(min), &bytes_text(max)),
            Err(problem) => entry.refuse(problem),
        }
    }

    /// Takes `true` or `false`.
    pub(crate) fn boolean(&mut self, key: &str) -> Option<bool> {
        let entry = self.text(key)?;
        match entry.text.as_str() {
            "true" | "True" | "TRUE" => Some(true),
            "false" | "False" | "FALSE" => Some(false),
            _ => entry.refuse("is neither true nor false"),
        }
    }

    /// Takes a mapping.
    pub(crate) fn section(&mut self, key: &str) -> Option<Section> {
        let path = self.path_of(key);
        let node = self.node(key)?;
        Section::new(&path, node, &self.found)
    }

    /// Takes a mapping; one without a value counts as empty.
    pub(crate) fn section_or_empty(&mut self, key: &str) -> Option<Section> {
        let path = self.path_of(key);
        let index = self.entries.iter().position(|(there, _)| there.name == key)?;
        let (_, node) = self.entries.swap_remove(index);
        Section::new(&path, node, &self.found)
    }

    /// Takes a list, with the path of each item.
    pub(crate) fn list(&mut self, key: &str) -> Vec<(String, Node)> {
        let path = self.path_of(key);
        let Some(node) = self.node(key) else { return Vec::new() };
        match node.value {
            Value::List(items) => items
                .into_iter()
                .enumerate()
                .map(|(index, item)| (format!("{path}[{index}]"), item))
                .collect(),
            Value::Null | Value::Text(_) | Value::Map(_) => {
                let text = "is not a list; write it as `[...]` or as lines that begin with `- `";
                self.found.add(&path, node.place, text.to_owned());
                Vec::new()
            }
        }
    }

    /// Takes a list of mappings.
    pub(crate) fn sections(&mut self, key: &str) -> Vec<Section> {
        let items = self.list(key);
        items
            .into_iter()
            .filter_map(|(path, node)| Section::new(&path, node, &self.found))
            .collect()
    }

    /// Takes a list of texts.
    pub(crate) fn texts(&mut self, key: &str) -> Vec<String> {
        self.entries(key).into_iter().map(|entry| entry.text).collect()
    }

    /// Takes a list of texts, each with its place.
    pub(crate) fn entries(&mut self, key: &str) -> Vec<Entry> {
        let items = self.list(key);
        items.into_iter().filter_map(|(path, node)| Entry::new(path, node, &self.found)).collect()
    }

    /// Takes a list of texts that may also be written as one text.
    pub(crate) fn texts_or_text(&mut self, key: &str) -> Vec<String> {
        let is_text = self
            .entries
            .iter()
            .any(|(there, node)| there.name == key && matches!(node.value, Value::Text(_)));
        if is_text { self.plain(key).into_iter().collect() } else { self.texts(key) }
    }

    /// Takes all that is left, as texts.
    pub(crate) fn rest(mut self) -> Vec<(String, Entry)> {
        let entries = std::mem::take(&mut self.entries);
        entries
            .into_iter()
            .filter_map(|(key, node)| {
                let entry = Entry::new(self.path_of(&key.name), node, &self.found)?;
                Some((key.name, entry))
            })
            .collect()
    }

    /// Says that a key has to be there.
    pub(crate) fn missing(&self, key: &str, fix: &str) {
        self.found.add(&self.path_of(key), self.place, format!("is missing; {fix}"));
    }

    /// Says what is wrong with the section as a whole.
    pub(crate) fn refuse_whole(&self, text: &str) {
        self.found.add(&self.path, self.place, text.to_owned());
    }

    /// Judges the keys that nobody took; `known` are those that could have been.
    pub(crate) fn finish(self, known: &[Known], unknown: Unknown) {
        let known: Vec<&str> = known.iter().map(|known| known.name).collect();
        for (key, _) in &self.entries {
            if known.contains(&key.name.as_str()) {
                continue;
            }
            let path = self.path_of(&shortened(&key.name));
            let meant = near(&key.name, &known);
            let text = match (meant, unknown) {
                (Some(meant), _) => format!("is not a key; did you mean `{meant}`?"),
                (None, Unknown::Refuse) => {
                    format!("is not a key; the keys here are {}", known.join(", "))
                }
                (None, Unknown::RefuseMisspelt) => continue,
            };
            self.found.add(&path, key.place, text);
        }
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}

impl Entry {
    /// A scalar.
    pub(super) fn new(key: String, node: Node, found: &Found) -> Option<Self> {
        let place = node.place;
        let text = match node.value {
            Value::Text(text) => {
                return Some(Self { key, place, text, found: found.clone() });
            }
            Value::Null => "has no value; write one, or leave the key out",
            Value::List(_) => "is a list; write one value",
            Value::Map(_) => "is a mapping; write one value",
        };
        found.add(&key, place, text.to_owned());
        None
    }

    /// Says that the text is not what the key takes. `problem` says what is
    /// wrong with it and the fix; the text itself is repeated.
    pub(crate) fn refuse<T>(&self, problem: impl Display) -> Option<T> {
        self.found.add(&self.key, self.place, format!("{:?} {problem}", shortened(&self.text)));
        None
    }

    fn refuse_outside<T>(&self, min: &str, max: &str) -> Option<T> {
        self.refuse(format!("is outside what is allowed; write from \"{min}\" to \"{max}\""))
    }

    /// The same for a text that nobody may read.
    pub(crate) fn refuse_secret<T>(&self, problem: impl Display) -> Option<T> {
        self.found.add(&self.key, self.place, problem.to_string());
        None
    }
}

fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(QUOTED_CHARS_MAX).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

/// The one of several names that a word nearly is.
pub(crate) fn near<'a>(word: &str, names: &[&'a str]) -> Option<&'a str> {
    names.iter().find(|name| is_near(word, name)).copied()
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
