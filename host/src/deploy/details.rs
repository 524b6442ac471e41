//! What owners say of their compute clusters, nodepools and deployments, as the
//! store keeps it: JSON in a column.

use super::autoscale::Autoscale;
use super::capacity::Amount;
use crate::limits::Accelerators;
use crate::store::{Store, StoreError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What is said of a compute cluster, and changes nothing here.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ClusterDetail {
    /// For people.
    pub description: String,
    /// Where its machines would be.
    pub cloud_provider: String,
    /// And where there.
    pub region: String,
    /// `dedicated`, `shared` or `local`, as its owner says.
    pub cluster_type: String,
    /// Who looks after it.
    pub managed_by: String,
    /// `Visibility.Gettable` of the protocol.
    pub visibility: i32,
}

/// What a nodepool is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NodepoolDetail {
    /// For people.
    pub description: String,
    /// The other platform's name for its kind of machine.
    pub instance_type: String,
    /// Thousandths of a CPU that one instance has.
    pub cpu_millis: u64,
    /// Bytes of memory that one instance has.
    pub memory_bytes: u64,
    /// The accelerators that one instance has.
    pub accelerators: Accelerators,
    /// Instances at least; says nothing here, where nothing is rented.
    pub instances_min: u32,
    /// Instances at most, all of which are this machine's.
    pub instances_max: u32,
    /// `NodeCapacityType.CapacityType` of the protocol.
    pub capacity_types: Vec<i32>,
    /// `Visibility.Gettable` of the protocol.
    pub visibility: i32,
}

impl NodepoolDetail {
    /// What replicas can reserve of it.
    pub fn amount(&self) -> Amount {
        self.of_one().times(self.instances_max)
    }

    /// What one instance has.
    pub fn of_one(&self) -> Amount {
        Amount {
            cpu_millis: self.cpu_millis,
            memory_bytes: self.memory_bytes,
            accelerators: self.accelerators.count,
        }
    }
}

/// What a deployment is, beside what it deploys and where.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DeploymentDetail {
    /// For people.
    pub description: String,
    /// So many replicas always run.
    pub replicas_min: u32,
    /// And never more than so many.
    pub replicas_max: u32,
    /// As its owner said; nothing depends on it here.
    pub traffic_history_seconds: u32,
    /// One more is started when calls have waited for so long.
    pub scale_up_delay_seconds: u32,
    /// One is stopped when the others would have done for so long.
    pub scale_down_delay_seconds: u32,
    /// The last one is stopped when nobody has called for so long.
    pub scale_to_zero_delay_seconds: u32,
    /// As its owner said; replicas are always packed here.
    pub disable_packing: bool,
    /// `Deployment.SchedulingChoice` of the protocol. There is one nodepool to
    /// choose from.
    pub scheduling_choice: i32,
    /// `Visibility.Gettable` of the protocol.
    pub visibility: i32,
    /// Whether the operator has deployed it, or changed it last.
    pub by_operator: bool,
}

impl DeploymentDetail {
    /// How many replicas there are.
    pub fn scale(&self) -> Autoscale {
        let seconds = |seconds: u32| Duration::from_secs(seconds.into());
        Autoscale {
            replicas_min: self.replicas_min,
            replicas_max: self.replicas_max,
            scale_up_delay: seconds(self.scale_up_delay_seconds),
            scale_down_delay: seconds(self.scale_down_delay_seconds),
            scale_to_zero_delay: seconds(self.scale_to_zero_delay_seconds),
        }
    }
}

/// As the store keeps it.
pub(super) fn written(detail: &impl Serialize) -> String {
    // Strings and numbers under fixed names can always be written.
    serde_json::to_string(detail).unwrap_or_default()
}

/// Whether it can be read; a row's checksum has been compared before.
pub(super) fn check<T: DeserializeOwned>(
    detail: &str,
    of: &str,
    store: &Store,
) -> Result<(), StoreError> {
    serde_json::from_str::<T>(detail).map(drop).map_err(|error| {
        tracing::error!(of, %error, "what is stored of it cannot be read");
        StoreError::Damaged {
            path: store.data_dir().to_owned(),
            problem: "a cluster, nodepool or deployment cannot be read; restore a backup",
        }
    })
}

/// The same read back, which has been checked at the start.
pub(super) fn read<T: DeserializeOwned + Default>(detail: &str, of: &str) -> T {
    serde_json::from_str(detail).unwrap_or_else(|error| {
        tracing::error!(of, %error, "what is stored of it cannot be read; it has the defaults");
        T::default()
    })
}
