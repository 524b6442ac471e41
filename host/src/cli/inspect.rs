//! `ringfence inspect`: what a model can do, from its bytes, and how two differ.
//!
//! Owns the capability sheet. Runs nothing of the model.

mod served;

use super::client::ModelRef;
use super::{GlobalArgs, InspectArgs, Usage, usage};
use crate::devices::{Devices, NoDevice};
use crate::digest::sha256_of;
use crate::nn::{self, Engines, Looked, OnnxRuntimeElsewhere, Placement, Port, Ports};
use crate::package::config::Config;
use crate::package::folder::{self, FolderError};
use crate::package::{Package, admission, capability};
use crate::sandbox;
use crate::text::{escape_controls, hex, printable};
use anyhow::Context;
use cap_std::ambient_authority;
use cap_std::fs::Dir;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

/// A topic and what is said about it.
type Line = (&'static str, String);

/// Topics that a folder and a host tell in the same words.
const TOLD_BY_BOTH: [&str; 2] = ["model", "version"];

/// What is known of a model.
type Sheet = Vec<Line>;

pub(super) fn run(args: &InspectArgs, global: &GlobalArgs) -> anyhow::Result<()> {
    let sheet = sheet_of(&args.path, args, global)?;
    let mut out = std::io::stdout().lock();
    if let Some(newer) = &args.newer {
        let mut sheets = [sheet, sheet_of(newer, args, global)?];
        if args.path.exists() != newer.exists() {
            // A host tells less of a model than a folder.
            for sheet in &mut sheets {
                sheet.retain(|(topic, _)| TOLD_BY_BOTH.contains(topic));
            }
        }
        let [sheet, newer] = sheets;
        let (gone, come) = difference(&sheet, &newer);
        if global.json {
            let lines = |lines: &[&Line]| {
                lines.iter().map(|(topic, text)| format!("{topic}: {text}")).collect::<Vec<_>>()
            };
            let changes = serde_json::json!({ "gone": lines(&gone), "come": lines(&come) });
            writeln!(out, "{changes}")?;
            return Ok(());
        }
        if gone.is_empty() && come.is_empty() {
            writeln!(out, "the two are the same")?;
        }
        for (sign, lines) in [("-", gone), ("+", come)] {
            for (topic, text) in lines {
                writeln!(out, "{sign} {topic}: {}", printable(text))?;
            }
        }
        return Ok(());
    }
    if global.json {
        let mut object = serde_json::Map::new();
        for (topic, text) in sheet {
            let texts = object.entry(topic).or_insert_with(|| serde_json::json!([]));
            if let Some(texts) = texts.as_array_mut() {
                texts.push(text.into());
            }
        }
        writeln!(out, "{}", serde_json::Value::Object(object))?;
        return Ok(());
    }
    let mut last = "";
    for (topic, text) in &sheet {
        let shown = if *topic == last { "" } else { topic };
        writeln!(out, "{shown:<12}{}", printable(text))?;
        last = topic;
    }
    Ok(())
}

/// What the other has not, either way.
fn difference<'a>(older: &'a Sheet, newer: &'a Sheet) -> (Vec<&'a Line>, Vec<&'a Line>) {
    let missing_in = |there: &'a Sheet, other: &Sheet| {
        there.iter().filter(|line| !other.contains(line)).collect()
    };
    (missing_in(older, newer), missing_in(newer, older))
}

/// What is on disk goes before a model of the same name on a host.
fn sheet_of(path: &Path, args: &InspectArgs, global: &GlobalArgs) -> anyhow::Result<Sheet> {
    let mut sheet = Sheet::new();
    if !path.exists()
        && let Some(model) = path.to_str().and_then(|text| text.parse::<ModelRef>().ok())
    {
        return served::sheet_of(&model, global)
            .with_context(|| format!("there is no file or folder {}", path.display()));
    }
    if path.is_file() {
        let length = std::fs::metadata(path)?.len();
        if length > folder::COMPONENT_BYTES_MAX {
            let text = format!(
                "{} has {length} bytes; a component has at most {}",
                path.display(),
                folder::COMPONENT_BYTES_MAX
            );
            return Err(Usage(text).into());
        }
        let bytes =
            std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        component(&bytes, &[], &mut sheet)
            .map_err(|error| Usage(format!("{}: {error}", path.display())))?;
        return Ok(sheet);
    }
    let scratch = tempfile::tempdir().context("cannot make a scratch folder")?;
    match folder::open(path, scratch.path(), folder::Taking::Copy) {
        Ok(package) => of_package(&package, args, &mut sheet)?,
        Err(missing @ (FolderError::NotBuilt { .. } | FolderError::NoCheckpoint { .. })) => {
            let root = Dir::open_ambient_dir(path, ambient_authority())
                .with_context(|| format!("cannot open {}", path.display()))?;
            of_config(&Config::parse(&folder::config_text(&root)?)?, &mut sheet);
            sheet.push(match missing {
                FolderError::NoCheckpoint { repo_id, .. } => {
                    ("checkpoint", format!("{repo_id}: not fetched yet; run `ringfence build`"))
                }
                _ => ("component", "not built yet; run `ringfence build`".to_owned()),
            });
        }
        Err(error) => return Err(error.into()),
    }
    Ok(sheet)
}

