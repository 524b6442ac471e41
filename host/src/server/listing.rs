//! Models and versions as `ringfence.v1.Operations` lists them: with what is
//! called, what is stopped and what others share.
//!
//! Owns whose models a caller sees there. Changes nothing.

use super::App;
use super::catalog::page;
use super::status::Outcome;
use crate::auth::{AuthError, Caller, Scope};
use crate::deploy::{LeaseError, Model};
use crate::package::config::ModelName;
use crate::proto::ringfence::v1 as wire;
use crate::store::StoppedBy;
use std::collections::BTreeSet;
use std::sync::Arc;

/// A page of the models that the caller may see and asks for.
pub(crate) fn models(
    app: &App,
    caller: &Caller,
    request: &wire::ListModelsRequest,
) -> Result<wire::ListModelsResponse, Outcome> {
    let is_operator = caller.may(Scope::Admin);
    if request.all && !is_operator {
        return Err(AuthError::Scope(Scope::Admin).into());
    }
    let of_user =
        |name: &ModelName| request.user_id.is_empty() || name.user_id() == request.user_id.as_str();
    let names: BTreeSet<ModelName> = match request.all || !request.user_id.is_empty() {
        true if is_operator => every(app)?,
        _ => app.deployments.list(caller).into_iter().map(|seen| seen.name.clone()).collect(),
    };
    let asked = page(names.iter().filter(|name| of_user(name)), request.page, request.per_page);
    // One that was deleted since is not there any more.
    let found = asked.filter_map(|name| app.deployments.find(name));
    let models = found.map(|model| message(app, caller, &model)).collect::<Result<_, _>>()?;
    Ok(wire::ListModelsResponse { models })
}

/// A page of the versions of a model that the caller may see.
pub(crate) fn versions(
    app: &App,
    caller: &Caller,
    name: &ModelName,
    number: u32,
    per_page: u32,
) -> Result<wire::ListVersionsResponse, Outcome> {
    let seen = match caller.may(Scope::Admin) {
        true => app.deployments.find(name),
        false => app.deployments.see(caller, name),
    };
    let seen = seen.ok_or(LeaseError::NoSuchModel)?;
    let newest_first = page(seen.versions.iter().rev(), number, per_page);
    let versions = newest_first
        .map(|version| wire::Version {
            id: version.version.clone(),
            created_at: version.created_at,
        })
        .collect();
    Ok(wire::ListVersionsResponse { model: Some(message(app, caller, &seen)?), versions })
}

/// The name of every model, stored or served from a folder.
fn every(app: &App) -> Result<BTreeSet<ModelName>, Outcome> {
    let stored = app.store.models()?.into_iter().map(|row| row.name);
    let served = app.deployments.all().into_iter().map(|version| version.name.clone());
    Ok(stored.chain(served).collect())
}

fn message(app: &App, caller: &Caller, model: &Arc<Model>) -> Result<wire::Model, Outcome> {
    let name = &model.name;
    let version_id = model.current().map(|current| current.version.clone()).unwrap_or_default();
    let foreign = name.user_id() != caller.user_id();
    // Those who call it are not told of each other.
    let shared_with = match foreign && !caller.may(Scope::Admin) {
        true => Vec::new(),
        false => model.shared_with().map(str::to_owned).collect(),
    };
    Ok(wire::Model {
        name: Some(wire::ModelName {
            user_id: name.user_id().to_owned(),
            app_id: name.app_id().to_owned(),
            id: name.id().to_owned(),
        }),
        model_type_id: model.model_type_id().to_owned(),
        promoted: model.is_promoted(),
        version_id,
        stopped: model.stopped.is_some(),
        stopped_by_operator: model.stopped == Some(StoppedBy::Operator),
        shared: foreign && app.deployments.see(caller, name).is_some(),
        shared_with,
    })
}
