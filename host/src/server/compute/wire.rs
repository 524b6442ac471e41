//! Compute resources to the messages of the wire and back.

use crate::deploy::{
    Amount, CLUSTER_LOCAL, ClusterDetail, ComputeError, DeploymentDetail, NODEPOOL_DEFAULT,
    NodepoolDetail, Resource,
};
use crate::limits::Accelerators;
use crate::package::config::ModelName;
use crate::package::quantity::{Quantity, QuantityError};
use crate::proto::clarifai::api;
use crate::server::catalog::timestamp;
use crate::server::names::name_of_parts;
use crate::server::status::Outcome;
use crate::store::{ClusterRow, DeploymentRow, NodepoolRow};
use crate::yaml::bytes_text;

/// Delays of a deployment that says none, in seconds.
const SCALE_DELAY_SECONDS: u32 = 300;

/// The compute cluster that every user has.
pub(super) fn local(user_id: &str) -> api::ComputeCluster {
    api::ComputeCluster {
        id: CLUSTER_LOCAL.to_owned(),
        description: "this machine".to_owned(),
        cloud_provider: provider("local"),
        region: "local".to_owned(),
        user_id: user_id.to_owned(),
        cluster_type: "local".to_owned(),
        managed_by: "user".to_owned(),
        ..Default::default()
    }
}

/// Its nodepool, which is the machine.
pub(super) fn default_nodepool(user_id: &str, has: Amount) -> api::Nodepool {
    api::Nodepool {
        id: NODEPOOL_DEFAULT.to_owned(),
        description: "all that this machine has for replicas".to_owned(),
        compute_cluster: Some(local(user_id)),
        instance_types: vec![instance_type("local", has, &Accelerators::default())],
        min_instances: 1,
        max_instances: 1,
        ..Default::default()
    }
}

pub(super) fn cluster(row: &ClusterRow) -> api::ComputeCluster {
    let said = row.said();
    api::ComputeCluster {
        id: row.id.clone(),
        description: said.description,
        cloud_provider: provider(&said.cloud_provider),
        region: said.region,
        user_id: row.user_id.clone(),
        created_at: timestamp(row.created_at),
        modified_at: None,
        visibility: visibility(said.visibility),
        cluster_type: said.cluster_type,
        managed_by: said.managed_by,
    }
}

/// What is sent, and what there was where nothing is sent.
pub(super) fn cluster_said(sent: &api::ComputeCluster, before: ClusterDetail) -> ClusterDetail {
    let provider = sent.cloud_provider.as_ref().map(|provider| provider.id.as_str());
    ClusterDetail {
        description: text_or(&sent.description, before.description),
        cloud_provider: text_or(provider.unwrap_or_default(), before.cloud_provider),
        region: text_or(&sent.region, before.region),
        cluster_type: text_or(&sent.cluster_type, before.cluster_type),
        managed_by: text_or(&sent.managed_by, before.managed_by),
        visibility: gettable(&sent.visibility).unwrap_or(before.visibility),
    }
}

pub(super) fn nodepool(row: &NodepoolRow) -> api::Nodepool {
    let said = row.said();
    let (one, accelerators) = (said.of_one(), &said.accelerators);
    api::Nodepool {
        id: row.id.clone(),
        description: said.description,
        created_at: timestamp(row.created_at),
        modified_at: None,
        compute_cluster: Some(cluster_named(&row.user_id, &row.cluster_id)),
        node_capacity_type: match said.capacity_types.is_empty() {
            true => None,
            false => Some(api::NodeCapacityType { capacity_types: said.capacity_types }),
        },
        instance_types: vec![instance_type(&said.instance_type, one, accelerators)],
        min_instances: said.instances_min,
        max_instances: said.instances_max,
        visibility: visibility(said.visibility),
    }
}

