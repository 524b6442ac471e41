//! Uploads on the wire: apps and models to upload to, the archive in parts, and
//! what became of it.

use super::App;
use super::catalog::{self, timestamp};
use super::context::request_failed;
use super::names::{app_of, model_name, user_of};
use super::status::Outcome;
use crate::auth::Caller;
use crate::deploy::LeaseError;
use crate::limits::limit;
use crate::package::config::ModelName;
use crate::proto::clarifai::api;
use crate::proto::clarifai::api::post_model_versions_upload_request::UploadData;
use crate::proto::clarifai::api::status::StatusCode;
use crate::store::AppRow;
use crate::telemetry::request_id;
use crate::upload::{BuildState, Receiving, Said};
use futures_util::{Stream, StreamExt};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Metadata of clients that can go on where an upload broke off: the SHA-256 of
/// the archive in hexadecimal digits.
pub(crate) const DIGEST_METADATA: &str = "ringfence-upload-sha256";

/// Time in which the next part has to come.
const PART_TIMEOUT: Duration = Duration::from_secs(120);

pub(crate) fn app(
    app: &App,
    caller: &Caller,
    request: &api::GetAppRequest,
) -> Result<api::App, Outcome> {
    let user = user_of(&request.user_app_id, caller.user_id());
    let id = app_of(&request.user_app_id);
    if user != caller.user_id() {
        return Err(Outcome::no_such_app());
    }
    if id == ModelName::APP_DEFAULT {
        // It is made where it is needed, and there for everybody.
        return Ok(app_message(&app.store.ensure_app(user, id)?));
    }
    let row = app.store.app(user, id)?.ok_or_else(Outcome::no_such_app)?;
    Ok(app_message(&row))
}

pub(crate) fn post_apps(
    app: &App,
    caller: &Caller,
    request: &api::PostAppsRequest,
) -> Result<Vec<api::App>, Outcome> {
    let user = user_of(&request.user_app_id, caller.user_id());
    if user != caller.user_id() {
        return Err(Outcome::no_such_user());
    }
    let ids: Vec<&str> = request.apps.iter().map(|app| app.id.as_str()).collect();
    if ids.is_empty() {
        return Err(Outcome::bad_request("the request names no app; set apps[].id"));
    }
    for id in &ids {
        catalog::name_part(id)?;
    }
    let made = ids.into_iter().map(|id| {
        let is_new = app.store.app(user, id)?.is_none();
        let made = app.store.ensure_app(user, id)?;
        if is_new {
            app.store.audit(caller.user_id(), "made an app", &[("app", id)])?;
        }
        Ok(app_message(&made))
    });
    made.collect()
}

pub(crate) fn post_models(
    app: &App,
    caller: &Caller,
    request: &api::PostModelsRequest,
) -> Result<api::Model, Outcome> {
    let model = match (&request.model, request.models.as_slice()) {
        (_, [model]) => model,
        (Some(model), []) => model,
        _ => return Err(Outcome::bad_request("name one model at a time; set models[0].id")),
    };
    let name = model_name(&request.user_app_id, &model.id, caller.user_id())?;
    if name.user_id() != caller.user_id() {
        return Err(LeaseError::NoSuchModel.into());
    }
    let is_main = name.app_id() == ModelName::APP_DEFAULT;
    if !is_main && app.store.app(name.user_id(), name.app_id())?.is_none() {
        return Err(Outcome::no_such_app());
    }
    app.uploads.may_make(&name)?;
    app.store.ensure_app(name.user_id(), name.app_id())?;
    app.deployments.ensure_model(&name, &model.model_type_id)?;
    let seen = app.deployments.see(caller, &name).ok_or(LeaseError::NoSuchModel)?;
    Ok(catalog::model_of(&seen, seen.current()))
}

