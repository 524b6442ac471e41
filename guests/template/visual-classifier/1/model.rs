//! Tells the main colour of a picture: PNG or JPEG in, concepts out, the
//! likeliest first.

use ringfence_guest::{
    Concept, Error, Graph, Input, Model, Output, Params, Tensor, graph, model_info,
};

const COLOURS: Graph = graph("colours");
const SIDE: u32 = 16;

struct Classifier {
    labels: Vec<Concept>,
}

impl Model for Classifier {
    fn load() -> Result<Self, Error> {
        Ok(Classifier { labels: model_info().concepts })
    }

    fn predict(&self, input: Input, _params: &Params) -> Result<Output, Error> {
        let picture = image::load_from_memory(input.image()?)
            .map_err(|error| Error::invalid_argument(format!("not a PNG or JPEG: {error}")))?;
        let picture = picture.thumbnail_exact(SIDE, SIDE).to_rgb8();
        let pixels: Vec<f32> = picture.iter().map(|byte| f32::from(*byte) / 255.0).collect();
        let image = Tensor::f32(&[1, SIDE as usize, SIDE as usize, 3], &pixels)?;
        let scores = COLOURS.compute(&[("image", image)])?.take("scores")?.to_f32()?;
        let labels = self.labels.iter().cloned();
        let scored = labels.zip(scores).map(|(label, value)| Concept { value, ..label });
        let mut concepts: Vec<Concept> = scored.collect();
        concepts.sort_by(|a, b| b.value.total_cmp(&a.value));
        Ok(Output::concepts(concepts))
    }
}

ringfence_guest::export!(Classifier);