/// What is sent, and what there was where nothing is sent.
pub(super) fn nodepool_said(
    sent: &api::Nodepool,
    before: NodepoolDetail,
) -> Result<NodepoolDetail, ComputeError> {
    let kind = Resource::Nodepool;
    let said = NodepoolDetail {
        description: text_or(&sent.description, before.description),
        instances_min: number_or(sent.min_instances, before.instances_min),
        instances_max: number_or(sent.max_instances, before.instances_max),
        capacity_types: match &sent.node_capacity_type {
            Some(sent) => sent.capacity_types.clone(),
            None => before.capacity_types,
        },
        visibility: gettable(&sent.visibility).unwrap_or(before.visibility),
        ..before
    };
    let instance = match sent.instance_types.as_slice() {
        [] => return Ok(said),
        [one] => one,
        more => {
            let problem = format!("a nodepool has one instance type here; {} are sent", more.len());
            return Err(kind.invalid(problem));
        }
    };
    let said = NodepoolDetail { instance_type: instance.id.clone(), ..said };
    let Some(info) = &instance.compute_info else { return Ok(said) };
    let read = |key: &str, text: &str, amount: fn(Quantity) -> Result<u64, QuantityError>| {
        text.parse::<Quantity>()
            .and_then(amount)
            .map_err(|error| kind.invalid(format!("compute_info.{key} {text:?} {error}")))
    };
    Ok(NodepoolDetail {
        cpu_millis: match info.cpu_limit.as_str() {
            "" => said.cpu_millis,
            text => read("cpu_limit", text, Quantity::cpu_millis)?,
        },
        memory_bytes: match info.cpu_memory.as_str() {
            "" => said.memory_bytes,
            text => read("cpu_memory", text, Quantity::bytes)?,
        },
        accelerators: match info.num_accelerators {
            0 if info.accelerator_type.is_empty() && info.accelerator_memory.is_empty() => {
                said.accelerators.clone()
            }
            0 => {
                let problem =
                    "compute_info says accelerators, and not how many: send num_accelerators";
                return Err(kind.invalid(problem));
            }
            count => Accelerators {
                count,
                types: info.accelerator_type.clone(),
                memory_bytes: match info.accelerator_memory.as_str() {
                    "" => None,
                    text => Some(read("accelerator_memory", text, Quantity::bytes)?),
                },
                topology: info.accelerator_topology.clone(),
            },
        },
        ..said
    })
}

pub(super) fn deployment(row: &DeploymentRow) -> api::Deployment {
    let said = row.said();
    let version = row.version_id.clone();
    let model = api::Model {
        id: row.model.id().to_owned(),
        user_id: row.model.user_id().to_owned(),
        app_id: row.model.app_id().to_owned(),
        model_version: version.map(|id| api::ModelVersion { id, ..Default::default() }),
        ..Default::default()
    };
    let nodepool = api::Nodepool {
        id: row.nodepool_id.clone(),
        compute_cluster: Some(cluster_named(&row.user_id, &row.cluster_id)),
        ..Default::default()
    };
    api::Deployment {
        id: row.id.clone(),
        user_id: row.user_id.clone(),
        autoscale_config: Some(api::AutoscaleConfig {
            min_replicas: said.replicas_min,
            max_replicas: said.replicas_max,
            traffic_history_seconds: said.traffic_history_seconds,
            scale_down_delay_seconds: said.scale_down_delay_seconds,
            scale_up_delay_seconds: said.scale_up_delay_seconds,
            disable_packing: said.disable_packing,
            scale_to_zero_delay_seconds: said.scale_to_zero_delay_seconds,
        }),
        nodepools: vec![nodepool],
        scheduling_choice: said.scheduling_choice,
        visibility: visibility(said.visibility),
        description: said.description,
        worker: Some(api::Worker { worker: Some(api::worker::Worker::Model(model)) }),
        created_at: timestamp(row.created_at),
        modified_at: timestamp(row.modified_at),
        deploy_latest_version: row.version_id.is_none(),
    }
}

/// What is sent, with the defaults where nothing is.
pub(super) fn new_deployment(
    sent: &api::Deployment,
    user_id: &str,
) -> Result<(DeploymentRow, DeploymentDetail), Outcome> {
    let kind = Resource::Deployment;
    let model = model_of(sent, user_id)?
        .ok_or_else(|| kind.invalid("the deployment names no model; set worker.model"))?;
    let nodepool = nodepool_of(sent)?
        .ok_or_else(|| kind.invalid("the deployment names no nodepool; set nodepools[0]"))?;
    let fresh = DeploymentDetail {
        replicas_max: 1,
        scale_down_delay_seconds: SCALE_DELAY_SECONDS,
        scale_to_zero_delay_seconds: SCALE_DELAY_SECONDS,
        ..DeploymentDetail::default()
    };
    let row = row_of(sent, user_id, model, nodepool);
    Ok((row, deployment_said(sent, fresh)))
}

/// What is sent, and what there was where nothing is.
pub(super) fn changed_deployment(
    sent: &api::Deployment,
    user_id: &str,
    before: DeploymentRow,
) -> Result<(DeploymentRow, DeploymentDetail), Outcome> {
    let said = deployment_said(sent, before.said());
    let model = model_of(sent, user_id)?.unwrap_or((before.model, before.version_id));
    let nodepool = nodepool_of(sent)?.unwrap_or((before.cluster_id, before.nodepool_id));
    Ok((row_of(sent, user_id, model, nodepool), said))
}

