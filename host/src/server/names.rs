//! Who and what a request names.

use super::status::Outcome;
use crate::deploy::{LeaseError, PoolName, Wanted};
use crate::package::config::ModelName;
use crate::proto::clarifai::api;

/// The app of a client that names none.
const APP_DEFAULT: &str = "main";

/// The user that a request names, `me` and nothing being the caller.
pub(crate) fn user_of<'a>(set: &'a Option<api::UserAppIdSet>, caller: &'a str) -> &'a str {
    match set.as_ref().map(|set| set.user_id.as_str()) {
        None | Some("" | ModelName::USER_ME) => caller,
        Some(user) => user,
    }
}

/// The app that a request names.
pub(crate) fn app_of(set: &Option<api::UserAppIdSet>) -> &str {
    match set.as_ref().map(|set| set.app_id.as_str()) {
        None | Some("") => APP_DEFAULT,
        Some(app) => app,
    }
}

/// The model that a request names. A name that no model can have reads as a
/// model that is not there.
pub(crate) fn model_name(
    set: &Option<api::UserAppIdSet>,
    model: &str,
    caller: &str,
) -> Result<ModelName, Outcome> {
    name_of_parts(user_of(set, caller), app_of(set), model, caller)
}

/// The model of these parts; the caller's own, which `me` says too, and `main`
/// where they are absent.
pub(crate) fn name_of_parts(
    user: &str,
    app: &str,
    model: &str,
    caller: &str,
) -> Result<ModelName, Outcome> {
    if model.is_empty() {
        return Err(Outcome::bad_request("the request names no model; set model_id"));
    }
    let user = if matches!(user, "" | ModelName::USER_ME) { caller } else { user };
    let app = if app.is_empty() { APP_DEFAULT } else { app };
    ModelName::new(user, app, model)
        .map_err(|_| Outcome::from(crate::deploy::LeaseError::NoSuchModel))
}

/// Where a call of a model wants to run.
pub(crate) fn wanted(
    selector: Option<&api::RunnerSelector>,
    model: &ModelName,
    caller: &str,
) -> Result<Wanted, Outcome> {
    let Some(selector) = selector else { return Ok(Wanted::Anywhere) };
    match (&selector.deployment, &selector.nodepool, &selector.runner) {
        (None, None, None) => Ok(Wanted::Anywhere),
        (Some(deployment), None, None) => {
            // A model is deployed by its owner.
            let owner = match deployment.user_id.as_str() {
                "" => model.user_id(),
                ModelName::USER_ME => caller,
                user => user,
            };
            match owner == model.user_id() {
                true => Ok(Wanted::Deployment(deployment.id.clone())),
                false => Err(LeaseError::NoSuchDeployment(deployment.id.clone()).into()),
            }
        }
        (None, Some(nodepool), None) => {
            let cluster = nodepool.compute_cluster.clone().unwrap_or_default();
            let user_id = match cluster.user_id.as_str() {
                ModelName::USER_ME => caller.to_owned(),
                _ => cluster.user_id,
            };
            let id = nodepool.id.clone();
            Ok(Wanted::Nodepool(PoolName { user_id, cluster_id: cluster.id, id }))
        }
        (None, None, Some(_)) => Err(Outcome::bad_request(
            "no single runner can be chosen; name a nodepool or a deployment in runner_selector",
        )),
        _ => Err(Outcome::bad_request(
            "runner_selector names more than one place; name a nodepool or a deployment",
        )),
    }
}
