//! Goes on with a text in Jane Austen's manner. A token is a byte, and every
//! byte that is sampled is a character, so each goes to the caller at once.
//!
//! Parameters: `temperature` (0 to 5, 0 takes the likeliest byte each time),
//! `max_tokens` (1 to 4096) and `seed` (a whole number; without it every call
//! goes its own way).
//!
//! This file owns the call; `src/network.rs` owns the network and its cache,
//! `src/sampling.rs` the parameters and the choice of a byte.

use ringfence_guest::{Error, Input, Model, Output, Outputs, Params};

#[path = "../src/network.rs"]
mod network;
#[path = "../src/sampling.rs"]
mod sampling;

use network::{KEPT, Network};
use sampling::Sampling;

struct Scribe;

impl Model for Scribe {
    fn load() -> Result<Self, Error> {
        Ok(Scribe)
    }

    fn predict(&self, input: Input, params: &Params) -> Result<Output, Error> {
        let mut text = String::new();
        let mut last = Output::default();
        go_on(&input, params, |character, output| {
            text.push(character);
            last = output;
            Ok(())
        })?;
        let whole = Output::text(text);
        Ok(Output { parts: whole.parts, ..last })
    }

    fn generate(&self, input: Input, params: &Params, outputs: &mut Outputs) -> Result<(), Error> {
        go_on(&input, params, |_, output| outputs.send(output))
    }
}

/// Samples a continuation and gives every character to `send`, with the output
/// that carries it. The last output also says how many tokens were read and
/// written: a sum over the outputs is then as right as a look at the last.
fn go_on(
    input: &Input,
    params: &Params,
    mut send: impl FnMut(char, Output) -> Result<(), Error>,
) -> Result<(), Error> {
    let prompt = input.text().map_err(|error| error.context("send the beginning of a text"))?;
    let mut sampling = Sampling::from_params(params)?;
    // An empty prompt begins a paragraph.
    let prompt = if prompt.is_empty() { "\n" } else { prompt }.as_bytes();
    let dropped = prompt.len().saturating_sub(KEPT);
    let read = prompt.get(dropped..).unwrap_or_default();

    let mut network = Network::open()?;
    let mut scores = network.pass(read)?;
    for written in 1..=sampling.max_tokens {
        let byte = sampling.pick(&scores)?;
        let mut output = Output::text(char::from(byte));
        if written == sampling.max_tokens {
            output = output.with_usage(count(read.len()), written);
            if dropped > 0 {
                output = output.with_info("prompt_tokens_dropped", dropped);
            }
        }
        send(char::from(byte), output)?;
        if written < sampling.max_tokens {
            scores = network.pass(&[byte])?;
        }
    }
    Ok(())
}

fn count(tokens: usize) -> u32 {
    u32::try_from(tokens).unwrap_or(u32::MAX)
}

ringfence_guest::export!(Scribe);
