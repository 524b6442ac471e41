//! Compute clusters and nodepools: made, changed and deleted here and in the
//! store together.

use super::capacity::PoolName;
use super::checks::{CLUSTERS_MAX, NODEPOOLS_MAX};
use super::details::{self, ClusterDetail, DeploymentDetail, NodepoolDetail};
use super::error::{ComputeError, Resource};
use super::{CLUSTER_LOCAL, Deployments};
use crate::devices::NoDevice;
use crate::limits::{Accelerators, limit};
use crate::store::{ClusterRow, DeploymentRow, NodepoolRow, StoreError, now};
use std::sync::{MutexGuard, PoisonError};

impl ClusterRow {
    /// What its owner says of it.
    pub fn said(&self) -> ClusterDetail {
        details::read(&self.detail, &self.id)
    }
}

impl NodepoolRow {
    /// What it is.
    pub fn said(&self) -> NodepoolDetail {
        details::read(&self.detail, &self.id)
    }

    fn name(&self) -> PoolName {
        PoolName {
            user_id: self.user_id.clone(),
            cluster_id: self.cluster_id.clone(),
            id: self.id.clone(),
        }
    }
}

impl DeploymentRow {
    /// What it is.
    pub fn said(&self) -> DeploymentDetail {
        details::read(&self.detail, &self.id)
    }
}

impl Deployments {
    /// Reads nodepools and deployments from the store.
    pub(super) fn read_compute(&self) -> Result<(), StoreError> {
        let store = self.loader.store();
        for cluster in store.clusters()? {
            details::check::<ClusterDetail>(&cluster.detail, &cluster.id, store)?;
        }
        for nodepool in store.nodepools()? {
            details::check::<NodepoolDetail>(&nodepool.detail, &nodepool.id, store)?;
            self.pools.put(nodepool.name(), nodepool.said().amount());
        }
        for row in store.deployments()? {
            details::check::<DeploymentDetail>(&row.detail, &row.id, store)?;
            match self.pools.find(&row.user_id, &row.cluster_id, &row.nodepool_id) {
                Some(pool) => self.place(&row, &row.said(), pool),
                None => tracing::error!(
                    deployment = row.id,
                    nodepool = row.nodepool_id,
                    "a deployment is on a nodepool that is not there; delete it"
                ),
            }
        }
        Ok(())
    }

    /// A user's compute clusters, in the order of names.
    pub fn clusters(&self, user_id: &str) -> Result<Vec<ClusterRow>, ComputeError> {
        Ok(self.loader.store().clusters_of(user_id)?)
    }

    /// A user's nodepools, in the order of clusters and names.
    pub fn nodepools(&self, user_id: &str) -> Result<Vec<NodepoolRow>, ComputeError> {
        Ok(self.loader.store().nodepools_of(user_id)?)
    }

    /// A user's deployments, in the order of names.
    pub fn deployments(&self, user_id: &str) -> Result<Vec<DeploymentRow>, ComputeError> {
        Ok(self.loader.store().deployments_of(user_id)?)
    }

    /// A user's compute cluster.
    pub fn cluster(&self, user_id: &str, id: &str) -> Result<ClusterRow, ComputeError> {
        let found = self.clusters(user_id)?.into_iter().find(|row| row.id == id);
        found.ok_or_else(|| Resource::Cluster.absent(id))
    }

    /// A user's nodepool.
    pub fn nodepool(
        &self,
        user_id: &str,
        cluster_id: &str,
        id: &str,
    ) -> Result<NodepoolRow, ComputeError> {
        let is_it = |row: &NodepoolRow| row.cluster_id == cluster_id && row.id == id;
        let found = self.nodepools(user_id)?.into_iter().find(is_it);
        found.ok_or_else(|| Resource::Nodepool.absent(format!("{cluster_id}/{id}")))
    }

    /// A user's deployment.
    pub fn deployment(&self, user_id: &str, id: &str) -> Result<DeploymentRow, ComputeError> {
        let found = self.deployments(user_id)?.into_iter().find(|row| row.id == id);
        found.ok_or_else(|| Resource::Deployment.absent(id))
    }

    /// Makes a compute cluster.
    pub fn make_cluster(
        &self,
        user_id: &str,
        id: &str,
        said: &ClusterDetail,
    ) -> Result<ClusterRow, ComputeError> {
        let _alone = self.alone();
        let kind = Resource::Cluster;
        kind.check_name(id)?;
        let there = self.clusters(user_id)?;
        if id == CLUSTER_LOCAL || there.iter().any(|row| row.id == id) {
            return Err(kind.invalid(format!("there is a compute cluster {id} already")));
        }
        kind.check_count(there.len(), limit("clusters", CLUSTERS_MAX))?;
        let (user_id, id) = (user_id.to_owned(), id.to_owned());
        self.put_cluster(ClusterRow { user_id, id, created_at: now(), detail: String::new() }, said)
    }

