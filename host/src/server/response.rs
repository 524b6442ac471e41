//! What a client gets: the seam's outputs as messages of the wire.

use super::status::Outcome;
use super::typed;
use crate::call::{Concept, Frame, Method, NdArray, Output, Region, Value};
use crate::limits::{JSON_BYTES_MAX, limit};
use crate::proto::clarifai::api;
use crate::proto::json;
use std::collections::HashSet;

/// What a client asks of concepts, with the wire's "not asked" resolved.
#[derive(Debug, Clone, Default)]
pub(crate) struct Selection {
    concepts_max: Option<usize>,
    value_min: Option<f32>,
    ids: HashSet<String>,
    names: HashSet<String>,
}

impl From<Option<api::OutputConfig>> for Selection {
    fn from(config: Option<api::OutputConfig>) -> Self {
        let config = config.unwrap_or_default();
        let concepts_max = usize::try_from(config.max_concepts).ok().filter(|max| *max > 0);
        // The wire cannot tell 0 from nothing asked.
        let value_min = Some(config.min_value).filter(|min| *min != 0.0);
        let mut selection = Self { concepts_max, value_min, ..Self::default() };
        for concept in config.select_concepts {
            // A client may know a concept by its id or by its name.
            match concept.id.is_empty() {
                true => selection.names.insert(concept.name),
                false => selection.ids.insert(concept.id),
            };
        }
        selection
    }
}

impl Selection {
    fn apply(&self, mut concepts: Vec<Concept>) -> Vec<Concept> {
        let all = self.ids.is_empty() && self.names.is_empty();
        concepts.retain(|concept| {
            self.value_min.is_none_or(|min| concept.value >= min)
                && (all || self.ids.contains(&concept.id) || self.names.contains(&concept.name))
        });
        if let Some(max) = self.concepts_max
            && concepts.len() > max
        {
            concepts.sort_by(|a, b| b.value.total_cmp(&a.value));
            concepts.truncate(max);
        }
        concepts
    }
}

/// Whether a client names methods or does not know of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallerKind {
    Typed,
    Plain,
}

/// What the outputs of a call look like.
#[derive(Debug, Clone, Default)]
pub(crate) struct Form {
    pub(crate) selection: Selection,
    pub(crate) typed: Option<(Method, CallerKind)>,
}

/// One output; the caller adds id and status.
pub(crate) fn output(output: Output, form: &Form) -> Result<api::Output, Outcome> {
    let usage = output.usage.unwrap_or_default();
    let metadata = struct_of(&output.info);
    let mut data = match &form.typed {
        Some((method, CallerKind::Typed)) => typed::returned(output, method, &form.selection)?,
        Some((method, CallerKind::Plain)) => {
            typed::returned_plain(output, method, &form.selection)?
        }
        None => plain(output, &form.selection),
    };
    data.metadata = metadata;
    Ok(api::Output {
        data: Some(data),
        prompt_tokens: usage.prompt_tokens,
        completion_tokens: usage.completion_tokens,
        cached_tokens: usage.cached_tokens,
        ..Default::default()
    })
}

fn plain(output: Output, selection: &Selection) -> api::Data {
    let mut data = api::Data::default();
    for part in output.parts {
        let plain = plain_name(&part.value) == part.name || part.name.is_empty();
        if plain && is_free(&data, &part.value) {
            set(&mut data, part.value, selection);
        } else {
            let mut nested = api::Data::default();
            set(&mut nested, part.value, selection);
            data.parts.push(api::Part { id: part.name, data: Some(nested) });
        }
    }
    data
}

/// The name that a part has if it stands for the whole answer.
fn plain_name(value: &Value) -> &'static str {
    match value {
        Value::Text(_) => "text",
        Value::Image(_) => "image",
        Value::Audio(_) => "audio",
        Value::Video(_) => "video",
        Value::Bytes(_) => "bytes",
        Value::Integer(_) => "integer",
        Value::Float(_) => "float",
        Value::Boolean(_) => "boolean",
        Value::Json(_) => "json",
        Value::Concepts(_) => "concepts",
        Value::Regions(_) => "regions",
        Value::Frames(_) => "frames",
        Value::Embedding(_) => "embedding",
        Value::NdArray(_) => "ndarray",
    }
}

