//! `ringfence models`: which there are, which version is called, by whom.

mod list;

use super::client::ModelRef;
use super::operations::{self, Operations, answered, tell};
use super::{GlobalArgs, ModelsArgs, ModelsCommand};
use crate::proto::ringfence::v1 as wire;
use crate::store::ShareRow;
use crate::text::counted;
use serde_json::json;

pub(super) fn run(args: &ModelsArgs, global: &GlobalArgs) -> anyhow::Result<()> {
    operations::run(global, args.data_dir.as_deref(), async |host| {
        let done = |what: &str, model: &ModelRef| {
            let label = labelled(model);
            let text = format!("{what} {label}");
            let object = json!({ "model": label, "did": what });
            tell(global, || text, || object)
        };
        match &args.command {
            ModelsCommand::List { model: Some(model), .. } => {
                list::versions(host, global, model).await
            }
            ModelsCommand::List { model: None, user, all } => {
                // Whoever has the data directory has no models of their own.
                let all = *all || (args.data_dir.is_some() && user.is_none());
                list::models(host, global, user.as_deref(), all).await
            }
            ModelsCommand::Promote { model } => promote(host, global, model).await,
            ModelsCommand::Rollback { model } => {
                let model_name = Some(name(model));
                let request = host.request(wire::RollBackModelRequest { model: model_name });
                let rolled = host.rpc.roll_back_model(request).await;
                let version = answered(rolled)?.version_id;
                let label = model.label();
                tell(
                    global,
                    || format!("{label} is {version} again"),
                    || json!({ "model": label, "version": version }),
                )
            }
            ModelsCommand::Stop { model } => {
                let request = host.request(wire::StopModelRequest { model: Some(name(model)) });
                let stopped = host.rpc.stop_model(request).await;
                let ended = answered(stopped)?.calls_ended;
                let label = model.label();
                tell(
                    global,
                    || format!("stopped {label}; {} ended", counted(ended, "call")),
                    || json!({ "model": label, "calls_ended": ended }),
                )
            }
            ModelsCommand::Start { model } => {
                let request = host.request(wire::StartModelRequest { model: Some(name(model)) });
                answered(host.rpc.start_model(request).await)?;
                done("started", model)
            }
            ModelsCommand::Delete { model } => delete(host, global, model).await,
            ModelsCommand::Share { model, with, end } => {
                let with = match with.as_str() {
                    "everyone" => ShareRow::EVERYONE.to_owned(),
                    user => user.to_owned(),
                };
                let request = host.request(wire::ShareModelRequest {
                    model: Some(name(model)),
                    with,
                    end: *end,
                });
                answered(host.rpc.share_model(request).await)?;
                done(if *end { "no longer shares" } else { "shares" }, model)
            }
        }
    })
}

async fn promote(
    host: &mut Operations,
    global: &GlobalArgs,
    model: &ModelRef,
) -> anyhow::Result<()> {
    let request = host.request(wire::PromoteVersionRequest {
        model: Some(name(model)),
        version_id: model.version.clone(),
    });
    let called = answered(host.rpc.promote_version(request).await)?.version_id;
    let label = model.label();
    let text = match (model.version.is_empty(), called.is_empty()) {
        (false, _) => format!("promoted {label}@{called}, which is called now"),
        (true, false) => format!("{label} follows its newest version; {called} is called now"),
        (true, true) => format!("{label} follows its newest version; it has none yet"),
    };
    tell(global, || text, || json!({ "model": label, "did": "promoted", "version": called }))
}

async fn delete(
    host: &mut Operations,
    global: &GlobalArgs,
    model: &ModelRef,
) -> anyhow::Result<()> {
    let request = host.request(wire::DeleteModelRequest {
        model: Some(name(model)),
        version_id: model.version.clone(),
    });
    let deployments = answered(host.rpc.delete_model(request).await)?.deployments;
    let label = labelled(model);
    let mut text = format!("deleted {label}");
    if !deployments.is_empty() {
        let count = counted(deployments.len() as u64, "deployment");
        text.push_str(&format!(", and {count} of it: {}", deployments.join(", ")));
    }
    let object = json!({ "model": label, "did": "deleted", "deployments": deployments });
    tell(global, || text, || object)
}

fn name(model: &ModelRef) -> wire::ModelName {
    wire::ModelName {
        user_id: model.name.user_id().to_owned(),
        app_id: model.name.app_id().to_owned(),
        id: model.name.id().to_owned(),
    }
}

/// The model, and the version where one is meant.
fn labelled(model: &ModelRef) -> String {
    match model.version.as_str() {
        "" => model.label(),
        version => format!("{}@{version}", model.label()),
    }
}
