//! `ringfence nodepools`.

use super::{MERGE, OwnerArgs, PER_PAGE, PoolRef, asked};
use crate::cli::GlobalArgs;
use crate::cli::client::{Client, block_on};
use crate::cli::operations::tell;
use crate::limits::accelerators_text;
use crate::proto::clarifai::api;
use clap::{Args, Subcommand};
use serde_json::json;

/// `nodepools`
#[derive(Debug, Args)]
pub(crate) struct NodepoolsArgs {
    #[command(flatten)]
    owner: OwnerArgs,
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
    /// Show a nodepool
    Get {
        /// CLUSTER/NODEPOOL
        name: PoolRef,
    },
    /// Make a nodepool: a part of the machine
    Create {
        /// CLUSTER/NODEPOOL
        name: PoolRef,
        #[command(flatten)]
        has: HasArgs,
    },
    /// Change what a nodepool has
    Update {
        /// CLUSTER/NODEPOOL
        name: PoolRef,
        #[command(flatten)]
        has: HasArgs,
    },
    /// Delete a nodepool that has no deployments
    Delete {
        /// CLUSTER/NODEPOOL
        name: PoolRef,
    },
}

#[derive(Debug, Args)]
struct HasArgs {
    /// CPUs, such as 2 or 500m; where absent those of the machine, or as before
    #[arg(long, default_value = "")]
    cpu_limit: String,
    /// Memory, such as 4Gi; where absent that of the machine, or as before
    #[arg(long, default_value = "")]
    cpu_memory: String,
    /// Accelerators of the machine; where absent none, or as before
    #[arg(long, default_value_t = 0)]
    num_accelerators: u32,
    /// Pattern for their names, such as NVIDIA-*; may be given several times
    #[arg(long)]
    accelerator_type: Vec<String>,
    /// Memory of each, such as 18Gi
    #[arg(long, default_value = "")]
    accelerator_memory: String,
}

impl HasArgs {
    fn nodepool(&self, name: &PoolRef) -> api::Nodepool {
        let has = api::ComputeInfo {
            cpu_limit: self.cpu_limit.clone(),
            cpu_memory: self.cpu_memory.clone(),
            num_accelerators: self.num_accelerators,
            accelerator_type: self.accelerator_type.clone(),
            accelerator_memory: self.accelerator_memory.clone(),
            ..Default::default()
        };
        let (id, compute_info) = ("local".to_owned(), Some(has));
        let instance = api::InstanceType { id, compute_info, ..Default::default() };
        api::Nodepool { instance_types: vec![instance], ..name.message() }
    }
}

pub(in crate::cli) fn run(args: &NodepoolsArgs, global: &GlobalArgs) -> anyhow::Result<()> {
    block_on(async {
        let mut client = Client::connect(global).await?;
        let user_app_id = args.owner.set();
        match &args.command {
            NodepoolsCommand::List { cluster } => list(&mut client, args, cluster, global).await,
            NodepoolsCommand::Get { name } => {
                let request = api::GetNodepoolRequest {
                    user_app_id,
                    compute_cluster_id: name.cluster.clone(),
                    nodepool_id: name.id.clone(),
                };
                let found = asked!(client, "show the nodepool", get_nodepool, request);
                show(global, found.nodepool.unwrap_or_default())
            }
            NodepoolsCommand::Create { name, has } => {
                let nodepool =
                    api::Nodepool { min_instances: 1, max_instances: 1, ..has.nodepool(name) };
                let request = api::PostNodepoolsRequest {
                    user_app_id,
                    compute_cluster_id: name.cluster.clone(),
                    nodepools: vec![nodepool],
                };
                let made = asked!(client, "make the nodepool", post_nodepools, request);
                made.nodepools.into_iter().try_for_each(|made| show(global, made))
            }
            NodepoolsCommand::Update { name, has } => {
                let request = api::PatchNodepoolsRequest {
                    user_app_id,
                    compute_cluster_id: name.cluster.clone(),
                    nodepools: vec![has.nodepool(name)],
                    action: MERGE.to_owned(),
                };
                let done = asked!(client, "change the nodepool", patch_nodepools, request);
                done.nodepools.into_iter().try_for_each(|done| show(global, done))
            }
            NodepoolsCommand::Delete { name } => {
                let request = api::DeleteNodepoolsRequest {
                    user_app_id,
                    compute_cluster_id: name.cluster.clone(),
                    ids: vec![name.id.clone()],
                };
                asked!(client, "delete the nodepool", delete_nodepools, request);
                let label = format!("{}/{}", name.cluster, name.id);
                tell(global, || format!("deleted {label}"), || json!({ "nodepool": label }))
            }
        }
    })
}

async fn list(
    client: &mut Client,
    args: &NodepoolsArgs,
    cluster: &str,
    global: &GlobalArgs,
) -> anyhow::Result<()> {
    for page in 1.. {
        let request = api::ListNodepoolsRequest {
            user_app_id: args.owner.set(),
            compute_cluster_id: cluster.to_owned(),
            page,
            per_page: PER_PAGE,
        };
        let found = asked!(client, "list nodepools", list_nodepools, request);
        if found.nodepools.is_empty() {
            break;
        }
        found.nodepools.into_iter().try_for_each(|found| show(global, found))?;
    }
    Ok(())
}

fn show(global: &GlobalArgs, nodepool: api::Nodepool) -> anyhow::Result<()> {
    let cluster = nodepool.compute_cluster.unwrap_or_default().id;
    let label = format!("{cluster}/{}", nodepool.id);
    let instance = nodepool.instance_types.into_iter().next().unwrap_or_default();
    let has = instance.compute_info.unwrap_or_default();
    let (cpus, memory, count) = (has.cpu_limit, has.cpu_memory, nodepool.max_instances);
    let accelerators = has.num_accelerators;
    let one = match accelerators {
        0 => format!("{cpus} CPU and {memory}"),
        count => format!("{cpus} CPU, {memory} and {}", accelerators_text(count)),
    };
    let line = || match count {
        1 => format!("{label}  {one}"),
        _ => format!("{label}  {count} times {one}"),
    };
    tell(global, line, || {
        json!({
            "nodepool": label, "instances": count, "cpu_limit": cpus, "cpu_memory": memory,
            "num_accelerators": accelerators,
        })
    })
}
