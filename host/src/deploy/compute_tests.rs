//! What compute resources can be, and how many there may be.

use super::*;
use crate::auth::Caller;
use crate::deploy::checks::{
    CLUSTERS_MAX, DELAY_SECONDS_MAX, DEPLOYMENTS_MAX, INSTANCES_MAX, NODEPOOLS_MAX, REPLICAS_MAX,
    TEXT_BYTES_MAX,
};
use crate::deploy::placement::Placement;
use crate::deploy::{Amount, Loader, Pool};
use crate::package::config::ModelName;
use crate::store::Store;
use crate::worker::OneShot;
use std::sync::Arc;
use tempfile::TempDir;

const GIB: u64 = 1 << 30;

struct Place {
    deployments: Deployments,
    _scratch: TempDir,
}

impl Place {
    fn new() -> Self {
        let scratch = TempDir::new().unwrap();
        let run = scratch.path().join("run");
        std::fs::create_dir(&run).unwrap();
        let store = Arc::new(Store::open(&scratch.path().join("data")).unwrap());
        store.add_user("alice").unwrap();
        store.ensure_app("alice", "main").unwrap();
        let machine = Amount { cpu_millis: 2000, memory_bytes: GIB, accelerators: 0 };
        let deployments = Deployments::open(
            Loader::compiling_with(OneShot::of_this_program(), store, run),
            machine,
        )
        .unwrap();
        deployments.ensure_model(&model(), "text-to-text").unwrap();
        Self { deployments, _scratch: scratch }
    }

    fn cluster(&self, id: &str) -> Result<ClusterRow, ComputeError> {
        self.deployments.make_cluster("alice", id, &ClusterDetail::default())
    }

    fn nodepool(&self, id: &str, said: &NodepoolDetail) -> Result<NodepoolRow, ComputeError> {
        self.deployments.make_nodepool("alice", "lab", id, said)
    }

    fn deploy(&self, id: &str, said: &DeploymentDetail) -> Result<DeploymentRow, ComputeError> {
        let row = DeploymentRow {
            user_id: "alice".to_owned(),
            id: id.to_owned(),
            created_at: 0,
            modified_at: 0,
            model: model(),
            version_id: None,
            cluster_id: CLUSTER_LOCAL.to_owned(),
            nodepool_id: "default".to_owned(),
            detail: String::new(),
        };
        let caller = Caller::operator();
        self.deployments.deploy(&caller, row, said)
    }
}

fn model() -> ModelName {
    ModelName::new("alice", "main", "m").unwrap()
}

fn pool() -> NodepoolDetail {
    NodepoolDetail {
        cpu_millis: 1000,
        memory_bytes: GIB / 2,
        instances_max: 1,
        ..NodepoolDetail::default()
    }
}

fn scale() -> DeploymentDetail {
    DeploymentDetail { replicas_max: 1, ..DeploymentDetail::default() }
}

#[tokio::test]
async fn a_user_has_so_many_of_each_and_no_more() {
    let place = Place::new();
    place.cluster("lab").unwrap();
    for number in 1..CLUSTERS_MAX {
        place.cluster(&format!("c{number}")).unwrap();
    }
    let told = place.cluster("more").unwrap_err().to_string();
    assert!(told.contains("at most 16 of these (compute clusters)"), "{told}");
    for number in 0..NODEPOOLS_MAX {
        place.nodepool(&format!("p{number}"), &pool()).unwrap();
    }
    let told = place.nodepool("more", &pool()).unwrap_err().to_string();
    assert!(told.contains("at most 64"), "{told}");
    for number in 0..DEPLOYMENTS_MAX {
        place.deploy(&format!("d{number}"), &scale()).unwrap();
    }
    let told = place.deploy("more", &scale()).unwrap_err().to_string();
    assert!(told.contains("at most 256"), "{told}");
}

