//! `ringfence clusters`, `nodepools` and `deployments`: where models run.

use super::GlobalArgs;
use super::client::{Client, ModelRef, block_on};
use super::operations::tell;
use crate::proto::clarifai::api;
use clap::{Args, Subcommand};
use serde_json::json;
use std::str::FromStr;

/// Items that are asked for at once.
const PER_PAGE: u32 = 100;

/// `clusters`
#[derive(Debug, Args)]
pub(crate) struct ClustersArgs {
    #[command(subcommand)]
    command: ClustersCommand,
}

#[derive(Debug, Subcommand)]
enum ClustersCommand {
    /// List your compute clusters; `local` is the machine that the host runs on
    List,
    /// Make a compute cluster, to put nodepools in
    Create {
        /// Its name
        id: String,
        /// For people
        #[arg(long, default_value = "")]
        description: String,
    },
    /// Delete a compute cluster that has no nodepools
    Delete {
        /// Its name
        id: String,
    },
}

/// `nodepools`
#[derive(Debug, Args)]
pub(crate) struct NodepoolsArgs {
    #[command(subcommand)]
    command: NodepoolsCommand,
}

#[derive(Debug, Subcommand)]
enum NodepoolsCommand {
    /// List your nodepools and what each has
    List {
        /// Those of one compute cluster
        #[arg(long, default_value = "")]
        cluster: String,
    },
    /// Make a nodepool: a part of the machine
    Create {
        /// CLUSTER/NODEPOOL
        name: PoolRef,
        /// CPUs that it has, such as 2 or 500m; those of the machine where absent
        #[arg(long, default_value = "")]
        cpu_limit: String,
        /// Memory that it has, such as 4Gi; that of the machine where absent
        #[arg(long, default_value = "")]
        cpu_memory: String,
    },
    /// Delete a nodepool that has no deployments
    Delete {
        /// CLUSTER/NODEPOOL
        name: PoolRef,
    },
}

/// `deployments`
#[derive(Debug, Args)]
pub(crate) struct DeploymentsArgs {
    #[command(subcommand)]
    command: DeploymentsCommand,
}

#[derive(Debug, Subcommand)]
enum DeploymentsCommand {
    /// List your deployments
    List,
    /// Deploy a model: say where its replicas run and how many
    Create {
        /// The deployment's name
        id: String,
        /// USER/APP/MODEL[@VERSION], or MODEL for local/main/MODEL; without a version it follows the model
        #[arg(long)]
        model: ModelRef,
        /// CLUSTER/NODEPOOL
        #[arg(long, default_value = "local/default")]
        nodepool: PoolRef,
        #[command(flatten)]
        scale: ScaleArgs,
    },
    /// Change how many replicas a deployment has
    Scale {
        /// The deployment's name
        id: String,
        #[command(flatten)]
        scale: ScaleArgs,
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
    #[arg(long, default_value_t = 1)]
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

/// A nodepool as it is written on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PoolRef {
    cluster: String,
    id: String,
}

impl FromStr for PoolRef {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some((cluster, id)) if !cluster.is_empty() && !id.is_empty() => {
                Ok(Self { cluster: cluster.to_owned(), id: id.to_owned() })
            }
            _ => Err("write CLUSTER/NODEPOOL"),
        }
    }
}

impl PoolRef {
    fn message(&self) -> api::Nodepool {
        let cluster = api::ComputeCluster { id: self.cluster.clone(), ..Default::default() };
        let compute_cluster = Some(cluster);
        api::Nodepool { id: self.id.clone(), compute_cluster, ..Default::default() }
    }
}

/// Where a call is to run.
#[derive(Debug, Default, Args)]
pub(crate) struct PlaceArgs {
    /// A deployment of the model that has to serve the call
    #[arg(long, value_name = "ID", conflicts_with = "nodepool")]
    deployment: Option<String>,
    /// A nodepool that the call has to run on
    #[arg(long, value_name = "CLUSTER/NODEPOOL")]
    nodepool: Option<PoolRef>,
}

