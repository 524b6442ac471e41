//! `digits` through the real server: what the training script printed, held to.

use ringfence::proto::clarifai::api::{Concept, OutputConfig};
use ringfence_tests::{
    Answer, Client, Host, block_on, guests, image_input, output_config, request,
};
use std::path::Path;
use zune_core::bit_depth::BitDepth;
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::EncoderOptions;
use zune_png::{PngDecoder, PngEncoder};

const CELL: usize = 8;

/// The folder of held-out scans.
fn held_out() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../guests/digits/held-out")
}

/// One of the single held-out scans, as its file.
pub(crate) fn single(name: &str) -> Vec<u8> {
    std::fs::read(held_out().join(name)).unwrap()
}

/// A grey picture.
#[derive(Clone)]
struct Picture {
    width: usize,
    height: usize,
    grey: Vec<u8>,
}

impl Picture {
    fn png(&self, color: ColorSpace, pixel: impl Fn(u8) -> Vec<u8>) -> Vec<u8> {
        let data: Vec<u8> = self.grey.iter().flat_map(|grey| pixel(*grey)).collect();
        let options = EncoderOptions::new(self.width, self.height, color, BitDepth::Eight);
        let mut file = Vec::new();
        PngEncoder::new(&data, options).encode(&mut file).unwrap();
        file
    }

    fn grey_png(&self) -> Vec<u8> {
        self.png(ColorSpace::Luma, |grey| vec![grey])
    }

    fn jpeg(&self) -> Vec<u8> {
        let mut file = Vec::new();
        jpeg_encoder::Encoder::new(&mut file, 90)
            .encode(
                &self.grey,
                self.width as u16,
                self.height as u16,
                jpeg_encoder::ColorType::Luma,
            )
            .unwrap();
        file
    }

    fn inverted(&self) -> Self {
        Self { grey: self.grey.iter().map(|grey| 255 - grey).collect(), ..self.clone() }
    }

    /// Scaled with bilinear interpolation between the centres of pixels.
    fn scaled(&self, width: usize, height: usize) -> Self {
        let at = |x: usize, y: usize| f32::from(self.grey[y * self.width + x]);
        let place = |to: usize, from: usize, index: usize| {
            let place = (index as f32 + 0.5) * from as f32 / to as f32 - 0.5;
            let place = place.clamp(0.0, from as f32 - 1.0);
            let low = place.floor() as usize;
            (low, (low + 1).min(from - 1), place - low as f32)
        };
        let mut grey = Vec::with_capacity(width * height);
        for row in 0..height {
            let (top, bottom, down) = place(height, self.height, row);
            for column in 0..width {
                let (left, right, along) = place(width, self.width, column);
                let upper = at(left, top) * (1.0 - along) + at(right, top) * along;
                let lower = at(left, bottom) * (1.0 - along) + at(right, bottom) * along;
                grey.push((upper * (1.0 - down) + lower * down).round() as u8);
            }
        }
        Self { width, height, grey }
    }
}

/// The held-out scans and what they show.
fn scans() -> Vec<(Picture, char)> {
    let mut decoder = PngDecoder::new(ZCursor::new(single("sheet.png")));
    let sheet = decoder.decode_raw().unwrap();
    let (width, height) = decoder.dimensions().unwrap();
    assert_eq!(sheet.len(), width * height, "one byte a pixel");
    let per_row = width / CELL;
    let labels = String::from_utf8(single("sheet.txt")).unwrap();
    labels
        .chars()
        .filter(char::is_ascii_digit)
        .enumerate()
        .map(|(number, label)| {
            let (row, column) = (number / per_row * CELL, number % per_row * CELL);
            let cell = |index: usize| sheet[(row + index / CELL) * width + column + index % CELL];
            let grey = (0..CELL * CELL).map(cell).collect();
            (Picture { width: CELL, height: CELL, grey }, label)
        })
        .collect()
}

/// A picture as a file.
type Encode = fn(&Picture) -> Vec<u8>;

async fn accuracy(client: &Client, files: &[(Vec<u8>, char)]) -> f64 {
    let mut right = 0;
    for batch in files.chunks(100) {
        let inputs = batch.iter().map(|(file, _)| image_input(file.clone())).collect();
        let answer = client.predict("digits", inputs).await;
        assert_eq!(answer.outputs.len(), batch.len(), "{:?}", answer.status);
        for (output, (_, label)) in answer.outputs.iter().zip(batch) {
            let concepts = &output.data.as_ref().unwrap().concepts;
            right += usize::from(concepts[0].id == label.to_string());
        }
    }
    right as f64 / files.len() as f64
}

#[test]
fn held_out_scans_are_recognised_however_they_are_encoded() {
    let host = Host::serve(&[guests::DIGITS]);
    let scans = scans();
    assert!(scans.len() > 300, "{} scans", scans.len());
    let forms: [(&str, f64, Encode); 7] = [
        ("as they are", 0.97, |scan| scan.grey_png()),
        ("28x28", 0.95, |scan| scan.scaled(28, 28).grey_png()),
        ("200x300", 0.95, |scan| scan.scaled(200, 300).grey_png()),
        ("inverted", 0.95, |scan| scan.inverted().grey_png()),
        ("JPEG", 0.95, |scan| scan.scaled(28, 28).jpeg()),
        ("RGB", 0.95, |scan| scan.png(ColorSpace::RGB, |grey| vec![grey; 3])),
        ("RGBA", 0.95, |scan| {
            scan.inverted().png(ColorSpace::RGBA, |grey| vec![grey, grey, grey, 255])
        }),
    ];
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        for (form, least, encode) in forms {
            let files: Vec<_> = scans.iter().map(|(scan, label)| (encode(scan), *label)).collect();
            let accuracy = accuracy(&client, &files).await;
            println!("{form}: {:.2} %", accuracy * 100.0);
            assert!(accuracy >= least, "{form}: {accuracy}");
        }
    });
}

#[test]
fn ten_concepts_come_sorted_and_sum_to_one() {
    let host = Host::serve(&[guests::DIGITS]);
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let answer = client.predict("digits", vec![image_input(single("three.png"))]).await;
        let concepts = answer.concepts();
        assert_eq!(concepts.len(), 10);
        assert!(concepts.is_sorted_by(|a, b| a.value >= b.value), "{concepts:?}");
        let sum: f32 = concepts.iter().map(|concept| concept.value).sum();
        assert!((sum - 1.0).abs() < 1e-3, "{sum}");
        assert!(concepts.iter().all(|concept| !concept.name.is_empty()));
    });
}

#[test]
fn the_host_applies_output_config() {
    let host = Host::serve(&[guests::DIGITS]);
    let ids = |answer: &Answer| -> Vec<String> {
        answer.concepts().into_iter().map(|concept| concept.id).collect()
    };
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let ask = |config| {
            let asked = request("digits", vec![image_input(single("three.png"))]);
            client.predict_request(output_config(asked, config))
        };
        let best = ask(OutputConfig { max_concepts: 3, ..Default::default() }).await;
        assert_eq!((ids(&best).len(), ids(&best)[0].as_str()), (3, "3"));
        let sure = ask(OutputConfig { min_value: 0.5, ..Default::default() }).await;
        assert_eq!(ids(&sure), ["3"]);
        let one = Concept { id: "8".into(), ..Default::default() };
        let selected = ask(OutputConfig { select_concepts: vec![one], ..Default::default() }).await;
        assert_eq!(ids(&selected), ["8"]);
    });
}