/// Whether the field that a value goes to has not been set yet.
fn is_free(data: &api::Data, value: &Value) -> bool {
    match value {
        Value::Text(_) => data.text.is_none(),
        Value::Image(_) => data.image.is_none(),
        Value::Audio(_) => data.audio.is_none(),
        Value::Video(_) => data.video.is_none(),
        Value::Bytes(_) => data.bytes_value.is_empty(),
        Value::Integer(_) => data.int_value == 0,
        Value::Float(_) => data.float_value == 0.0,
        Value::Boolean(_) => !data.bool_value,
        Value::Json(_) => data.struct_value.is_none() && data.string_value.is_empty(),
        Value::Concepts(_) => data.concepts.is_empty(),
        Value::Regions(_) => data.regions.is_empty(),
        Value::Frames(_) => data.frames.is_empty(),
        Value::Embedding(_) => true,
        Value::NdArray(_) => data.ndarray.is_none(),
    }
}

pub(super) fn set(data: &mut api::Data, value: Value, selection: &Selection) {
    let url = String::new;
    match value {
        Value::Text(raw) => data.text = Some(api::Text { raw, url: url() }),
        Value::Image(base64) => data.image = Some(api::Image { url: url(), base64 }),
        Value::Audio(base64) => data.audio = Some(api::Audio { url: url(), base64 }),
        Value::Video(base64) => data.video = Some(api::Video { url: url(), base64 }),
        Value::Bytes(bytes) => data.bytes_value = bytes,
        Value::Integer(integer) => data.int_value = integer,
        Value::Float(float) => data.float_value = float,
        Value::Boolean(boolean) => data.bool_value = boolean,
        Value::Json(text) => match struct_of(&text) {
            Some(fields) => data.struct_value = Some(fields),
            // What is not JSON after all is still a text.
            None => data.string_value = text,
        },
        Value::Concepts(list) => data.concepts = concepts(selection.apply(list)),
        Value::Regions(list) => {
            data.regions = list.into_iter().map(|item| region(item, selection)).collect();
        }
        Value::Frames(list) => {
            data.frames = list.into_iter().map(|item| frame(item, selection)).collect();
        }
        Value::Embedding(vector) => {
            let num_dimensions = u32::try_from(vector.len()).unwrap_or(u32::MAX);
            data.embeddings.push(api::Embedding { vector, num_dimensions });
        }
        Value::NdArray(NdArray { dtype, shape, data: buffer }) => {
            data.ndarray = Some(api::NdArray { buffer, shape, dtype });
        }
    }
}

fn concepts(list: Vec<Concept>) -> Vec<api::Concept> {
    list.into_iter().map(|Concept { id, name, value }| api::Concept { id, name, value }).collect()
}

fn region(region: Region, selection: &Selection) -> api::Region {
    let points: Vec<_> = region
        .points
        .iter()
        .map(|point| api::Point { row: point.y, col: point.x, z: 0.0 })
        .collect();
    let info = api::RegionInfo {
        bounding_box: region.bounds.map(|edges| api::BoundingBox {
            top_row: edges.top,
            left_col: edges.left,
            bottom_row: edges.bottom,
            right_col: edges.right,
        }),
        mask: region
            .mask
            .map(|base64| api::Mask { image: Some(api::Image { url: String::new(), base64 }) }),
        polygon: (!points.is_empty()).then_some(api::Polygon { points }),
        ..Default::default()
    };
    let data = api::Data {
        concepts: concepts(selection.apply(region.concepts)),
        text: region.text.map(|raw| api::Text { raw, url: String::new() }),
        ..Default::default()
    };
    api::Region {
        id: region.id,
        region_info: Some(info),
        data: Some(data),
        value: region.value,
        track_id: region.track_id,
    }
}

fn frame(frame: Frame, selection: &Selection) -> api::Frame {
    let data = api::Data {
        concepts: concepts(selection.apply(frame.concepts)),
        regions: frame.regions.into_iter().map(|item| region(item, selection)).collect(),
        ..Default::default()
    };
    let info = api::FrameInfo { index: frame.index, time: frame.time_ms, number: frame.index };
    api::Frame { frame_info: Some(info), data: Some(data), id: String::new() }
}

