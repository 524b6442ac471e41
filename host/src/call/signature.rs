//! Typed methods: what a model says that it can be called with.
//!
//! Owns their form and its limits. The text that a guest declares them by is
//! the protocol's own: a JSON array of `MethodSignature`, in the mapping that
//! protobuf has for JSON.

use super::{Function, Value};
use crate::limits::limit;
use serde_json::Value as Json;
use std::collections::HashSet;

/// Bytes of the text.
const TEXT_BYTES_MAX: usize = 64 << 10;
/// Methods of a model, and fields of each.
const METHODS_MAX: usize = 64;
const FIELDS_MAX: usize = 64;
/// How deep types may lie in types.
const DEPTH_MAX: usize = 8;
/// Bytes of a name.
const NAME_BYTES_MAX: usize = 64;
/// Bytes of what is said about a declaration that is wrong.
const ERROR_BYTES_MAX: usize = 512;
/// The method by which clients ask for all others.
const RESERVED: &str = "_GET_SIGNATURES";

/// The typed methods of a model; without any, it takes plain inputs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Methods {
    methods: Vec<Method>,
    /// The text that declares them.
    declared: String,
}

/// One of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Method {
    /// Unique in its model.
    pub name: String,
    /// Which function of the world it is.
    pub function: Function,
    /// For people.
    pub description: String,
    /// Its arguments, in their order.
    pub arguments: Vec<Field>,
    /// What it returns; usually one field named `return`.
    pub results: Vec<Field>,
}

/// An argument, a result, or a part of one.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// Its name; empty for the element of a list.
    pub name: String,
    /// Its type.
    pub kind: Kind,
    /// Whether a caller has to give it.
    pub required: bool,
    /// What stands for it where a caller does not: a text as it is, any other
    /// type as JSON.
    pub default: Option<String>,
    /// Whether it is a stream of such values.
    pub streamed: bool,
    /// For people.
    pub description: String,
}

/// The types of the protocol: `ModelTypeField.DataType`.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "each is the protocol's type of the same name")]
pub enum Kind {
    Str,
    Bytes,
    Int,
    Float,
    Bool,
    NdArray,
    Json,
    Text,
    Image,
    Concept,
    Region,
    Frame,
    Audio,
    Video,
    NamedFields(Vec<Field>),
    Tuple(Vec<Field>),
    List(Box<Field>),
}

/// What is wrong with a declaration. The model's author reads this.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the typed methods that the model declares are not in order: {0}")]
pub struct SignatureError(String);

impl Methods {
    /// Reads what a guest declares; nothing and `[]` are no methods.
    pub fn parse(text: &str) -> Result<Self, SignatureError> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        if text.len() > limit("signature_text", TEXT_BYTES_MAX) {
            return Err(wrong(format!("their text is longer than {TEXT_BYTES_MAX} bytes")));
        }
        let list: Vec<Json> =
            serde_json::from_str(text).map_err(|error| wrong(format!("no JSON array: {error}")))?;
        if list.len() > limit("signature_methods", METHODS_MAX) {
            return Err(wrong(format!("there are more than {METHODS_MAX}")));
        }
        let methods: Vec<Method> = list.iter().map(method).collect::<Result<_, _>>()?;
        let mut names = HashSet::new();
        match methods.iter().find(|method| !names.insert(method.name.as_str())) {
            Some(twice) => Err(wrong(format!("`{}` is declared twice", twice.name))),
            None => Ok(Self { methods, declared: text.to_owned() }),
        }
    }

    /// The text that declares them; empty for none.
    pub fn declared(&self) -> &str {
        &self.declared
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.methods.is_empty()
    }

    /// The one of a name.
    pub fn named(&self, name: &str) -> Option<&Method> {
        self.methods.iter().find(|method| method.name == name)
    }

    /// All, in the order of their declaration.
    pub fn iter(&self) -> impl Iterator<Item = &Method> {
        self.methods.iter()
    }
}

/// Whether fields have names of their own; elements of lists and tuples have not.
#[derive(Debug, Clone, Copy)]
enum Named {
    Yes,
    No,
}

impl Field {
    /// What stands for it where a caller does not give it.
    pub fn default_value(&self) -> Option<Value> {
        default_value(&self.kind, self.default.as_deref()?)
    }
}

/// Types that have no text of their own have no defaults.
fn default_value(kind: &Kind, text: &str) -> Option<Value> {
    let json = || serde_json::from_str::<Json>(text).ok();
    match kind {
        Kind::Str | Kind::Text => Some(Value::Text(text.to_owned())),
        Kind::Int => Some(Value::Integer(json()?.as_i64()?)),
        Kind::Float => Some(Value::Float(json()?.as_f64()?)),
        Kind::Bool => Some(Value::Boolean(json()?.as_bool()?)),
        Kind::Json => Some(Value::Json(json()?.to_string())),
        Kind::Bytes
        | Kind::NdArray
        | Kind::Image
        | Kind::Concept
        | Kind::Region
        | Kind::Frame
        | Kind::Audio
        | Kind::Video
        | Kind::NamedFields(_)
        | Kind::Tuple(_)
        | Kind::List(_) => None,
    }
}