fn of_package(package: &Package, args: &InspectArgs, sheet: &mut Sheet) -> anyhow::Result<()> {
    of_config(&package.config, sheet);
    sheet.push(("version", package.version.clone()));
    let graphs: Vec<&str> = package.graphs.iter().map(|graph| graph.name.as_str()).collect();
    component(&package.component, &graphs, sheet).map_err(usage)?;
    let engines = match args.engines.onnxruntime {
        Some(_) => Engines::default().and(Arc::new(OnnxRuntimeElsewhere)),
        None => Engines::default(),
    };
    for file in &package.graphs {
        let Looked { engine, ports: Ports { inputs, outputs } } =
            nn::look_at(&engines, package, file).map_err(usage)?;
        let content = file.content.read()?;
        let ports = |ports: &[Port]| ports.iter().map(port).collect::<Vec<_>>().join(", ");
        sheet.push((
            "graph",
            escape_controls(&format!(
                "{}: {} -> {}; runs on {}; sha256 {}",
                file.name,
                ports(&inputs),
                ports(&outputs),
                match package.config.accelerators() {
                    Some(_) => "an accelerator, by the host's engine for it",
                    None => engine,
                },
                digest(&content)
            )),
        ));
    }
    if args.accelerator {
        of_device(package, args, sheet)?;
    }
    for asset in &package.assets.files {
        let digest = digest_of_file(&package.assets.path().join(&asset.name))
            .with_context(|| format!("cannot read the asset {}", asset.name))?;
        let text = format!("{}: {} bytes; sha256 {digest}", asset.name, asset.size);
        sheet.push(("asset", text));
    }
    Ok(())
}

/// Where the nodes of graphs are on a device.
fn of_device(package: &Package, args: &InspectArgs, sheet: &mut Sheet) -> anyhow::Result<()> {
    let asked = package.config.accelerators();
    let asked = asked.ok_or_else(|| Usage("the model asks for no accelerator".to_owned()))?;
    let none = |none: NoDevice| Usage(format!("the model cannot have what it asks for: {none}"));
    let given = Devices::of_this_machine().give(asked).map_err(none)?;
    let devices = super::on_devices(asked, &given)?;
    let engines = super::engines(&args.engines, Some(&devices))?;
    let mut on_cpu: BTreeSet<String> = BTreeSet::new();
    for file in &package.graphs {
        let (engine, placement) = nn::place(&engines, package, file).map_err(usage)?;
        let text = placed((&file.name, engine, &placement));
        sheet.push(("placement", escape_controls(&text)));
        on_cpu.extend(placement.on_cpu);
    }
    sheet.extend(of_listed(&on_cpu, &package.config.limits.accelerator_cpu_nodes));
    Ok(())
}

/// Where what an author lets stay on the CPU is not what would.
fn of_listed(on_cpu: &BTreeSet<String>, listed: &[String]) -> Vec<(&'static str, String)> {
    let line = |topic, nodes: Vec<&str>, text: &str| {
        (!nodes.is_empty())
            .then(|| (topic, escape_controls(&format!("{text}: {}", nodes.join(", ")))))
    };
    let unlisted =
        on_cpu.iter().filter(|node| !listed.contains(node)).map(String::as_str).collect();
    let needless =
        listed.iter().filter(|node| !on_cpu.contains(*node)).map(String::as_str).collect();
    let lines = [
        line("refused", unlisted, "on the CPU, and not in ringfence.accelerator_cpu_nodes"),
        line(
            "note",
            needless,
            "in ringfence.accelerator_cpu_nodes, and not on the CPU in any graph",
        ),
    ];
    lines.into_iter().flatten().collect()
}

