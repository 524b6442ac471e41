//! Says what it was given, part by part, and gives pictures and sound back.

use ringfence_guest::{Error, Input, Model, Output, Params, Value};

struct Anything;

impl Model for Anything {
    fn load() -> Result<Self, Error> {
        Ok(Anything)
    }

    fn predict(&self, input: Input, _params: &Params) -> Result<Output, Error> {
        let mut lines = Vec::new();
        let mut media = Vec::new();
        for part in input.parts {
            let kind = part.value.kind();
            match part.value {
                Value::Text(text) => lines.push(format!("{kind}: {} words", words(&text))),
                Value::Image(ref file) | Value::Audio(ref file) | Value::Video(ref file) => {
                    lines.push(format!("{kind}: {} bytes", file.len()));
                    media.push((kind, part.value));
                }
                _ => lines.push(format!("{kind}: `{}`", part.name)),
            }
        }
        let described = Output::text(lines.join("\n"));
        Ok(media.into_iter().fold(described, |output, (kind, value)| output.with_part(kind, value)))
    }
}

fn words(text: &str) -> usize {
    text.split_whitespace().count()
}

ringfence_guest::export!(Anything);
