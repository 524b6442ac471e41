//! Typed methods on the wire: arguments to the parts that a guest sees, results
//! to what a client reads, and the signatures themselves.
//!
//! Lists, tuples and named fields are flattened to paths such as `images/0`, and
//! rebuilt from them.

use super::request::{
    InputError, PARTS_MAX, PATH_BYTES_MAX, Turn, concept, frame, region, struct_text,
};
use super::response::{Selection, set};
use super::sent::Content::{self, Behind, Here};
use super::sent::SentPart;
use super::status::Outcome;
use crate::call::{Field, Function, Kind, Method, Methods, NdArray, Output, Value};
use crate::fetch::Media;
use crate::limits::limit;
use crate::proto::clarifai::api;
use crate::proto::clarifai::api::RunnerMethodType;
use crate::proto::clarifai::api::model_type_field::DataType;
use crate::proto::clarifai::api::status::StatusCode;
use serde_json::json;

/// Names of a path: a result and the types in it.
pub(super) const PATH_DEPTH_MAX: usize = 10;

/// Parts of one result; each is looked up among the others.
const RESULT_PARTS_MAX: usize = 1024;

/// The method that stands for a plain call of a function, for clients that know
/// no methods.
pub(super) fn plain_name(function: Function) -> &'static str {
    match function {
        Function::Predict => "predict",
        Function::Generate => "generate",
        Function::Stream => "stream",
    }
}

/// The arguments of a typed call, defaults filled in.
pub(super) fn arguments(
    method: &Method,
    data: &mut api::Data,
    turn: Turn,
) -> Result<Vec<SentPart>, InputError> {
    if data.parts.len() > method.arguments.len() {
        return Err(InputError::TooManyArguments {
            method: method.name.clone(),
            arguments: method.arguments.len(),
        });
    }
    for (index, part) in data.parts.iter().enumerate() {
        if data.parts.iter().take(index).any(|earlier| earlier.id == part.id) {
            return Err(InputError::TwiceGiven { path: shortened(&part.id) });
        }
        if !method.arguments.iter().any(|field| field.name == part.id) {
            let names: Vec<&str> = method.arguments.iter().map(|field| &*field.name).collect();
            return Err(InputError::UnknownArgument {
                method: method.name.clone(),
                name: shortened(&part.id),
                known: names.join(", "),
            });
        }
    }
    let mut parts = Vec::new();
    let mut visits_left = limit("argument_parts", PARTS_MAX);
    let visits_left = &mut visits_left;
    for (index, field) in method.arguments.iter().enumerate() {
        if turn == Turn::Next && !field.streamed {
            continue;
        }
        let given = data.parts.iter().position(|part| part.id == field.name);
        match given {
            Some(place) => {
                let given = data.parts.swap_remove(place).data.unwrap_or_default();
                value(&field.name, &field.kind, given, visits_left, &mut parts)?;
            }
            // The first argument may lie in the input itself.
            None if index == 0 && holds(data, &field.kind) => {
                let others = std::mem::take(&mut data.parts);
                value(&field.name, &field.kind, std::mem::take(data), visits_left, &mut parts)?;
                data.parts = others;
            }
            None => absent(method, field, &mut parts)?,
        }
    }
    match kind_of(data) {
        Some(given) => Err(InputError::Left { method: method.name.clone(), given }),
        None => Ok(parts),
    }
}

/// A plain input for a model with methods: its text is the first argument that
/// is text, its image the first that is an image, and so on.
pub(super) fn plain(
    method: &Method,
    plain: Vec<SentPart>,
    turn: Turn,
) -> Result<Vec<SentPart>, InputError> {
    let mut parts = Vec::new();
    let mut plain: Vec<Option<Content>> =
        plain.into_iter().map(|part| Some(part.content)).collect();
    for field in &method.arguments {
        if turn == Turn::Next && !field.streamed {
            continue;
        }
        let fitting = plain
            .iter_mut()
            .find(|content| content.as_ref().is_some_and(|content| fits(content, &field.kind)));
        match fitting.and_then(Option::take) {
            Some(content) => parts.push(SentPart { name: field.name.clone(), content }),
            None => absent(method, field, &mut parts)?,
        }
    }
    match plain.iter().any(Option::is_some) {
        true => Err(InputError::Left { method: method.name.clone(), given: "another value" }),
        false => Ok(parts),
    }
}