impl PlaceArgs {
    /// The same on the wire.
    pub(super) fn selector(&self) -> Option<api::RunnerSelector> {
        let deployment = self.deployment.clone();
        let deployment = deployment.map(|id| api::Deployment { id, ..Default::default() });
        let nodepool = self.nodepool.as_ref().map(PoolRef::message);
        (deployment.is_some() || nodepool.is_some()).then_some(api::RunnerSelector {
            nodepool,
            runner: None,
            deployment,
        })
    }
}

/// The answer's content, once its status is good.
macro_rules! asked {
    ($client:ident, $what:literal, $rpc:ident, $request:expr) => {{
        let request = $client.request($request);
        let answer = $client.rpc.$rpc(request).await;
        let answer = answer.map_err(|status| $client.failed($what, &status))?.into_inner();
        $client.check($what, answer.status.as_ref())?;
        answer
    }};
}

pub(super) fn clusters(args: &ClustersArgs, global: &GlobalArgs) -> anyhow::Result<()> {
    block_on(async {
        let mut client = Client::connect(global).await?;
        match &args.command {
            ClustersCommand::List => {
                for page in 1.. {
                    let request = api::ListComputeClustersRequest {
                        page,
                        per_page: PER_PAGE,
                        ..Default::default()
                    };
                    let found = asked!(client, "list clusters", list_compute_clusters, request);
                    if found.compute_clusters.is_empty() {
                        break;
                    }
                    for found in found.compute_clusters {
                        let (id, said) = (found.id, found.description);
                        tell(
                            global,
                            || format!("{id}  {said}"),
                            || json!({ "cluster": id, "description": said }),
                        )?;
                    }
                }
                Ok(())
            }
            ClustersCommand::Create { id, description } => {
                let cluster = api::ComputeCluster {
                    id: id.clone(),
                    description: description.clone(),
                    ..Default::default()
                };
                let request = api::PostComputeClustersRequest {
                    compute_clusters: vec![cluster],
                    ..Default::default()
                };
                asked!(client, "make the cluster", post_compute_clusters, request);
                tell(global, || format!("made {id}"), || json!({ "cluster": id }))
            }
            ClustersCommand::Delete { id } => {
                let ids = vec![id.clone()];
                let request = api::DeleteComputeClustersRequest { ids, ..Default::default() };
                asked!(client, "delete the cluster", delete_compute_clusters, request);
                tell(global, || format!("deleted {id}"), || json!({ "cluster": id }))
            }
        }
    })
}

pub(super) fn nodepools(args: &NodepoolsArgs, global: &GlobalArgs) -> anyhow::Result<()> {
    block_on(async {
        let mut client = Client::connect(global).await?;
        match &args.command {
            NodepoolsCommand::List { cluster } => {
                for page in 1.. {
                    let request = api::ListNodepoolsRequest {
                        compute_cluster_id: cluster.clone(),
                        page,
                        per_page: PER_PAGE,
                        ..Default::default()
                    };
                    let found = asked!(client, "list nodepools", list_nodepools, request);
                    if found.nodepools.is_empty() {
                        break;
                    }
                    for found in found.nodepools {
                        tell_nodepool(global, found)?;
                    }
                }
                Ok(())
            }
            NodepoolsCommand::Create { name, cpu_limit, cpu_memory } => {
                let has = api::ComputeInfo {
                    cpu_limit: cpu_limit.clone(),
                    cpu_memory: cpu_memory.clone(),
                    ..Default::default()
                };
                let instance = api::InstanceType {
                    id: "local".to_owned(),
                    compute_info: Some(has),
                    ..Default::default()
                };
                let nodepool = api::Nodepool {
                    instance_types: vec![instance],
                    min_instances: 1,
                    max_instances: 1,
                    ..name.message()
                };
                let request = api::PostNodepoolsRequest {
                    compute_cluster_id: name.cluster.clone(),
                    nodepools: vec![nodepool],
                    ..Default::default()
                };
                let made = asked!(client, "make the nodepool", post_nodepools, request);
                made.nodepools.into_iter().try_for_each(|made| tell_nodepool(global, made))
            }
            NodepoolsCommand::Delete { name } => {
                let request = api::DeleteNodepoolsRequest {
                    compute_cluster_id: name.cluster.clone(),
                    ids: vec![name.id.clone()],
                    ..Default::default()
                };
                asked!(client, "delete the nodepool", delete_nodepools, request);
                let label = format!("{}/{}", name.cluster, name.id);
                tell(global, || format!("deleted {label}"), || json!({ "nodepool": label }))
            }
        }
    })
}

