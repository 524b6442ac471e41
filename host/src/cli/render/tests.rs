//! How outputs look.

use super::*;
use crate::proto::clarifai::api::status::Status;
use crate::proto::clarifai::api::{BoundingBox, Embedding, Part, RegionInfo, Text};

fn printed(outputs: &[Output], json: bool, between: Between, terminal: bool) -> String {
    let mut printer =
        Printer { out: Vec::new(), json, terminal, between, line_is_open: false, failed: 0 };
    for output in outputs {
        printer.print(output).unwrap();
    }
    printer.end().unwrap();
    String::from_utf8(printer.out).unwrap()
}

fn of(data: Data) -> Output {
    Output { data: Some(data), ..Output::default() }
}

fn text(raw: &str) -> Output {
    of(Data { text: Some(Text { raw: raw.into(), ..Text::default() }), ..Data::default() })
}

#[test]
fn pieces_of_a_text_are_joined_and_answers_are_lines() {
    let outputs = [text("Hel"), text("lo"), text("")];
    assert_eq!(printed(&outputs[..2], false, Between::Nothing, false), "Hello\n");
    assert_eq!(printed(&outputs[..2], false, Between::Line, false), "Hel\nlo\n");
    let both = of(Data { string_value: "x".into(), ..text("x").data.unwrap() });
    assert_eq!(printed(&[both], false, Between::Line, false), "x\n");
}

#[test]
fn concepts_are_an_aligned_table() {
    let concept = |id: &str, name: &str, value| Concept { id: id.into(), name: name.into(), value };
    let output = of(Data {
        concepts: vec![
            concept("c1", "cat", 0.9),
            concept("dog", "dog", 0.05),
            concept("x", "elephant", 0.0),
        ],
        ..Data::default()
    });
    assert_eq!(
        printed(&[output], false, Between::Line, false),
        "  0.9000  cat       c1\n  0.0500  dog\n  0.0000  elephant  x\n"
    );
}

#[test]
fn other_values_are_told_in_short() {
    let bounding_box = BoundingBox { top_row: 0.1, left_col: 0.2, bottom_row: 0.3, right_col: 0.4 };
    let data = Data {
        regions: vec![Region {
            region_info: Some(RegionInfo {
                bounding_box: Some(bounding_box),
                ..RegionInfo::default()
            }),
            data: text("sign").data,
            value: 0.5,
            ..Region::default()
        }],
        embeddings: vec![Embedding { vector: vec![0.5; 9], num_dimensions: 9 }],
        parts: vec![Part {
            id: "return".into(),
            data: Some(Data { int_value: 7, ..Data::default() }),
        }],
        ..Data::default()
    };
    let text = printed(&[of(data)], false, Between::Line, false);
    assert!(
        text.contains("  0.5000  top 0.100 left 0.200 bottom 0.300 right 0.400  \"sign\"\n"),
        "{text}"
    );
    assert!(
        text.contains("embedding of 9 numbers: 0.5000, ") && text.contains("return:\n  7\n"),
        "{text}"
    );
    assert_eq!(printed(&[Output::default()], false, Between::Line, false), "(empty)\n");
}

#[test]
fn json_is_one_object_a_line() {
    let output = Output { prompt_tokens: 3, ..text("a\nb\u{1b}[2J") };
    let lines = printed(&[output, Output::default()], true, Between::Nothing, true);
    assert_eq!(
        lines,
        "{\"data\":{\"text\":{\"raw\":\"a\\nb\\u001b[2J\"}},\"prompt_tokens\":3}\n{\"data\":{}}\n"
    );
}

#[test]
fn a_model_cannot_steer_a_terminal() {
    let outputs = [text("\u{1b}]0;x\u{7}\u{9b}2J\tok")];
    assert_eq!(
        printed(&outputs, false, Between::Line, true),
        "\u{fffd}]0;x\u{fffd}\u{fffd}2J\tok\n"
    );
    assert!(printed(&outputs, false, Between::Line, false).contains('\u{1b}'));
}

#[test]
fn failed_outputs_are_counted() {
    let status = |code: StatusCode| Some(Status { code: code as i32, ..Status::default() });
    let mut printer = Printer {
        out: Vec::new(),
        json: false,
        terminal: false,
        between: Between::Line,
        line_is_open: false,
        failed: 0,
    };
    for code in [StatusCode::Success, StatusCode::ModelPredictionFailed, StatusCode::Zero] {
        printer.print(&Output { status: status(code), ..text("x") }).unwrap();
    }
    assert_eq!(printer.failed(), 1);
    assert_eq!(printer.out, b"x\nx\n");
}