/// Whether a part of a plain input may stand for an argument.
fn fits(content: &Content, kind: &Kind) -> bool {
    matches!(
        (content, kind),
        (Here(Value::Text(_)) | Behind { media: Media::Text, .. }, Kind::Str | Kind::Text)
            | (Here(Value::Image(_)) | Behind { media: Media::Image, .. }, Kind::Image)
            | (Here(Value::Audio(_)) | Behind { media: Media::Audio, .. }, Kind::Audio)
            | (Here(Value::Video(_)) | Behind { media: Media::Video, .. }, Kind::Video)
            | (Here(Value::Bytes(_)), Kind::Bytes)
    )
}

/// What stands for an argument that was not given.
fn absent(method: &Method, field: &Field, parts: &mut Vec<SentPart>) -> Result<(), InputError> {
    let missing =
        || InputError::MissingArgument { method: method.name.clone(), name: field.name.clone() };
    match field.default_value() {
        Some(value) => {
            parts.push(SentPart { name: field.name.clone(), content: Here(value) });
            Ok(())
        }
        None if field.required => Err(missing()),
        None => Ok(()),
    }
}

/// Appends a value of a type under a path.
fn value(
    path: &str,
    kind: &Kind,
    data: api::Data,
    visits_left: &mut usize,
    parts: &mut Vec<SentPart>,
) -> Result<(), InputError> {
    if path.len() > PATH_BYTES_MAX {
        return Err(InputError::PathTooLong);
    }
    *visits_left = visits_left.checked_sub(1).ok_or(InputError::TooManyParts)?;
    if let Some(given) = other_kind(&data, kind) {
        return Err(InputError::WrongType { path: shortened(path), expected: word(kind), given });
    }
    let missing = || InputError::NoValue { path: shortened(path), expected: word(kind) };
    let content = match kind {
        Kind::Str | Kind::Text => {
            let mut text = data.text.unwrap_or_default();
            if !data.string_value.is_empty() {
                text.raw = data.string_value;
            }
            Content::of_text(text)?
        }
        Kind::Image => Content::of_image(data.image.ok_or_else(missing)?)?,
        Kind::Audio => Content::of_audio(data.audio.ok_or_else(missing)?)?,
        Kind::Video => Content::of_video(data.video.ok_or_else(missing)?)?,
        Kind::Bytes => Here(Value::Bytes(data.bytes_value)),
        Kind::Int => Here(Value::Integer(data.int_value)),
        Kind::Float => Here(Value::Float(data.float_value)),
        Kind::Bool => Here(Value::Boolean(data.bool_value)),
        Kind::Json => Here(Value::Json(struct_text(data.struct_value.ok_or_else(missing)?)?)),
        Kind::NdArray => {
            let api::NdArray { buffer, shape, dtype } = data.ndarray.ok_or_else(missing)?;
            Here(Value::NdArray(NdArray { dtype, shape, data: buffer }))
        }
        Kind::Concept => Here(Value::Concepts(data.concepts.into_iter().map(concept).collect())),
        Kind::Region => {
            let regions = data.regions.into_iter().map(region).collect::<Result<_, _>>()?;
            Here(Value::Regions(regions))
        }
        Kind::Frame => {
            let frames = data.frames.into_iter().map(frame).collect::<Result<_, _>>()?;
            Here(Value::Frames(frames))
        }
        Kind::List(element) => return list(path, element, data, visits_left, parts),
        Kind::Tuple(fields) => {
            if data.parts.len() != fields.len() {
                return Err(missing());
            }
            for (index, (field, part)) in fields.iter().zip(data.parts).enumerate() {
                let path = format!("{path}/{index}");
                let data = part.data.unwrap_or_default();
                self::value(&path, &field.kind, data, visits_left, parts)?;
            }
            return Ok(());
        }
        Kind::NamedFields(fields) => {
            let mut given = data.parts;
            if given.len() != fields.len() {
                return Err(missing());
            }
            for field in fields {
                let place = given.iter().position(|part| part.id == field.name);
                let part = given.swap_remove(place.ok_or_else(missing)?);
                let path = format!("{path}/{}", field.name);
                let data = part.data.unwrap_or_default();
                self::value(&path, &field.kind, data, visits_left, parts)?;
            }
            return Ok(());
        }
    };
    parts.push(SentPart { name: path.to_owned(), content });
    Ok(())
}

