//! Finds the brightest and the darkest part of a picture: PNG or JPEG in, a
//! region for each out.

use ringfence_guest::{
    BoundingBox, Concept, Error, Graph, Input, Model, Output, Params, Region, Tensor, graph,
    model_info,
};

const PARTS: Graph = graph("parts");
const SIDE: u32 = 64;

struct Detector;

impl Model for Detector {
    fn load() -> Result<Self, Error> {
        Ok(Detector)
    }

    fn predict(&self, input: Input, _params: &Params) -> Result<Output, Error> {
        let picture = image::load_from_memory(input.image()?)
            .map_err(|error| Error::invalid_argument(format!("not a PNG or JPEG: {error}")))?;
        let picture = picture.thumbnail_exact(SIDE, SIDE).to_rgb8();
        let pixels: Vec<f32> = picture.iter().map(|byte| f32::from(*byte) / 255.0).collect();
        let image = Tensor::f32(&[1, SIDE as usize, SIDE as usize, 3], &pixels)?;
        let mut found = PARTS.compute(&[("image", image)])?;
        let (boxes, scores) = (found.take("boxes")?.to_f32()?, found.take("scores")?.to_f32()?);
        let mut regions = Vec::new();
        for ((edges, value), label) in boxes.chunks(4).zip(scores).zip(model_info().concepts) {
            if let [top, left, bottom, right] = *edges {
                let bounds = BoundingBox { top, left, bottom, right };
                regions.push(Region::boxed(bounds, vec![Concept { value, ..label }], value));
            }
        }
        Ok(Output::regions(regions))
    }
}

ringfence_guest::export!(Detector);
