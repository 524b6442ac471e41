//! What a client sends, parsed into the seam's words. Text and messages of the
//! wire stop here.

use super::response::CallerKind;
use super::sent::{Content, Fetching, Sent, SentPart};
use super::status::Outcome;
use super::typed;
use crate::call::{
    BoundingBox, Concept, Frame, Function, Input, Method, Methods, NdArray, Point, Region, Request,
    Value,
};
use crate::fetch::{FetchError, Media};
use crate::limits::limit;
use crate::proto::clarifai::api;
use crate::proto::json::{self, NotFinite};
use prost_types::Struct;
use prost_types::value::Kind;
use std::sync::Arc;

/// Inputs of one request.
const INPUTS_MAX: usize = 128;

/// Parts of one input, after flattening.
pub(super) const PARTS_MAX: usize = 4096;

/// Bytes of a part's path.
pub(super) const PATH_BYTES_MAX: usize = 1024;

/// Concepts that a request may select.
const SELECTED_MAX: usize = 1000;

/// How deep parts may lie in parts.
const DEPTH_MAX: usize = 16;

/// The key under which a client names a typed method.
const METHOD_KEY: &str = "_method_name";

/// The method by which a client asks for the signatures of all others.
pub(crate) const GET_SIGNATURES: &str = "_GET_SIGNATURES";

/// A request, each of its inputs by itself right or wrong.
#[derive(Debug)]
pub(crate) struct Parsed {
    pub(crate) method: String,
    pub(crate) params: String,
    pub(crate) inputs: Vec<Result<Sent, InputError>>,
    pub(crate) output_config: Option<api::OutputConfig>,
    /// The method and who calls it; nothing for a model without methods.
    pub(crate) typed: Option<(Method, CallerKind)>,
}

/// The same with bytes in place of URLs.
#[derive(Debug)]
pub(super) struct Fetched {
    method: String,
    params: String,
    pub(super) inputs: Vec<Result<Input, InputError>>,
}

