//! `ringfence apps`: where a user's models stand.

use super::operations::{self, answered, tell};
use super::{AppsArgs, AppsCommand, GlobalArgs};
use crate::proto::clarifai::api;
use crate::proto::ringfence::v1 as wire;
use serde_json::json;

pub(super) fn run(args: &AppsArgs, global: &GlobalArgs) -> anyhow::Result<()> {
    if let AppsCommand::Create { app } = &args.command {
        return super::client::block_on(create(global, app));
    }
    operations::run(global, args.data_dir.as_deref(), async |host| match &args.command {
        AppsCommand::Create { .. } => Ok(()),
        AppsCommand::List => {
            let request = host.request(wire::ListAppsRequest {});
            let found = answered(host.rpc.list_apps(request).await)?;
            for id in found.ids {
                tell(global, || id.clone(), || json!({ "app": id }))?;
            }
            Ok(())
        }
        AppsCommand::Delete { app } => {
            let request = host.request(wire::DeleteAppRequest { id: app.clone() });
            answered(host.rpc.delete_app(request).await)?;
            tell(global, || format!("deleted {app}"), || json!({ "app": app }))
        }
    })
}

async fn create(global: &GlobalArgs, id: &str) -> anyhow::Result<()> {
    let mut client = super::client::Client::connect(global).await?;
    let app = api::App { id: id.to_owned(), ..Default::default() };
    let request = client.request(api::PostAppsRequest { apps: vec![app], ..Default::default() });
    let answer = client.rpc.post_apps(request).await;
    let answer = answer.map_err(|status| client.failed("make the app", &status))?.into_inner();
    client.check("make the app", answer.status.as_ref())?;
    tell(global, || format!("made {id}"), || json!({ "app": id }))
}
