//! Outputs to text for people, or to JSON for programs.
//!
//! Owns how each kind of value looks. What a model says is not to be trusted
//! with a terminal, so control characters do not reach one.

use super::GlobalArgs;
use super::client::describe;
use crate::proto::clarifai::api::status::StatusCode;
use crate::proto::clarifai::api::{Concept, Data, Frame, Image, Output, Region};
use crate::text::printable;
use std::io::{self, IsTerminal, Stdout, Write};

mod json;

#[cfg(test)]
mod tests;

/// Numbers of a vector that are shown to people.
const VECTOR_NUMBERS_SHOWN: usize = 8;

/// What stands between two outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Between {
    /// Each begins on a line of its own.
    Line,
    /// Pieces of one text: nothing.
    Nothing,
}

/// Prints outputs as they come.
pub(super) struct Printer<W: Write = Stdout> {
    out: W,
    json: bool,
    terminal: bool,
    between: Between,
    /// Whether the last line printed has no end yet.
    line_is_open: bool,
    failed: usize,
}

impl Printer {
    /// To standard output.
    pub(super) fn new(global: &GlobalArgs, between: Between) -> Self {
        let out = io::stdout();
        let terminal = out.is_terminal();
        Self { out, json: global.json, terminal, between, line_is_open: false, failed: 0 }
    }
}

impl<W: Write> Printer<W> {
    /// Prints one output and flushes it.
    pub(super) fn print(&mut self, output: &Output) -> io::Result<()> {
        let failure = output.status.as_ref().filter(|status| {
            !matches!(StatusCode::try_from(status.code), Ok(StatusCode::Success | StatusCode::Zero))
        });
        self.failed += usize::from(failure.is_some());
        if self.json {
            writeln!(self.out, "{}", json::output(output))?;
            return self.out.flush();
        }
        if let Some(status) = failure {
            self.end()?;
            return writeln!(io::stderr().lock(), "error: {}", printable(&describe(status)));
        }
        let default = Data::default();
        let data = output.data.as_ref().unwrap_or(&default);
        if let (Between::Nothing, Some(text)) = (self.between, only_text(data)) {
            let text = self.shown(text);
            self.line_is_open =
                if text.is_empty() { self.line_is_open } else { !text.ends_with('\n') };
            self.out.write_all(text.as_bytes())?;
        } else {
            self.end()?;
            let mut lines = Vec::new();
            data_lines(data, "", &mut lines);
            for line in lines {
                let line = self.shown(&line);
                writeln!(self.out, "{line}")?;
            }
        }
        self.out.flush()
    }

    /// Ends a line that is open.
    pub(super) fn end(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.line_is_open) {
            writeln!(self.out)?;
        }
        self.out.flush()
    }

    /// How many outputs were failures.
    pub(super) fn failed(&self) -> usize {
        self.failed
    }

    fn shown(&self, text: &str) -> String {
        if self.terminal { printable(text) } else { text.to_owned() }
    }
}

/// An output as lines for a person.
pub(super) fn lines(output: &Output) -> Vec<String> {
    let mut lines = Vec::new();
    data_lines(output.data.as_ref().unwrap_or(&Data::default()), "", &mut lines);
    lines
}

/// The text of an output that is nothing else.
pub(super) fn only_text_of(output: &Output) -> Option<&str> {
    only_text(output.data.as_ref()?)
}

/// An output as the protocol's JSON.
pub(super) fn json(output: &Output) -> serde_json::Value {
    json::output(output)
}

/// The text, when there is nothing else.
fn only_text(data: &Data) -> Option<&str> {
    let text = text_of(data)?;
    let rest = Data { text: None, string_value: String::new(), ..data.clone() };
    (rest == Data::default()).then_some(text)
}

/// Old and new clients read the text in different places; a host may fill both.
fn text_of(data: &Data) -> Option<&str> {
    let raw = data.text.as_ref().map(|text| text.raw.as_str()).filter(|raw| !raw.is_empty());
    raw.or(Some(data.string_value.as_str()).filter(|text| !text.is_empty()))
}

