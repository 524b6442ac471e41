//! `ringfence schema`: the JSON Schemas of `config.yaml` and `host.yaml`, which
//! editors complete them by, and the page about the latter.

use super::{SchemaArgs, Usage};
use crate::package::config;
use crate::settings;
use std::io::Write;

/// A file that has a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum SchemaFile {
    /// config.yaml of a model
    #[default]
    Config,
    /// host.yaml of a host
    Host,
}

pub(super) fn run(args: &SchemaArgs) -> anyhow::Result<()> {
    let text = match (args.file, args.markdown) {
        (file, false) => text(file),
        (SchemaFile::Host, true) => settings::markdown().trim_end().to_owned(),
        (SchemaFile::Config, true) => {
            let text = "there is a page about host.yaml only; write `schema host --markdown`";
            return Err(Usage(text.to_owned()).into());
        }
    };
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")?;
    Ok(())
}

fn text(file: SchemaFile) -> String {
    match file {
        SchemaFile::Config => format!("{:#}", config::schema()),
        SchemaFile::Host => format!("{:#}", settings::schema()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_beside_the_guest_crate_is_of_today() {
        let there = include_str!("../../../guests/sdk/config.schema.json");
        assert!(
            there.trim_end() == text(SchemaFile::Config),
            "run `cargo run --release -- schema > guests/sdk/config.schema.json`"
        );
    }

    #[test]
    fn the_page_about_host_yaml_is_of_today() {
        let there = include_str!("../../../docs/host-config.md");
        assert!(
            there == settings::markdown(),
            "run `cargo run --release -- schema host --markdown > docs/host-config.md`"
        );
    }
}
