//! `--input`: arguments in JSON to the protocol's own form.
//!
//! Owns how each type is written. What is missing, unknown or of a wrong type is
//! told by whoever reads the request, as on a host.

use super::super::Usage;
use crate::call::{Kind, Method};
use crate::proto::clarifai::api::{Audio, Data, Image, Part, Text, Video};
use crate::proto::json;
use base64::prelude::{BASE64_STANDARD, Engine};
use bytes::Bytes;
use serde_json::{Map, Value};

/// What stands before the name of a file.
const FILE_MARK: char = '@';

/// Where a value is in what was given, for whoever has to mend it.
type Path<'a> = &'a str;

/// The input of a model without methods: the JSON as one value.
pub(super) fn plain(value: Value) -> anyhow::Result<Data> {
    let object = json::to_wrapped(value);
    let object = object.ok_or_else(|| Usage("--input takes an object or a list".to_owned()))?;
    Ok(Data { struct_value: Some(object), ..Data::default() })
}

/// The input of a typed method: one part for each argument.
pub(super) fn of_method(method: &Method, arguments: &Map<String, Value>) -> anyhow::Result<Data> {
    let mut parts = Vec::new();
    for (name, value) in arguments {
        let field = method.arguments.iter().find(|field| field.name == *name);
        let data = match field {
            Some(field) => data(name, &field.kind, value)?,
            // The reader of the request says that there is no such argument.
            None => Data::default(),
        };
        parts.push(Part { id: name.clone(), data: Some(data) });
    }
    Ok(Data { parts, ..Data::default() })
}

fn data(path: Path<'_>, kind: &Kind, value: &Value) -> anyhow::Result<Data> {
    let empty = Data::default();
    let other = |expected: &str| -> anyhow::Error {
        Usage(format!("--input: `{path}` is {value}, not {expected}")).into()
    };
    let nested = |fields: Vec<(String, &Kind, &Value)>| -> anyhow::Result<Data> {
        let part = |(id, kind, value): (String, &Kind, &Value)| -> anyhow::Result<Part> {
            let data = data(&format!("{path}/{id}"), kind, value)?;
            Ok(Part { id, data: Some(data) })
        };
        let parts = fields.into_iter().map(part).collect::<Result<_, _>>()?;
        Ok(Data { parts, ..Data::default() })
    };
    Ok(match kind {
        Kind::Str => {
            let text = value.as_str().ok_or_else(|| other("a text"))?;
            Data { string_value: text.to_owned(), ..empty }
        }
        Kind::Text => {
            let raw = value.as_str().ok_or_else(|| other("a text"))?.to_owned();
            Data { text: Some(Text { raw, ..Text::default() }), ..empty }
        }
        Kind::Int => {
            Data { int_value: value.as_i64().ok_or_else(|| other("a whole number"))?, ..empty }
        }
        Kind::Float => {
            let number = value.as_f64().ok_or_else(|| other("a number"))?;
            Data { float_value: number, ..empty }
        }
        Kind::Bool => {
            Data { bool_value: value.as_bool().ok_or_else(|| other("true or false"))?, ..empty }
        }
        Kind::Json => {
            let object = json::to_wrapped(value.clone());
            Data {
                struct_value: Some(object.ok_or_else(|| other("an object or a list"))?),
                ..empty
            }
        }
        Kind::Bytes => Data { bytes_value: bytes(path, value)?, ..empty },
        Kind::Image => {
            let image = Image { base64: bytes(path, value)?, ..Image::default() };
            Data { image: Some(image), ..empty }
        }
        Kind::Audio => {
            let audio = Audio { base64: bytes(path, value)?, ..Audio::default() };
            Data { audio: Some(audio), ..empty }
        }
        Kind::Video => {
            let video = Video { base64: bytes(path, value)?, ..Video::default() };
            Data { video: Some(video), ..empty }
        }
        Kind::List(element) => {
            let values = value.as_array().ok_or_else(|| other("a list"))?;
            let items = values.iter().enumerate();
            nested(items.map(|(index, item)| (index.to_string(), &element.kind, item)).collect())?
        }
        Kind::Tuple(fields) => {
            let values = value.as_array().filter(|values| values.len() == fields.len());
            let values = values.ok_or_else(|| other(&format!("a list of {}", fields.len())))?;
            let items = fields.iter().zip(values).enumerate();
            nested(items.map(|(index, (f, item))| (index.to_string(), &f.kind, item)).collect())?
        }
        Kind::NamedFields(fields) => {
            let object = value.as_object().ok_or_else(|| other("an object"))?;
            let mut given = Vec::new();
            for (name, item) in object {
                let field = fields.iter().find(|field| field.name == *name);
                let known = fields.iter().map(|field| &*field.name).collect::<Vec<_>>().join(", ");
                let field = field.ok_or_else(|| other(&format!("an object of {known}")))?;
                given.push((name.clone(), &field.kind, item));
            }
            nested(given)?
        }
        Kind::NdArray | Kind::Concept | Kind::Region | Kind::Frame => {
            let text = format!(
                "--input: `{path}` is of a type that has no form in JSON here; call it from the SDK"
            );
            return Err(Usage(text).into());
        }
    })
}

