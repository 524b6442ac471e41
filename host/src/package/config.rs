//! `config.yaml`, checked.
//!
//! Owns every key of the file: those of the platform it comes from, whose files
//! are accepted as they are, and our own below `ringfence:`. Opens no file.

mod compute;
mod elsewhere;
mod extension;
mod name;
mod strip;

#[cfg(test)]
mod tests;

pub use crate::yaml::{BYTES_MAX as CONFIG_BYTES_MAX, Error as ConfigError, Place, Problem};
pub use compute::Compute;
pub use elsewhere::{BuildInfo, CheckpointStage, Checkpoints, Secret, SecretDeclaration};
pub use extension::{GraphAction, GraphRule};
pub use name::{ModelName, NAME_BYTES_MAX, NameError, check_name};

use super::checkpoint::LabelsError;
use crate::limits::{Accelerators, Limits};
use crate::yaml::{self, Document, Entry, Form, Key, Section, Unknown, UnknownKeys, key};
use name::Part;
use std::collections::HashSet;

/// The file; what hubs and secrets say is not shown.
const DOCUMENT: Document =
    Document { name: "config.yaml", secret_sections: &["checkpoints", "secrets"] };

const CONCEPT_BYTES_MAX: usize = 1024;
const MODEL_TYPE_DEFAULT: &str = "any-to-any";

/// Types that clients know. Others are served, but `predict_by_*` of the SDK asks
/// for the type first.
pub const MODEL_TYPES: [&str; 22] = [
    "any-to-any",
    "audio-classifier",
    "audio-embedder",
    "audio-to-text",
    "image-to-image",
    "image-to-text",
    "mcp",
    "multimodal-embedder",
    "multimodal-to-text",
    "openai",
    "text-classifier",
    "text-embedder",
    "text-to-audio",
    "text-to-image",
    "text-to-text",
    "text-to-video",
    "video-to-text",
    "visual-classifier",
    "visual-detector",
    "visual-embedder",
    "visual-keypointer",
    "visual-segmenter",
];

/// Types whose outputs are concepts, so that they have to say which.
const TYPES_WITH_CONCEPTS: [&str; 4] =
    ["visual-classifier", "visual-detector", "visual-segmenter", "text-classifier"];

/// Every section of the file.
const SECTIONS: [Key; 12] = [
    key("model", Form::Section(&MODEL_KEYS), "Whose model it is and what it is called"),
    key("build_info", Form::Section(&elsewhere::BUILD_INFO_KEYS), "How it is built elsewhere"),
    key(
        "inference_compute_info",
        Form::Section(&compute::EXACT_KEYS),
        "What the model gets, and what it cannot exceed",
    ),
    key("compute", Form::Section(&compute::PRESET_KEYS), "The same by the name of a machine"),
    key(
        "checkpoints",
        Form::Section(&elsewhere::CHECKPOINTS_KEYS),
        "A repository of weights that `ringfence build` puts into 1/checkpoints",
    ),
    key("concepts", Form::Sections(&CONCEPT_KEYS), "The labels that the model knows"),
    key("num_threads", Form::Number(1, 65_536), "Calls at a time elsewhere; no effect here"),
    key("secrets", Form::Sections(&elsewhere::SECRETS_KEYS), "No effect here"),
    key("mcp_server", Form::Ignored, "No effect here"),
    key("streaming_video_consumer", Form::Ignored, "No effect here"),
    key("toolkit", Form::Ignored, "No effect here"),
    key(
        "ringfence",
        Form::OwnSection(&extension::KEYS),
        "Settings of Ringfence, which other platforms ignore",
    ),
];

/// `model`.
const MODEL_KEYS: [Key; 4] = [
    key("id", Form::Name, "Unique within the app"),
    key("user_id", Form::Name, "The owner; the token's user where absent"),
    key("app_id", Form::Name, "Where it belongs; `main` where absent"),
    key(
        "model_type_id",
        Form::Suggested(&MODEL_TYPES),
        "What goes in and what comes out; `any-to-any` where absent",
    ),
];

/// Each of `concepts`.
const CONCEPT_KEYS: [Key; 2] =
    [key("id", Form::Text, "Unique in its model"), key("name", Form::Text, "What people read")];

/// Sections of the other platform that say nothing to this host, and why.
const WITHOUT_EFFECT: [(&str, &str); 4] = [
    ("mcp_server", "this host starts no MCP server"),
    ("streaming_video_consumer", "a component brings its own decoder"),
    ("toolkit", "a component brings its own libraries"),
    ("num_threads", "calls at a time are `ringfence.max_concurrency` here"),
];