/// Where the nodes of a graph are.
pub(super) fn placed((name, engine, placement): (&str, &str, &Placement)) -> String {
    let Placement { on_device, on_cpu } = placement;
    let nodes = if *on_device == 1 { "node" } else { "nodes" };
    let there = format!("graph {name}: {engine}, {on_device} {nodes} on the device");
    match on_cpu.as_slice() {
        [] => there,
        on_cpu => format!("{there}; on the CPU: {}", on_cpu.join(", ")),
    }
}

fn of_config(config: &Config, sheet: &mut Sheet) {
    let limits = &config.limits;
    sheet.push(("model", format!("{} of type {}", config.name, config.model_type_id)));
    sheet.push(("limits", format!("cpu_limit {}m", limits.cpu_millis)));
    sheet.push(("limits", format!("cpu_memory {}", quantity(limits.memory_bytes_max))));
    sheet.push((
        "limits",
        format!("{:?} for a call, {} fuel", limits.call_timeout, limits.fuel_per_call()),
    ));
    sheet.push(("limits", format!("{} calls at a time", limits.concurrency_max)));
    sheet.push(("limits", format!("{} bytes of outputs of a call", limits.output_bytes_max)));
    if let Some(asked) = config.accelerators() {
        sheet.push(("limits", asked.to_string()));
    }
    if !limits.accelerator_cpu_nodes.is_empty() {
        let nodes = limits.accelerator_cpu_nodes.join(", ");
        sheet.push(("limits", escape_controls(&format!("may stay on the CPU: {nodes}"))));
    }
    if !config.concepts.is_empty() {
        let names: Vec<&str> =
            config.concepts.iter().map(|concept| concept.name.as_str()).collect();
        sheet.push(("concepts", format!("{}: {}", names.len(), names.join(", "))));
    }
    for line in config.notes.iter().chain(&config.warnings) {
        sheet.push(("note", line.clone()));
    }
}

fn component(bytes: &[u8], graphs: &[&str], sheet: &mut Sheet) -> anyhow::Result<()> {
    let found = capability::read(bytes)?;
    sheet.push(("component", format!("{} bytes; sha256 {}", bytes.len(), digest(bytes))));
    if let Err(error) = admission::admit(bytes, u64::MAX) {
        sheet.push(("refused", error.to_string()));
    }
    sheet.push((
        "snapshot",
        match sandbox::form(bytes) {
            Ok(()) => {
                "calls begin with a copy of what load-model leaves, unless that does what no \
                       copy can have; `ringfence test` says so"
                    .to_owned()
            }
            Err(unfit) => format!("none, so load-model runs for each call: {unfit}"),
        },
    ));
    for producer in &found.producers {
        sheet.push(("made by", producer.clone()));
    }
    if !found.crates.is_empty() {
        let crates: Vec<String> = found.crates.iter().cloned().collect();
        sheet.push(("crates", format!("{} (those that the bytes name)", crates.join(", "))));
    }
    let mut words: BTreeSet<String> = BTreeSet::new();
    for import in &found.imports {
        match capability::in_words(import) {
            Some(text) if text.contains("graphs of its package") && !graphs.is_empty() => {
                words.insert(format!("{text}: {}", graphs.join(", ")));
            }
            Some(text) if text.contains("does not give") => {
                words.insert(format!("{text}: {import}"));
            }
            Some(text) => {
                words.insert(text.to_owned());
            }
            None => {}
        }
    }
    sheet.extend(words.into_iter().map(|text| ("can", escape_controls(&text))));
    sheet.extend(found.imports.iter().map(|name| ("imports", escape_controls(name))));
    sheet.extend(found.exports.iter().map(|name| ("exports", escape_controls(name))));
    Ok(())
}

/// Bytes as `config.yaml` has them.
fn quantity(bytes: u64) -> String {
    let units = [(30, "Gi"), (20, "Mi"), (10, "Ki")];
    let whole = units.iter().find(|(shift, _)| bytes.is_multiple_of(1_u64 << shift));
    whole.map_or_else(|| bytes.to_string(), |(shift, unit)| format!("{}{unit}", bytes >> shift))
}

fn port(port: &Port) -> String {
    let axes: Vec<String> = port
        .shape
        .iter()
        .map(|axis| axis.map_or_else(|| "?".to_owned(), |length| length.to_string()))
        .collect();
    let element = port.element.map_or("?", crate::nn::ElementType::as_str);
    format!("{} {element}[{}]", port.name, axes.join(", "))
}

/// An asset may be larger than memory.
fn digest_of_file(path: &Path) -> std::io::Result<String> {
    let (digest, _) = sha256_of(std::fs::File::open(path)?)?;
    Ok(hex(&digest))
}

fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}