/// A guest's words are part of the text, so it is made short and harmless.
fn wrong(text: impl Into<String>) -> SignatureError {
    let mut text = crate::text::escape_controls(&text.into());
    crate::text::cut(&mut text, ERROR_BYTES_MAX);
    SignatureError(text)
}

fn method(json: &Json) -> Result<Method, SignatureError> {
    let name = name_of(json)?;
    let kind = text_of(json, "methodType");
    let function = match kind.as_str() {
        "UNARY_UNARY" => Function::Predict,
        "UNARY_STREAMING" => Function::Generate,
        "STREAMING_STREAMING" => Function::Stream,
        _ => {
            return Err(wrong(format!(
                "`{name}` has the methodType {kind:?}; write UNARY_UNARY, UNARY_STREAMING or \
                 STREAMING_STREAMING"
            )));
        }
    };
    let arguments = fields(json, "inputFields", &name, 0, Named::Yes)?;
    let results = fields(json, "outputFields", &name, 0, Named::Yes)?;
    let streamed = arguments.iter().filter(|field| field.streamed).count();
    match (function, streamed) {
        (Function::Stream, 1) | (Function::Predict | Function::Generate, 0) => {}
        (Function::Stream, _) => {
            return Err(wrong(format!("`{name}` streams, so one argument has to be an iterator")));
        }
        (Function::Predict | Function::Generate, _) => {
            return Err(wrong(format!("`{name}` takes no stream, so no argument is an iterator")));
        }
    }
    if results.is_empty() {
        return Err(wrong(format!("`{name}` returns nothing; declare outputFields")));
    }
    Ok(Method { name, function, description: text_of(json, "description"), arguments, results })
}

fn fields(
    json: &Json,
    key: &str,
    method: &str,
    depth: usize,
    named: Named,
) -> Result<Vec<Field>, SignatureError> {
    let empty = Vec::new();
    let list = json.get(key).and_then(Json::as_array).unwrap_or(&empty);
    let fields_max = limit("signature_fields", FIELDS_MAX);
    if list.len() > fields_max || depth > limit("signature_depth", DEPTH_MAX) {
        return Err(wrong(format!(
            "`{method}` has more than {FIELDS_MAX} fields at one place, or types deeper than \
             {DEPTH_MAX}"
        )));
    }
    let fields: Vec<Field> =
        list.iter().map(|json| field(json, method, depth, named)).collect::<Result<_, _>>()?;
    let mut names = HashSet::new();
    let mut named = fields.iter().filter(|field| !field.name.is_empty());
    match named.find(|field| !names.insert(field.name.as_str())) {
        Some(twice) => Err(wrong(format!("`{method}` has two fields `{}`", twice.name))),
        None => Ok(fields),
    }
}

fn field(json: &Json, method: &str, depth: usize, named: Named) -> Result<Field, SignatureError> {
    let name = match named {
        Named::Yes => name_of(json)?,
        Named::No => String::new(),
    };
    let inner = |named| fields(json, "typeArgs", method, depth + 1, named);
    let kind = match text_of(json, "type").as_str() {
        "STR" => Kind::Str,
        "BYTES" => Kind::Bytes,
        "INT" => Kind::Int,
        "FLOAT" => Kind::Float,
        "BOOL" => Kind::Bool,
        "NDARRAY" => Kind::NdArray,
        "JSON_DATA" => Kind::Json,
        "TEXT" => Kind::Text,
        "IMAGE" => Kind::Image,
        "CONCEPT" => Kind::Concept,
        "REGION" => Kind::Region,
        "FRAME" => Kind::Frame,
        "AUDIO" => Kind::Audio,
        "VIDEO" => Kind::Video,
        "NAMED_FIELDS" => Kind::NamedFields(inner(Named::Yes)?),
        "TUPLE" => Kind::Tuple(inner(Named::No)?),
        "LIST" => match inner(Named::No)?.into_iter().next() {
            Some(element) => Kind::List(Box::new(element)),
            None => {
                return Err(wrong(format!("`{method}`: the list `{name}` has no element type")));
            }
        },
        other => return Err(wrong(format!("`{method}`: `{name}` has the unknown type {other:?}"))),
    };
    let flag = |key: &str| json.get(key).and_then(Json::as_bool).unwrap_or(false);
    let required = flag("required");
    let default = json.get("default").and_then(Json::as_str).map(str::to_owned);
    // `null` is no value: the argument may be left out, and then there is none.
    // Nor is an empty text, which protobuf also writes for an unset one, unless
    // the argument is a text that may be left out.
    let may_be_empty = !required && matches!(kind, Kind::Str | Kind::Text);
    let default = default.filter(|text| text != "null" && (may_be_empty || !text.is_empty()));
    if let Some(text) = &default
        && default_value(&kind, text).is_none()
    {
        return Err(wrong(format!("`{method}`: the default of `{name}` is not of its type")));
    }
    Ok(Field {
        name,
        kind,
        required,
        default,
        streamed: flag("iterator"),
        description: text_of(json, "description"),
    })
}

