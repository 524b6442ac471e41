//! Asks for more of its assets at a time than the host gives, and for what lies
//! beyond their ends.
//!
//! Expected: an output with a line for each asset: its name, and how many bytes
//! came from its beginning, from its last byte on and from beyond any end. No
//! number is above 1048576, which is what one read returns at most.

use ringfence_guest::{Error, Input, Model, Output, Params, asset_piece, model_info};

struct Attack;

impl Model for Attack {
    fn load() -> Result<Self, Error> {
        Ok(Attack)
    }

    fn predict(&self, _input: Input, _params: &Params) -> Result<Output, Error> {
        let mut lines = Vec::new();
        for asset in model_info().assets {
            let read = |offset| Ok(asset_piece(&asset.name, offset, u32::MAX)?.len());
            let counts: Result<Vec<usize>, Error> =
                [0, asset.size - 1, u64::MAX].into_iter().map(read).collect();
            lines.push(format!("{} {:?}", asset.name, counts?));
        }
        Ok(Output::text(lines.join("\n")))
    }
}

ringfence_guest::export!(innocent::Or<Attack>);
