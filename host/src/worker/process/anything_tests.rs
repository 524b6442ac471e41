//! Sequences of frames that make sense, and what becomes of many that were changed.

use super::super::super::message::{Figures, Line, Loaded, Started, Tell, bare, carrying, frame};
use super::*;
use crate::call::{End, GuestError, GuestErrorCode, Output, Part, Phase, Receipt, Value, Verdict};
use crate::telemetry::Level;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::path::Path;

/// The calls, by the number that they have.
const PREDICT: u32 = 1;
const STREAM: u32 = 3;
const UNREAD: u32 = 4;

/// Enough for one output.
const HELD: u64 = 16 << 10;

fn output(call: u32, value: Value) -> Vec<u8> {
    let part = Part { name: "x".into(), value };
    let output = Output { parts: vec![part], usage: None, info: "{}".into() };
    carrying(Tell::Output, call, HELD, output).unwrap().concat()
}

fn started() -> Vec<u8> {
    let loaded = Loaded { receipt: Receipt::default(), wall: Duration::ZERO };
    let started =
        Started { methods: Ok(String::new()), loaded: Ok(loaded), snapshot: None, unfit: None };
    frame(Tell::Ready, 0, 0, &started).unwrap()
}

fn ends(call: u32, end: End) -> [Vec<u8>; 2] {
    let over = frame(Tell::Over, call, 0, &Receipt::default()).unwrap();
    [over, frame(Tell::End, call, 0, &Verdict::early(end, Phase::Call)).unwrap()]
}

fn failure() -> GuestError {
    let (message, info) = ("no".to_owned(), "{}".to_owned());
    GuestError { code: GuestErrorCode::Failed, message, info }
}

/// What processes say in peace, by the name that it has among the seeds of the fuzz target.
fn said() -> [(&'static str, Vec<Vec<u8>>); 4] {
    let figures = frame(Tell::Figures, 0, 0, &Figures::default()).unwrap();
    let line = Line { level: Level::Info, text: "a line\n\u{1b}[2J".into() };
    let line = frame(Tell::Line, STREAM, 0, &line).unwrap();
    let spent = frame(Tell::Spent, STREAM, 0, &Receipt::default()).unwrap();
    let failed = frame(Tell::InputFailed, PREDICT, 0, &failure()).unwrap();
    let refused = frame(Tell::Refused, 0, 0, &"there is no such import").unwrap();
    let predicted = [
        vec![started(), figures, output(PREDICT, Value::Text("text".into())), failed],
        ends(PREDICT, End::Done).into(),
    ];
    let streamed = [
        vec![started(), line, bare(Tell::Taken, STREAM, 0), spent],
        vec![output(STREAM, Value::Embedding(vec![0.5, f32::NAN]))],
        ends(STREAM, End::GuestError(failure())).into(),
    ];
    let unread = [
        vec![started(), output(UNREAD, Value::Image(vec![0, 255].into()))],
        vec![output(UNREAD, Value::Json("[]".into()))],
        ends(UNREAD, End::Trap("unreachable".into())).into(),
    ];
    [
        ("predict", predicted.concat()),
        ("stream", streamed.concat()),
        ("unread", unread.concat()),
        ("refused", vec![refused]),
    ]
}

/// Whatever was said: each caller has one answer, and nothing is left.
fn is_calm(heard: &Heard) {
    assert_eq!(heard.verdicts, [1, 1, 1], "{heard:?}");
    assert_eq!(heard.charged_bytes_left, 0, "{heard:?}");
    assert!(heard.charged_bytes_peak <= MEMORY_BYTES_MAX, "{heard:?}");
    assert!(heard.asked.is_ok(), "{heard:?}");
}

#[test]
fn what_makes_sense_is_heard_to_its_end() {
    for (name, frames) in said() {
        let heard = hear_anything(&frames.concat()).unwrap();
        is_calm(&heard);
        assert_eq!(heard.wrong, None, "{name}");
        assert_eq!(heard.is_ready, name != "refused");
        assert!(heard.asked.unwrap() > 3, "the calls, at least");
    }
}

/// A form that has changed makes seeds that nothing is reached with. Written anew, they
/// are what `said` gives.
#[test]
fn seeds_of_the_fuzz_target_make_sense() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/seeds/worker_frames");
    for (name, frames) in said() {
        let seed = std::fs::read(folder.join(name)).unwrap_or_default();
        assert!(seed == frames.concat(), "{name} is now {:?}", frames.concat());
    }
}

/// A process that was taken over by its guest says what it likes: here, much that is
/// nearly right.
#[test]
fn whatever_a_process_says_its_callers_have_one_answer_and_nothing_is_left() {
    const SEQUENCES: usize = 3000;
    let mut rng = StdRng::seed_from_u64(7);
    let all: Vec<Vec<u8>> = said().into_iter().flat_map(|(_, frames)| frames).collect();
    let (mut wrong, mut right) = (std::collections::BTreeSet::new(), 0);
    for _ in 0..SEQUENCES {
        let count = rng.random_range(1..12);
        let mut frames = Vec::new();
        for _ in 0..count {
            let frame = all[rng.random_range(0..all.len())].clone();
            frames.extend(if rng.random_bool(0.3) { changed(frame, &mut rng) } else { frame });
        }
        let heard = hear_anything(&frames).unwrap();
        is_calm(&heard);
        match heard.wrong {
            Some(why) => drop(wrong.insert(why)),
            None => right += 1,
        }
    }
    // Not all of it was noise, nor all refused by the first look.
    assert!(right > 0);
    assert!(wrong.len() >= 12, "{wrong:?}");
}

/// What a host says is read with the same care.
#[test]
fn whatever_a_host_is_said_to_ask_is_read_or_refused() {
    let mut rng = StdRng::seed_from_u64(7);
    let input = Input { id: "1".into(), parts: vec![] };
    let request = Request { method: "m".into(), inputs: vec![input; 3], params: "{}".into() };
    let left = Duration::from_secs(1);
    let begin = Begin { function: Function::Stream, user: "u".into(), left };
    let asked = [
        frame(Ask::Call, 1, 0, &begin).unwrap(),
        carrying(Ask::Message, 1, 0, request).unwrap().concat(),
        bare(Ask::Taken, 1, u64::MAX),
    ];
    assert_eq!(heed_anything(&asked.concat()).unwrap(), asked.len());
    let mut refused = 0;
    for _ in 0..3000 {
        let frames = asked.iter().flat_map(|frame| changed(frame.clone(), &mut rng));
        refused += usize::from(heed_anything(&frames.collect::<Vec<_>>()).is_err());
    }
    assert!(refused > 0);
}

/// A frame with some of it changed, whose head may still have the right length.
fn changed(mut frame: Vec<u8>, rng: &mut StdRng) -> Vec<u8> {
    for _ in 0..rng.random_range(1..4) {
        let place = rng.random_range(0..frame.len());
        match rng.random_range(0..5) {
            0 => frame[place] = rng.random(),
            1 => frame[place] ^= 1 << rng.random_range(0..8),
            2 => frame.truncate(place.max(1)),
            3 => frame.insert(place, rng.random()),
            // A length, as of a list or a text, that is far too large.
            _ => {
                let long = [0xff; 9].into_iter().chain([1]);
                frame.splice(place..place, long.take(rng.random_range(1..11)));
            }
        }
    }
    if rng.random_bool(0.8)
        && let Some(body) = frame.len().checked_sub(HEAD_BYTES)
    {
        frame[..4].copy_from_slice(&u32::try_from(body).unwrap().to_le_bytes());
    }
    frame
}
