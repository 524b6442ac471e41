//! What an output takes in memory as a message of the wire, beside what it is itself.
//!
//! Accounts are charged by these numbers where nothing knows of the wire; a test of
//! the server holds them against its messages.

use crate::call::{Output, Part, Region, Value};
use crate::limits::JSON_BYTES_MAX;

/// A record that can hold any value; most of its fields are empty.
pub(crate) const RECORD_BYTES: usize = 2560;

/// Steps of a path.
pub(crate) const STEPS_MAX: usize = 10;

/// An element of JSON, as it is read and as it is told, in a list that grows.
pub(crate) const ELEMENT_BYTES: usize = 96;

/// What a list, a field of an object and an object take more. An object has room for
/// eleven fields from the first one on.
pub(crate) const LIST_BYTES: usize = 192;
pub(crate) const FIELD_BYTES: usize = 256;
pub(crate) const OBJECT_BYTES: usize = 1408;

/// Lists and objects in each other that are read; `serde_json`'s own limit.
const DEPTH_MAX: usize = 128;

/// What a corner takes more.
pub(crate) const POINT_BYTES: usize = 4;

/// Bytes that an output takes more.
pub(crate) fn beside(output: &Output) -> u64 {
    let parts: usize = output.parts.iter().map(of_part).sum();
    (RECORD_BYTES + of_json(&output.info) + parts) as u64
}

/// A name may be a path, each step of which is a record; what is beyond the last one
/// is one name.
fn of_part(part: &Part) -> usize {
    let steps = part.name.split('/').take(STEPS_MAX).count();
    steps * RECORD_BYTES + of_value(&part.value)
}

fn of_value(value: &Value) -> usize {
    match value {
        // Old and new clients read it in different places.
        Value::Text(text) => text.len(),
        Value::Json(text) => of_json(text),
        Value::Regions(regions) => of_regions(regions),
        Value::Frames(frames) => {
            frames.iter().map(|frame| RECORD_BYTES + of_regions(&frame.regions)).sum()
        }
        Value::Image(_)
        | Value::Audio(_)
        | Value::Video(_)
        | Value::Bytes(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::Boolean(_)
        | Value::Concepts(_)
        | Value::Embedding(_)
        | Value::NdArray(_) => 0,
    }
}

fn of_regions(regions: &[Region]) -> usize {
    regions.iter().map(|region| RECORD_BYTES + region.points.len() * POINT_BYTES).sum()
}

/// Its texts once more, and its elements: each but the first follows a comma, the
/// first is its list's or object's. What lies too deep is not read, nor what follows.
fn of_json(text: &str) -> usize {
    if text.len() > JSON_BYTES_MAX {
        return 0;
    }
    let mut bytes = text.len();
    let (mut depth, mut within_text, mut escaped) = (0_usize, false, false);
    for byte in text.bytes() {
        if within_text {
            within_text = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
            continue;
        }
        bytes += match byte {
            b',' => ELEMENT_BYTES,
            b':' => FIELD_BYTES,
            b'[' => LIST_BYTES,
            b'{' => OBJECT_BYTES,
            _ => 0,
        };
        match byte {
            b'"' => within_text = true,
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEPTH_MAX {
            break;
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::Point;

    fn of(info: &str, values: Vec<(&str, Value)>) -> usize {
        let part = |(name, value): (&str, Value)| Part { name: name.to_owned(), value };
        let parts = values.into_iter().map(part).collect();
        beside(&Output { parts, usage: None, info: info.to_owned() }) as usize
    }

    #[test]
    fn what_the_wire_makes_of_json_and_records_is_counted() {
        let json = |text: &str| of("", vec![("", Value::Json(text.to_owned()))]);
        let empty = json("");
        let beside_text = |text: &str| json(text) - empty - text.len();
        assert_eq!(beside_text("[1,2,3]"), LIST_BYTES + 2 * ELEMENT_BYTES);
        let object = "{\"a\":1,\"b\":2}";
        assert_eq!(beside_text(object), OBJECT_BYTES + 2 * FIELD_BYTES + ELEMENT_BYTES);
        assert_eq!(of(object, vec![]) - of("", vec![]), json(object) - empty);
        assert_eq!(beside_text(r#"["a,[{:", "\\", "\"[", 1]"#), LIST_BYTES + 3 * ELEMENT_BYTES);
        let deep = "[".repeat(1000);
        assert_eq!(beside_text(&deep), (DEPTH_MAX + 1) * LIST_BYTES);
        assert!(serde_json::from_str::<serde_json::Value>(&deep).is_err());
        let long = format!("[{}1]", "1,".repeat(JSON_BYTES_MAX / 2));
        assert_eq!(json(&long), empty, "it stays a text");

        let text = || Value::Text("four".into());
        assert_eq!(of("", vec![("a/b/c", text())]), 4 * RECORD_BYTES + 4);
        let path = "a/".repeat(100);
        assert_eq!(of("", vec![(&path, text())]), (1 + STEPS_MAX) * RECORD_BYTES + 4);
        let region = Region {
            id: String::new(),
            bounds: None,
            points: vec![Point { x: 0., y: 0. }; 3],
            mask: None,
            concepts: Vec::new(),
            text: None,
            track_id: String::new(),
            value: 1.,
        };
        let regions = of("", vec![("", Value::Regions(vec![region; 5]))]);
        assert_eq!(regions - empty, 5 * (RECORD_BYTES + 3 * POINT_BYTES));
    }
}
