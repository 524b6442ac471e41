//! `ringfence deployments`.

use super::{MERGE, OwnerArgs, PER_PAGE, PoolRef, asked};
use crate::cli::GlobalArgs;
use crate::cli::client::{Client, ModelRef, block_on};
use crate::cli::operations::tell;
use crate::proto::clarifai::api;
use crate::proto::clarifai::api::worker::Worker;
use clap::{Args, Subcommand};
use serde_json::json;

/// `deployments`
#[derive(Debug, Args)]
pub(crate) struct DeploymentsArgs {
    #[command(flatten)]
    owner: OwnerArgs,
    #[command(subcommand)]
    command: DeploymentsCommand,
}

#[derive(Debug, Subcommand)]
enum DeploymentsCommand {
    /// List your deployments
    List,
    /// Show a deployment
    Get {
        /// The deployment's name
        id: String,
    },
    /// Deploy a model: say where its replicas run and how many
    Create {
        /// The deployment's name
        id: String,
        /// USER/APP/MODEL[@VERSION], or MODEL for one in your app `main`; without a version it follows the model
        #[arg(long)]
        model: ModelRef,
        /// CLUSTER/NODEPOOL
        #[arg(long, default_value = "local/default")]
        nodepool: PoolRef,
        #[command(flatten)]
        scale: ScaleArgs,
    },
    /// Change what a deployment serves, or where
    Update {
        /// The deployment's name
        id: String,
        /// USER/APP/MODEL[@VERSION]; as before where absent
        #[arg(long)]
        model: Option<ModelRef>,
        /// CLUSTER/NODEPOOL; as before where absent
        #[arg(long)]
        nodepool: Option<PoolRef>,
    },
    /// Change how many replicas a deployment has; what is not given stays
    Scale {
        /// The deployment's name
        id: String,
        #[command(flatten)]
        scale: RescaleArgs,
    },
    /// Delete a deployment; its last calls end as they would
    Delete {
        /// The deployment's name
        id: String,
    },
}

/// How many replicas.
#[derive(Debug, Args)]
struct ScaleArgs {
    /// Replicas that always run
    #[arg(long, default_value_t = 0)]
    min_replicas: u32,
    /// Replicas at most
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    max_replicas: u32,
    /// Seconds without a call after which the last replica stops, if none has to run
    #[arg(long, default_value_t = 300)]
    scale_to_zero_delay: u32,
    /// Seconds for which one replica has to have been too many before it stops
    #[arg(long, default_value_t = 300)]
    scale_down_delay: u32,
    /// Seconds for which calls have to have waited before one replica more starts
    #[arg(long, default_value_t = 0)]
    scale_up_delay: u32,
}

impl ScaleArgs {
    fn config(&self) -> api::AutoscaleConfig {
        api::AutoscaleConfig {
            min_replicas: self.min_replicas,
            max_replicas: self.max_replicas,
            scale_down_delay_seconds: self.scale_down_delay,
            scale_up_delay_seconds: self.scale_up_delay,
            scale_to_zero_delay_seconds: self.scale_to_zero_delay,
            ..Default::default()
        }
    }
}

/// What changes of it.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
struct RescaleArgs {
    /// Replicas that always run
    #[arg(long)]
    min_replicas: Option<u32>,
    /// Replicas at most; at least as many as always run
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    max_replicas: Option<u32>,
    /// Seconds without a call after which the last replica stops, if none has to run
    #[arg(long)]
    scale_to_zero_delay: Option<u32>,
    /// Seconds for which one replica has to have been too many before it stops
    #[arg(long)]
    scale_down_delay: Option<u32>,
    /// Seconds for which calls have to have waited before one replica more starts
    #[arg(long)]
    scale_up_delay: Option<u32>,
}

impl RescaleArgs {
    /// What was, with these changes.
    fn over(&self, was: api::AutoscaleConfig) -> api::AutoscaleConfig {
        let min_replicas = self.min_replicas.unwrap_or(was.min_replicas);
        api::AutoscaleConfig {
            min_replicas,
            max_replicas: self.max_replicas.unwrap_or(was.max_replicas.max(min_replicas)),
            scale_down_delay_seconds: self.scale_down_delay.unwrap_or(was.scale_down_delay_seconds),
            scale_up_delay_seconds: self.scale_up_delay.unwrap_or(was.scale_up_delay_seconds),
            scale_to_zero_delay_seconds: self
                .scale_to_zero_delay
                .unwrap_or(was.scale_to_zero_delay_seconds),
            ..was
        }
    }
}

