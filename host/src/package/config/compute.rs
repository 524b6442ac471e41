//! What a model asks of a machine: `inference_compute_info` and `compute`.
//!
//! Owns their keys. Nothing here knows which devices exist.

use crate::devices::{PATTERNS_MAX, problem_of_pattern};
use crate::limits::Accelerators;
use crate::package::quantity::Quantity;
use crate::yaml::{Entry, Form, Key, Section, Unknown, key};

/// A guest needs some pages of 64 KiB to begin with; less is a slip of the pen.
const MEMORY_BYTES_MIN: u64 = 1 << 20;
/// More than any machine has.
const ACCELERATORS_MAX: u64 = 1024;

/// `inference_compute_info`.
pub(super) const EXACT_KEYS: [Key; 8] = [
    key("cpu_limit", Form::Quantity, "CPUs: \"500m\" is half of one. 1 where absent"),
    key(
        "cpu_memory",
        Form::Quantity,
        "All that a replica makes the host hold, \"1Mi\" or more. 1Gi where absent",
    ),
    key("cpu_requests", Form::Quantity, "CPUs that a replica reserves; cpu_limit where absent"),
    key(
        "cpu_memory_requests",
        Form::Quantity,
        "Bytes that a replica reserves; cpu_memory where absent",
    ),
    key(
        "num_accelerators",
        Form::Number(0, ACCELERATORS_MAX),
        "How many accelerators the model needs",
    ),
    key("accelerator_type", Form::Texts, "Patterns for the device's name, such as NVIDIA-*"),
    key("accelerator_memory", Form::Quantity, "Bytes of device memory, such as \"18Gi\""),
    key("accelerator_topology", Form::Texts, "How several accelerators have to be connected"),
];

/// `compute`.
pub(super) const PRESET_KEYS: [Key; 5] = [
    key("instance", Form::Text, "The other platform's name for a kind of machine"),
    key("gpu", Form::Text, "The same for a kind with an accelerator"),
    key("cloud", Form::Text, "Where the machine would be; no effect here"),
    key("region", Form::Text, "Where the machine would be; no effect here"),
    key("num_gpus", Form::Number(0, ACCELERATORS_MAX), "How many accelerators the model needs"),
];

/// What a model asks of a machine beside its limits.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Compute {
    /// Thousandths of a CPU that a running replica reserves; its limit where absent.
    pub cpu_requests_millis: Option<u64>,
    /// Bytes that a running replica reserves; its limit where absent.
    pub memory_requests_bytes: Option<u64>,
    /// `compute.instance`, the other platform's name for a kind of machine.
    pub instance: Option<String>,
}

/// What the two sections say together.
#[derive(Debug, Default)]
pub(super) struct Asked {
    pub(super) compute: Compute,
    pub(super) accelerators: Accelerators,
    pub(super) cpu_millis: Option<u64>,
    pub(super) memory_bytes: Option<u64>,
}

/// Reads both; `inference_compute_info` is the more exact and wins.
pub(super) fn read(root: &mut Section, warnings: &mut Vec<String>) -> Asked {
    let exact = root.section("inference_compute_info");
    let preset = root.section("compute");
    let says_how_many = exact.as_ref().is_some_and(|section| section.has("num_accelerators"));
    let mut asked = exact.map(read_exact).unwrap_or_default();
    if let Some(section) = preset {
        read_preset(section, &mut asked, says_how_many, warnings);
    }
    let Accelerators { count, types, memory_bytes, .. } = &asked.accelerators;
    if *count == 0 && (!types.is_empty() || memory_bytes.is_some()) {
        warnings.push(NO_EFFECT.to_owned());
    }
    asked
}

const NO_EFFECT: &str = "accelerator_type and accelerator_memory have no effect without \
                         num_accelerators: the model is computed on CPUs";

fn read_exact(mut section: Section) -> Asked {
    let asked = Asked {
        cpu_millis: cpu(&mut section, "cpu_limit"),
        memory_bytes: memory(&mut section, "cpu_memory"),
        compute: Compute {
            cpu_requests_millis: cpu(&mut section, "cpu_requests"),
            memory_requests_bytes: memory(&mut section, "cpu_memory_requests"),
            instance: None,
        },
        accelerators: Accelerators {
            count: number_u32(&mut section, "num_accelerators").unwrap_or(0),
            types: patterns(&mut section, "accelerator_type"),
            memory_bytes: device_memory(&mut section),
            topology: names(&mut section, "accelerator_topology"),
        },
    };
    section.finish(&EXACT_KEYS, Unknown::RefuseMisspelt);
    asked
}

