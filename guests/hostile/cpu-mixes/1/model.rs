//! Takes the CPU in the way that `mix` names, for which fuel says little: some
//! mixes burn a thousand times as much of it in a second as others.
//!
//! Expected: outputs whose texts count the steps, then WALL_DEADLINE or
//! FUEL_EXHAUSTED; and never more CPU time than `cpu_limit`, whatever the mix.

use std::hint::black_box;

use ringfence_guest::{Error, Input, Model, Output, Outputs, Params};

/// Bytes of which each page is touched once.
const PAGES_BYTES: usize = 16 << 20;
const PAGE_BYTES: usize = 4 << 10;
const FILL_BYTES: usize = 1 << 20;

struct Attack;

impl Model for Attack {
    fn load() -> Result<Self, Error> {
        Ok(Attack)
    }

    /// Touches pages that no sandbox has touched before.
    fn predict(&self, _input: Input, _params: &Params) -> Result<Output, Error> {
        let mut pages = vec![0_u8; PAGES_BYTES];
        for page in pages.chunks_mut(PAGE_BYTES) {
            if let Some(first) = page.first_mut() {
                *black_box(first) = 1;
            }
        }
        Ok(Output::text(format!("{}", black_box(&pages).len() / PAGE_BYTES)))
    }

    fn generate(&self, _input: Input, params: &Params, outputs: &mut Outputs) -> Result<(), Error> {
        let mix = params.get("mix").and_then(|mix| mix.as_str()).unwrap_or("integer");
        let mut filled = vec![0_u8; FILL_BYTES];
        let mut count = 0_u64;
        loop {
            match mix {
                "integer" => integer(),
                "fill" => fill(&mut filled),
                "division" => division(),
                "calls" => calls(),
                "floats" => floats()?,
                other => return Err(Error::invalid_argument(format!("there is no mix {other:?}"))),
            }
            count += 1;
            outputs.send(count.to_string())?;
        }
    }
}

/// Each of these is one step, of some milliseconds.
fn integer() {
    let mut sum = 0_u64;
    for round in 0..2_000_000_u64 {
        sum = black_box(sum).wrapping_add(round);
    }
    black_box(sum);
}

fn fill(bytes: &mut [u8]) {
    for round in 0..64 {
        black_box(&mut *bytes).fill(round);
    }
}

fn division() {
    let mut number = u64::MAX;
    for round in 1..500_000_u64 {
        number = black_box(number) / black_box(round | 3) + u64::MAX / 2;
    }
    black_box(number);
}

/// Numbers that some processors are slow with, and what is no number, whose bits
/// must not tell the machine (CPU-16).
fn floats() -> Result<(), Error> {
    let (mut small, mut odd) = (f64::from_bits(1), f64::from_bits(0xfff8_dead_beef_0001));
    for round in 1..200_000_u32 {
        small = black_box(small) * 1.5 + f64::from_bits(u64::from(round));
        odd = black_box(odd) + f64::from(black_box(round));
        if small > f64::MIN_POSITIVE {
            small = f64::from_bits(1);
        }
    }
    match odd.to_bits() {
        0x7ff8_0000_0000_0000 => Ok(()),
        bits => Err(Error::failed(format!("what is no number is {bits:x}"))),
    }
}

fn calls() {
    let steps: [fn(u64) -> u64; 2] = [add, turn];
    let mut number = 1;
    for round in 0..1_000_000_usize {
        let step = black_box(&steps).get(round & 1).copied().unwrap_or(add);
        number = step(number);
    }
    black_box(number);
}

#[inline(never)]
fn add(number: u64) -> u64 {
    number.wrapping_add(3)
}

#[inline(never)]
fn turn(number: u64) -> u64 {
    number.rotate_left(5)
}

ringfence_guest::export!(innocent::Or<Attack>);