/// A checked `config.yaml`.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Whose model it is and what it is called.
    pub name: ModelName,
    /// Which parts of the name the file says; the others are defaults.
    pub named: Named,
    /// What goes in and what comes out, such as `visual-classifier`.
    pub model_type_id: String,
    /// The labels that the model knows, in the file's order.
    pub concepts: Vec<ConfigConcept>,
    /// The limits of the version and of each of its calls.
    pub limits: Limits,
    /// What it asks of a machine beside its limits.
    pub compute: Compute,
    /// What `ringfence.graphs` says about graphs.
    pub graphs: Vec<GraphRule>,
    /// How it was built elsewhere.
    pub build_info: BuildInfo,
    /// Where weights come from elsewhere.
    pub checkpoints: Option<Checkpoints>,
    /// Secrets that the model expects.
    pub secrets: Vec<SecretDeclaration>,
    /// Calls at a time elsewhere.
    pub num_threads: Option<u32>,
    /// What was understood but should be written otherwise, one line each.
    pub warnings: Vec<String>,
    /// What the file leaves to defaults, and what of it has no effect here, one
    /// line each.
    pub notes: Vec<String>,
}

/// Which parts of a model's name a `config.yaml` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Named {
    /// Whether it says the owner.
    pub user: bool,
    /// Whether it says the app.
    pub app: bool,
}

/// What a checkpoint on disk says about labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Labels {
    /// There is no checkpoint, or nobody has looked for one.
    NotThere,
    /// It brings these, none, or some that cannot be used.
    There(Result<Vec<ConfigConcept>, LabelsError>),
}

/// A label of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigConcept {
    /// Unique in its model.
    pub id: String,
    /// What people read.
    pub name: String,
}

impl Config {
    /// Reads and checks a whole file by itself.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        Self::parse_beside(text, Labels::NotThere)
    }

    /// Reads and checks a whole file. A model whose outputs are concepts takes
    /// them from the checkpoint beside it where the file lists none.
    pub fn parse_beside(text: &str, labels: Labels) -> Result<Self, ConfigError> {
        yaml::read(&DOCUMENT, text, |root| take(root, labels))
    }

    /// The accelerators asked for, if any. A host that cannot give them must
    /// refuse to serve the model: there is no silent fallback to the CPU.
    pub fn accelerators(&self) -> Option<&Accelerators> {
        (self.limits.accelerators.count > 0).then_some(&self.limits.accelerators)
    }
}

/// Reads every section, whatever is wrong with the others.
fn take(mut root: Section, labels: Labels) -> Option<Config> {
    let (mut warnings, mut notes) = (Vec::new(), Vec::new());
    for (key, reason) in WITHOUT_EFFECT {
        if root.has(key) {
            notes.push(format!("`{key}` has no effect: {reason}"));
        }
    }
    let mut named = Named { user: false, app: false };
    let model = model(&mut root, &mut notes, &mut named);
    let mut limits = Limits::default();
    let asked = compute::read(&mut root, &mut warnings);
    if asked.cpu_millis.is_none() {
        notes.push("no `cpu_limit`: 1 CPU".to_owned());
    }
    if asked.memory_bytes.is_none() {
        notes.push("no `cpu_memory`: 1Gi".to_owned());
    }
    limits.cpu_millis = asked.cpu_millis.unwrap_or(limits.cpu_millis);
    limits.memory_bytes_max = asked.memory_bytes.unwrap_or(limits.memory_bytes_max);
    limits.accelerators = asked.accelerators;
    let graphs = extension::read(root.section("ringfence"), &mut limits);
    let has_checkpoints = root.has("checkpoints");
    let mut concepts = concepts(&mut root);
    let build_info = elsewhere::build_info(&mut root);
    if build_info.image.is_some() {
        notes.push("`build_info.image` has no effect: a component needs no image".to_owned());
    }
    let checkpoints = elsewhere::checkpoints(&mut root, &mut notes);
    let secrets = elsewhere::secrets(&mut root);
    if !secrets.is_empty() {
        let values = match secrets.iter().any(|secret| secret.value.is_some()) {
            true => "; their values are left out of the package",
            false => "",
        };
        notes.push(format!("`secrets` has no effect: a guest has no variables{values}"));
    }
    let num_threads = root.number("num_threads", 1, 65_536);
    let num_threads = num_threads.and_then(|threads| u32::try_from(threads).ok());
    if let Some((_, model_type_id)) = &model
        && TYPES_WITH_CONCEPTS.contains(&model_type_id.as_str())
        && concepts.is_empty()
    {
        let list = "list them as `- {id: cat, name: cat}`";
        match labels {
            Labels::There(Ok(labels)) if !labels.is_empty() => concepts = labels,
            Labels::There(found) => {
                let why = found.err().map_or_else(
                    || "1/checkpoints has no config.json with `id2label`".to_owned(),
                    |error| error.to_string(),
                );
                let text = format!("a {model_type_id} answers with concepts, and {why}; {list}");
                root.missing("concepts", &text);
            }
            Labels::NotThere if has_checkpoints => {}
            Labels::NotThere => root
                .missing("concepts", &format!("a {model_type_id} answers with concepts; {list}")),
        }
    }
    if let Some((_, model_type_id)) = &model
        && !MODEL_TYPES.contains(&model_type_id.as_str())
    {
        warnings.push(format!(
            "`model.model_type_id` {model_type_id:?} is no type that clients know{}",
            yaml::near(model_type_id, &MODEL_TYPES)
                .map_or(String::new(), |meant| format!("; did you mean \"{meant}\"?"))
        ));
    }
    root.finish(&SECTIONS, Unknown::RefuseMisspelt);
    let (name, model_type_id) = model?;
    Some(Config {
        name,
        named,
        model_type_id,
        concepts,
        limits: limits.lifted(),
        compute: asked.compute,
        graphs,
        build_info,
        checkpoints,
        secrets,
        num_threads,
        warnings,
        notes,
    })
}