/// Kinds that the wire repeats by itself lie in one field, others in parts.
fn list(
    path: &str,
    element: &Field,
    data: api::Data,
    visits_left: &mut usize,
    parts: &mut Vec<SentPart>,
) -> Result<(), InputError> {
    match element.kind {
        Kind::Concept | Kind::Region | Kind::Frame => {
            value(path, &element.kind, data, visits_left, parts)
        }
        _ => {
            for (index, part) in data.parts.into_iter().enumerate() {
                let path = format!("{path}/{index}");
                value(&path, &element.kind, part.data.unwrap_or_default(), visits_left, parts)?;
            }
            Ok(())
        }
    }
}

/// Whether an input holds a value of a type itself, and not in a part.
fn holds(data: &api::Data, kind: &Kind) -> bool {
    match kind {
        Kind::Str | Kind::Text => data.text.is_some() || !data.string_value.is_empty(),
        Kind::Bytes => !data.bytes_value.is_empty(),
        Kind::Int => data.int_value != 0,
        Kind::Float => data.float_value != 0.0,
        Kind::Bool => data.bool_value,
        Kind::Json => data.struct_value.is_some(),
        Kind::NdArray => data.ndarray.is_some(),
        Kind::Image => data.image.is_some(),
        Kind::Audio => data.audio.is_some(),
        Kind::Video => data.video.is_some(),
        Kind::Concept => !data.concepts.is_empty(),
        Kind::Region => !data.regions.is_empty(),
        Kind::Frame => !data.frames.is_empty(),
        Kind::List(element) => {
            matches!(element.kind, Kind::Concept | Kind::Region | Kind::Frame)
                && holds(data, &element.kind)
        }
        Kind::Tuple(_) | Kind::NamedFields(_) => false,
    }
}

/// The word for what a caller gave, if that is of another type.
fn other_kind(data: &api::Data, kind: &Kind) -> Option<&'static str> {
    match kind {
        Kind::List(_) | Kind::Tuple(_) | Kind::NamedFields(_) if !data.parts.is_empty() => None,
        _ if holds(data, kind) && data.parts.is_empty() => None,
        _ if !data.parts.is_empty() => Some("a list or fields"),
        _ => kind_of(data).filter(|given| *given != word(kind)),
    }
}

/// The word for what an input holds beside its parts.
fn kind_of(data: &api::Data) -> Option<&'static str> {
    const KINDS: [Kind; 13] = [
        Kind::Str,
        Kind::Bytes,
        Kind::Int,
        Kind::Float,
        Kind::Bool,
        Kind::Json,
        Kind::NdArray,
        Kind::Image,
        Kind::Audio,
        Kind::Video,
        Kind::Concept,
        Kind::Region,
        Kind::Frame,
    ];
    match data.embeddings.is_empty() {
        true => KINDS.iter().find(|kind| holds(data, kind)).map(word),
        false => Some("an embedding"),
    }
}

fn word(kind: &Kind) -> &'static str {
    match kind {
        Kind::Str | Kind::Text => "a text",
        Kind::Bytes => "bytes",
        Kind::Int => "an integer",
        Kind::Float => "a float",
        Kind::Bool => "a boolean",
        Kind::NdArray => "an ndarray",
        Kind::Json => "JSON",
        Kind::Image => "an image",
        Kind::Concept => "concepts",
        Kind::Region => "regions",
        Kind::Frame => "frames",
        Kind::Audio => "audio",
        Kind::Video => "a video",
        Kind::NamedFields(_) => "named fields",
        Kind::Tuple(_) => "a tuple",
        Kind::List(_) => "a list",
    }
}

fn shortened(text: &str) -> String {
    let mut text = text.to_owned();
    crate::text::cut(&mut text, 64);
    text
}

