//! `ringfence clusters`.

use super::{MERGE, OwnerArgs, PER_PAGE, asked};
use crate::cli::GlobalArgs;
use crate::cli::client::{Client, block_on};
use crate::cli::operations::tell;
use crate::proto::clarifai::api;
use clap::{Args, Subcommand};
use serde_json::json;

/// `clusters`
#[derive(Debug, Args)]
pub(crate) struct ClustersArgs {
    #[command(flatten)]
    owner: OwnerArgs,
    #[command(subcommand)]
    command: ClustersCommand,
}

#[derive(Debug, Subcommand)]
enum ClustersCommand {
    /// List your compute clusters; `local` is the machine that the host runs on
    List,
    /// Show a compute cluster
    Get {
        /// Its name
        id: String,
    },
    /// Make a compute cluster, to put nodepools in
    Create {
        /// Its name
        id: String,
        /// For people
        #[arg(long, default_value = "")]
        description: String,
    },
    /// Say something else of a compute cluster
    Update {
        /// Its name
        id: String,
        /// For people
        #[arg(long)]
        description: String,
    },
    /// Delete a compute cluster that has no nodepools
    Delete {
        /// Its name
        id: String,
    },
}

pub(in crate::cli) fn run(args: &ClustersArgs, global: &GlobalArgs) -> anyhow::Result<()> {
    block_on(async {
        let mut client = Client::connect(global).await?;
        let user_app_id = args.owner.set();
        match &args.command {
            ClustersCommand::List => list(&mut client, args, global).await,
            ClustersCommand::Get { id } => {
                let compute_cluster_id = id.clone();
                let request = api::GetComputeClusterRequest { user_app_id, compute_cluster_id };
                let found = asked!(client, "show the cluster", get_compute_cluster, request);
                show(global, found.compute_cluster.unwrap_or_default())
            }
            ClustersCommand::Create { id, description } => {
                let compute_clusters = vec![message(id, description)];
                let request = api::PostComputeClustersRequest { user_app_id, compute_clusters };
                let made = asked!(client, "make the cluster", post_compute_clusters, request);
                made.compute_clusters.into_iter().try_for_each(|made| show(global, made))
            }
            ClustersCommand::Update { id, description } => {
                let compute_clusters = vec![message(id, description)];
                let action = MERGE.to_owned();
                let request =
                    api::PatchComputeClustersRequest { user_app_id, compute_clusters, action };
                let done = asked!(client, "change the cluster", patch_compute_clusters, request);
                done.compute_clusters.into_iter().try_for_each(|done| show(global, done))
            }
            ClustersCommand::Delete { id } => {
                let ids = vec![id.clone()];
                let request = api::DeleteComputeClustersRequest { user_app_id, ids };
                asked!(client, "delete the cluster", delete_compute_clusters, request);
                tell(global, || format!("deleted {id}"), || json!({ "cluster": id }))
            }
        }
    })
}

async fn list(client: &mut Client, args: &ClustersArgs, global: &GlobalArgs) -> anyhow::Result<()> {
    for page in 1.. {
        let user_app_id = args.owner.set();
        let request = api::ListComputeClustersRequest { user_app_id, page, per_page: PER_PAGE };
        let found = asked!(client, "list clusters", list_compute_clusters, request);
        if found.compute_clusters.is_empty() {
            break;
        }
        found.compute_clusters.into_iter().try_for_each(|found| show(global, found))?;
    }
    Ok(())
}

fn message(id: &str, description: &str) -> api::ComputeCluster {
    let (id, description) = (id.to_owned(), description.to_owned());
    api::ComputeCluster { id, description, ..Default::default() }
}

fn show(global: &GlobalArgs, cluster: api::ComputeCluster) -> anyhow::Result<()> {
    let (id, said) = (cluster.id, cluster.description);
    let line = || format!("{id}  {said}").trim_end().to_owned();
    tell(global, line, || json!({ "cluster": id, "description": said }))
}