    /// Changes what is said of a compute cluster.
    pub fn change_cluster(
        &self,
        user_id: &str,
        id: &str,
        said: &ClusterDetail,
    ) -> Result<ClusterRow, ComputeError> {
        let _alone = self.alone();
        let there = self.cluster(user_id, id)?;
        self.put_cluster(there, said)
    }

    fn put_cluster(
        &self,
        row: ClusterRow,
        said: &ClusterDetail,
    ) -> Result<ClusterRow, ComputeError> {
        said.check()?;
        let row = ClusterRow { detail: details::written(said), ..row };
        self.loader.store().put_cluster(&row)?;
        Ok(row)
    }

    /// Deletes a compute cluster that has no nodepools.
    pub fn delete_cluster(&self, user_id: &str, id: &str) -> Result<(), ComputeError> {
        let _alone = self.alone();
        if id == CLUSTER_LOCAL {
            return Err(Resource::Cluster.invalid("compute cluster local is the machine; it stays"));
        }
        self.cluster(user_id, id)?;
        let used = self.nodepools(user_id)?.into_iter().find(|row| row.cluster_id == id);
        if let Some(used) = used {
            let problem =
                format!("compute cluster {id} has nodepool {}; delete that first", used.id);
            return Err(Resource::Cluster.invalid(problem));
        }
        Ok(self.loader.store().delete_cluster(user_id, id)?)
    }

    /// Makes a nodepool: a part of the machine.
    pub fn make_nodepool(
        &self,
        user_id: &str,
        cluster_id: &str,
        id: &str,
        said: &NodepoolDetail,
    ) -> Result<NodepoolRow, ComputeError> {
        let _alone = self.alone();
        let kind = Resource::Nodepool;
        kind.check_name(id)?;
        if cluster_id == CLUSTER_LOCAL {
            let problem = "compute cluster local is the machine as it is; make one of your own";
            return Err(kind.invalid(problem));
        }
        self.cluster(user_id, cluster_id)?;
        let there = self.nodepools(user_id)?;
        if there.iter().any(|row| row.cluster_id == cluster_id && row.id == id) {
            return Err(kind.invalid(format!("there is a nodepool {cluster_id}/{id} already")));
        }
        kind.check_count(there.len(), limit("nodepools", NODEPOOLS_MAX))?;
        let row = NodepoolRow {
            user_id: user_id.to_owned(),
            cluster_id: cluster_id.to_owned(),
            id: id.to_owned(),
            created_at: now(),
            detail: String::new(),
        };
        self.put_nodepool(row, said)
    }

    /// Changes a nodepool. What is reserved in it stays.
    pub fn change_nodepool(
        &self,
        user_id: &str,
        cluster_id: &str,
        id: &str,
        said: &NodepoolDetail,
    ) -> Result<NodepoolRow, ComputeError> {
        let _alone = self.alone();
        let there = self.nodepool(user_id, cluster_id, id)?;
        self.put_nodepool(there, said)
    }

    fn put_nodepool(
        &self,
        row: NodepoolRow,
        said: &NodepoolDetail,
    ) -> Result<NodepoolRow, ComputeError> {
        said.check(self.pools.machine().has())?;
        let absent = |none: NoDevice| Resource::Nodepool.invalid(format!("compute_info: {none}"));
        let count = said.amount().accelerators;
        let asked = Accelerators { count, ..said.accelerators.clone() };
        self.loader.devices().check(&asked).map_err(absent)?;
        let row = NodepoolRow { detail: details::written(said), ..row };
        self.loader.store().put_nodepool(&row)?;
        self.pools.put(row.name(), said.amount());
        Ok(row)
    }

    /// Deletes a nodepool that has no deployments.
    pub fn delete_nodepool(
        &self,
        user_id: &str,
        cluster_id: &str,
        id: &str,
    ) -> Result<(), ComputeError> {
        let _alone = self.alone();
        if cluster_id == CLUSTER_LOCAL {
            return Err(
                Resource::Nodepool.invalid("nodepool local/default is the machine; it stays")
            );
        }
        let row = self.nodepool(user_id, cluster_id, id)?;
        let is_there = |row: &DeploymentRow| row.cluster_id == cluster_id && row.nodepool_id == id;
        if let Some(used) = self.deployments(user_id)?.into_iter().find(is_there) {
            let problem = format!("nodepool {id} has deployment {}; delete that first", used.id);
            return Err(Resource::Nodepool.invalid(problem));
        }
        self.loader.store().delete_nodepool(user_id, cluster_id, id)?;
        self.pools.remove(&row.name());
        Ok(())
    }

    pub(super) fn alone(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "compute_tests.rs"]
mod tests;
