//! Typed methods: what a model can be called by, with named arguments.

use std::fmt;

use serde_json::{Map, Value as Json, json};

/// The type of an argument or a result.
///
/// | type | a model reads | in Python |
/// |---|---|---|
/// | `Str`, `Text` | `part.text()?` | `str` |
/// | `Int`, `Float`, `Bool` | `part.integer()?`, `float`, `boolean` | `int`, `float`, `bool` |
/// | `Bytes`, `Image`, `Audio`, `Video` | `part.bytes()?` | `bytes`, `Image`, ... |
/// | `Json` | `part.json()?` | `dict`, `list` |
/// | `NdArray` | `part.ndarray()?` | `numpy.ndarray` |
/// | `Concept` | `part.concepts()?` | `Concept` |
/// | `List`, `Tuple`, `Fields` | one part for each element, named `NAME/0`, `NAME/field` | `list`, `tuple`, `NamedFields` |
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the table above says what each is")]
pub enum Type {
    Str,
    Text,
    Int,
    Float,
    Bool,
    Bytes,
    Image,
    Audio,
    Video,
    Json,
    NdArray,
    Concept,
    Region,
    Frame,
    List(Box<Type>),
    Tuple(Vec<Type>),
    Fields(Vec<(&'static str, Type)>),
}

impl Type {
    /// A list of this type.
    pub fn list(self) -> Self {
        Self::List(Box::new(self))
    }

    fn describe(&self, name: &str) -> Map<String, Json> {
        let inner = |types: Vec<Map<String, Json>>| json!(types);
        let (word, arguments) = match self {
            Self::Str => ("STR", None),
            Self::Text => ("TEXT", None),
            Self::Int => ("INT", None),
            Self::Float => ("FLOAT", None),
            Self::Bool => ("BOOL", None),
            Self::Bytes => ("BYTES", None),
            Self::Image => ("IMAGE", None),
            Self::Audio => ("AUDIO", None),
            Self::Video => ("VIDEO", None),
            Self::Json => ("JSON_DATA", None),
            Self::NdArray => ("NDARRAY", None),
            Self::Concept => ("CONCEPT", None),
            Self::Region => ("REGION", None),
            Self::Frame => ("FRAME", None),
            Self::List(element) => ("LIST", Some(inner(vec![element.describe("")]))),
            Self::Tuple(types) => {
                ("TUPLE", Some(inner(types.iter().map(|kind| kind.describe("")).collect())))
            }
            Self::Fields(fields) => (
                "NAMED_FIELDS",
                Some(inner(fields.iter().map(|(name, kind)| kind.describe(name)).collect())),
            ),
        };
        let mut field = Map::new();
        field.insert("name".into(), name.into());
        field.insert("type".into(), word.into());
        if let Some(arguments) = arguments {
            field.insert("typeArgs".into(), arguments);
        }
        field
    }
}

/// An argument of a method; see [`arg`].
#[derive(Clone, Debug, PartialEq)]
pub struct Argument {
    field: Map<String, Json>,
}

/// An argument that has to be given, unless it gets a [`default`].
///
/// [`default`]: Argument::default
pub fn arg(name: &str, kind: Type) -> Argument {
    let mut field = kind.describe(name);
    field.insert("required".into(), true.into());
    Argument { field }
}

impl Argument {
    /// What stands for it where a caller leaves it out; the host fills it in.
    /// With `null` nothing does: the part is not there. Lists, tuples, fields and
    /// files have no other default.
    #[must_use]
    pub fn default(mut self, value: impl Into<Json>) -> Self {
        let text = match value.into() {
            Json::Null => None,
            Json::String(text) => Some(text),
            other => Some(other.to_string()),
        };
        if let Some(text) = text {
            self.field.insert("default".into(), text.into());
        }
        self.field.insert("required".into(), false.into());
        self
    }

    /// A line for people.
    #[must_use]
    pub fn describe(mut self, text: &str) -> Self {
        self.field.insert("description".into(), text.into());
        self
    }
}

/// The typed methods of a model, for [`Model::methods`](crate::Model::methods).
///
/// ```
/// use ringfence_guest::{Methods, Type, arg};
///
/// let methods = Methods::new()
///     .unary("predict", [arg("prompt", Type::Str), arg("heat", Type::Float).default(0.7)], Type::Str)
///     .generator("count", [arg("to", Type::Int)], Type::Int);
/// assert!(methods.to_string().contains("UNARY_STREAMING"));
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Methods {
    list: Vec<Json>,
}

impl Methods {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A method that [`predict`](crate::Model::predict) answers with one output.
    #[must_use]
    pub fn unary(
        self,
        name: &str,
        arguments: impl IntoIterator<Item = Argument>,
        returns: Type,
    ) -> Self {
        self.with(name, "UNARY_UNARY", arguments.into_iter().collect(), &returns)
    }

    /// A method that [`generate`](crate::Model::generate) answers with any
    /// number of outputs.
    #[must_use]
    pub fn generator(
        self,
        name: &str,
        arguments: impl IntoIterator<Item = Argument>,
        returns: Type,
    ) -> Self {
        self.with(name, "UNARY_STREAMING", arguments.into_iter().collect(), &returns)
    }

    /// A method that [`stream`](crate::Model::stream) answers message by
    /// message. The first message has all arguments, the next ones have
    /// `streamed` alone.
    #[must_use]
    pub fn stream(
        self,
        name: &str,
        mut streamed: Argument,
        arguments: impl IntoIterator<Item = Argument>,
        returns: Type,
    ) -> Self {
        streamed.field.insert("iterator".into(), true.into());
        let arguments = std::iter::once(streamed).chain(arguments).collect();
        self.with(name, "STREAMING_STREAMING", arguments, &returns)
    }

    fn with(mut self, name: &str, kind: &str, arguments: Vec<Argument>, returns: &Type) -> Self {
        let arguments: Vec<_> = arguments.into_iter().map(|argument| argument.field).collect();
        self.list.push(json!({
            "name": name,
            "methodType": kind,
            "inputFields": arguments,
            "outputFields": [returns.describe("return")],
        }));
        self
    }
}

impl fmt::Display for Methods {
    /// The JSON that the host reads.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Json::from(self.list.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_is_described_as_the_protocol_has_it() {
        let pair = Type::Tuple(vec![Type::Str, Type::Int]);
        let text = Methods::new()
            .stream(
                "say",
                arg("word", Type::Str),
                [arg("pairs", pair.list()).default(Json::Null)],
                Type::Str,
            )
            .to_string();
        let methods: Json = serde_json::from_str(&text).unwrap();
        assert_eq!(methods[0]["methodType"], "STREAMING_STREAMING");
        let arguments = &methods[0]["inputFields"];
        assert_eq!(
            (&arguments[0]["iterator"], &arguments[0]["required"]),
            (&true.into(), &true.into())
        );
        assert_eq!(arguments[1]["typeArgs"][0]["typeArgs"][1]["type"], "INT");
        assert_eq!(
            (&arguments[1]["default"], &arguments[1]["required"]),
            (&Json::Null, &false.into())
        );
        assert_eq!(methods[0]["outputFields"][0]["name"], "return");
    }
}
