//! What there is: models, versions, model types, the caller's own user.

use super::App;
use super::names::{app_of, model_name, user_of};
use super::status::Outcome;
use super::typed;
use super::uploading;
use crate::auth::Caller;
use crate::deploy::{LeaseError, Model, Version};
use crate::limits::limit;
use crate::package::config::check_name;
use crate::proto::clarifai::api;
use crate::proto::clarifai::api::status::StatusCode;
use std::sync::Arc;

/// Items of a page if the client does not say.
const PER_PAGE_DEFAULT: u32 = 20;

/// Items of a page at most.
const PER_PAGE_MAX: u32 = 1000;

/// Model types, and the one kind of input that `predict_by_*` sends to each.
const MODEL_TYPES: &[(&str, &str, &str)] = &[
    ("any-to-any", "text", "text"),
    ("audio-classifier", "audio", "concepts"),
    ("audio-embedder", "audio", "embeddings"),
    ("audio-to-text", "audio", "text"),
    ("image-to-image", "image", "image"),
    ("image-to-text", "image", "text"),
    ("mcp", "text", "text"),
    ("multimodal-embedder", "text", "embeddings"),
    ("multimodal-to-text", "text", "text"),
    ("openai", "text", "text"),
    ("text-classifier", "text", "concepts"),
    ("text-embedder", "text", "embeddings"),
    ("text-to-audio", "text", "audio"),
    ("text-to-image", "text", "image"),
    ("text-to-text", "text", "text"),
    ("text-to-video", "text", "video"),
    ("video-to-text", "video", "text"),
    ("visual-classifier", "image", "concepts"),
    ("visual-detector", "image", "regions[...].data.concepts"),
    ("visual-embedder", "image", "embeddings"),
    ("visual-keypointer", "image", "regions[...].region_info.keypoint_locations"),
    ("visual-segmenter", "image", "regions[...].region_info.mask"),
];

pub(crate) fn model(
    app: &App,
    caller: &Caller,
    request: &api::GetModelRequest,
) -> Result<api::Model, Outcome> {
    let seen = find(app, caller, &request.user_app_id, &request.model_id)?;
    let version = match request.version_id.as_str() {
        "" => seen.current(),
        version => Some(seen.version(version).ok_or(LeaseError::NoSuchVersion)?),
    };
    Ok(model_of(&seen, version))
}

pub(crate) fn version(
    app: &App,
    caller: &Caller,
    request: &api::GetModelVersionRequest,
) -> Result<api::ModelVersion, Outcome> {
    let seen = find(app, caller, &request.user_app_id, &request.model_id)?;
    let version = request.version_id.as_str();
    let found = match version {
        "" => seen.current(),
        version => seen.version(version),
    };
    // What is being uploaded, again or for the first time, is its owner's to see.
    let own = seen.name.user_id() == caller.user_id();
    let building = own.then(|| uploading::building(app, &seen.name, version)).flatten();
    let found = match (found, building) {
        (Some(found), None) => found,
        (_, Some(building)) => return Ok(building),
        (None, None) => return Err(LeaseError::NoSuchVersion.into()),
    };
    // Only here: clients of other versions break on fields they do not expect.
    let method_signatures = typed::signatures(&found.methods);
    Ok(api::ModelVersion { method_signatures, ..version_of(found) })
}

pub(crate) fn models(
    app: &App,
    caller: &Caller,
    request: &api::ListModelsRequest,
) -> Result<Vec<api::Model>, Outcome> {
    let user = user_of(&request.user_app_id, caller.user_id());
    let in_app = app_of(&request.user_app_id);
    let any_app = request.user_app_id.as_ref().is_none_or(|set| set.app_id.is_empty());
    let asked = |seen: &Arc<Model>| {
        seen.name.user_id() == user
            && (any_app || seen.name.app_id() == in_app)
            && (request.name.is_empty() || seen.name.id() == request.name)
            && (request.model_type_id.is_empty() || seen.model_type_id() == request.model_type_id)
    };
    let seen = app.deployments.list(caller).into_iter().filter(asked);
    let page = page(seen, request.page, request.per_page);
    Ok(page.map(|seen| model_of(&seen, seen.current())).collect())
}

pub(crate) fn versions(
    app: &App,
    caller: &Caller,
    request: &api::ListModelVersionsRequest,
) -> Result<Vec<api::ModelVersion>, Outcome> {
    let seen = find(app, caller, &request.user_app_id, &request.model_id)?;
    // The newest first, as clients show them.
    let newest_first = seen.versions.iter().rev();
    Ok(page(newest_first, request.page, request.per_page).map(|found| version_of(found)).collect())
}

