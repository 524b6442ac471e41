//! Compute clusters, nodepools and deployments on the wire.

mod wire;

use super::App;
use super::catalog::page;
use super::names::user_of;
use super::status::Outcome;
use crate::auth::{Caller, Scope};
use crate::deploy::{
    CLUSTER_LOCAL, ClusterDetail, ComputeError, NODEPOOL_DEFAULT, NodepoolDetail, Resource,
};
use crate::proto::clarifai::api;

/// Things of a request, at most.
const ITEMS_MAX: usize = 64;

pub(super) fn post_clusters(
    app: &App,
    caller: &Caller,
    request: &api::PostComputeClustersRequest,
) -> Result<Vec<api::ComputeCluster>, Outcome> {
    let user = owner(app, &request.user_app_id, caller)?;
    each(Resource::Cluster, &request.compute_clusters, |cluster| {
        let said = wire::cluster_said(cluster, ClusterDetail::default());
        let row = app.deployments.make_cluster(user, &cluster.id, &said)?;
        audit(app, caller, "made a compute cluster", user, &row.id)?;
        Ok(wire::cluster(&row))
    })
}

pub(super) fn patch_clusters(
    app: &App,
    caller: &Caller,
    request: &api::PatchComputeClustersRequest,
) -> Result<Vec<api::ComputeCluster>, Outcome> {
    let user = owner(app, &request.user_app_id, caller)?;
    check_action(&request.action)?;
    each(Resource::Cluster, &request.compute_clusters, |cluster| {
        let before = app.deployments.cluster(user, &cluster.id)?.said();
        let said = wire::cluster_said(cluster, before);
        let row = app.deployments.change_cluster(user, &cluster.id, &said)?;
        audit(app, caller, "changed a compute cluster", user, &row.id)?;
        Ok(wire::cluster(&row))
    })
}

pub(super) fn clusters(
    app: &App,
    caller: &Caller,
    request: &api::ListComputeClustersRequest,
) -> Result<Vec<api::ComputeCluster>, Outcome> {
    let user = owner(app, &request.user_app_id, caller)?;
    let rows = app.deployments.clusters(user)?;
    let all = std::iter::once(wire::local(user)).chain(rows.iter().map(wire::cluster));
    Ok(page(all, request.page, request.per_page).collect())
}

pub(super) fn cluster(
    app: &App,
    caller: &Caller,
    request: &api::GetComputeClusterRequest,
) -> Result<api::ComputeCluster, Outcome> {
    let user = owner(app, &request.user_app_id, caller)?;
    if request.compute_cluster_id == CLUSTER_LOCAL {
        return Ok(wire::local(user));
    }
    Ok(wire::cluster(&app.deployments.cluster(user, &request.compute_cluster_id)?))
}

pub(super) fn delete_clusters(
    app: &App,
    caller: &Caller,
    request: &api::DeleteComputeClustersRequest,
) -> Result<(), Outcome> {
    let user = owner(app, &request.user_app_id, caller)?;
    each(Resource::Cluster, &request.ids, |id| {
        app.deployments.delete_cluster(user, id)?;
        audit(app, caller, "deleted a compute cluster", user, id)
    })
    .map(drop)
}

pub(super) fn post_nodepools(
    app: &App,
    caller: &Caller,
    request: &api::PostNodepoolsRequest,
) -> Result<Vec<api::Nodepool>, Outcome> {
    let user = owner(app, &request.user_app_id, caller)?;
    each(Resource::Nodepool, &request.nodepools, |nodepool| {
        let cluster = cluster_of(&request.compute_cluster_id, nodepool);
        let all = app.deployments.pools().machine().has();
        let fresh = NodepoolDetail {
            cpu_millis: all.cpu_millis,
            memory_bytes: all.memory_bytes,
            instances_max: 1,
            ..NodepoolDetail::default()
        };
        let said = wire::nodepool_said(nodepool, fresh)?;
        let row = app.deployments.make_nodepool(user, cluster, &nodepool.id, &said)?;
        audit(app, caller, "made a nodepool", user, &format!("{cluster}/{}", row.id))?;
        Ok(wire::nodepool(&row))
    })
}