/// The state of a build, as the version that it makes.
pub(crate) fn building(app: &App, name: &ModelName, version: &str) -> Option<api::ModelVersion> {
    let outcome = match app.uploads.build(name, version)? {
        // The version is in the catalogue.
        BuildState::Built => return None,
        BuildState::Building => Outcome::new(StatusCode::ModelBuilding, "", ""),
        BuildState::Failed(why) => {
            Outcome::new(StatusCode::ModelBuildingFailed, "BUILD_FAILED", why)
        }
    };
    Some(api::ModelVersion {
        id: version.to_owned(),
        status: Some(outcome.status("")),
        app_id: name.app_id().to_owned(),
        user_id: name.user_id().to_owned(),
        ..Default::default()
    })
}

/// Takes an upload and answers it as it comes.
pub(crate) fn upload<S>(
    app: Arc<App>,
    caller: Result<Caller, Outcome>,
    digest: Option<[u8; 32]>,
    requests: S,
) -> impl Stream<Item = api::PostModelVersionsUploadResponse> + Send
where
    S: Stream<Item = Result<api::PostModelVersionsUploadRequest, tonic::Status>>
        + Send
        + Unpin
        + 'static,
{
    // One answer waits for the client at a time; a client that has gone drops
    // its end, and with it the task's next step fails.
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let req_id = request_id();
        let taken = tokio::select! {
            taken = take(&app, caller, digest, requests, &sender, &req_id) => taken,
            () = sender.closed() => return,
        };
        let last = match taken {
            Ok(version) => {
                let outcome = Outcome::new(StatusCode::ModelBuilding, "", "");
                api::PostModelVersionsUploadResponse {
                    status: Some(outcome.status(&req_id)),
                    bytes_remaining: 0,
                    model_version_id: version,
                }
            }
            Err(outcome) => {
                request_failed(&req_id, "upload", &outcome);
                let status = Some(outcome.status(&req_id));
                api::PostModelVersionsUploadResponse { status, ..Default::default() }
            }
        };
        // Who has gone meanwhile asks for the version by itself.
        let _ = sender.send(last).await;
    });
    tokio_stream::wrappers::ReceiverStream::new(receiver)
}

type Sender = mpsc::Sender<api::PostModelVersionsUploadResponse>;

async fn take<S>(
    app: &Arc<App>,
    caller: Result<Caller, Outcome>,
    digest: Option<[u8; 32]>,
    mut requests: S,
    answers: &Sender,
    req_id: &str,
) -> Result<String, Outcome>
where
    S: Stream<Item = Result<api::PostModelVersionsUploadRequest, tonic::Status>> + Send + Unpin,
{
    let caller = caller?;
    // Before anything is read: a message may be long.
    let place = app.uploads.enter(&caller)?;
    let Some(UploadData::UploadConfig(config)) = next(&mut requests).await? else {
        return Err(upload_refused("the first message has to be upload_config"));
    };
    let name = model_name(&config.user_app_id, &config.model_id, caller.user_id())?;
    let begun = {
        let (app, said, bytes) = (app.clone(), said(&config), config.total_size);
        blocking(move || app.uploads.begin(place, &name, bytes, digest, said)).await?
    };
    let mut receiving = begun?;
    // A client that can go on has to know from where.
    send(answers, &receiving, req_id).await?;
    let mut part_next = 1;
    while receiving.received() < receiving.bytes() {
        let part = tokio::select! {
            part = next(&mut requests) => part?,
            () = caller.is_over() => return Err(crate::auth::AuthError::Refused.into()),
        };
        let part = match part {
            Some(UploadData::ContentPart(part)) => part,
            Some(UploadData::UploadConfig(_)) => {
                return Err(upload_refused("upload_config came twice"));
            }
            None => {
                return Err(upload_refused("the stream ended before the whole archive had come"));
            }
        };
        if part.part_number != part_next {
            return Err(upload_refused(&format!(
                "part {} came where part {part_next} should; send them in order",
                part.part_number
            )));
        }
        part_next += 1;
        receiving.write(part.data).await?;
        send(answers, &receiving, req_id).await?;
    }
    // Only where the client says nothing more has everything come.
    if next(&mut requests).await?.is_some() {
        return Err(upload_refused("more came than the archive's total_size"));
    }
    Ok(receiving.finish().await?)
}