/// Clients make functions and arguments of names.
fn name_of(json: &Json) -> Result<String, SignatureError> {
    let name = text_of(json, "name");
    let fits = name != RESERVED
        && name.len() <= limit("signature_names", NAME_BYTES_MAX)
        && name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    match fits {
        true => Ok(name),
        false => Err(wrong(format!("{name:?} is no name; use letters, digits and `_`"))),
    }
}

fn text_of(json: &Json, key: &str) -> String {
    json.get(key).and_then(Json::as_str).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Methods, String> {
        Methods::parse(text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_declaration_is_read_whole() {
        let methods = parsed(
            r#"[{"name": "predict", "methodType": "UNARY_UNARY", "inputFields": [
                {"name": "prompt", "type": "STR", "required": true},
                {"name": "pairs", "type": "LIST", "typeArgs": [{"type": "TUPLE", "typeArgs": [
                    {"type": "INT"}, {"type": "IMAGE"}]}]},
                {"name": "heat", "type": "FLOAT", "default": "0.5"}],
                "outputFields": [{"name": "return", "type": "STR"}]}]"#,
        )
        .unwrap();
        let method = methods.named("predict").unwrap();
        assert_eq!(method.function, Function::Predict);
        let [prompt, pairs, heat] = method.arguments.as_slice() else { panic!() };
        assert!(prompt.required && !heat.required);
        assert_eq!(heat.default.as_deref(), Some("0.5"));
        let Kind::List(element) = &pairs.kind else { panic!("{pairs:?}") };
        assert!(matches!(&element.kind, Kind::Tuple(parts) if parts.len() == 2));
        assert!(parsed("").unwrap().is_empty() && parsed("[]").unwrap().is_empty());
    }

    #[test]
    fn what_is_wrong_with_a_declaration_is_named() {
        let returns = r#""outputFields": [{"name": "return", "type": "STR"}]"#;
        let one = |rest: &str| format!(r#"[{{"name": "m", {rest}, {returns}}}]"#);
        let unary = r#""methodType": "UNARY_UNARY""#;
        let field = |field: &str| one(&format!(r#"{unary}, "inputFields": [{field}]"#));
        let many = vec![r#"{"name":"a"}"#; 65].join(",");
        let long = "n".repeat(65);
        for (text, expected) in [
            ("{}".to_owned(), "no JSON array"),
            ("[1]".to_owned(), "\"\" is no name"),
            (r#"[{"name": "a b"}]"#.to_owned(), "\"a b\" is no name"),
            (format!(r#"[{{"name": "{long}"}}]"#), "is no name"),
            (format!("[{many}]"), "there are more than 64"),
            (one(r#""methodType": "STREAMING_UNARY""#), "write UNARY_UNARY"),
            (one(r#""methodType": "STREAMING_STREAMING""#), "one argument has to be an iterator"),
            (field(r#"{"name": "a", "type": "INT", "iterator": true}"#), "takes no stream"),
            (field(r#"{"name": "a", "type": "COLOUR"}"#), "unknown type \"COLOUR\""),
            (field(r#"{"name": "a", "type": "LIST"}"#), "no element type"),
            (field(r#"{"name": "a", "type": "INT", "default": "x"}"#), "is not of its type"),
            (
                field(
                    r#"{"name": "a", "type": "LIST", "default": "[1]", "typeArgs": [{"type": "INT"}]}"#,
                ),
                "is not of its type",
            ),
            (
                field(
                    r#"{"name": "a", "type": "NAMED_FIELDS", "typeArgs": [{"name": "b/c", "type": "INT"}]}"#,
                ),
                "is no name",
            ),
            (r#"[{"name": "_GET_SIGNATURES"}]"#.to_owned(), "is no name"),
            (
                field(r#"{"name": "a", "type": "INT"}, {"name": "a", "type": "STR"}"#),
                "two fields `a`",
            ),
            (field(&many), "more than 64 fields"),
            (format!("[{0}, {0}]", format!(r#"{{"name": "m", {unary}, {returns}}}"#)), "twice"),
            (format!(r#"[{{"name": "m", {unary}}}]"#), "returns nothing"),
            (format!("[{}]", " ".repeat(TEXT_BYTES_MAX)), "longer than 65536 bytes"),
        ] {
            let error = parsed(&text).unwrap_err();
            assert!(error.contains(expected), "{expected}: {error}");
        }
        let deep = (0..10).fold(r#"{"type": "INT"}"#.to_owned(), |inner, _| {
            format!(r#"{{"type": "LIST", "typeArgs": [{inner}]}}"#)
        });
        let deep = deep.replacen('{', r#"{"name": "a", "#, 1);
        assert!(parsed(&field(&deep)).unwrap_err().contains("deeper than 8"));
    }
}
