//! Takes the keys of a mapping one by one and says what is left.
//!
//! Owns how an error about a key is worded: the key's path, its line and the
//! fix. Knows no key itself.

use super::key::Key as Known;
use super::problem::{Found, Place};
use super::tree::{Key, Node, Value};
use std::fmt::Display;

/// Longest piece of a file that an error repeats.
const QUOTED_CHARS_MAX: usize = 60;

/// A mapping, or what is left of it. What is wrong with it is added to what has
/// been found, and reads as absent.
#[derive(Debug)]
pub(super) struct Section {
    path: String,
    place: Place,
    entries: Vec<(Key, Node)>,
    found: Found,
}

/// A text with its key and place.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) place: Place,
    pub(super) text: String,
    found: Found,
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
    pub(super) fn new(path: &str, node: Node, found: &Found) -> Option<Self> {
        let place = node.place;
        let entries = match node.value {
            Value::Null => Vec::new(),
            Value::Map(entries) => entries,
            Value::Text(_) | Value::List(_) => {
                let key = if path.is_empty() { "config.yaml" } else { path };
                found.add(key, place, "is not a mapping; write `key: value` lines below it".into());
                return None;
            }
        };
        Some(Self { path: path.to_owned(), place, entries, found: found.clone() })
    }

    /// Whether a key is there, whatever its value.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|(there, _)| there.name == key)
    }

    /// Takes a key's value; nothing at all counts as an absent key.
    pub(super) fn node(&mut self, key: &str) -> Option<Node> {
        let index = self.entries.iter().position(|(there, _)| there.name == key)?;
        let (_, node) = self.entries.swap_remove(index);
        (!matches!(node.value, Value::Null)).then_some(node)
    }

    /// Takes a text.
    pub(super) fn text(&mut self, key: &str) -> Option<Entry> {
        let path = self.path_of(key);
        let node = self.node(key)?;
        Entry::new(path, node, &self.found)
    }

    /// Takes a text that has to be there.
    pub(super) fn required(&mut self, key: &str, fix: &str) -> Option<Entry> {
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
    pub(super) fn plain(&mut self, key: &str) -> Option<String> {
        Some(self.text(key)?.text)
    }

    /// Takes a whole number within a range.
    pub(super) fn number(&mut self, key: &str, min: u64, max: u64) -> Option<u64> {
        let entry = self.text(key)?;
        match entry.text.parse::<u64>() {
            Ok(number) if (min..=max).contains(&number) => Some(number),
            _ => entry.refuse(format!("is not a whole number from {min} to {max}")),
        }
    }

    /// Takes `true` or `false`.
    pub(super) fn boolean(&mut self, key: &str) -> Option<bool> {
        let entry = self.text(key)?;
        match entry.text.as_str() {
            "true" | "True" | "TRUE" => Some(true),
            "false" | "False" | "FALSE" => Some(false),
            _ => entry.refuse("is neither true nor false"),
        }
    }

    /// Takes a mapping.
    pub(super) fn section(&mut self, key: &str) -> Option<Section> {
        let path = self.path_of(key);
        let node = self.node(key)?;
        Section::new(&path, node, &self.found)
    }

    /// Takes a mapping; one without a value counts as empty.
    pub(super) fn section_or_empty(&mut self, key: &str) -> Option<Section> {
        let path = self.path_of(key);
        let index = self.entries.iter().position(|(there, _)| there.name == key)?;
        let (_, node) = self.entries.swap_remove(index);
        Section::new(&path, node, &self.found)
    }

    /// Takes a list, with the path of each item.
    pub(super) fn list(&mut self, key: &str) -> Vec<(String, Node)> {
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
    pub(super) fn sections(&mut self, key: &str) -> Vec<Section> {
        let items = self.list(key);
        items
            .into_iter()
            .filter_map(|(path, node)| Section::new(&path, node, &self.found))
            .collect()
    }

    /// Takes a list of texts.
    pub(super) fn texts(&mut self, key: &str) -> Vec<String> {
        let items = self.list(key);
        let text = |(path, node)| Some(Entry::new(path, node, &self.found)?.text);
        items.into_iter().filter_map(text).collect()
    }

    /// Takes a list of texts that may also be written as one text.
    pub(super) fn texts_or_text(&mut self, key: &str) -> Vec<String> {
        let is_text = self
            .entries
            .iter()
            .any(|(there, node)| there.name == key && matches!(node.value, Value::Text(_)));
        if is_text { self.plain(key).into_iter().collect() } else { self.texts(key) }
    }

    /// Takes all that is left, as texts.
    pub(super) fn rest(mut self) -> Vec<(String, Entry)> {
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
    pub(super) fn missing(&self, key: &str, fix: &str) {
        self.found.add(&self.path_of(key), self.place, format!("is missing; {fix}"));
    }

    /// Says what is wrong with a key that was taken.
    pub(super) fn refuse(&self, key: &str, place: Place, text: &str) {
        self.found.add(&self.path_of(key), place, text.to_owned());
    }

    /// Judges the keys that nobody took; `known` are those that could have been.
    pub(super) fn finish(self, known: &[Known], unknown: Unknown) {
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
    pub(super) fn refuse<T>(&self, problem: impl Display) -> Option<T> {
        self.found.add(&self.key, self.place, format!("{:?} {problem}", shortened(&self.text)));
        None
    }

    /// The same for a text that nobody may read.
    pub(super) fn refuse_secret<T>(&self, problem: impl Display) -> Option<T> {
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
pub(super) fn near<'a>(word: &str, names: &[&'a str]) -> Option<&'a str> {
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