/// `@FILE`, or base64.
fn bytes(path: Path<'_>, value: &Value) -> anyhow::Result<Bytes> {
    let wrong = |why: String| Usage(format!("--input: `{path}` {why}"));
    let text = value
        .as_str()
        .ok_or_else(|| wrong(format!("is {value}; write \"@FILE\", or the bytes in base64")))?;
    if let Some(file) = text.strip_prefix(FILE_MARK) {
        return std::fs::read(file)
            .map(Into::into)
            .map_err(|error| wrong(format!("names {file}, which cannot be read: {error}")).into());
    }
    BASE64_STANDARD
        .decode(text)
        .map(Into::into)
        .map_err(|_| wrong("is no base64; write \"@FILE\" for a file".to_owned()).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::Methods;
    use serde_json::json;

    fn method() -> Method {
        let field = |name: &str, kind: &str| json!({"name": name, "type": kind});
        let declared = json!([{
            "name": "ask",
            "methodType": "UNARY_UNARY",
            "inputFields": [
                field("prompt", "STR"), field("count", "INT"), field("warm", "BOOL"), field("photo", "IMAGE"),
                {"name": "point", "type": "NAMED_FIELDS", "typeArgs": [field("x", "FLOAT"), field("y", "FLOAT")]},
                {"name": "pair", "type": "TUPLE", "typeArgs": [field("", "INT"), field("", "STR")]},
                {"name": "all", "type": "LIST", "typeArgs": [field("", "STR")]},
                field("concept", "CONCEPT"),
            ],
            "outputFields": [field("return", "STR")],
        }]);
        Methods::parse(&declared.to_string()).unwrap().named("ask").unwrap().clone()
    }

    fn given(arguments: Value) -> Result<Data, String> {
        let Value::Object(arguments) = arguments else { panic!("no object") };
        of_method(&method(), &arguments).map_err(|error| error.to_string())
    }

    #[test]
    fn arguments_take_the_form_of_their_types() {
        let data = given(json!({
            "prompt": "hi", "count": 3, "photo": "AAE=", "point": {"x": 1, "y": 2.5},
            "pair": [1, "a"], "all": ["b", "c"], "of_nobody": 1,
        }))
        .unwrap();
        let part = |name: &str| {
            data.parts.iter().find(|part| part.id == name).unwrap().data.clone().unwrap()
        };
        assert_eq!(part("prompt").string_value, "hi");
        assert_eq!(part("count").int_value, 3);
        assert_eq!(&part("photo").image.unwrap().base64[..], [0, 1]);
        let ids = |data: Data| data.parts.into_iter().map(|part| part.id).collect::<Vec<_>>();
        assert_eq!(ids(part("point")), ["x", "y"]);
        assert_eq!(ids(part("pair")), ["0", "1"]);
        assert_eq!(part("all").parts[1].data.clone().unwrap().string_value, "c");
        assert_eq!(part("of_nobody"), Data::default());
    }

    #[test]
    fn what_does_not_fit_is_named() {
        for (arguments, expected) in [
            (json!({"prompt": 1}), "`prompt` is 1, not a text"),
            (json!({"count": 1.5}), "`count` is 1.5, not a whole number"),
            (json!({"warm": "yes"}), "`warm` is \"yes\", not true or false"),
            (json!({"all": ["a", 2]}), "`all/1` is 2, not a text"),
            (json!({"pair": [1]}), "not a list of 2"),
            (json!({"point": {"z": 1}}), "not an object of x, y"),
            (json!({"photo": "@/nowhere"}), "names /nowhere, which cannot be read"),
            (json!({"photo": "no base64"}), "is no base64"),
            (json!({"concept": {}}), "no form in JSON"),
        ] {
            let refused = given(arguments).unwrap_err();
            assert!(refused.contains(expected), "{refused}");
        }
    }
}
