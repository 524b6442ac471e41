//! What compute resources can be, and how many there may be.

use super::capacity::Amount;
use super::details::{ClusterDetail, DeploymentDetail, NodepoolDetail};
use super::error::{ComputeError, Resource};
use crate::devices::{PATTERNS_MAX, problem_of_pattern};
use crate::limits::{Accelerators, limit};
use crate::package::config::check_name;

/// Of each user, at most.
pub(super) const CLUSTERS_MAX: usize = 16;
pub(super) const NODEPOOLS_MAX: usize = 64;
pub(super) const DEPLOYMENTS_MAX: usize = 256;

/// Replicas of a deployment, at most.
pub(super) const REPLICAS_MAX: u32 = 64;

/// Longest delay of a deployment: a week.
pub(super) const DELAY_SECONDS_MAX: u32 = 7 * 24 * 3600;

/// Instances of a nodepool, at most.
pub(super) const INSTANCES_MAX: u32 = 1024;

/// Longest text that an owner says of something.
pub(super) const TEXT_BYTES_MAX: usize = 1024;

/// Kinds of capacity that a nodepool names, at most; the protocol has two.
const CAPACITY_TYPES_MAX: usize = 8;

impl Resource {
    /// Whether there can be one more.
    pub(super) fn check_count(self, there: usize, max: usize) -> Result<(), ComputeError> {
        match there < max {
            true => Ok(()),
            false => Err(self.invalid(format!(
                "a user has at most {max} of these ({}s); delete one that is not needed",
                self.as_str()
            ))),
        }
    }

    /// Whether there can be one of this name.
    pub(super) fn check_name(self, id: &str) -> Result<(), ComputeError> {
        check_name(id)
            .map_err(|error| self.invalid(format!("the {} {id:?} {error}", self.as_str())))
    }

    fn check_texts(self, texts: &[&str]) -> Result<(), ComputeError> {
        match texts.iter().all(|text| text.len() <= TEXT_BYTES_MAX) {
            true => Ok(()),
            false => Err(self.invalid(format!("its texts have at most {TEXT_BYTES_MAX} bytes"))),
        }
    }
}

impl ClusterDetail {
    pub(super) fn check(&self) -> Result<(), ComputeError> {
        let texts = [
            self.description.as_str(),
            &self.cloud_provider,
            &self.region,
            &self.cluster_type,
            &self.managed_by,
        ];
        Resource::Cluster.check_texts(&texts)
    }
}

impl NodepoolDetail {
    /// On a machine that has so much.
    pub(super) fn check(&self, machine: Amount) -> Result<(), ComputeError> {
        let kind = Resource::Nodepool;
        kind.check_texts(&[&self.description, &self.instance_type])?;
        if self.instances_max == 0
            || self.instances_max > limit("nodepool_instances", INSTANCES_MAX)
        {
            return Err(kind.invalid(format!("max_instances is from 1 to {INSTANCES_MAX}")));
        }
        if self.instances_min > self.instances_max {
            return Err(kind.invalid("min_instances is more than max_instances"));
        }
        if self.capacity_types.len() > CAPACITY_TYPES_MAX {
            return Err(kind.invalid("there are two capacity types: 1 on demand, 2 spot"));
        }
        let Accelerators { types, topology, .. } = &self.accelerators;
        if types.len().max(topology.len()) > PATTERNS_MAX {
            return Err(kind.invalid(format!(
                "accelerator_type and accelerator_topology have at most {PATTERNS_MAX} each"
            )));
        }
        topology.iter().try_for_each(|name| kind.check_texts(&[name]))?;
        if let Some((name, problem)) =
            types.iter().find_map(|name| problem_of_pattern(name).map(|problem| (name, problem)))
        {
            return Err(kind.invalid(format!("accelerator_type {name:.40?} {problem}")));
        }
        let has = self.amount();
        match has.fits(machine) {
            true => Ok(()),
            false => Err(kind.invalid(format!(
                "the nodepool would have {has}, and this machine has {machine}; lower \
                 compute_info or max_instances"
            ))),
        }
    }
}

impl DeploymentDetail {
    pub(super) fn check(&self) -> Result<(), ComputeError> {
        let kind = Resource::Deployment;
        kind.check_texts(&[&self.description])?;
        if self.replicas_max == 0 || self.replicas_max > limit("replicas", REPLICAS_MAX) {
            return Err(kind.invalid(format!("max_replicas is from 1 to {REPLICAS_MAX}")));
        }
        if self.replicas_min > self.replicas_max {
            return Err(kind.invalid("min_replicas is more than max_replicas"));
        }
        let delays = [
            self.traffic_history_seconds,
            self.scale_up_delay_seconds,
            self.scale_down_delay_seconds,
            self.scale_to_zero_delay_seconds,
        ];
        match delays.into_iter().all(|delay| delay <= limit("delay", DELAY_SECONDS_MAX)) {
            true => Ok(()),
            false => Err(kind.invalid(format!("a delay is at most {DELAY_SECONDS_MAX} seconds"))),
        }
    }
}
