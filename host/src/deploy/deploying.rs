//! Deployments: made, changed and ended here and in the store together, where
//! their replicas fit.

use super::Deployments;
use super::capacity::{Amount, Pool};
use super::checks::DEPLOYMENTS_MAX;
use super::details::{self, DeploymentDetail};
use super::error::{ComputeError, Resource, StartError};
use super::group::MakeRoom;
use super::placement::Placement;
use super::table::Model;
use super::version::Version;
use crate::auth::{Caller, Scope};
use crate::limits::limit;
use crate::store::{DeploymentRow, now};
use std::sync::Arc;

/// The part of the machine that the replicas of one user that always run may
/// take, unless the operator deploys them: one in so many.
const ALWAYS_ON_SHARE: u32 = 2;

impl Deployments {
    /// Deploys a model of the row's user. The times of the row are not read.
    pub fn deploy(
        &self,
        caller: &Caller,
        row: DeploymentRow,
        said: &DeploymentDetail,
    ) -> Result<DeploymentRow, ComputeError> {
        let _alone = self.alone();
        let kind = Resource::Deployment;
        let there = self.deployments(&row.user_id)?;
        if there.iter().any(|there| there.id == row.id) {
            return Err(kind.invalid(format!("there is a deployment {} already", row.id)));
        }
        kind.check_name(&row.id)?;
        kind.check_count(there.len(), limit("deployments", DEPLOYMENTS_MAX))?;
        self.put_deployment(caller, DeploymentRow { created_at: now(), ..row }, said, None)
    }

    /// Changes what a deployment deploys, and where and how. The times of the row
    /// are not read.
    pub fn change_deployment(
        &self,
        caller: &Caller,
        row: DeploymentRow,
        said: &DeploymentDetail,
    ) -> Result<DeploymentRow, ComputeError> {
        let _alone = self.alone();
        let before = self.deployment(&row.user_id, &row.id)?;
        let row = DeploymentRow { created_at: before.created_at, ..row };
        self.put_deployment(caller, row, said, Some(&before))
    }

    fn put_deployment(
        &self,
        caller: &Caller,
        row: DeploymentRow,
        said: &DeploymentDetail,
        before: Option<&DeploymentRow>,
    ) -> Result<DeploymentRow, ComputeError> {
        said.check()?;
        let said = DeploymentDetail { by_operator: caller.may(Scope::Admin), ..said.clone() };
        let row = DeploymentRow { modified_at: now(), detail: details::written(&said), ..row };
        let pool = self.pools.find(&row.user_id, &row.cluster_id, &row.nodepool_id);
        let pool = pool.ok_or_else(|| {
            Resource::Nodepool.absent(format!("{}/{}", row.cluster_id, row.nodepool_id))
        })?;
        let model = self.deployable(&row)?;
        let version = match &row.version_id {
            Some(version) => Some(model.version(version).ok_or_else(|| {
                let problem = format!("the model {} has no version {version}", row.model);
                Resource::Deployment.invalid(problem)
            })?),
            None => model.current(),
        };
        let is_less = before.is_some_and(|before| {
            let was = before.said();
            before.version_id == row.version_id
                && before.model == row.model
                && (&before.cluster_id, &before.nodepool_id) == (&row.cluster_id, &row.nodepool_id)
                && said.replicas_min <= was.replicas_min
                && said.replicas_max <= was.replicas_max
        });
        // A nodepool may have become smaller than what is in it.
        if let Some(version) = version.filter(|_| !is_less) {
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
            _ if own && table.has_folder(&row.model) => Err(Resource::Deployment.invalid(
                "the model is served from a folder and runs as it is; start the host without \
                 that folder and upload it to deploy it",
            )),
            Some(model) if own => Ok(model.clone()),
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
        let Amount { cpu_millis, memory_bytes, accelerators } =
            self.pools.machine().has().reservable();
        Amount {
            cpu_millis: limit("always_on_share", cpu_millis / u64::from(ALWAYS_ON_SHARE)),
            memory_bytes: limit("always_on_share", memory_bytes / u64::from(ALWAYS_ON_SHARE)),
            accelerators: accelerators.div_ceil(ALWAYS_ON_SHARE),
        }
    }

    /// What a replica of a version reserves. Reads its configuration the first
    /// time.
    pub(super) fn needs_of(&self, version: &Arc<Version>) -> Result<Amount, StartError> {
        if let Some(needs) = version.needs() {
            return Ok(needs);
        }
        let needs = Amount::of(&self.loader.read_config(&version.name, &version.version)?);
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
    pub(super) fn place(&self, row: &DeploymentRow, said: &DeploymentDetail, pool: Arc<Pool>) {
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
}
