//! `ringfence schema`: the JSON Schema of `config.yaml`, which editors complete
//! it by.

use crate::package::config;
use std::io::Write;

pub(super) fn run() -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", text())?;
    Ok(())
}

fn text() -> String {
    format!("{:#}", config::schema())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_schema_beside_the_guest_crate_is_of_today() {
        let there = include_str!("../../../guests/sdk/config.schema.json");
        assert!(
            there.trim_end() == super::text(),
            "run `cargo run --release -- schema > guests/sdk/config.schema.json`"
        );
    }
}