fn model(
    root: &mut Section,
    notes: &mut Vec<String>,
    named: &mut Named,
) -> Option<(ModelName, String)> {
    if !root.has("model") {
        root.missing("model", "write `model:` and below it `id: my-model`");
        return None;
    }
    // A section without any keys misses its id.
    let mut section = root.section_or_empty("model")?;
    *named = Named { user: section.has("user_id"), app: section.has("app_id") };
    // Nothing is to be said where it is absent: the model is its uploader's.
    let user_id = match section.text("user_id") {
        Some(entry) => part(&entry),
        None => ModelName::USER_DEFAULT.parse().ok(),
    };
    let mut part_or = |key: &str, default: &str| match section.text(key) {
        Some(entry) => part(&entry),
        None => {
            notes.push(format!("no `model.{key}`: {default}"));
            default.parse().ok()
        }
    };
    let app_id = part_or("app_id", ModelName::APP_DEFAULT);
    let model_type_id = part_or("model_type_id", MODEL_TYPE_DEFAULT);
    let id = section.required("id", "write a name such as `id: my-model`");
    let id = id.and_then(|entry| part(&entry));
    section.finish(&MODEL_KEYS, Unknown::RefuseMisspelt);
    Some((ModelName::from_parts(user_id?, app_id?, id?), model_type_id?.into_string()))
}

fn part(entry: &Entry) -> Option<Part> {
    match entry.text.parse::<Part>() {
        Ok(part) => Some(part),
        Err(problem) => entry.refuse(problem),
    }
}

fn concepts(root: &mut Section) -> Vec<ConfigConcept> {
    let mut ids = HashSet::new();
    root.sections("concepts").into_iter().filter_map(|section| concept(section, &mut ids)).collect()
}

fn concept(mut section: Section, ids: &mut HashSet<String>) -> Option<ConfigConcept> {
    let id = section.required("id", "give each concept an id of its own");
    let name = section.required("name", "write what people read");
    let (id, name) = (id?, name?);
    for entry in [&id, &name] {
        if !is_label(&entry.text) {
            return entry
                .refuse("is empty, too long or has control characters; write a short text");
        }
    }
    if !ids.insert(id.text.clone()) {
        return id.refuse("is the id of an earlier concept too; give each an id of its own");
    }
    section.finish(&CONCEPT_KEYS, Unknown::RefuseMisspelt);
    Some(ConfigConcept { id: id.text, name: name.text })
}

/// Whether a text can be a concept's id or name.
pub(super) fn is_label(text: &str) -> bool {
    !text.trim().is_empty()
        && text.len() <= CONCEPT_BYTES_MAX
        && !text.chars().any(char::is_control)
}

/// The JSON Schema of the file (draft 7), for editors. It asks for values in
/// their plain forms and checks no ranges; `Config::parse` decides.
pub fn schema() -> serde_json::Value {
    yaml::schema("config.yaml of a model", &SECTIONS, &["model"], UnknownKeys::Allowed)
}
