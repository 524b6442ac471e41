//! `ringfence models`: which there are, which version is called, by whom.

use super::client::{Client, ModelRef, block_on};
use super::operations::{self, answered, tell};
use super::{GlobalArgs, ModelsArgs, ModelsCommand};
use crate::proto::clarifai::api;
use crate::proto::ringfence::v1 as wire;
use crate::store::ShareRow;
use serde_json::json;

pub(super) fn run(args: &ModelsArgs, global: &GlobalArgs) -> anyhow::Result<()> {
    if let ModelsCommand::List { model } = &args.command {
        return match model {
            None => block_on(list(global)),
            Some(model) => block_on(versions(global, model)),
        };
    }
    operations::run(global, args.data_dir.as_deref(), async |host| {
        let done = |what: &str, model: &ModelRef| {
            let label = match model.version.as_str() {
                "" => model.name.to_string(),
                version => format!("{}@{version}", model.name),
            };
            let text = format!("{what} {label}");
            let object = json!({ "model": label, "did": what });
            tell(global, || text, || object)
        };
        match &args.command {
            ModelsCommand::List { .. } => Ok(()),
            ModelsCommand::Promote { model } => {
                let request = host.request(wire::PromoteVersionRequest {
                    model: Some(name(model)),
                    version_id: model.version.clone(),
                });
                answered(host.rpc.promote_version(request).await)?;
                done("promoted", model)
            }
            ModelsCommand::Rollback { model } => {
                let model_name = Some(name(model));
                let request = host.request(wire::RollBackModelRequest { model: model_name });
                let rolled = host.rpc.roll_back_model(request).await;
                let version = answered(rolled)?.version_id;
                let label = model.name.to_string();
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
                let label = model.name.to_string();
                tell(
                    global,
                    || format!("stopped {label}; {ended} calls of it were ended"),
                    || json!({ "model": label, "calls_ended": ended }),
                )
            }
            ModelsCommand::Start { model } => {
                let request = host.request(wire::StartModelRequest { model: Some(name(model)) });
                answered(host.rpc.start_model(request).await)?;
                done("started", model)
            }
            ModelsCommand::Delete { model } => {
                let request = host.request(wire::DeleteModelRequest {
                    model: Some(name(model)),
                    version_id: model.version.clone(),
                });
                answered(host.rpc.delete_model(request).await)?;
                done("deleted", model)
            }
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

fn name(model: &ModelRef) -> wire::ModelName {
    wire::ModelName {
        user_id: model.name.user_id().to_owned(),
        app_id: model.name.app_id().to_owned(),
        id: model.name.id().to_owned(),
    }
}

async fn list(global: &GlobalArgs) -> anyhow::Result<()> {
    let mut client = Client::connect(global).await?;
    for page in 1.. {
        let asked = api::ListModelsRequest { page, per_page: 100, ..Default::default() };
        let request = client.request(asked);
        let answer = client.rpc.list_models(request).await;
        let answer = answer.map_err(|status| client.failed("list models", &status))?.into_inner();
        client.check("list models", answer.status.as_ref())?;
        if answer.models.is_empty() {
            break;
        }
        for model in answer.models {
            let label = format!("{}/{}/{}", model.user_id, model.app_id, model.id);
            let version = model.model_version.map(|version| version.id).unwrap_or_default();
            let shown = match version.as_str() {
                "" => format!("{label} (no version yet)"),
                version => format!("{label}@{version}"),
            };
            tell(
                global,
                || format!("{shown}  {}", model.model_type_id),
                || json!({ "model": label, "version": version, "type": model.model_type_id }),
            )?;
        }
    }
    Ok(())
}

async fn versions(global: &GlobalArgs, model: &ModelRef) -> anyhow::Result<()> {
    let mut client = Client::connect(global).await?;
    for page in 1.. {
        let asked = api::ListModelVersionsRequest {
            user_app_id: Some(model.user_app_id()),
            model_id: model.name.id().to_owned(),
            page,
            per_page: 100,
            ..Default::default()
        };
        let request = client.request(asked);
        let answer = client.rpc.list_model_versions(request).await;
        let answer = answer.map_err(|status| client.failed("list versions", &status))?.into_inner();
        client.check("list versions", answer.status.as_ref())?;
        if answer.model_versions.is_empty() {
            break;
        }
        for version in answer.model_versions {
            let at = version.created_at.map(|at| at.seconds).unwrap_or_default();
            tell(
                global,
                || format!("{}@{}  since {}", model.name, version.id, operations::time(at)),
                || json!({ "model": model.name.to_string(), "version": version.id, "created_at": at }),
            )?;
        }
    }
    Ok(())
}