pub(in crate::cli) fn run(args: &DeploymentsArgs, global: &GlobalArgs) -> anyhow::Result<()> {
    block_on(async {
        let mut client = Client::connect(global).await?;
        let user_app_id = args.owner.set();
        match &args.command {
            DeploymentsCommand::List => list(&mut client, args, global).await,
            DeploymentsCommand::Get { id } => {
                let deployment_id = id.clone();
                let request = api::GetDeploymentRequest { user_app_id, deployment_id };
                let found = asked!(client, "show the deployment", get_deployment, request);
                show(global, found.deployment.unwrap_or_default())
            }
            DeploymentsCommand::Create { id, model, nodepool, scale } => {
                let deployment = api::Deployment {
                    id: id.clone(),
                    autoscale_config: Some(scale.config()),
                    nodepools: vec![nodepool.message()],
                    worker: Some(worker(model)),
                    ..Default::default()
                };
                let deployments = vec![deployment];
                let request = api::PostDeploymentsRequest { user_app_id, deployments };
                let made = asked!(client, "deploy the model", post_deployments, request);
                made.deployments.into_iter().try_for_each(|made| show(global, made))
            }
            DeploymentsCommand::Update { id, model, nodepool } => {
                let deployment = api::Deployment {
                    id: id.clone(),
                    nodepools: nodepool.iter().map(PoolRef::message).collect(),
                    worker: model.as_ref().map(worker),
                    ..Default::default()
                };
                patch(&mut client, args, deployment, global).await
            }
            DeploymentsCommand::Scale { id, scale } => {
                let deployment_id = id.clone();
                let request = api::GetDeploymentRequest { user_app_id, deployment_id };
                let found = asked!(client, "show the deployment", get_deployment, request);
                let was = found.deployment.unwrap_or_default().autoscale_config;
                let scale = scale.over(was.unwrap_or_default());
                let (id, autoscale_config) = (id.clone(), Some(scale));
                let deployment = api::Deployment { id, autoscale_config, ..Default::default() };
                patch(&mut client, args, deployment, global).await
            }
            DeploymentsCommand::Delete { id } => {
                let ids = vec![id.clone()];
                let request = api::DeleteDeploymentsRequest { user_app_id, ids };
                asked!(client, "delete the deployment", delete_deployments, request);
                tell(global, || format!("deleted {id}"), || json!({ "deployment": id }))
            }
        }
    })
}

async fn patch(
    client: &mut Client,
    args: &DeploymentsArgs,
    deployment: api::Deployment,
    global: &GlobalArgs,
) -> anyhow::Result<()> {
    let request = api::PatchDeploymentsRequest {
        user_app_id: args.owner.set(),
        deployments: vec![deployment],
        action: MERGE.to_owned(),
    };
    let done = asked!(client, "change the deployment", patch_deployments, request);
    done.deployments.into_iter().try_for_each(|done| show(global, done))
}

async fn list(
    client: &mut Client,
    args: &DeploymentsArgs,
    global: &GlobalArgs,
) -> anyhow::Result<()> {
    for page in 1.. {
        let request = api::ListDeploymentsRequest {
            user_app_id: args.owner.set(),
            page,
            per_page: PER_PAGE,
            ..Default::default()
        };
        let found = asked!(client, "list deployments", list_deployments, request);
        if found.deployments.is_empty() {
            break;
        }
        found.deployments.into_iter().try_for_each(|found| show(global, found))?;
    }
    Ok(())
}

fn worker(model: &ModelRef) -> api::Worker {
    let version = api::ModelVersion { id: model.version.clone(), ..Default::default() };
    let model = api::Model {
        id: model.name.id().to_owned(),
        user_id: model.name.user_id().to_owned(),
        app_id: model.name.app_id().to_owned(),
        model_version: Some(version).filter(|version| !version.id.is_empty()),
        ..Default::default()
    };
    api::Worker { worker: Some(Worker::Model(model)) }
}

fn show(global: &GlobalArgs, deployment: api::Deployment) -> anyhow::Result<()> {
    let model = match deployment.worker.and_then(|worker| worker.worker) {
        Some(Worker::Model(model)) => model,
        None => api::Model::default(),
    };
    let version = model.model_version.map(|version| format!("@{}", version.id));
    let version = version.unwrap_or_default();
    let model = format!("{}/{}/{}{version}", model.user_id, model.app_id, model.id);
    let nodepool = deployment.nodepools.into_iter().next().unwrap_or_default();
    let nodepool = format!("{}/{}", nodepool.compute_cluster.unwrap_or_default().id, nodepool.id);
    let scale = deployment.autoscale_config.unwrap_or_default();
    let (id, min, max) = (deployment.id, scale.min_replicas, scale.max_replicas);
    tell(
        global,
        || format!("{id}  {model} on {nodepool}, {min} to {max} replicas"),
        || {
            json!({
                "deployment": id,
                "model": model,
                "nodepool": nodepool,
                "min_replicas": min,
                "max_replicas": max,
            })
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_given_stays_and_there_are_at_least_as_many_as_always_run() {
        let was = api::AutoscaleConfig {
            min_replicas: 1,
            max_replicas: 2,
            scale_down_delay_seconds: 7,
            ..Default::default()
        };
        let nothing = RescaleArgs {
            min_replicas: None,
            max_replicas: None,
            scale_to_zero_delay: None,
            scale_down_delay: None,
            scale_up_delay: None,
        };
        assert_eq!(nothing.over(was), was);
        let more = RescaleArgs { min_replicas: Some(3), ..nothing };
        let expected = api::AutoscaleConfig { min_replicas: 3, max_replicas: 3, ..was };
        assert_eq!(more.over(was), expected);
    }
}
