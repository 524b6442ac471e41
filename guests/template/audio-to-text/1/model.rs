//! Writes down the notes of a melody: WAV in, the names of its notes out, one
//! for each quarter of a second.

use ringfence_guest::{Error, Input, Model, Output, Params};

const NAMES: [&str; 12] = ["C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B"];

struct Notes;

impl Model for Notes {
    fn load() -> Result<Self, Error> {
        Ok(Notes)
    }

    fn predict(&self, input: Input, _params: &Params) -> Result<Output, Error> {
        let wrong = |error| Error::invalid_argument(format!("not a WAV of 16 bits: {error}"));
        let mut reader = hound::WavReader::new(input.audio()?).map_err(wrong)?;
        let channels = usize::from(reader.spec().channels.max(1));
        let rate = reader.spec().sample_rate as usize;
        let samples: Result<Vec<i16>, _> = reader.samples().step_by(channels).collect();
        let samples = samples.map_err(wrong)?;
        let notes = samples.chunks((rate / 4).max(1)).map(|quarter| note(quarter, rate as f32));
        Ok(Output::text(notes.collect::<Vec<_>>().join(" ")))
    }
}

/// The name and octave of the pitch at which a sound crosses zero.
fn note(quarter: &[i16], rate: f32) -> String {
    let rises = quarter.windows(2).filter(|pair| matches!(pair, [(..0), (0..)])).count();
    if rises == 0 {
        return "-".to_owned();
    }
    let hertz = rises as f32 * rate / quarter.len() as f32;
    let semitone = (69.0 + 12.0 * (hertz / 440.0).log2()).round().max(0.0) as usize;
    format!("{}{}", NAMES[semitone % 12], (semitone / 12) as i32 - 1)
}

ringfence_guest::export!(Notes);