fn patterns(section: &mut Section, key: &str) -> Vec<String> {
    let entries = section.entries(key).into_iter().take(PATTERNS_MAX);
    let checked = entries.filter_map(|entry| match problem_of_pattern(&entry.text) {
        Some(problem) => entry.refuse(problem),
        None => Some(entry.text),
    });
    checked.collect()
}

fn names(section: &mut Section, key: &str) -> Vec<String> {
    section.texts(key).into_iter().take(PATTERNS_MAX).collect()
}

/// The other platform looks an instance's size up in a catalogue. What matters
/// of it here is whether the model wants an accelerator, unless that is said elsewhere.
fn read_preset(
    mut section: Section,
    asked: &mut Asked,
    says_how_many: bool,
    warnings: &mut Vec<String>,
) {
    let instance = section.text("instance");
    let gpu = section.text("gpu");
    let count = number_u32(&mut section, "num_gpus");
    section.finish(&PRESET_KEYS, Unknown::RefuseMisspelt);

    let accelerators = &mut asked.accelerators;
    if !says_how_many {
        let implied = match (&gpu, &instance) {
            (Some(_), _) => 1,
            (None, Some(entry)) => match instance_kind(&entry.text) {
                InstanceKind::Cpu => 0,
                InstanceKind::Accelerated => 1,
                InstanceKind::Unknown => {
                    warnings.push(unknown_instance(entry));
                    0
                }
            },
            (None, None) => 0,
        };
        accelerators.count = count.unwrap_or(implied);
        if accelerators.count > 0 && accelerators.types.is_empty() {
            accelerators.types = vec!["NVIDIA-*".to_owned()];
        }
    }
    asked.compute.instance = instance.or(gpu).map(|entry| entry.text);
}

enum InstanceKind {
    Cpu,
    Accelerated,
    Unknown,
}

/// Tells by the name alone. A name of the public clouds is a family, a dot or
/// a hyphen, and a size; elsewhere the device itself is the name.
fn instance_kind(name: &str) -> InstanceKind {
    const CPU: [&str; 16] = [
        "cpu", "t2", "t3", "t3a", "t4g", "c5", "c6a", "c6i", "c7i", "m5", "m6a", "m6i", "m7i",
        "r5", "r6i", "e2",
    ];
    const ACCELERATED: [&str; 25] = [
        "gpu", "t4", "l4", "l40", "l40s", "a10", "a10g", "a40", "a100", "h100", "h200", "gh200",
        "b200", "gb200", "v100", "p4d", "p4de", "p5", "g4dn", "g5", "g6", "g6e", "g2", "rtx",
        "mi300x",
    ];
    let lower = name.to_ascii_lowercase();
    let mut words =
        lower.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let family = words.next().unwrap_or_default();
    if ACCELERATED.contains(&family) || (family == "nvidia" && words.next().is_some()) {
        InstanceKind::Accelerated
    } else if CPU.contains(&family) {
        InstanceKind::Cpu
    } else {
        InstanceKind::Unknown
    }
}

fn unknown_instance(entry: &Entry) -> String {
    format!(
        "config.yaml line {}: `{}` {:?} is not a known kind of machine, so the model gets 1 CPU, 1Gi and no \
         accelerator; say what it needs in `inference_compute_info`",
        entry.place.line,
        entry.key,
        entry.text.chars().take(64).collect::<String>()
    )
}

fn number_u32(section: &mut Section, key: &str) -> Option<u32> {
    u32::try_from(section.number(key, 0, ACCELERATORS_MAX)?).ok()
}

fn cpu(section: &mut Section, key: &str) -> Option<u64> {
    let entry = section.text(key)?;
    match entry.text.parse().and_then(Quantity::cpu_millis) {
        Ok(millis) => Some(millis),
        Err(problem) => entry.refuse(problem),
    }
}

fn memory(section: &mut Section, key: &str) -> Option<u64> {
    memory_of(&section.text(key)?, "Mi")
}

/// Bytes, or none where the text is empty: the other platform's uploader writes
/// that for a kind of machine without accelerators.
fn device_memory(section: &mut Section) -> Option<u64> {
    let entry = section.text("accelerator_memory")?;
    if entry.text.is_empty() { None } else { memory_of(&entry, "Gi") }
}

/// Bytes. What is less than a mebibyte was meant to be more, of the unit that is usual for
/// it: `500m`, which is half a byte, stands in public files that work where nothing reads it.
fn memory_of(entry: &Entry, unit: &str) -> Option<u64> {
    match entry.text.parse().and_then(Quantity::bytes) {
        Ok(bytes) if bytes < MEMORY_BYTES_MIN => {
            let meant = entry.text.trim_end_matches(char::is_alphabetic);
            entry.refuse(format!("is less than \"1Mi\"; did you mean \"{meant}{unit}\"?"))
        }
        Ok(bytes) => Some(bytes),
        Err(problem) => entry.refuse(problem),
    }
}