/// A JSON text as the wire's struct, unless it is long.
fn struct_of(text: &str) -> Option<prost_types::Struct> {
    if text.len() > limit("json_text", JSON_BYTES_MAX) {
        return None;
    }
    json::to_wrapped(serde_json::from_str(text).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::wire;

    fn concept(id: &str, value: f32) -> Concept {
        Concept { id: id.into(), name: format!("name of {id}"), value }
    }

    fn ids(selection: &Selection) -> Vec<String> {
        let all = vec![concept("a", 0.1), concept("b", 0.7), concept("c", 0.2)];
        selection.apply(all).into_iter().map(|concept| concept.id).collect()
    }

    #[test]
    fn messages_take_no_more_than_accounts_are_charged_for_them() {
        // Each has its data within itself; a list of parts grows.
        for record in [
            size_of::<api::Output>(),
            2 * size_of::<api::Part>(),
            size_of::<api::Frame>(),
            size_of::<api::Region>(),
        ] {
            assert!(record <= wire::RECORD_BYTES, "{record}");
        }
        assert_eq!(typed::PATH_DEPTH_MAX, wire::STEPS_MAX);
        let point = size_of::<api::Point>() - size_of::<crate::call::Point>();
        assert!(point <= wire::POINT_BYTES, "{point}");
        // Of both trees, the one that is read and the one that is told: a list that
        // grows has room for twice as many and for four at least; a node of a map has
        // room for eleven, of which five are there but for the first node.
        let read = size_of::<serde_json::Value>();
        let told = size_of::<prost_types::Value>();
        let element = 2 * read + told;
        assert!(element <= wire::ELEMENT_BYTES, "{element}");
        assert!(4 * read + told <= wire::LIST_BYTES, "{read} {told}");
        let named = |value: usize| size_of::<String>() + value;
        let node = 11 * named(read) + 11 * named(told) + 2 * 16;
        assert!(node <= wire::OBJECT_BYTES, "{node}");
        let names = 2 * 16;
        assert!(node / 5 + names <= wire::FIELD_BYTES + wire::ELEMENT_BYTES, "{node}");
    }

    #[test]
    fn output_config_keeps_the_best_concepts() {
        let config = api::OutputConfig { max_concepts: 2, ..Default::default() };
        assert_eq!(ids(&Some(config).into()), ["b", "c"]);
    }

    #[test]
    fn output_config_drops_concepts_below_the_minimum() {
        let config = api::OutputConfig { min_value: 0.15, ..Default::default() };
        assert_eq!(ids(&Some(config).into()), ["b", "c"]);
    }

    #[test]
    fn output_config_selects_concepts_by_id_or_name() {
        let by_id = api::Concept { id: "c".into(), ..Default::default() };
        let by_name = api::Concept { name: "name of a".into(), ..Default::default() };
        let config =
            api::OutputConfig { select_concepts: vec![by_id, by_name], ..Default::default() };
        assert_eq!(ids(&Some(config).into()), ["a", "c"]);
    }

    #[test]
    fn nothing_asked_keeps_everything_in_the_guests_order() {
        assert_eq!(ids(&None.into()), ["a", "b", "c"]);
    }

    #[test]
    fn a_json_text_beyond_its_limit_stays_a_text() {
        let json = |bytes: usize| {
            let text = format!("[\"{}\"]", "x".repeat(bytes - 4));
            let part = crate::call::Part { name: "json".into(), value: Value::Json(text) };
            let parts = vec![part];
            let output_ = Output { parts, usage: None, info: String::new() };
            output(output_, &Form::default()).unwrap().data.unwrap()
        };
        let fits = json(JSON_BYTES_MAX);
        assert!(fits.struct_value.is_some() && fits.string_value.is_empty());
        let long = json(JSON_BYTES_MAX + 1);
        assert!(long.struct_value.is_none());
        assert_eq!(long.string_value.len(), JSON_BYTES_MAX + 1);
    }

    #[test]
    fn a_second_text_does_not_overwrite_the_first() {
        let part =
            |text: &str| crate::call::Part { name: "text".into(), value: Value::Text(text.into()) };
        let parts = vec![part("one"), part("two")];
        let output_ = Output { parts, usage: None, info: String::new() };
        let data = output(output_, &Form::default()).unwrap().data.unwrap();
        assert_eq!(data.text.unwrap().raw, "one");
        assert_eq!(data.parts.len(), 1);
    }
}
