//! `ringfence models list`: models, or the versions of one.

use super::name;
use crate::cli::GlobalArgs;
use crate::cli::client::ModelRef;
use crate::cli::note;
use crate::cli::operations::{Operations, answered, tell, time};
use crate::proto::ringfence::v1 as wire;
use crate::store::ShareRow;
use serde_json::json;

/// Items that are asked for at a time.
const PER_PAGE: u32 = 100;

/// The caller's own and those that are shared with the caller, those of a user,
/// or everybody's.
pub(super) async fn models(
    host: &mut Operations,
    global: &GlobalArgs,
    user: Option<&str>,
    all: bool,
) -> anyhow::Result<()> {
    let user_id = user.unwrap_or_default().to_owned();
    for page in 1.. {
        let asked =
            wire::ListModelsRequest { user_id: user_id.clone(), all, page, per_page: PER_PAGE };
        let request = host.request(asked);
        let found = answered(host.rpc.list_models(request).await)?.models;
        if found.is_empty() {
            if page == 1 {
                note("there are no models, or none that you may see");
            }
            break;
        }
        for model in found {
            tell(global, || line(&model), || object(&model))?;
        }
    }
    Ok(())
}

/// The versions of a model, the newest first.
pub(super) async fn versions(
    host: &mut Operations,
    global: &GlobalArgs,
    model: &ModelRef,
) -> anyhow::Result<()> {
    for page in 1.. {
        let model = Some(name(model));
        let request = host.request(wire::ListVersionsRequest { model, page, per_page: PER_PAGE });
        let found = answered(host.rpc.list_versions(request).await)?;
        if found.versions.is_empty() {
            break;
        }
        let model = found.model.unwrap_or_default();
        let label = named(&model);
        for version in found.versions {
            let called = version.id == model.version_id;
            let (id, at) = (&version.id, version.created_at);
            let state = if called { state(&model) } else { String::new() };
            tell(
                global,
                || format!("{label}@{id}  since {}{state}", time(at)),
                || {
                    json!({
                        "model": label, "version": id, "created_at": at, "called": called,
                        "promoted": called && model.promoted, "stopped": model.stopped,
                    })
                },
            )?;
        }
    }
    Ok(())
}

/// What becomes of a call that names no version, and why of this one.
fn state(model: &wire::Model) -> String {
    let word = if model.stopped { stopped(model) } else { "called" };
    let why = if model.promoted { "promoted" } else { "the newest" };
    format!("  {word} ({why})")
}

/// Whose a stop is.
fn stopped(model: &wire::Model) -> &'static str {
    if model.stopped_by_operator { "stopped by the operator" } else { "stopped" }
}

fn line(model: &wire::Model) -> String {
    let label = named(model);
    let mut text = match model.version_id.as_str() {
        "" => format!("{label} (no version yet)"),
        version => format!("{label}@{version}"),
    };
    text.push_str(&format!("  {}", model.model_type_id));
    let marks = [
        (model.promoted, "promoted"),
        (model.stopped, stopped(model)),
        (model.shared, "shared with you"),
    ];
    for (_, mark) in marks.into_iter().filter(|(holds, _)| *holds) {
        text.push_str(&format!("  {mark}"));
    }
    if !model.shared_with.is_empty() {
        let with = model.shared_with.iter().map(|with| match with.as_str() {
            ShareRow::EVERYONE => "everyone",
            user => user,
        });
        text.push_str(&format!("  shared with {}", with.collect::<Vec<_>>().join(", ")));
    }
    text
}

fn object(model: &wire::Model) -> serde_json::Value {
    json!({
        "model": named(model), "version": model.version_id, "type": model.model_type_id,
        "promoted": model.promoted, "stopped": model.stopped, "shared": model.shared,
        "stopped_by_operator": model.stopped_by_operator, "shared_with": model.shared_with,
    })
}

fn named(model: &wire::Model) -> String {
    let name = model.name.clone().unwrap_or_default();
    format!("{}/{}/{}", name.user_id, name.app_id, name.id)
}