/// What a typed call returns: its parts in the tree that their paths describe.
/// Deeper paths than types can be end in one name.
pub(super) fn returned(
    output: Output,
    method: &Method,
    selection: &Selection,
) -> Result<api::Data, Outcome> {
    few(&output)?;
    let mut data = api::Data::default();
    let single = match (method.results.as_slice(), output.parts.as_slice()) {
        ([result], [_]) => Some(result.name.clone()),
        _ => None,
    };
    for part in output.parts {
        // A model that returns one thing need not know what that is called.
        let path = match &single {
            Some(name) if !is_below(&part.name, name) => name.clone(),
            _ => part.name,
        };
        put(&mut data, path.splitn(PATH_DEPTH_MAX, '/'), part.value, selection);
    }
    Ok(data)
}

/// Sets a value at the end of a path of parts in parts.
fn put<'a>(
    data: &mut api::Data,
    mut path: impl Iterator<Item = &'a str>,
    value: Value,
    selection: &Selection,
) {
    let Some(id) = path.next() else { return set_for_all(data, value, selection) };
    if let Some(part) = data.parts.iter_mut().find(|part| part.id == id) {
        return put(part.data.get_or_insert_default(), path, value, selection);
    }
    let mut inner = api::Data::default();
    put(&mut inner, path, value, selection);
    data.parts.push(api::Part { id: id.to_owned(), data: Some(inner) });
}

