//! Compute clusters, nodepools and deployments: made, changed and deleted here
//! and in the store together.

use super::capacity::{Amount, Full, Pool, PoolName};
use super::details::{self, ClusterDetail, DeploymentDetail, NodepoolDetail};
use super::group::MakeRoom;
use super::loader::StartError;
use super::placement::Placement;
use super::table::Model;
use super::version::Version;
use super::{CLUSTER_LOCAL, Deployments};
use crate::auth::{Caller, Scope};
use crate::package::config::ModelName;
use crate::store::{ClusterRow, DeploymentRow, NodepoolRow, StoreError, now};
use std::sync::{Arc, MutexGuard, PoisonError};

/// Of each user, at most.
const CLUSTERS_MAX: usize = 16;
const NODEPOOLS_MAX: usize = 64;
const DEPLOYMENTS_MAX: usize = 256;

/// Replicas of a deployment, at most.
const REPLICAS_MAX: u32 = 64;

/// Longest delay of a deployment: a week.
const DELAY_SECONDS_MAX: u32 = 7 * 24 * 3600;

/// Instances of a nodepool, at most.
const INSTANCES_MAX: u32 = 1024;

/// The part of the machine that the replicas of one user that always run may
/// take, unless the operator deploys them: one in so many.
const ALWAYS_ON_SHARE: u64 = 2;

/// Longest text that an owner says of something.
const TEXT_BYTES_MAX: usize = 1024;

/// What something is that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// A compute cluster.
    Cluster,
    /// A nodepool.
    Nodepool,
    /// A deployment.
    Deployment,
}

/// Why something cannot be done with compute resources.
#[derive(Debug, thiserror::Error)]
pub enum ComputeError {
    /// It is not there, or not the caller's to see.
    #[error("there is no {} {id}", .kind.as_str())]
    Absent {
        /// What it is.
        kind: Resource,
        /// Its name.
        id: String,
    },
    /// It cannot be so.
    #[error("{problem}")]
    Invalid {
        /// What it is about.
        kind: Resource,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// It does not fit.
    #[error(transparent)]
    Full(#[from] Full),
    /// The version cannot be read back.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The store fails.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Resource {
    /// Its name in a sentence.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cluster => "compute cluster",
            Self::Nodepool => "nodepool",
            Self::Deployment => "deployment",
        }
    }

    /// It is not there.
    pub fn absent(self, id: impl Into<String>) -> ComputeError {
        ComputeError::Absent { kind: self, id: id.into() }
    }

    /// It cannot be so.
    pub fn invalid(self, problem: impl Into<String>) -> ComputeError {
        ComputeError::Invalid { kind: self, problem: problem.into() }
    }

    fn check_count(self, there: usize, max: usize) -> Result<(), ComputeError> {
        match there < max {
            true => Ok(()),
            false => Err(self.invalid(format!(
                "a user has at most {max} of these ({}s); delete one that is not needed",
                self.as_str()
            ))),
        }
    }

    /// Whether there can be one of this name.
    fn check_name(self, id: &str) -> Result<(), ComputeError> {
        let checked = ModelName::new(ModelName::USER_DEFAULT, id, ModelName::APP_DEFAULT);
        checked
            .map(drop)
            .map_err(|error| self.invalid(format!("the {} {id:?} {error}", self.as_str())))
    }

