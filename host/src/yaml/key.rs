//! The keys of a file, section by section, in one place for its readers: what is
//! no key is judged by them, and the JSON Schema is made of them.
//!
//! Owns names, forms and what editors say about a key. What a value means is
//! decided where it is read.

use super::amount::{bytes_text, duration_text};
use serde_json::{Map, Value, json};
use std::time::Duration;

/// A key of a section.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) form: Form,
    pub(crate) help: &'static str,
}

/// What a key's value looks like.
#[derive(Debug)]
pub(crate) enum Form {
    /// Any scalar.
    Text,
    /// A part of a model's name.
    Name,
    /// One of these texts.
    OneOf(&'static [&'static str]),
    /// One of these texts, or another.
    Suggested(&'static [&'static str]),
    Boolean,
    /// A whole number within a range.
    Number(u64, u64),
    /// A Kubernetes quantity.
    Quantity,
    /// A Kubernetes quantity of bytes within a range.
    Bytes(u64, u64),
    /// A number and a unit of time within a range.
    Duration(Duration, Duration),
    Texts,
    /// A list of texts, or one of them.
    TextOrTexts,
    /// A mapping of texts, or `false`, by names that the author chooses.
    Names,
    /// Accepted, and not looked at.
    Ignored,
    Section(&'static [Key]),
    /// A section in which every key is ours.
    OwnSection(&'static [Key]),
    Sections(&'static [Key]),
}

impl Form {
    /// What to write, in words.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Text | Self::Name => "a text".to_owned(),
            Self::OneOf(names) => {
                names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" or ")
            }
            Self::Suggested(names) => {
                names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
                    + " or another text"
            }
            Self::Boolean => "`true` or `false`".to_owned(),
            Self::Number(min, max) => format!("a number from {min} to {max}"),
            Self::Quantity => "a quantity".to_owned(),
            Self::Bytes(min, max) => {
                format!("bytes, `{}` to `{}`", bytes_text(*min), bytes_text(*max))
            }
            Self::Duration(min, max) => {
                format!("a time, `{}` to `{}`", duration_text(*min), duration_text(*max))
            }
            Self::Texts => "a list of texts".to_owned(),
            Self::TextOrTexts => "a text, or a list of them".to_owned(),
            Self::Names => "texts by names of yours".to_owned(),
            Self::Ignored => "anything".to_owned(),
            Self::Section(_) | Self::OwnSection(_) => "a section".to_owned(),
            Self::Sections(_) => "a list of sections".to_owned(),
        }
    }
}

/// A key that takes a value and not a section, with its path.
#[derive(Debug)]
pub(crate) struct Leaf {
    pub(crate) path: String,
    pub(crate) key: &'static Key,
}

/// Every such key, in the order of the tables.
pub(crate) fn leaves(keys: &'static [Key]) -> Vec<Leaf> {
    keys.iter()
        .flat_map(|key| match &key.form {
            Form::Section(inner) | Form::OwnSection(inner) | Form::Sections(inner) => leaves(inner)
                .into_iter()
                .map(|leaf| Leaf { path: format!("{}.{}", key.name, leaf.path), key: leaf.key })
                .collect(),
            _ => vec![Leaf { path: key.name.to_owned(), key }],
        })
        .collect()
}

/// Shorthand for the tables.
pub(crate) const fn key(name: &'static str, form: Form, help: &'static str) -> Key {
    Key { name, form, help }
}

/// Where the schema's dialect is described; editors know this one best.
const DIALECT: &str = "http://json-schema.org/draft-07/schema#";

/// Kubernetes' grammar without a sign: no amount here is below zero.
const QUANTITY: &str = r"^\+?([0-9]+\.?[0-9]*|\.[0-9]+)([numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]+)?$";

/// The schema of a file with these keys, some of which have to be there.
pub(crate) fn schema(title: &str, keys: &[Key], required: &[&str], unknown: Unknown) -> Value {
    let mut root = object(keys, unknown);
    root.insert("$schema".to_owned(), DIALECT.into());
    root.insert("title".to_owned(), title.into());
    if !required.is_empty() {
        root.insert("required".to_owned(), json!(required));
    }
    Value::Object(root)
}

/// What an editor says to other keys.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Unknown {
    /// Nothing.
    Allowed,
    /// That they are wrong.
    Refused,
}

fn object(keys: &[Key], unknown: Unknown) -> Map<String, Value> {
    let properties: Map<String, Value> =
        keys.iter().map(|key| (key.name.to_owned(), property(key))).collect();
    let mut object = Map::new();
    // A section without any key is an empty value.
    object.insert("type".to_owned(), json!(["object", "null"]));
    object.insert("properties".to_owned(), Value::Object(properties));
    if matches!(unknown, Unknown::Refused) {
        object.insert("additionalProperties".to_owned(), false.into());
    }
    object
}

fn property(key: &Key) -> Value {
    let mut property = match value(&key.form) {
        Value::Object(property) => property,
        _ => Map::new(),
    };
    property.insert("description".to_owned(), key.help.into());
    Value::Object(property)
}

fn value(form: &Form) -> Value {
    // Numbers and booleans are texts to whoever asks for a text, and a key
    // without a value is an absent key.
    let scalar = json!(["string", "number", "boolean", "null"]);
    let texts = json!({ "type": ["array", "null"], "items": { "type": scalar.clone() } });
    match form {
        Form::Text => json!({ "type": scalar }),
        Form::Name => json!({
            "type": ["string", "number", "null"],
            "pattern": r"^[A-Za-z0-9_.-]+$",
        }),
        Form::OneOf(names) => json!({ "enum": with_null(names) }),
        Form::Suggested(names) => json!({
            "anyOf": [{ "enum": with_null(names) }, { "type": "string" }],
        }),
        Form::Boolean => json!({ "type": ["boolean", "null"] }),
        Form::Number(min, max) => json!({
            "anyOf": [
                { "type": "integer", "minimum": min, "maximum": max },
                { "type": "string", "pattern": "^[0-9]+$" },
                { "type": "null" },
            ],
        }),
        Form::Quantity | Form::Bytes(..) => json!({
            "type": ["string", "number", "null"],
            "pattern": QUANTITY,
            "exclusiveMinimum": 0,
        }),
        Form::Duration(..) => {
            json!({ "type": ["string", "null"], "pattern": "^[0-9]+(ms|s|m|h)$" })
        }
        Form::Texts => texts,
        Form::TextOrTexts => json!({ "anyOf": [{ "type": scalar }, texts] }),
        Form::Names => json!({
            "type": ["object", "null"],
            "additionalProperties": { "anyOf": [{ "type": "string" }, { "const": false }] },
        }),
        Form::Ignored => json!({}),
        Form::Section(keys) => Value::Object(object(keys, Unknown::Allowed)),
        Form::OwnSection(keys) => Value::Object(object(keys, Unknown::Refused)),
        Form::Sections(keys) => json!({
            "type": ["array", "null"],
            "items": object(keys, Unknown::Allowed),
        }),
    }
}

fn with_null(names: &[&str]) -> Vec<Value> {
    names.iter().map(|name| Value::from(*name)).chain([Value::Null]).collect()
}