fn is_below(path: &str, name: &str) -> bool {
    path.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Refuses what would take long to put together.
fn few(output: &Output) -> Result<(), Outcome> {
    let name_bytes_max = limit("result_names", PATH_BYTES_MAX);
    let long = output.parts.iter().any(|part| part.name.len() > name_bytes_max);
    if output.parts.len() <= limit("result_parts", RESULT_PARTS_MAX) && !long {
        return Ok(());
    }
    let text = format!(
        "the model returned more than {RESULT_PARTS_MAX} parts, or names over {PATH_BYTES_MAX} \
         bytes; its author must return JSON or an array"
    );
    Err(Outcome::new(StatusCode::ModelPredictionFailed, "GUEST_TRAP", text))
}

/// What a client that knows no methods gets: the result itself, or its parts in
/// their tree.
pub(super) fn returned_plain(
    output: Output,
    method: &Method,
    selection: &Selection,
) -> Result<api::Data, Outcome> {
    few(&output)?;
    let mut data = api::Data::default();
    let single = output.parts.len() == 1;
    for part in output.parts {
        let is_result = method.results.iter().any(|result| result.name == part.name);
        if single || (is_result && method.results.len() == 1) {
            set_for_all(&mut data, part.value, selection);
        } else {
            put(&mut data, part.name.splitn(PATH_DEPTH_MAX, '/'), part.value, selection);
        }
    }
    Ok(data)
}

/// Old and new clients read a text in different places.
fn set_for_all(data: &mut api::Data, value: Value, selection: &Selection) {
    if let Value::Text(text) = &value {
        data.string_value = text.clone();
    }
    set(data, value, selection);
}

/// The signatures, as clients ask a version for them.
pub(super) fn signatures(methods: &Methods) -> Vec<api::MethodSignature> {
    let signature = |method: &Method| api::MethodSignature {
        name: method.name.clone(),
        method_type: method_type(method.function) as i32,
        description: method.description.clone(),
        input_fields: method.arguments.iter().map(field).collect(),
        output_fields: method.results.iter().map(field).collect(),
    };
    methods.iter().map(signature).collect()
}

/// The same as JSON: an object from names to signatures, in protobuf's mapping.
pub(super) fn signatures_json(methods: &Methods) -> String {
    let signature = |method: &Method| {
        let signature = json!({
            "name": method.name,
            "methodType": method_type(method.function).as_str_name(),
            "description": method.description,
            "inputFields": method.arguments.iter().map(field_json).collect::<Vec<_>>(),
            "outputFields": method.results.iter().map(field_json).collect::<Vec<_>>(),
        });
        (method.name.clone(), signature)
    };
    serde_json::Value::Object(methods.iter().map(signature).collect()).to_string()
}

fn method_type(function: Function) -> RunnerMethodType {
    match function {
        Function::Predict => RunnerMethodType::UnaryUnary,
        Function::Generate => RunnerMethodType::UnaryStreaming,
        Function::Stream => RunnerMethodType::StreamingStreaming,
    }
}

fn type_of(kind: &Kind) -> (DataType, &[Field]) {
    let none: &[Field] = &[];
    match kind {
        Kind::Str => (DataType::Str, none),
        Kind::Bytes => (DataType::Bytes, none),
        Kind::Int => (DataType::Int, none),
        Kind::Float => (DataType::Float, none),
        Kind::Bool => (DataType::Bool, none),
        Kind::NdArray => (DataType::Ndarray, none),
        Kind::Json => (DataType::JsonData, none),
        Kind::Text => (DataType::Text, none),
        Kind::Image => (DataType::Image, none),
        Kind::Concept => (DataType::Concept, none),
        Kind::Region => (DataType::Region, none),
        Kind::Frame => (DataType::Frame, none),
        Kind::Audio => (DataType::Audio, none),
        Kind::Video => (DataType::Video, none),
        Kind::NamedFields(fields) => (DataType::NamedFields, fields),
        Kind::Tuple(fields) => (DataType::Tuple, fields),
        Kind::List(element) => (DataType::List, std::slice::from_ref(element)),
    }
}

fn field(from: &Field) -> api::ModelTypeField {
    let (kind, inner) = type_of(&from.kind);
    api::ModelTypeField {
        name: from.name.clone(),
        r#type: kind as i32,
        type_args: inner.iter().map(field).collect(),
        required: from.required,
        default: from.default.clone().unwrap_or_default(),
        iterator: from.streamed,
        description: from.description.clone(),
        is_param: false,
    }
}

fn field_json(from: &Field) -> serde_json::Value {
    let (kind, inner) = type_of(&from.kind);
    let mut object = json!({
        "name": from.name,
        "type": kind.as_str_name(),
        "typeArgs": inner.iter().map(field_json).collect::<Vec<_>>(),
        "required": from.required,
        "iterator": from.streamed,
        "description": from.description,
    });
    if let (Some(default), Some(object)) = (&from.default, object.as_object_mut()) {
        object.insert("default".to_owned(), default.clone().into());
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::Part;

    fn output(parts: usize, name: &str) -> Output {
        let part = Part { name: name.into(), value: Value::Integer(1) };
        Output { parts: vec![part; parts], usage: None, info: String::new() }
    }

    #[test]
    fn an_argument_of_too_many_parts_is_refused() {
        let methods = Methods::parse(
            r#"[{"name": "m", "methodType": "UNARY_UNARY",
                "inputFields": [{"name": "a", "type": "LIST", "typeArgs": [{"type": "INT"}]}],
                "outputFields": [{"name": "return", "type": "INT"}]}]"#,
        );
        let methods = methods.unwrap();
        let taken = |parts: usize| {
            let list = api::Data { parts: vec![api::Part::default(); parts], ..Default::default() };
            let argument = api::Part { id: "a".to_owned(), data: Some(list) };
            let mut data = api::Data { parts: vec![argument], ..Default::default() };
            arguments(methods.named("m").unwrap(), &mut data, Turn::First).map(|parts| parts.len())
        };
        // The list is one of them.
        assert_eq!(taken(PARTS_MAX - 1).unwrap(), PARTS_MAX - 1);
        assert!(matches!(taken(PARTS_MAX), Err(InputError::TooManyParts)));
    }

    #[test]
    fn a_result_of_too_many_parts_or_too_long_names_is_the_models_failure() {
        assert!(few(&output(RESULT_PARTS_MAX, "return/0")).is_ok());
        assert!(few(&output(1, &"n".repeat(PATH_BYTES_MAX))).is_ok());
        for too_much in
            [output(RESULT_PARTS_MAX + 1, "r"), output(1, &"n".repeat(PATH_BYTES_MAX + 1))]
        {
            let refused = few(&too_much).unwrap_err();
            assert_eq!(
                (refused.code, refused.reason),
                (StatusCode::ModelPredictionFailed, "GUEST_TRAP")
            );
        }
    }

    #[test]
    fn slashes_in_a_name_nest_no_deeper_than_types_can() {
        let mut data = api::Data::default();
        let name = "a/".repeat(500);
        put(&mut data, name.splitn(PATH_DEPTH_MAX, '/'), Value::Integer(1), &Selection::default());
        let mut depth = 0;
        let mut inner = Some(&data);
        while let Some(part) = inner.and_then(|data| data.parts.first()) {
            depth += 1;
            inner = part.data.as_ref();
        }
        assert_eq!(depth, PATH_DEPTH_MAX);
    }
}