#[tokio::test]
async fn what_a_deployment_or_a_nodepool_cannot_be_is_told() {
    let place = Place::new();
    place.cluster("lab").unwrap();
    let long = "x".repeat(TEXT_BYTES_MAX + 1);
    for (said, told) in [
        (DeploymentDetail { replicas_max: 0, ..scale() }, "max_replicas is from 1 to 64"),
        (DeploymentDetail { replicas_max: REPLICAS_MAX + 1, ..scale() }, "max_replicas is from"),
        (DeploymentDetail { replicas_min: 2, ..scale() }, "min_replicas is more"),
        (
            DeploymentDetail { scale_to_zero_delay_seconds: DELAY_SECONDS_MAX + 1, ..scale() },
            "at most 604800 seconds",
        ),
        (DeploymentDetail { description: long.clone(), ..scale() }, "at most 1024 bytes"),
    ] {
        let error = place.deploy("d", &said).unwrap_err().to_string();
        assert!(error.contains(told), "{error}");
    }
    for (said, told) in [
        (NodepoolDetail { instances_max: 0, ..pool() }, "max_instances is from 1 to 1024"),
        (NodepoolDetail { instances_max: INSTANCES_MAX + 1, ..pool() }, "max_instances is from"),
        (NodepoolDetail { instances_min: 2, ..pool() }, "min_instances is more"),
        (NodepoolDetail { instances_max: 3, ..pool() }, "this machine has 2 CPU and 894Mi"),
        (NodepoolDetail { capacity_types: vec![1; 9], ..pool() }, "two capacity types"),
        (NodepoolDetail { instance_type: long, ..pool() }, "at most 1024 bytes"),
    ] {
        let error = place.nodepool("p", &said).unwrap_err().to_string();
        assert!(error.contains(told), "{error}");
    }
    for id in ["", "a b", "../x", &"x".repeat(200)] {
        assert!(place.cluster(id).is_err(), "{id}");
        assert!(place.nodepool(id, &pool()).is_err(), "{id}");
        assert!(place.deploy(id, &scale()).is_err(), "{id}");
    }
    // Nothing of all that was made.
    assert!(place.deployments.nodepools("alice").unwrap().is_empty());
    assert!(place.deployments.deployments("alice").unwrap().is_empty());
}

/// A part of the machine is set aside for uploads, and no replica can take it.
#[tokio::test]
async fn messages_of_uploads_have_memory_of_their_own() {
    let place = Place::new();
    let deployments = &place.deployments;
    let machine = deployments.pools().machine();
    let _full = machine.reserve(machine.has()).unwrap();
    let held = deployments.reserve_upload(crate::limits::UPLOAD_MESSAGE_BYTES_MAX as u64).unwrap();
    let full = deployments.reserve_upload(1).unwrap_err();
    assert!(full.to_string().contains("nodepool local/uploads has 0 CPU and 0 left"), "{full}");
    drop(held);
    deployments.reserve_upload(1).unwrap();
}

/// What always runs is reserved before its replicas have started.
#[test]
fn replicas_that_have_to_run_are_reserved_ahead() {
    let amount =
        |mebibytes: u64| Amount { cpu_millis: 100, memory_bytes: mebibytes << 20, accelerators: 0 };
    let name = PoolName { user_id: String::new(), cluster_id: "c".into(), id: "p".into() };
    let has = Amount { cpu_millis: 1000, memory_bytes: 10 << 20, accelerators: 0 };
    let pool = Arc::new(Pool::machine(name, has));
    let placement = Placement::of_all(pool.clone());
    placement.reserve_ahead(amount(3), 2).unwrap();
    assert_eq!(pool.reserved(), amount(3).times(2));
    // A replica takes one of them, and what has become needless is given back.
    let replica = placement.reserve(amount(3)).unwrap();
    assert_eq!(pool.reserved(), amount(3).times(2));
    placement.reserve_ahead(amount(3), 0).unwrap();
    assert_eq!(pool.reserved(), amount(3));
    // Another version needs another amount.
    placement.reserve_ahead(amount(2), 3).unwrap();
    assert_eq!(pool.reserved(), amount(3).plus(amount(2).times(3)));
    placement.reserve_ahead(amount(2), 4).unwrap_err();
    placement.retire();
    drop(replica);
    assert_eq!(pool.reserved(), Amount::default());
    placement.reserve_ahead(amount(2), 1).unwrap();
    assert_eq!(pool.reserved(), Amount::default());
}