fn tell_nodepool(global: &GlobalArgs, nodepool: api::Nodepool) -> anyhow::Result<()> {
    let cluster = nodepool.compute_cluster.unwrap_or_default().id;
    let label = format!("{cluster}/{}", nodepool.id);
    let instance = nodepool.instance_types.into_iter().next().unwrap_or_default();
    let has = instance.compute_info.unwrap_or_default();
    let (cpus, memory, count) = (has.cpu_limit, has.cpu_memory, nodepool.max_instances);
    tell(
        global,
        || format!("{label}  {count} of {cpus} CPU and {memory}"),
        || json!({ "nodepool": label, "instances": count, "cpu_limit": cpus, "cpu_memory": memory }),
    )
}

pub(super) fn deployments(args: &DeploymentsArgs, global: &GlobalArgs) -> anyhow::Result<()> {
    block_on(async {
        let mut client = Client::connect(global).await?;
        match &args.command {
            DeploymentsCommand::List => {
                for page in 1.. {
                    let request = api::ListDeploymentsRequest {
                        page,
                        per_page: PER_PAGE,
                        ..Default::default()
                    };
                    let found = asked!(client, "list deployments", list_deployments, request);
                    if found.deployments.is_empty() {
                        break;
                    }
                    for found in found.deployments {
                        tell_deployment(global, found)?;
                    }
                }
                Ok(())
            }
            DeploymentsCommand::Create { id, model, nodepool, scale } => {
                let version = (!model.version.is_empty())
                    .then(|| api::ModelVersion { id: model.version.clone(), ..Default::default() });
                let deployed = api::Model {
                    id: model.name.id().to_owned(),
                    user_id: model.name.user_id().to_owned(),
                    app_id: model.name.app_id().to_owned(),
                    model_version: version,
                    ..Default::default()
                };
                let deployment = api::Deployment {
                    id: id.clone(),
                    autoscale_config: Some(scale.config()),
                    nodepools: vec![nodepool.message()],
                    worker: Some(api::Worker {
                        worker: Some(api::worker::Worker::Model(deployed)),
                    }),
                    ..Default::default()
                };
                let request = api::PostDeploymentsRequest {
                    deployments: vec![deployment],
                    ..Default::default()
                };
                let made = asked!(client, "deploy the model", post_deployments, request);
                made.deployments.into_iter().try_for_each(|made| tell_deployment(global, made))
            }
            DeploymentsCommand::Scale { id, scale } => {
                let deployment = api::Deployment {
                    id: id.clone(),
                    autoscale_config: Some(scale.config()),
                    ..Default::default()
                };
                let request = api::PatchDeploymentsRequest {
                    deployments: vec![deployment],
                    action: "merge".to_owned(),
                    ..Default::default()
                };
                let done = asked!(client, "change the deployment", patch_deployments, request);
                done.deployments.into_iter().try_for_each(|done| tell_deployment(global, done))
            }
            DeploymentsCommand::Delete { id } => {
                let ids = vec![id.clone()];
                let request = api::DeleteDeploymentsRequest { ids, ..Default::default() };
                asked!(client, "delete the deployment", delete_deployments, request);
                tell(global, || format!("deleted {id}"), || json!({ "deployment": id }))
            }
        }
    })
}

fn tell_deployment(global: &GlobalArgs, deployment: api::Deployment) -> anyhow::Result<()> {
    let model = match deployment.worker.and_then(|worker| worker.worker) {
        Some(api::worker::Worker::Model(model)) => model,
        None => api::Model::default(),
    };
    let version = model.model_version.map(|version| format!("@{}", version.id));
    let model =
        format!("{}/{}/{}{}", model.user_id, model.app_id, model.id, version.unwrap_or_default());
    let nodepool = deployment.nodepools.into_iter().next().unwrap_or_default();
    let nodepool = format!("{}/{}", nodepool.compute_cluster.unwrap_or_default().id, nodepool.id);
    let scale = deployment.autoscale_config.unwrap_or_default();
    let (min, max) = (scale.min_replicas, scale.max_replicas);
    let id = deployment.id;
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