pub(super) fn patch_nodepools(
    app: &App,
    caller: &Caller,
    request: &api::PatchNodepoolsRequest,
) -> Result<Vec<api::Nodepool>, Outcome> {
    let user = owner(app, &request.user_app_id, caller)?;
    check_action(&request.action)?;
    each(Resource::Nodepool, &request.nodepools, |nodepool| {
        let cluster = cluster_of(&request.compute_cluster_id, nodepool);
        let before = app.deployments.nodepool(user, cluster, &nodepool.id)?.said();
        let said = wire::nodepool_said(nodepool, before)?;
        let row = app.deployments.change_nodepool(user, cluster, &nodepool.id, &said)?;
        audit(app, caller, "changed a nodepool", user, &format!("{cluster}/{}", row.id))?;
        Ok(wire::nodepool(&row))
    })
}

pub(super) fn nodepools(
    app: &App,
    caller: &Caller,
    request: &api::ListNodepoolsRequest,
) -> Result<Vec<api::Nodepool>, Outcome> {
    let user = owner(app, &request.user_app_id, caller)?;
    let cluster = request.compute_cluster_id.as_str();
    if !cluster.is_empty() && cluster != CLUSTER_LOCAL {
        app.deployments.cluster(user, cluster)?;
    }
    let is_asked = |id: &str| cluster.is_empty() || cluster == id;
    let default = is_asked(CLUSTER_LOCAL).then(|| default_nodepool(app, user));
    let rows = app.deployments.nodepools(user)?;
    let rows = rows.iter().filter(|row| is_asked(&row.cluster_id)).map(wire::nodepool);
    Ok(page(default.into_iter().chain(rows), request.page, request.per_page).collect())
}

pub(super) fn nodepool(
    app: &App,
    caller: &Caller,
    request: &api::GetNodepoolRequest,
) -> Result<api::Nodepool, Outcome> {
    let user = owner(app, &request.user_app_id, caller)?;
    let (cluster, id) = (request.compute_cluster_id.as_str(), request.nodepool_id.as_str());
    if (cluster, id) == (CLUSTER_LOCAL, NODEPOOL_DEFAULT) {
        return Ok(default_nodepool(app, user));
    }
    Ok(wire::nodepool(&app.deployments.nodepool(user, cluster, id)?))
}

pub(super) fn delete_nodepools(
    app: &App,
    caller: &Caller,
    request: &api::DeleteNodepoolsRequest,
) -> Result<(), Outcome> {
    let user = owner(app, &request.user_app_id, caller)?;
    each(Resource::Nodepool, &request.ids, |id| {
        app.deployments.delete_nodepool(user, &request.compute_cluster_id, id)?;
        let name = format!("{}/{id}", request.compute_cluster_id);
        audit(app, caller, "deleted a nodepool", user, &name)
    })
    .map(drop)
}

pub(super) fn post_deployments(
    app: &App,
    caller: &Caller,
    request: &api::PostDeploymentsRequest,
) -> Result<Vec<api::Deployment>, Outcome> {
    let user = owner(app, &request.user_app_id, caller)?;
    each(Resource::Deployment, &request.deployments, |deployment| {
        let (row, said) = wire::new_deployment(deployment, user)?;
        let row = app.deployments.deploy(caller, row, &said)?;
        audit(app, caller, "deployed a model", user, &row.id)?;
        Ok(wire::deployment(&row))
    })
}

pub(super) fn patch_deployments(
    app: &App,
    caller: &Caller,
    request: &api::PatchDeploymentsRequest,
) -> Result<Vec<api::Deployment>, Outcome> {
    let user = owner(app, &request.user_app_id, caller)?;
    check_action(&request.action)?;
    each(Resource::Deployment, &request.deployments, |deployment| {
        let before = app.deployments.deployment(user, &deployment.id)?;
        let (row, said) = wire::changed_deployment(deployment, user, before)?;
        let row = app.deployments.change_deployment(caller, row, &said)?;
        audit(app, caller, "changed a deployment", user, &row.id)?;
        Ok(wire::deployment(&row))
    })
}

pub(super) fn deployments(
    app: &App,
    caller: &Caller,
    request: &api::ListDeploymentsRequest,
) -> Result<Vec<api::Deployment>, Outcome> {
    let user = owner(app, &request.user_app_id, caller)?;
    let asked = |asked: &str, is: &str| asked.is_empty() || asked == is;
    let rows = app.deployments.deployments(user)?;
    let rows = rows.iter().filter(|row| {
        let versions = &request.model_version_ids;
        let of_version = versions.is_empty()
            || app.deployments.serves(row).is_some_and(|version| versions.contains(&version));
        of_version
            && asked(&request.nodepool_id, &row.nodepool_id)
            && asked(&request.compute_cluster_id, &row.cluster_id)
    });
    Ok(page(rows.map(wire::deployment), request.page, request.per_page).collect())
}