fn data_lines(data: &Data, indent: &str, lines: &mut Vec<String>) {
    let before = lines.len();
    let mut line = |text: String| lines.push(format!("{indent}{text}"));
    if let Some(text) = text_of(data) {
        line(text.to_owned());
    }
    for (kind, bytes) in [
        ("image", data.image.as_ref().map(|image: &Image| image.base64.len())),
        ("audio", data.audio.as_ref().map(|audio| audio.base64.len())),
        ("video", data.video.as_ref().map(|video| video.base64.len())),
        ("bytes", Some(data.bytes_value.len()).filter(|bytes| *bytes > 0)),
    ] {
        if let Some(bytes) = bytes {
            line(format!("{kind} of {bytes} bytes; --json prints the content"));
        }
    }
    for embedding in &data.embeddings {
        let shown: Vec<String> = embedding
            .vector
            .iter()
            .take(VECTOR_NUMBERS_SHOWN)
            .map(|number| format!("{number:.4}"))
            .collect();
        let more = if embedding.vector.len() > VECTOR_NUMBERS_SHOWN { ", ..." } else { "" };
        line(format!(
            "embedding of {} numbers: {}{more}",
            embedding.vector.len(),
            shown.join(", ")
        ));
    }
    if let Some(array) = &data.ndarray {
        line(format!("{}{:?}, {} bytes", array.dtype, array.shape, array.buffer.len()));
    }
    if let Some(object) = &data.struct_value {
        line(json::object(object).to_string());
    }
    if data.int_value != 0 {
        line(data.int_value.to_string());
    }
    if data.float_value != 0.0 {
        line(data.float_value.to_string());
    }
    if data.bool_value {
        line("true".to_owned());
    }
    concept_lines(&data.concepts, indent, lines);
    region_lines(&data.regions, indent, lines);
    for frame in &data.frames {
        frame_lines(frame, indent, lines);
    }
    let deeper = format!("{indent}  ");
    for part in &data.parts {
        lines.push(format!("{indent}{}:", part.id));
        data_lines(part.data.as_ref().unwrap_or(&Data::default()), &deeper, lines);
    }
    if lines.len() == before {
        // The wire does not tell an empty text, zero and false apart.
        lines.push(format!("{indent}(empty)"));
    }
}

/// A table: how sure, what, and the id where that is something else.
fn concept_lines(concepts: &[Concept], indent: &str, lines: &mut Vec<String>) {
    let width = concepts.iter().map(|concept| name_of(concept).chars().count()).max().unwrap_or(0);
    for concept in concepts {
        let name = name_of(concept);
        let id = if concept.id == name { "" } else { &concept.id };
        lines.push(
            format!("{indent}{:>8.4}  {name:<width$}  {id}", concept.value).trim_end().to_owned(),
        );
    }
}

fn name_of(concept: &Concept) -> &str {
    if concept.name.is_empty() { &concept.id } else { &concept.name }
}

fn region_lines(regions: &[Region], indent: &str, lines: &mut Vec<String>) {
    for region in regions {
        let bounds = region.region_info.as_ref().and_then(|info| info.bounding_box);
        let bounds = bounds.map_or("(no box)".to_owned(), |b| {
            format!(
                "top {:.3} left {:.3} bottom {:.3} right {:.3}",
                b.top_row, b.left_col, b.bottom_row, b.right_col
            )
        });
        let data = region.data.as_ref();
        let mut what: Vec<String> = data
            .map_or(&[][..], |data| &data.concepts)
            .iter()
            .map(|concept| format!("{} {:.4}", name_of(concept), concept.value))
            .collect();
        what.extend(data.and_then(text_of).map(|text| format!("{text:?}")));
        lines.push(
            format!("{indent}{:>8.4}  {bounds}  {}", region.value, what.join(", "))
                .trim_end()
                .to_owned(),
        );
    }
}

fn frame_lines(frame: &Frame, indent: &str, lines: &mut Vec<String>) {
    let (index, time) = frame.frame_info.as_ref().map_or((0, 0), |info| (info.index, info.time));
    lines.push(format!("{indent}frame {index} at {time} ms:"));
    data_lines(frame.data.as_ref().unwrap_or(&Data::default()), &format!("{indent}  "), lines);
}
