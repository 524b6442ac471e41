//! The network and its cache, for one call.
//!
//! The cache (keys and values of every byte so far) goes out of one pass and
//! into the next, so it stays with the host as the handles that `compute`
//! gives and takes: only the scores are copied into the sandbox. The crate's
//! `Tensor` would copy all of it twice a byte.

use ringfence_guest::Error;
use ringfence_guest::raw::wasi::nn::errors;
use ringfence_guest::raw::wasi::nn::graph::load_by_name;
use ringfence_guest::raw::wasi::nn::inference::GraphExecutionContext;
use ringfence_guest::raw::wasi::nn::tensor::{Tensor, TensorType};

/// Scores of a pass: one for each byte that may come next.
pub(crate) const VOCABULARY: usize = 256;

/// The most bytes that the network looks back on: it was trained on no more.
const CONTEXT: usize = 512;

/// How many bytes stay when the context is full. Positions are relative, so
/// what stays need not be computed again.
pub(crate) const KEPT: usize = 384;

const LAYERS: usize = 4;
const HEADS: usize = 4;
const HEAD: usize = 32;
const ROW_BYTES: usize = HEAD * size_of::<f32>();

/// Added to the attention to a byte that must not be looked at.
const HIDDEN: f32 = -1e9;

/// The network in the midst of a text.
pub(crate) struct Network {
    context: GraphExecutionContext,
    /// Named as the next pass takes them.
    cache: Vec<(String, Tensor)>,
    cached: usize,
    /// Where the next byte stands; the cache may have forgotten the first ones.
    position: i64,
}

impl Network {
    pub(crate) fn open() -> Result<Self, Error> {
        let context = load_by_name("scribe")
            .and_then(|graph| graph.init_execution_context())
            .map_err(failed)?;
        let cache = (0..LAYERS)
            .flat_map(|layer| [format!("past_k{layer}"), format!("past_v{layer}")])
            .map(|name| (name, rows(0, &[])))
            .collect();
        Ok(Network { context, cache, cached: 0, position: 0 })
    }

    /// Reads `bytes` (at least one, at most `KEPT`) and scores what comes
    /// after the last of them.
    pub(crate) fn pass(&mut self, bytes: &[u8]) -> Result<Vec<f32>, Error> {
        if self.cached + bytes.len() > CONTEXT {
            self.forget(KEPT.saturating_sub(bytes.len()));
        }
        let length = bytes.len();
        let total = self.cached + length;
        let ids: Vec<u8> = bytes.iter().flat_map(|&byte| i64::from(byte).to_le_bytes()).collect();
        let positions: Vec<u8> =
            (self.position..).take(length).flat_map(i64::to_le_bytes).collect();
        // A byte looks at the cache, at the new bytes before it and at itself.
        let bias: Vec<u8> = (0..length)
            .flat_map(|at| {
                let seen = self.cached + at + 1;
                (0..total).map(move |other| if other < seen { 0.0 } else { HIDDEN })
            })
            .flat_map(f32::to_le_bytes)
            .collect();

        let mut inputs = std::mem::take(&mut self.cache);
        let integers = |data: &[u8]| Tensor::new(&[1, axis(length)], TensorType::I64, data);
        inputs.push(("input_ids".into(), integers(&ids)));
        inputs.push(("position_ids".into(), integers(&positions)));
        let shape = [1, 1, axis(length), axis(total)];
        let bias = Tensor::new(&shape, TensorType::Fp32, &bias);
        inputs.push(("attention_bias".into(), bias));

        let mut scores = None;
        for (name, tensor) in self.context.compute(inputs).map_err(failed)? {
            match name.strip_prefix("present_") {
                Some(what) => self.cache.push((format!("past_{what}"), tensor)),
                None => scores = Some(tensor),
            }
        }
        self.cached = total;
        self.position += length as i64;
        last_scores(scores)
    }

    /// Drops all of the cache but its last `kept` rows.
    fn forget(&mut self, kept: usize) {
        let dropped = self.cached.saturating_sub(kept);
        for (_, tensor) in &mut self.cache {
            let data = tensor.data();
            let tails: Vec<u8> = data
                .chunks(self.cached * ROW_BYTES)
                .filter_map(|head| head.get(dropped * ROW_BYTES..))
                .flatten()
                .copied()
                .collect();
            *tensor = rows(self.cached - dropped, &tails);
        }
        self.cached -= dropped;
    }
}

/// Keys or values: a row for each byte in each head.
fn rows(length: usize, data: &[u8]) -> Tensor {
    let shape = [1, axis(HEADS), axis(length), axis(HEAD)];
    Tensor::new(&shape, TensorType::Fp32, data)
}

/// All lengths here are far below the 32 bits in which the world counts them;
/// one that is not would be refused by the host.
fn axis(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

fn last_scores(scores: Option<Tensor>) -> Result<Vec<f32>, Error> {
    let data = scores.map(|tensor| tensor.data()).unwrap_or_default();
    let bytes = data
        .len()
        .checked_sub(VOCABULARY * size_of::<f32>())
        .and_then(|start| data.get(start..))
        .ok_or_else(|| Error::failed("the network answered no scores"))?;
    let (scores, _) = bytes.as_chunks();
    Ok(scores.iter().copied().map(f32::from_le_bytes).collect())
}

fn failed(error: errors::Error) -> Error {
    Error::failed(format!("graph `scribe`: {}", error.data()))
}