/// The next message; nothing at the end.
async fn next<S>(requests: &mut S) -> Result<Option<UploadData>, Outcome>
where
    S: Stream<Item = Result<api::PostModelVersionsUploadRequest, tonic::Status>> + Unpin,
{
    next_within(PART_TIMEOUT, requests).await
}

async fn next_within<S>(timeout: Duration, requests: &mut S) -> Result<Option<UploadData>, Outcome>
where
    S: Stream<Item = Result<api::PostModelVersionsUploadRequest, tonic::Status>> + Unpin,
{
    match tokio::time::timeout(limit("part_timeout", timeout), requests.next()).await {
        Ok(Some(Ok(message))) => match message.upload_data {
            Some(data) => Ok(Some(data)),
            None => Err(upload_refused("a message has neither upload_config nor content_part")),
        },
        Ok(Some(Err(status))) => {
            Err(upload_refused(&format!("a message cannot be read: {}", status.message())))
        }
        Ok(None) => Ok(None),
        Err(_) => Err(upload_refused("no part came for too long; upload again")),
    }
}

async fn send(answers: &Sender, receiving: &Receiving, req_id: &str) -> Result<(), Outcome> {
    let (received, bytes) = (receiving.received(), receiving.bytes());
    let outcome = Outcome::new(StatusCode::UploadInProgress, "", "");
    let mut status = outcome.status(req_id);
    let percent = u128::from(received) * 100 / u128::from(bytes.max(1));
    status.percent_completed = u32::try_from(percent).unwrap_or(100);
    let bytes_remaining = bytes.saturating_sub(received);
    let response = api::PostModelVersionsUploadResponse {
        status: Some(status),
        bytes_remaining,
        model_version_id: String::new(),
    };
    answers.send(response).await.map_err(|_| upload_refused("the client has gone"))
}

fn said(config: &api::PostModelVersionsUploadConfig) -> Said {
    let version = config.model_version.clone().unwrap_or_default();
    let compute = version.inference_compute_info.unwrap_or_default();
    let data = version.output_info.and_then(|info| info.data).unwrap_or_default();
    Said {
        cpu_limit: compute.cpu_limit,
        cpu_memory: compute.cpu_memory,
        concepts: data.concepts.len(),
    }
}

fn upload_refused(text: &str) -> Outcome {
    Outcome::new(StatusCode::UploadFailed, "UPLOAD_REFUSED", text)
}

fn app_message(row: &AppRow) -> api::App {
    api::App {
        id: row.id.clone(),
        name: row.id.clone(),
        user_id: row.user_id.clone(),
        created_at: timestamp(row.created_at),
        ..Default::default()
    }
}

/// Does what waits for the disk where nothing else waits for it.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Outcome> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        tracing::error!(%error, "a task failed");
        Outcome::host_bug()
    })
}

/// The digest that a client's metadata says, if it says one.
pub(crate) fn digest_of(metadata: &tonic::metadata::MetadataMap) -> Option<[u8; 32]> {
    let text = metadata.get(DIGEST_METADATA)?.to_str().ok()?;
    crate::text::unhex(text)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CLI-05, of uploads; of a shorter while, for the test's sake.
    #[tokio::test]
    async fn an_upload_whose_next_part_does_not_come_is_ended() {
        assert_eq!(PART_TIMEOUT, Duration::from_secs(120));
        let mut pending = tokio_stream::pending();
        let silent = next_within(Duration::from_millis(20), &mut pending);
        let ended = tokio::time::timeout(Duration::from_secs(10), silent).await.expect("an end");
        let told = ended.unwrap_err().status("");
        assert_eq!(told.code(), StatusCode::UploadFailed);
        assert!(told.details.contains("no part came for too long"), "{told:?}");
        assert!(next(&mut tokio_stream::empty()).await.unwrap().is_none());
        let empty = api::PostModelVersionsUploadRequest::default();
        let told = next(&mut tokio_stream::once(Ok(empty))).await.unwrap_err().status("");
        assert!(told.details.contains("neither upload_config nor content_part"), "{told:?}");
    }
}