    fn check_texts(self, texts: &[&str]) -> Result<(), ComputeError> {
        match texts.iter().all(|text| text.len() <= TEXT_BYTES_MAX) {
            true => Ok(()),
            false => Err(self.invalid(format!("its texts have at most {TEXT_BYTES_MAX} bytes"))),
        }
    }
}

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
        kind.check_count(there.len(), CLUSTERS_MAX)?;
        self.put_cluster(ClusterRow {
            user_id: user_id.to_owned(),
            id: id.to_owned(),
            created_at: now(),
            detail: checked_cluster(said)?,
        })
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
        self.put_cluster(ClusterRow { detail: checked_cluster(said)?, ..there })
    }

    fn put_cluster(&self, row: ClusterRow) -> Result<ClusterRow, ComputeError> {
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
        kind.check_count(there.len(), NODEPOOLS_MAX)?;
        self.put_nodepool(NodepoolRow {
            user_id: user_id.to_owned(),
            cluster_id: cluster_id.to_owned(),
            id: id.to_owned(),
            created_at: now(),
            detail: self.checked_nodepool(said)?,
        })
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
        self.put_nodepool(NodepoolRow { detail: self.checked_nodepool(said)?, ..there })
    }

    fn put_nodepool(&self, row: NodepoolRow) -> Result<NodepoolRow, ComputeError> {
        self.loader.store().put_nodepool(&row)?;
        self.pools.put(row.name(), row.said().amount());
        Ok(row)
    }

    fn checked_nodepool(&self, said: &NodepoolDetail) -> Result<String, ComputeError> {
        let kind = Resource::Nodepool;
        kind.check_texts(&[&said.description, &said.instance_type])?;
        if said.instances_max == 0 || said.instances_max > INSTANCES_MAX {
            return Err(kind.invalid(format!("max_instances is from 1 to {INSTANCES_MAX}")));
        }
        if said.instances_min > said.instances_max {
            return Err(kind.invalid("min_instances is more than max_instances"));
        }
        if said.capacity_types.len() > 8 {
            return Err(kind.invalid("there are two capacity types: 1 on demand, 2 spot"));
        }
        let (has, machine) = (said.amount(), self.pools.machine().has());
        match has.fits(machine) {
            true => Ok(details::written(said)),
            false => Err(kind.invalid(format!(
                "the nodepool would have {has}, and this machine has {machine}; lower \
                 compute_info or max_instances"
            ))),
        }
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

    /// Deploys a model of the row's user, or changes how it is deployed. The times
    /// of the row are not read.
    pub fn deploy(
        &self,
        caller: &Caller,
        row: DeploymentRow,
        said: &DeploymentDetail,
        is_new: bool,
    ) -> Result<DeploymentRow, ComputeError> {
        let _alone = self.alone();
        let kind = Resource::Deployment;
        let there = self.deployments(&row.user_id)?;
        let before = there.iter().find(|there| there.id == row.id);
        let created_at = match before {
            Some(_) if is_new => {
                return Err(kind.invalid(format!("there is a deployment {} already", row.id)));
            }
            Some(before) => before.created_at,
            None if is_new => {
                kind.check_name(&row.id)?;
                kind.check_count(there.len(), DEPLOYMENTS_MAX)?;
                now()
            }
            None => return Err(kind.absent(&row.id)),
        };
        check_deployment(said)?;
        let modified_at = now();
        let said = DeploymentDetail { by_operator: caller.may(Scope::Admin), ..said.clone() };
        let detail = details::written(&said);
        let row = DeploymentRow { created_at, modified_at, detail, ..row };
        let pool = self.pools.find(&row.user_id, &row.cluster_id, &row.nodepool_id);
        let pool = pool.ok_or_else(|| {
            Resource::Nodepool.absent(format!("{}/{}", row.cluster_id, row.nodepool_id))
        })?;
        let model = self.deployable(&row)?;
        let version = match &row.version_id {
            Some(version) => Some(model.version(version).ok_or_else(|| {
                kind.invalid(format!("the model {} has no version {version}", row.model))
            })?),
            None => model.current(),
        };
        if let Some(version) = version {
            let has_now = before.map(|before| self.reserved_by(before, &pool));
            self.check_room(&row, &said, version, &pool, has_now.unwrap_or_default())?;
        }
        self.loader.store().put_deployment(&row)?;
        self.place(&row, &said, pool);
        self.keep();
        Ok(row)
    }

    fn deployable(&self, row: &DeploymentRow) -> Result<Arc<Model>, ComputeError> {
        let table = self.read();
        // What is not the user's own is not there.
        let own = row.model.user_id() == row.user_id;
        match table.stored(&row.model) {
            Some(model) if own => Ok(model.clone()),
            None if own && table.has_folder(&row.model) => Err(Resource::Deployment.invalid(
                "the model is served from a folder and runs as it is; upload it to deploy it",
            )),
            _ => Err(Resource::Deployment.invalid(format!(
                "there is no model {}; a user deploys models of its own",
                row.model
            ))),
        }
    }

    /// Whether a replica fits at all, and those that always run fit now.
    fn check_room(
        &self,
        row: &DeploymentRow,
        said: &DeploymentDetail,
        version: &Arc<Version>,
        pool: &Arc<Pool>,
        has_now: Amount,
    ) -> Result<(), ComputeError> {
        let needs = self.needs_of(version)?;
        if let Err(full) = pool.fits(needs)
            && full.is_for_ever()
        {
            return Err(full.into());
        }
        let more = needs.times(said.replicas_min).minus(has_now);
        if said.replicas_min > 0
            && let Err(full) = pool.fits(more)
            && !self.make_room(pool, &full)
        {
            return Err(full.into());
        }
        if said.replicas_min == 0 || said.by_operator {
            return Ok(());
        }
        let mut always = needs.times(said.replicas_min);
        for other in self.deployments(&row.user_id)? {
            let DeploymentDetail { replicas_min, by_operator, .. } = other.said();
            if other.id == row.id || replicas_min == 0 || by_operator {
                continue;
            }
            let model = self.read().stored(&other.model).cloned();
            let served =
                model.as_ref().and_then(|model| model.serving(other.version_id.as_deref()));
            if let Some(version) = served {
                always = always.plus(self.needs_of(version)?.times(replicas_min));
            }
        }
        let share = self.always_on_share();
        match always.fits(share) {
            true => Ok(()),
            false => Err(Resource::Deployment.invalid(format!(
                "replicas of one user that always run may take {share} of this machine, and these \
                 would take {always}; lower min_replicas, or let the operator deploy it"
            ))),
        }
    }

    /// What a deployment that was made has reserved of a nodepool by now.
    fn reserved_by(&self, row: &DeploymentRow, pool: &Arc<Pool>) -> Amount {
        let Some(model) = self.read().stored(&row.model).cloned() else {
            return Amount::default();
        };
        let placement = model.placement(&row.id).filter(|there| Arc::ptr_eq(&there.pool, pool));
        let Some(placement) = placement else { return Amount::default() };
        let of_versions = model
            .versions
            .iter()
            .map(|version| version.needs().unwrap_or_default().times(version.count_in(placement)));
        of_versions.fold(placement.reserved_ahead(), Amount::plus)
    }

    /// What the replicas of one user that always run may take.
    pub(super) fn always_on_share(&self) -> Amount {
        let Amount { cpu_millis, memory_bytes } = self.pools.machine().has().reservable();
        Amount {
            cpu_millis: cpu_millis / ALWAYS_ON_SHARE,
            memory_bytes: memory_bytes / ALWAYS_ON_SHARE,
        }
    }

    /// What a replica of a version reserves. Reads its files the first time.
    fn needs_of(&self, version: &Arc<Version>) -> Result<Amount, StartError> {
        if let Some(needs) = version.needs() {
            return Ok(needs);
        }
        let package = self.loader.read_back(&version.name, &version.version)?;
        let needs = Amount::of(&package);
        version.set_needs(needs);
        Ok(needs)
    }

    /// The version that a deployment serves now, if its model has one.
    pub fn serves(&self, row: &DeploymentRow) -> Option<String> {
        let table = self.read();
        let model = table.stored(&row.model)?;
        model.serving(row.version_id.as_deref()).map(|version| version.version.clone())
    }

    /// Makes what calls see of a deployment what its row says.
    fn place(&self, row: &DeploymentRow, said: &DeploymentDetail, pool: Arc<Pool>) {
        let mut table = self.write();
        let there = table.stored(&row.model).and_then(|model| model.placement(&row.id).cloned());
        if let Some(there) = &there {
            if there.version == row.version_id
                && there.by_operator == said.by_operator
                && Arc::ptr_eq(&there.pool, &pool)
            {
                there.set_scale(said.scale());
                return;
            }
            there.retire();
        }
        // It may have been of another model.
        for model in table.kept() {
            if model.name.user_id() == row.user_id
                && model.name != row.model
                && let Some(other) = model.placement(&row.id)
            {
                other.retire();
                table.remove_placement(&model.name, &row.id);
            }
        }
        table.put_placement(&row.model, Arc::new(Placement::of(row, said, pool)));
    }

    /// Ends a deployment; its last calls end as they would.
    pub fn undeploy(&self, user_id: &str, id: &str) -> Result<(), ComputeError> {
        let _alone = self.alone();
        let row = self.deployment(user_id, id)?;
        self.loader.store().delete_deployment(user_id, id)?;
        let model = self.read().stored(&row.model).cloned();
        if let Some(placement) = model.as_ref().and_then(|model| model.placement(id)) {
            placement.retire();
        }
        self.write().remove_placement(&row.model, id);
        if let Some(model) = model {
            for version in &model.versions {
                version.stop_retired();
            }
        }
        Ok(())
    }

    pub(super) fn alone(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn checked_cluster(said: &ClusterDetail) -> Result<String, ComputeError> {
    let texts = [
        said.description.as_str(),
        &said.cloud_provider,
        &said.region,
        &said.cluster_type,
        &said.managed_by,
    ];
    Resource::Cluster.check_texts(&texts)?;
    Ok(details::written(said))
}

fn check_deployment(said: &DeploymentDetail) -> Result<(), ComputeError> {
    let kind = Resource::Deployment;
    kind.check_texts(&[&said.description])?;
    if said.replicas_max == 0 || said.replicas_max > REPLICAS_MAX {
        return Err(kind.invalid(format!("max_replicas is from 1 to {REPLICAS_MAX}")));
    }
    if said.replicas_min > said.replicas_max {
        return Err(kind.invalid("min_replicas is more than max_replicas"));
    }
    let delays = [
        said.traffic_history_seconds,
        said.scale_up_delay_seconds,
        said.scale_down_delay_seconds,
        said.scale_to_zero_delay_seconds,
    ];
    match delays.into_iter().all(|delay| delay <= DELAY_SECONDS_MAX) {
        true => Ok(()),
        false => Err(kind.invalid(format!("a delay is at most {DELAY_SECONDS_MAX} seconds"))),
    }
}

#[cfg(test)]
#[path = "compute_tests.rs"]
mod tests;
