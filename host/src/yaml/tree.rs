//! YAML to a small tree that remembers the line of each value.
//!
//! Owns the YAML library and its limits; knows no key. Scalars keep the text
//! that was written, because `3.10`, `0x10` and `yes` are texts here and what a
//! key makes of them is decided by the key.

use super::problem::Place;
use crate::limits::limit;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;
use serde_saphyr::granit_parser::{Event, Parser};
use std::fmt;

/// Nesting of a file; real ones need four.
const DEPTH_MAX: usize = 16;
/// Values of one file: enough for the largest list of concepts.
const NODES_MAX: usize = 100_000;

/// A value and where it stands.
#[derive(Debug)]
pub(crate) struct Node {
    pub(super) value: Value,
    pub(crate) place: Place,
}

/// What a value can be.
#[derive(Debug)]
pub(super) enum Value {
    Null,
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// A key and where it stands.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: String,
    pub(super) place: Place,
}

/// Reads the one document of the text; an empty text is an empty value.
///
/// An error is a place and what is wrong there; line 0 is the whole file.
pub(super) fn parse(text: &str) -> Result<Node, (Place, String)> {
    let depth_max = limit("yaml_depth", DEPTH_MAX);
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: depth_max,
            flow_nesting_limit: depth_max,
            max_nodes: limit("yaml_nodes", NODES_MAX),
            max_anchors: 0,
            max_aliases: 0,
            max_merge_keys: 0,
        },
        // A key must not mean one thing to one reader and another to the next.
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::Error,
        non_finite_float_policy: serde_saphyr::NonFiniteFloatPolicy::AsString,
        reject_unsupported_tags: true,
        emit_comments: false,
        // A snippet would show the lines around an error, tokens among them.
        with_snippet: false,
    };
    let root: Option<Spanned<Raw>> =
        serde_saphyr::from_str_with_options(text, options).map_err(|error| {
            let place = error.location().map(|location| place(&location)).unwrap_or_default();
            (place, problem(&error))
        })?;
    refuse_tags(text)?;
    Ok(match root {
        Some(root) => node(text, root),
        None => Node { value: Value::Null, place: Place { line: 1, column: 1 } },
    })
}

/// A tag says how a reader should take a value. The library follows those of
/// YAML itself; here each key decides.
fn refuse_tags(text: &str) -> Result<(), (Place, String)> {
    for event in Parser::new_from_str(text) {
        // What cannot be read has been refused by now.
        let Ok((event, span)) = event else { return Ok(()) };
        let tag = match event {
            Event::Scalar(_, _, _, tag)
            | Event::SequenceStart(_, _, tag)
            | Event::MappingStart(_, _, tag) => tag,
            _ => None,
        };
        if tag.is_some() {
            let start = span.start;
            let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
            let place = Place { line: count(start.line()), column: count(start.col()) + 1 };
            let problem = "tags such as !!str are not read; write the value alone".to_owned();
            return Err((place, problem));
        }
    }
    Ok(())
}

/// The library's message without what repeats the line, and without values.
fn problem(error: &serde_saphyr::Error) -> String {
    match error {
        serde_saphyr::Error::DuplicateMappingKey { key: Some(key), .. } => {
            format!("the key {key:?} stands twice in the same place")
        }
        serde_saphyr::Error::MultipleDocuments { .. } => "there is a second document".to_owned(),
        serde_saphyr::Error::Budget { breach, .. } => match breach {
            serde_saphyr::budget::BudgetBreach::Anchors { .. }
            | serde_saphyr::budget::BudgetBreach::Aliases { .. }
            | serde_saphyr::budget::BudgetBreach::MergeKeys { .. } => {
                "anchors, aliases and merge keys are not read; write the values out".to_owned()
            }
            _ => "there are more values or levels than are read".to_owned(),
        },
        serde_saphyr::Error::ExternalMessage { msg, .. } => msg.clone(),
        serde_saphyr::Error::Message { .. } | serde_saphyr::Error::InvalidScalar { .. } => {
            "a value has a form that is not understood here".to_owned()
        }
        other => {
            let message = other.to_string();
            let end = message.find(" at line ").unwrap_or(message.len());
            message.get(..end).unwrap_or_default().to_owned()
        }
    }
}

/// The tree before plain numbers and booleans get their text back.
enum Raw {
    Null,
    /// Quoted, or plain and no other type.
    Text(String),
    /// Plain, and of a type that does not keep what was written.
    Typed,
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

fn place(location: &serde_saphyr::Location) -> Place {
    Place { line: location.line(), column: location.column() }
}

fn node(source: &str, raw: Spanned<Raw>) -> Node {
    let place = place(&raw.referenced);
    let value = match raw.value {
        Raw::Null => Value::Null,
        Raw::Text(text) => Value::Text(text),
        Raw::Typed => {
            let written = raw.defined.span().byte_offset().zip(raw.defined.span().byte_len());
            let written = written.and_then(|(start, length)| {
                let start = usize::try_from(start).ok()?;
                source.get(start..start.checked_add(usize::try_from(length).ok()?)?)
            });
            Value::Text(written.unwrap_or_default().trim().to_owned())
        }
        Raw::List(items) => Value::List(items.into_iter().map(|item| node(source, item)).collect()),
        Raw::Map(entries) => {
            let entry = |(key, value): (Spanned<String>, Spanned<Raw>)| {
                let place = self::place(&key.referenced);
                (Key { name: key.value, place }, node(source, value))
            };
            Value::Map(entries.into_iter().map(entry).collect())
        }
    };
    Node { value, place }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a list or a mapping")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_str<E>(self, text: &str) -> Result<Raw, E> {
        Ok(Raw::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Raw, E> {
        Ok(Raw::Text(text))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Raw, E> {
        Ok(Raw::Typed)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Raw, E> {
        Ok(Raw::Typed)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Raw, E> {
        Ok(Raw::Typed)
    }

    fn visit_i128<E>(self, _: i128) -> Result<Raw, E> {
        Ok(Raw::Typed)
    }

    fn visit_u128<E>(self, _: u128) -> Result<Raw, E> {
        Ok(Raw::Typed)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Raw, E> {
        Ok(Raw::Typed)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Raw, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Raw::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Raw, A::Error> {
        let mut map = Vec::new();
        while let Some(key) = entries.next_key::<Spanned<String>>()? {
            map.push((key, entries.next_value()?));
        }
        Ok(Raw::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a text that is longer than a file may be, where it takes that.
    #[test]
    fn more_levels_and_values_than_are_read_are_refused() {
        for (open, close) in [("[", "]"), ("- ", "")] {
            let levels = |count: usize| format!("{}x{}", open.repeat(count), close.repeat(count));
            assert!(parse(&levels(DEPTH_MAX)).is_ok(), "{open}");
            assert!(parse(&levels(2 * DEPTH_MAX)).is_err(), "{open}");
        }
        let values = |count: usize| "- a\n".repeat(count);
        assert!(parse(&values(NODES_MAX / 2)).is_ok());
        assert!(parse(&values(NODES_MAX)).is_err());
    }
}
