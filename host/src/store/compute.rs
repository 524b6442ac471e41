//! Compute clusters, nodepools and deployments.

use super::rows::{ClusterRow, DeploymentRow, NodepoolRow};
use super::{Store, StoreError, record};

/// Rows come in the order of their key, so by name.
const OF_USER: &str = "WHERE user_id=?1";

impl Store {
    /// Every compute cluster.
    pub fn clusters(&self) -> Result<Vec<ClusterRow>, StoreError> {
        self.read(|connection| record::select(connection, "", []))
    }

    /// Every nodepool.
    pub fn nodepools(&self) -> Result<Vec<NodepoolRow>, StoreError> {
        self.read(|connection| record::select(connection, "", []))
    }

    /// Every deployment.
    pub fn deployments(&self) -> Result<Vec<DeploymentRow>, StoreError> {
        self.read(|connection| record::select(connection, "", []))
    }

    /// A user's compute clusters, in the order of names.
    pub fn clusters_of(&self, user_id: &str) -> Result<Vec<ClusterRow>, StoreError> {
        self.read(|connection| record::select(connection, OF_USER, [user_id]))
    }

    /// A user's nodepools, in the order of names.
    pub fn nodepools_of(&self, user_id: &str) -> Result<Vec<NodepoolRow>, StoreError> {
        self.read(|connection| record::select(connection, OF_USER, [user_id]))
    }

    /// A user's deployments, in the order of names.
    pub fn deployments_of(&self, user_id: &str) -> Result<Vec<DeploymentRow>, StoreError> {
        self.read(|connection| record::select(connection, OF_USER, [user_id]))
    }

    /// Adds a compute cluster, or replaces the one of that name.
    pub fn put_cluster(&self, cluster: &ClusterRow) -> Result<(), StoreError> {
        self.write(|transaction| Ok(record::put(transaction, cluster)?))
    }

    /// Adds a nodepool, or replaces the one of that name.
    pub fn put_nodepool(&self, nodepool: &NodepoolRow) -> Result<(), StoreError> {
        self.write(|transaction| Ok(record::put(transaction, nodepool)?))
    }

    /// Adds a deployment, or replaces the one of that name.
    pub fn put_deployment(&self, deployment: &DeploymentRow) -> Result<(), StoreError> {
        self.write(|transaction| Ok(record::put(transaction, deployment)?))
    }

    /// Deletes a compute cluster that has no nodepools.
    pub fn delete_cluster(&self, user_id: &str, id: &str) -> Result<(), StoreError> {
        self.delete("DELETE FROM clusters WHERE user_id=?1 AND id=?2", &[user_id, id], || {
            format!("compute cluster {id}")
        })
    }

    /// Deletes a nodepool.
    pub fn delete_nodepool(
        &self,
        user_id: &str,
        cluster_id: &str,
        id: &str,
    ) -> Result<(), StoreError> {
        self.delete(
            "DELETE FROM nodepools WHERE user_id=?1 AND cluster_id=?2 AND id=?3",
            &[user_id, cluster_id, id],
            || format!("nodepool {id}"),
        )
    }

    /// Deletes a deployment.
    pub fn delete_deployment(&self, user_id: &str, id: &str) -> Result<(), StoreError> {
        self.delete("DELETE FROM deployments WHERE user_id=?1 AND id=?2", &[user_id, id], || {
            format!("deployment {id}")
        })
    }

    fn delete(
        &self,
        statement: &str,
        key: &[&str],
        what: impl FnOnce() -> String,
    ) -> Result<(), StoreError> {
        self.write(|transaction| {
            let deleted = transaction.execute(statement, rusqlite::params_from_iter(key))?;
            if deleted == 0 { Err(StoreError::Absent { what: what() }.into()) } else { Ok(()) }
        })
    }
}
