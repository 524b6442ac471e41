//! `ringfence clusters`, `nodepools` and `deployments`: where models run.

pub(super) mod clusters;
pub(super) mod deployments;
pub(super) mod nodepools;

use crate::proto::clarifai::api;
use clap::Args;
use std::str::FromStr;

/// Items that are asked for at once.
const PER_PAGE: u32 = 100;

/// What is sent replaces what there is, and what is not sent stays.
const MERGE: &str = "merge";

/// Whose resources a command is about.
#[derive(Debug, Args)]
struct OwnerArgs {
    /// Whose they are; yours where absent. Those of others are the operator's alone to see
    #[arg(long, global = true)]
    user: Option<String>,
}

impl OwnerArgs {
    fn set(&self) -> Option<api::UserAppIdSet> {
        let user_id = self.user.clone()?;
        Some(api::UserAppIdSet { user_id, ..Default::default() })
    }
}

/// A nodepool as it is written on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
struct PoolRef {
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
        $client.check_plainly($what, answer.status.as_ref())?;
        answer
    }};
}
use asked;