pub(crate) fn model_type(
    _: &App,
    _: &Caller,
    request: &api::GetModelTypeRequest,
) -> Result<api::ModelType, Outcome> {
    MODEL_TYPES
        .iter()
        .find(|(known, ..)| *known == request.model_type_id)
        .map(model_type_of)
        .ok_or_else(Outcome::no_such_model_type)
}

pub(crate) fn model_types(
    _: &App,
    _: &Caller,
    request: &api::ListModelTypesRequest,
) -> Result<Vec<api::ModelType>, Outcome> {
    let page = page(MODEL_TYPES.iter(), request.page, request.per_page);
    Ok(page.map(model_type_of).collect())
}

pub(crate) fn user(
    _: &App,
    caller: &Caller,
    request: &api::GetUserRequest,
) -> Result<api::User, Outcome> {
    match user_of(&request.user_app_id, caller.user_id()) == caller.user_id() {
        true => Ok(api::User { id: caller.user_id().to_owned(), created_at: None }),
        false => Err(Outcome::no_such_user()),
    }
}

/// Whether a text can be the name of a user, an app or a model.
pub(crate) fn name_part(text: &str) -> Result<(), Outcome> {
    check_name(text).map_err(|error| Outcome::bad_request(format!("{text:?} {error}")))
}

fn find(
    app: &App,
    caller: &Caller,
    set: &Option<api::UserAppIdSet>,
    model: &str,
) -> Result<Arc<Model>, Outcome> {
    let name = model_name(set, model, caller.user_id())?;
    Ok(app.deployments.see(caller, &name).ok_or(LeaseError::NoSuchModel)?)
}

/// Only what clients read: they feed the whole answer back into constructors
/// that break on fields they do not expect.
pub(crate) fn model_of(seen: &Model, version: Option<&Arc<Version>>) -> api::Model {
    api::Model {
        id: seen.name.id().to_owned(),
        name: seen.name.id().to_owned(),
        user_id: seen.name.user_id().to_owned(),
        app_id: seen.name.app_id().to_owned(),
        model_type_id: seen.model_type_id().to_owned(),
        created_at: timestamp(seen.created_at),
        model_version: version.map(|version| version_of(version)),
        ..Default::default()
    }
}

fn version_of(version: &Version) -> api::ModelVersion {
    let state = match version.failure() {
        None => Outcome::new(StatusCode::ModelTrained, "", ""),
        Some(error) => Outcome::from(error.as_ref()),
    };
    api::ModelVersion {
        id: version.version.clone(),
        status: Some(state.status("")),
        created_at: timestamp(version.created_at),
        active_concept_count: u32::try_from(version.concepts).unwrap_or(u32::MAX),
        app_id: version.name.app_id().to_owned(),
        user_id: version.name.user_id().to_owned(),
        ..Default::default()
    }
}

fn model_type_of((id, input, output): &(&str, &str, &str)) -> api::ModelType {
    api::ModelType {
        id: (*id).to_owned(),
        title: (*id).to_owned(),
        input_fields: vec![(*input).to_owned()],
        output_fields: vec![(*output).to_owned()],
        ..Default::default()
    }
}

/// A time as the wire has it, of seconds since 1970.
pub(crate) fn timestamp(seconds: i64) -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp { seconds, nanos: 0 })
}

/// One page; pages count from 1, and a client that says nothing means the
/// first.
pub(crate) fn page<T>(
    items: impl Iterator<Item = T>,
    number: u32,
    per_page: u32,
) -> impl Iterator<Item = T> {
    let per_page = match per_page {
        0 => PER_PAGE_DEFAULT,
        asked => asked.min(limit("page", PER_PAGE_MAX)),
    } as usize;
    let skipped = (number.max(1) as usize - 1).saturating_mul(per_page);
    items.skip(skipped).take(per_page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_after_the_last_is_empty() {
        let first: Vec<_> = page(0..3, 0, 0).collect();
        let second: Vec<_> = page(0..3, 2, 0).collect();
        assert_eq!((first, second), (vec![0, 1, 2], vec![]));
        assert_eq!(page(0..3, u32::MAX, u32::MAX).count(), 0);
    }

    #[test]
    fn a_page_has_no_more_items_than_it_may() {
        assert_eq!(page(0..1001, 1, 1001).count(), 1000);
        assert_eq!(page(0..1001, 2, 1001).count(), 1);
    }

    #[test]
    fn the_types_of_the_catalogue_are_those_of_config_yaml() {
        let ids: Vec<&str> = MODEL_TYPES.iter().map(|(id, ..)| *id).collect();
        assert_eq!(ids, crate::package::config::MODEL_TYPES);
    }

    #[test]
    fn every_model_type_has_exactly_one_input_that_clients_can_send() {
        for (id, input, _) in MODEL_TYPES {
            assert!(["text", "image", "audio", "video"].contains(input), "{id}");
        }
    }
}