/// Why one input is refused before the model sees it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InputError {
    #[error("the input has no data; send text, an image or another part")]
    Empty,
    #[error(transparent)]
    Url(#[from] FetchError),
    #[error("a URL is not taken here; send the bytes themselves")]
    UrlNotTaken,
    #[error("the {media} has a URL and bytes as well; send one of them")]
    UrlAndBytes { media: Media },
    #[error(transparent)]
    Number(#[from] NotFinite),
    #[error("the path of a part is longer than {PATH_BYTES_MAX} bytes; use shorter ids")]
    PathTooLong,
    #[error("parts lie deeper than {DEPTH_MAX} levels; flatten them")]
    TooDeep,
    #[error("the input has more than {PARTS_MAX} parts; send fewer")]
    TooManyParts,
    #[error("`{method}` takes {arguments} arguments; send no more")]
    TooManyArguments { method: String, arguments: usize },
    #[error("`{method}` has no argument {name:?}; it takes {known}")]
    UnknownArgument { method: String, name: String, known: String },
    #[error("`{method}` needs the argument `{name}`")]
    MissingArgument { method: String, name: String },
    #[error("`{path}` is given twice")]
    TwiceGiven { path: String },
    #[error("`{method}` has no argument for {given} that the input holds; name it")]
    Left { method: String, given: &'static str },
    #[error("`{path}` takes {expected}, not {given}")]
    WrongType { path: String, expected: &'static str, given: &'static str },
    #[error("`{path}` takes {expected}, and has no value, or not all of it")]
    NoValue { path: String, expected: &'static str },
}

/// How the requests of a call are read: by its function, and by the methods
/// that the model has.
#[derive(Debug, Clone)]
pub(crate) struct Reading {
    pub(crate) function: Function,
    pub(crate) methods: Arc<Methods>,
}

/// Whether a message is the first of its call: the first carries all arguments,
/// the next ones of a stream only what is streamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    First,
    Next,
}

impl Parsed {
    /// What is asked, once everything has come that lies behind a URL.
    pub(super) async fn fetched(self, fetching: &Fetching) -> Result<Fetched, Outcome> {
        let inputs = fetching.all(self.inputs).await?;
        Ok(Fetched { method: self.method, params: self.params, inputs })
    }
}

impl Fetched {
    /// The request that the guest sees: the inputs that are right.
    pub(super) fn request(self) -> Request {
        let inputs = self.inputs.into_iter().filter_map(Result::ok).collect();
        Request { method: self.method, inputs, params: self.params }
    }
}

impl Reading {
    /// Parses a request of any of the three calls.
    pub(crate) fn parse(
        &self,
        request: api::PostModelOutputsRequest,
        turn: Turn,
    ) -> Result<Parsed, Outcome> {
        if request.inputs.is_empty() {
            return Err(Outcome::bad_request("the request has no inputs; send at least one"));
        }
        if request.inputs.len() > limit("inputs", INPUTS_MAX) {
            let text = format!("the request has more than {INPUTS_MAX} inputs; split it");
            return Err(Outcome::bad_request(text));
        }
        let output_info = request
            .model
            .and_then(|model| model.model_version)
            .and_then(|version| version.output_info);
        let (params, output_config) = match output_info {
            Some(info) => (info.params, info.output_config),
            None => (None, None),
        };
        let params = match params {
            Some(params) => struct_text(params)
                .map_err(|error| Outcome::bad_request(format!("inference_params: {error}")))?,
            None => "{}".to_owned(),
        };
        let selected = output_config.as_ref().map_or(0, |config| config.select_concepts.len());
        if selected > limit("selected_concepts", SELECTED_MAX) {
            let text =
                format!("output_config selects more than {SELECTED_MAX} concepts; name fewer");
            return Err(Outcome::bad_request(text));
        }
        let method = method_of(&request.inputs)?;
        if method == GET_SIGNATURES {
            return Ok(Parsed { method, params, inputs: Vec::new(), output_config, typed: None });
        }
        let typed = self.method(&method)?;
        let read = |from: api::Input| match &typed {
            Some((method, CallerKind::Typed)) => typed_input(method, from, turn),
            Some((method, CallerKind::Plain)) => plain_input(method, from, turn),
            None => input(from),
        };
        let inputs = request.inputs.into_iter().map(read).collect();
        let method = typed.as_ref().map(|(method, _)| method.name.clone()).unwrap_or_default();
        Ok(Parsed { method, params, inputs, output_config, typed })
    }

    /// The method that is called. A client that names none means the one that is
    /// called like the function.
    fn method(&self, name: &str) -> Result<Option<(Method, CallerKind)>, Outcome> {
        if self.methods.is_empty() {
            return match name {
                "" => Ok(None),
                _ => Err(Outcome::no_typed_methods()),
            };
        }
        let (name, caller) = match name {
            "" => (typed::plain_name(self.function), CallerKind::Plain),
            name => (name, CallerKind::Typed),
        };
        match self.methods.named(name) {
            Some(method) if method.function == self.function => Ok(Some((method.clone(), caller))),
            Some(method) => Err(Outcome::no_such_method(format!(
                "`{name}` is called by {}, and not by {}",
                typed::plain_name(method.function),
                typed::plain_name(self.function)
            ))),
            None => {
                let names: Vec<&str> = self.methods.iter().map(|m| m.name.as_str()).collect();
                let mut name = name.to_owned();
                crate::text::cut(&mut name, 64);
                Err(Outcome::no_such_method(format!(
                    "the model has no method {name:?}; it has {}",
                    names.join(", ")
                )))
            }
        }
    }
}

/// Parses a request for a model without methods.
pub(crate) fn parse(request: api::PostModelOutputsRequest) -> Result<Parsed, Outcome> {
    let reading = Reading { function: Function::Predict, methods: Arc::default() };
    reading.parse(request, Turn::First)
}

/// A plain input as the arguments of a method.
pub(crate) fn plain_input(
    method: &Method,
    from: api::Input,
    turn: Turn,
) -> Result<Sent, InputError> {
    let Sent { id, parts } = input(from)?;
    Ok(Sent { id, parts: typed::plain(method, parts, turn)? })
}

/// An input with a part for each argument.
pub(crate) fn typed_input(
    method: &Method,
    input: api::Input,
    turn: Turn,
) -> Result<Sent, InputError> {
    let mut data = input.data.unwrap_or_default();
    data.metadata = None;
    Ok(Sent { id: input.id, parts: typed::arguments(method, &mut data, turn)? })
}

/// The one method that all inputs name, or none.
fn method_of(inputs: &[api::Input]) -> Result<String, Outcome> {
    let name = |input: &api::Input| -> String {
        let metadata = input.data.as_ref().and_then(|data| data.metadata.as_ref());
        match metadata
            .and_then(|fields| fields.fields.get(METHOD_KEY))
            .and_then(|v| v.kind.as_ref())
        {
            Some(Kind::StringValue(name)) => name.clone(),
            _ => String::new(),
        }
    };
    let mut names = inputs.iter().map(name);
    let first = names.next().unwrap_or_default();
    match names.all(|other| other == first) {
        true => Ok(first),
        false => Err(Outcome::bad_request("the inputs of one request name different methods")),
    }
}

fn input(input: api::Input) -> Result<Sent, InputError> {
    let mut parts = Vec::new();
    let mut visits_left = limit("parts", PARTS_MAX);
    flatten("", input.data.unwrap_or_default(), 0, &mut visits_left, &mut parts)?;
    if parts.is_empty() {
        return Err(InputError::Empty);
    }
    Ok(Sent { id: input.id, parts })
}

/// Appends the parts of `data` under a path. A nested part's name is the path
/// of the part it lies in, a slash, and its own id.
fn flatten(
    path: &str,
    data: api::Data,
    depth: usize,
    visits_left: &mut usize,
    parts: &mut Vec<SentPart>,
) -> Result<(), InputError> {
    if depth > limit("parts_depth", DEPTH_MAX) {
        return Err(InputError::TooDeep);
    }
    if path.len() > limit("part_path", PATH_BYTES_MAX) {
        return Err(InputError::PathTooLong);
    }
    *visits_left = visits_left.checked_sub(1).ok_or(InputError::TooManyParts)?;
    let mut place = |kind: &str, content: Content| {
        if parts.len() == limit("parts", PARTS_MAX) {
            return Err(InputError::TooManyParts);
        }
        let name = if path.is_empty() { kind } else { path };
        parts.push(SentPart { name: name.to_owned(), content });
        Ok(())
    };
    if let Some(text) = data.text {
        place("text", Content::of_text(text)?)?;
    }
    if let Some(image) = data.image {
        place("image", Content::of_image(image)?)?;
    }
    if let Some(audio) = data.audio {
        place("audio", Content::of_audio(audio)?)?;
    }
    if let Some(video) = data.video {
        place("video", Content::of_video(video)?)?;
    }
    let mut push = |kind: &str, value: Value| place(kind, Content::Here(value));
    if !data.concepts.is_empty() {
        push("concepts", Value::Concepts(data.concepts.into_iter().map(concept).collect()))?;
    }
    if !data.regions.is_empty() {
        let regions = data.regions.into_iter().map(region).collect::<Result<_, _>>()?;
        push("regions", Value::Regions(regions))?;
    }
    if !data.frames.is_empty() {
        let frames = data.frames.into_iter().map(frame).collect::<Result<_, _>>()?;
        push("frames", Value::Frames(frames))?;
    }
    for embedding in data.embeddings {
        push("embedding", Value::Embedding(embedding.vector))?;
    }
    if let Some(api::NdArray { buffer, shape, dtype }) = data.ndarray {
        push("ndarray", Value::NdArray(NdArray { dtype, shape, data: buffer }))?;
    }
    if !data.string_value.is_empty() {
        push("text", Value::Text(data.string_value))?;
    }
    if !data.bytes_value.is_empty() {
        push("bytes", Value::Bytes(data.bytes_value))?;
    }
    if data.int_value != 0 {
        push("integer", Value::Integer(data.int_value))?;
    }
    if data.float_value != 0.0 {
        push("float", Value::Float(data.float_value))?;
    }
    if data.bool_value {
        push("boolean", Value::Boolean(true))?;
    }
    if let Some(fields) = data.struct_value {
        push("json", Value::Json(struct_text(fields)?))?;
    }
    for part in data.parts {
        if part.id.len() > limit("part_path", PATH_BYTES_MAX) {
            return Err(InputError::PathTooLong);
        }
        let name = match path {
            "" => part.id,
            path => format!("{path}/{}", part.id),
        };
        flatten(&name, part.data.unwrap_or_default(), depth + 1, visits_left, parts)?;
    }
    Ok(())
}

/// Refuses a URL where none is fetched: within regions and frames.
fn refuse_url(url: &str) -> Result<(), InputError> {
    match url {
        "" => Ok(()),
        _ => Err(InputError::UrlNotTaken),
    }
}

pub(super) fn concept(concept: api::Concept) -> Concept {
    Concept { id: concept.id, name: concept.name, value: concept.value }
}

pub(super) fn region(region: api::Region) -> Result<Region, InputError> {
    let info = region.region_info.unwrap_or_default();
    let data = region.data.unwrap_or_default();
    let point = |point: api::Point| Point { x: point.col, y: point.row };
    let mut points: Vec<_> = info.point.into_iter().map(point).collect();
    points.extend(info.polygon.unwrap_or_default().points.into_iter().map(point));
    points.extend(info.keypoint_locations.into_iter().map(point));
    let mask = info.mask.and_then(|mask| mask.image);
    for url in [mask.as_ref().map(|image| &image.url), data.text.as_ref().map(|text| &text.url)] {
        refuse_url(url.map_or("", String::as_str))?;
    }
    Ok(Region {
        id: region.id,
        bounds: info.bounding_box.map(|edges| BoundingBox {
            top: edges.top_row,
            left: edges.left_col,
            bottom: edges.bottom_row,
            right: edges.right_col,
        }),
        points,
        mask: mask.map(|image| image.base64),
        concepts: data.concepts.into_iter().map(concept).collect(),
        text: data.text.map(|text| text.raw),
        track_id: region.track_id,
        value: region.value,
    })
}

pub(super) fn frame(frame: api::Frame) -> Result<Frame, InputError> {
    let info = frame.frame_info.unwrap_or_default();
    let data = frame.data.unwrap_or_default();
    Ok(Frame {
        index: info.index,
        time_ms: info.time,
        concepts: data.concepts.into_iter().map(concept).collect(),
        regions: data.regions.into_iter().map(region).collect::<Result<_, _>>()?,
    })
}

/// The text of a JSON object, or of the list that clients wrap in one.
pub(super) fn struct_text(fields: Struct) -> Result<String, NotFinite> {
    let mut object = json::from_struct(fields)?;
    if object.len() == 1
        && let Some(list) = object.remove(json::LIST_KEY)
    {
        return Ok(list.to_string());
    }
    Ok(serde_json::Value::Object(object).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message as _;

    fn text_input(text: &str) -> api::Input {
        let text = api::Text { raw: text.into(), url: String::new() };
        let data = api::Data { text: Some(text), ..Default::default() };
        api::Input { id: "a".into(), data: Some(data) }
    }

    #[test]
    fn an_input_of_several_kinds_keeps_all_of_them() {
        let mut input_ = text_input("look");
        let image = api::Image { url: String::new(), base64: vec![1, 2].into() };
        input_.data.as_mut().unwrap().image = Some(image);
        let parts = input(input_).unwrap().parts;
        assert_eq!(parts.len(), 2);
        assert_eq!(parts[0].name, "text");
        assert_eq!(parts[1].name, "image");
        assert_eq!(parts[1].content, Content::Here(Value::Image(vec![1, 2].into())));
    }

    /// The library's buffer is what a call has.
    #[test]
    fn a_large_value_is_where_it_was_received() {
        let image = api::Image { url: String::new(), base64: vec![7; 100_000].into() };
        let data = api::Data { image: Some(image), ..Default::default() };
        let sent = api::Input { id: String::new(), data: Some(data) }.encode_to_vec();
        let received = bytes::Bytes::from(sent);
        let within = received.as_ptr_range();
        let parts = input(api::Input::decode(received.clone()).unwrap()).unwrap().parts;
        let Content::Here(Value::Image(image)) = &parts[0].content else { panic!("{parts:?}") };
        assert_eq!(image.len(), 100_000);
        assert!(within.contains(&image.as_ptr()));
    }

    #[test]
    fn nested_parts_become_paths() {
        let leaf = |id: &str, n: i64| api::Part {
            id: id.into(),
            data: Some(api::Data { int_value: n, ..Default::default() }),
        };
        let list = api::Data { parts: vec![leaf("0", 1), leaf("1", 2)], ..Default::default() };
        let data = api::Data {
            parts: vec![api::Part { id: "numbers".into(), data: Some(list) }],
            ..Default::default()
        };
        let parts = input(api::Input { id: String::new(), data: Some(data) }).unwrap().parts;
        let names: Vec<_> = parts.iter().map(|part| part.name.as_str()).collect();
        assert_eq!(names, ["numbers/0", "numbers/1"]);
    }

    #[test]
    fn an_input_without_data_is_refused() {
        assert_eq!(input(api::Input::default()), Err(InputError::Empty));
    }

    #[test]
    fn a_url_stands_in_for_bytes_and_never_beside_them() {
        let with_url = |raw: &str| {
            let mut input = text_input(raw);
            input.data.as_mut().unwrap().text.as_mut().unwrap().url = "http://x".into();
            input
        };
        let sent = input(with_url("")).unwrap();
        let behind = Content::Behind { media: Media::Text, url: "http://x".into() };
        assert_eq!(sent.parts[0].content, behind);
        assert_eq!(sent.whole(), Err(InputError::UrlNotTaken));
        let both = InputError::UrlAndBytes { media: Media::Text };
        assert_eq!(input(with_url("here")), Err(both));
    }

    #[test]
    fn a_url_within_a_region_or_a_frame_is_not_overlooked() {
        let image = api::Image { url: "https://h/mask.png".into(), base64: Vec::new().into() };
        let mask = api::Mask { image: Some(image) };
        let info = api::RegionInfo { mask: Some(mask), ..Default::default() };
        let masked = api::Region { region_info: Some(info), ..Default::default() };
        let text = api::Text { raw: String::new(), url: "https://h/text".into() };
        let data = api::Data { text: Some(text), ..Default::default() };
        let written = api::Region { data: Some(data), ..Default::default() };
        for region in [masked, written] {
            let data = api::Data { regions: vec![region], ..Default::default() };
            let frame = api::Frame { data: Some(data.clone()), ..Default::default() };
            let framed = api::Data { frames: vec![frame], ..Default::default() };
            for data in [data, framed] {
                let input_ = api::Input { id: String::new(), data: Some(data) };
                assert_eq!(input(input_), Err(InputError::UrlNotTaken));
            }
        }
    }

    #[test]
    fn parts_that_lie_too_deep_are_refused() {
        let mut data = api::Data { int_value: 1, ..Default::default() };
        for _ in 0..=DEPTH_MAX {
            let part = api::Part { id: "p".into(), data: Some(data) };
            data = api::Data { parts: vec![part], ..Default::default() };
        }
        let input_ = api::Input { id: String::new(), data: Some(data) };
        assert_eq!(input(input_), Err(InputError::TooDeep));
    }

    #[test]
    fn a_path_of_a_part_has_a_length_however_it_is_put_together() {
        let within = |id: &str, data: api::Data| {
            let part = api::Part { id: id.into(), data: Some(data) };
            api::Data { parts: vec![part], ..Default::default() }
        };
        let read = |data: api::Data| {
            input(api::Input { id: String::new(), data: Some(data) }).map(|sent| sent.parts.len())
        };
        let leaf = || api::Data { int_value: 1, ..Default::default() };
        let half = "p".repeat(PATH_BYTES_MAX / 2);
        // There is a slash between them.
        let fits = half.split_at(1).1;
        assert_eq!(read(within(&half, within(fits, leaf()))), Ok(1));
        assert_eq!(read(within(&half, within(&half, leaf()))), Err(InputError::PathTooLong));
        let long = "p".repeat(PATH_BYTES_MAX + 1);
        assert_eq!(read(within(&long, leaf())), Err(InputError::PathTooLong));
    }
}