pub(super) fn deployment(
    app: &App,
    caller: &Caller,
    request: &api::GetDeploymentRequest,
) -> Result<api::Deployment, Outcome> {
    let user = owner(app, &request.user_app_id, caller)?;
    Ok(wire::deployment(&app.deployments.deployment(user, &request.deployment_id)?))
}

pub(super) fn delete_deployments(
    app: &App,
    caller: &Caller,
    request: &api::DeleteDeploymentsRequest,
) -> Result<(), Outcome> {
    let user = owner(app, &request.user_app_id, caller)?;
    each(Resource::Deployment, &request.ids, |id| {
        app.deployments.undeploy(user, id)?;
        audit(app, caller, "deleted a deployment", user, id)
    })
    .map(drop)
}

/// Whose things the request is about: the caller's, or anybody's for the
/// operator. To others they are not there.
fn owner<'a>(
    app: &App,
    set: &'a Option<api::UserAppIdSet>,
    caller: &'a Caller,
) -> Result<&'a str, Outcome> {
    let user = user_of(set, caller.user_id());
    if user == caller.user_id() {
        return Ok(user);
    }
    match caller.may(Scope::Admin) && app.store.user(user)?.is_some() {
        true => Ok(user),
        false => Err(Outcome::no_such_user()),
    }
}

/// Does the work for each of them, up to the first that fails; what was done
/// before stays, and the refusal says how many those are.
fn each<Q, T>(
    kind: Resource,
    items: &[Q],
    mut work: impl FnMut(&Q) -> Result<T, Outcome>,
) -> Result<Vec<T>, Outcome> {
    let what = kind.as_str();
    if items.is_empty() {
        return Err(kind.invalid(format!("the request names no {what}")).into());
    }
    if items.len() > ITEMS_MAX {
        return Err(kind.invalid(format!("a request has at most {ITEMS_MAX} of a kind")).into());
    }
    let mut done = Vec::with_capacity(items.len());
    for item in items {
        match work(item) {
            Ok(one) => done.push(one),
            Err(refused) if done.is_empty() => return Err(refused),
            Err(mut refused) => {
                let count = done.len();
                refused.text =
                    format!("{}; the first {count} of {} are done", refused.text, items.len());
                return Err(refused);
            }
        }
    }
    Ok(done)
}

fn check_action(action: &str) -> Result<(), Outcome> {
    match action {
        "" | "overwrite" | "merge" => Ok(()),
        _ => Err(Outcome::bad_request("action is overwrite or merge; nothing is removed so")),
    }
}

fn cluster_of<'a>(of_request: &'a str, nodepool: &'a api::Nodepool) -> &'a str {
    match (of_request, &nodepool.compute_cluster) {
        ("", Some(cluster)) => &cluster.id,
        (cluster, _) => cluster,
    }
}

fn default_nodepool(app: &App, user: &str) -> api::Nodepool {
    wire::default_nodepool(user, app.deployments.pools().machine().has())
}

fn audit(app: &App, caller: &Caller, what: &str, user: &str, id: &str) -> Result<(), Outcome> {
    app.store
        .audit(caller.user_id(), what, &[("user", user), ("id", id)])
        .map_err(|error| Outcome::from(ComputeError::from(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_some_items_and_not_too_many() {
        let done = |count: usize| {
            let items = vec![String::new(); count];
            each(Resource::Deployment, &items, |_| Ok(())).map(|done| done.len())
        };
        assert!(done(0).unwrap_err().text.contains("names no deployment"));
        assert_eq!(done(ITEMS_MAX).unwrap(), ITEMS_MAX);
        assert!(done(ITEMS_MAX + 1).unwrap_err().text.contains("at most 64"));
    }

    #[test]
    fn a_refusal_says_what_was_done_before_it() {
        let refused_at = |refused: u32| {
            let work = |item: &u32| match *item == refused {
                true => Err(Outcome::bad_request("no")),
                false => Ok(()),
            };
            each(Resource::Nodepool, &[1, 2, 3], work).unwrap_err().text
        };
        assert_eq!(refused_at(1), "no");
        assert_eq!(refused_at(3), "no; the first 2 of 3 are done");
    }
}
