//! Tells handwritten digits apart: a PNG or JPEG in, ten concepts out, the
//! likeliest first.
//!
//! This file owns the call; `src/picture.rs` owns what happens to a picture
//! before the network sees it.

use ringfence_guest::{
    Concept, Error, Graph, Input, Model, Output, Params, Tensor, graph, model_info,
};

#[path = "../src/picture.rs"]
mod picture;

use picture::{Cells, SIDE};

const DIGITS: Graph = graph("digits");

struct Digits {
    /// The labels of config.yaml, in the order of the network's outputs.
    labels: Vec<Concept>,
}

impl Model for Digits {
    fn load() -> Result<Self, Error> {
        let labels = model_info().concepts;
        if labels.len() != 10 {
            return Err(Error::failed_precondition(format!(
                "config.yaml lists {} concepts; this model has 10, one for each digit",
                labels.len()
            )));
        }
        Ok(Digits { labels })
    }

    fn predict(&self, input: Input, _params: &Params) -> Result<Output, Error> {
        let cells = cells(&input)?;
        let mut outputs = self.classify(&[cells])?;
        outputs.pop().ok_or_else(missing)
    }

    /// All pictures that can be read go through the network at once.
    fn predict_batch(
        &self,
        inputs: Vec<Input>,
        _params: &Params,
    ) -> Result<Vec<Result<Output, Error>>, Error> {
        let read: Vec<Result<Cells, Error>> = inputs.iter().map(cells).collect();
        let readable: Vec<Cells> = read.iter().flatten().copied().collect();
        let mut outputs = self.classify(&readable)?.into_iter();
        Ok(read
            .into_iter()
            .map(|cells| cells.and_then(|_| outputs.next().ok_or_else(missing)))
            .collect())
    }
}

impl Digits {
    fn classify(&self, pictures: &[Cells]) -> Result<Vec<Output>, Error> {
        if pictures.is_empty() {
            return Ok(Vec::new());
        }
        let image = Tensor::f32(&[pictures.len(), 1, SIDE, SIDE], pictures.as_flattened())?;
        let probabilities = DIGITS.compute(&[("image", image)])?.take("probabilities")?.to_f32()?;
        Ok(probabilities
            .chunks(self.labels.len())
            .map(|row| Output::concepts(self.ranked(row)))
            .collect())
    }

    fn ranked(&self, probabilities: &[f32]) -> Vec<Concept> {
        let mut concepts: Vec<Concept> = self
            .labels
            .iter()
            .zip(probabilities)
            .map(|(label, &value)| Concept { value, ..label.clone() })
            .collect();
        concepts.sort_by(|a, b| b.value.total_cmp(&a.value));
        concepts
    }
}

fn cells(input: &Input) -> Result<Cells, Error> {
    let file = input
        .image()
        .map_err(|error| error.context("send a digit's picture as an image (PNG or JPEG)"))?;
    picture::cells(file)
}

fn missing() -> Error {
    Error::failed("the network answered fewer pictures than it was given")
}

ringfence_guest::export!(Digits);
