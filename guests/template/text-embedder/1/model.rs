//! Turns a text into a vector of length 1: its groups of three letters are
//! counted, and a graph projects the counts. Texts that share words lie near.

use ringfence_guest::{Error, Graph, Input, Model, Output, Params, Tensor, graph};

const PROJECT: Graph = graph("project");
const BUCKETS: usize = 512;

struct Embedder;

impl Model for Embedder {
    fn load() -> Result<Self, Error> {
        Ok(Embedder)
    }

    fn predict(&self, input: Input, _params: &Params) -> Result<Output, Error> {
        let mut counts = vec![0.0; BUCKETS];
        for word in input.text()?.to_lowercase().split_whitespace() {
            for letters in format!("<{word}>").as_bytes().windows(3) {
                if let Some(count) = counts.get_mut(bucket(letters)) {
                    *count += 1.0;
                }
            }
        }
        let counts = Tensor::f32(&[1, BUCKETS], &counts)?;
        let vector = PROJECT.compute(&[("counts", counts)])?.take("vector")?.to_f32()?;
        Ok(Output::embedding(vector))
    }
}

/// FNV-1a, 32 bits.
fn bucket(letters: &[u8]) -> usize {
    let step = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(16_777_619);
    letters.iter().fold(2_166_136_261, step) as usize % BUCKETS
}

ringfence_guest::export!(Embedder);