fn row_of(
    sent: &api::Deployment,
    user_id: &str,
    (model, version_id): (ModelName, Option<String>),
    (cluster_id, nodepool_id): (String, String),
) -> DeploymentRow {
    DeploymentRow {
        user_id: user_id.to_owned(),
        id: sent.id.clone(),
        created_at: 0,
        modified_at: 0,
        model,
        version_id: version_id.filter(|_| !sent.deploy_latest_version),
        cluster_id,
        nodepool_id,
        detail: String::new(),
    }
}

fn model_of(
    sent: &api::Deployment,
    user_id: &str,
) -> Result<Option<(ModelName, Option<String>)>, Outcome> {
    let Some(api::Worker { worker: Some(worker) }) = &sent.worker else { return Ok(None) };
    let api::worker::Worker::Model(model) = worker;
    let name = name_of_parts(&model.user_id, &model.app_id, &model.id, user_id)?;
    let version = model.model_version.as_ref().map(|version| version.id.clone());
    Ok(Some((name, version.filter(|version| !version.is_empty()))))
}

fn nodepool_of(sent: &api::Deployment) -> Result<Option<(String, String)>, ComputeError> {
    match sent.nodepools.as_slice() {
        [] => Ok(None),
        [one] => {
            let cluster = one.compute_cluster.as_ref().map(|cluster| cluster.id.clone());
            Ok(Some((cluster.unwrap_or_default(), one.id.clone())))
        }
        more => {
            let problem = format!("a deployment is on one nodepool here; {} are sent", more.len());
            Err(Resource::Deployment.invalid(problem))
        }
    }
}

fn deployment_said(sent: &api::Deployment, before: DeploymentDetail) -> DeploymentDetail {
    let described = DeploymentDetail {
        description: text_or(&sent.description, before.description),
        scheduling_choice: match sent.scheduling_choice {
            0 => before.scheduling_choice,
            choice => choice,
        },
        visibility: gettable(&sent.visibility).unwrap_or(before.visibility),
        ..before
    };
    // Nought is an answer there, so it is taken as a whole.
    let Some(scale) = &sent.autoscale_config else { return described };
    DeploymentDetail {
        replicas_min: scale.min_replicas,
        // Clients that want none running may send no maximum either.
        replicas_max: scale.max_replicas.max(1),
        traffic_history_seconds: scale.traffic_history_seconds,
        scale_up_delay_seconds: scale.scale_up_delay_seconds,
        scale_down_delay_seconds: number_or(scale.scale_down_delay_seconds, SCALE_DELAY_SECONDS),
        scale_to_zero_delay_seconds: number_or(
            scale.scale_to_zero_delay_seconds,
            SCALE_DELAY_SECONDS,
        ),
        disable_packing: scale.disable_packing,
        ..described
    }
}

fn cluster_named(user_id: &str, id: &str) -> api::ComputeCluster {
    api::ComputeCluster { id: id.to_owned(), user_id: user_id.to_owned(), ..Default::default() }
}

fn instance_type(id: &str, has: Amount, accelerators: &Accelerators) -> api::InstanceType {
    let compute_info = api::ComputeInfo {
        cpu_limit: has.cpu_text(),
        cpu_memory: has.memory_text(),
        num_accelerators: has.accelerators,
        accelerator_type: accelerators.types.clone(),
        accelerator_memory: accelerators.memory_bytes.map(bytes_text).unwrap_or_default(),
        accelerator_topology: accelerators.topology.clone(),
        ..Default::default()
    };
    api::InstanceType {
        id: id.to_owned(),
        description: String::new(),
        compute_info: Some(compute_info),
    }
}

fn provider(id: &str) -> Option<api::CloudProvider> {
    let provider = api::CloudProvider { id: id.to_owned(), name: String::new() };
    (!id.is_empty()).then_some(provider)
}

fn visibility(gettable: i32) -> Option<api::Visibility> {
    (gettable != 0).then_some(api::Visibility { gettable })
}

fn gettable(sent: &Option<api::Visibility>) -> Option<i32> {
    sent.as_ref().map(|visibility| visibility.gettable)
}

fn text_or(sent: &str, before: String) -> String {
    if sent.is_empty() { before } else { sent.to_owned() }
}

fn number_or(sent: u32, before: u32) -> u32 {
    if sent == 0 { before } else { sent }
}
