//! The service `ringfence.v1.Operations`: what an operator and the owners of
//! models do beside calling.

use super::App;
use super::gate::caller_of;
use super::listing;
use super::names::name_of_parts;
use super::status::Outcome;
use super::uploading::blocking;
use crate::auth::{Caller, NewToken, Scopes};
use crate::package::config::ModelName;
use crate::proto::ringfence::v1 as wire;
use crate::proto::ringfence::v1::operations_server::Operations;
use crate::store::{BackedUp, QuotaRow, StoreError, TokenRow, UserRow};
use std::path::Path;
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// The service.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    pub(crate) app: Arc<App>,
}

type Answer<T> = Result<Response<T>, Status>;

impl Service {
    /// Does the work where it may wait for the disk.
    async fn answer<Q, T>(
        &self,
        request: Request<Q>,
        work: impl FnOnce(&App, &Caller, Q) -> Result<T, Outcome> + Send + 'static,
    ) -> Answer<T>
    where
        Q: Send + 'static,
        T: Send + 'static,
    {
        let caller = caller_of(&request).map_err(|error| Outcome::from(error).grpc())?;
        let app = self.app.clone();
        let done = blocking(move || work(&app, &caller, request.into_inner())).await.flatten();
        done.map(Response::new).map_err(|outcome| outcome.grpc())
    }
}

#[tonic::async_trait]
impl Operations for Service {
    async fn create_user(&self, request: Request<wire::CreateUserRequest>) -> Answer<wire::User> {
        self.answer(request, |app, caller, request| {
            super::catalog::name_part(&request.id)?;
            if request.id == ModelName::USER_ME {
                let text = "`me` is what clients call the user of their token; choose another name";
                return Err(Outcome::bad_request(text));
            }
            if request.id == "everyone" {
                let text = "`everyone` is whom a model is shared with that all may call; choose \
                            another name";
                return Err(Outcome::bad_request(text));
            }
            let user = app.store.add_user(&request.id)?;
            app.store.ensure_app(&user.id, ModelName::APP_DEFAULT)?;
            app.store.audit(caller.user_id(), "made a user", &[("user", &user.id)])?;
            user_message(app, user)
        })
        .await
    }

    async fn list_users(
        &self,
        request: Request<wire::ListUsersRequest>,
    ) -> Answer<wire::ListUsersResponse> {
        self.answer(request, |app, _, _| {
            let users = app.store.users()?.into_iter().map(|user| user_message(app, user));
            Ok(wire::ListUsersResponse { users: users.collect::<Result<_, _>>()? })
        })
        .await
    }

    async fn update_user(&self, request: Request<wire::UpdateUserRequest>) -> Answer<wire::User> {
        self.answer(request, |app, caller, request| {
            let is_self = request.id == caller.user_id();
            if is_self && request.disabled == Some(true) {
                let text = "this would lock you out; let another operator do it";
                return Err(Outcome::bad_request(text));
            }
            let change = |user: &mut UserRow| {
                user.disabled = request.disabled.unwrap_or(user.disabled);
                if request.reset_quota {
                    user.quota = QuotaRow::default();
                }
                if let Some(quota) = request.quota {
                    set(&mut user.quota, quota);
                }
            };
            let tell = |user: &UserRow| app.deployments.set_disabled(&user.id, user.disabled);
            let user = app.auth.update_user(&request.id, change, tell)?;
            let disabled = user.disabled.to_string();
            let quota = quota_text(&user.quota);
            let about = [("user", user.id.as_str()), ("disabled", &disabled), ("quota", &quota)];
            app.store.audit(caller.user_id(), "changed a user", &about)?;
            user_message(app, user)
        })
        .await
    }

    async fn create_token(
        &self,
        request: Request<wire::CreateTokenRequest>,
    ) -> Answer<wire::CreateTokenResponse> {
        self.answer(request, |app, caller, request| {
            let scopes: Scopes =
                request.scopes.join(" ").parse().map_err(|error: crate::auth::ScopeError| {
                    Outcome::bad_request(error.to_string())
                })?;
            if request.name.len() > NAME_BYTES_MAX || request.name.chars().any(char::is_control) {
                let text = format!("a token's name is plain text of up to {NAME_BYTES_MAX} bytes");
                return Err(Outcome::bad_request(text));
            }
            let user_id = match request.user_id.as_str() {
                "" => caller.user_id().to_owned(),
                user => user.to_owned(),
            };
            let wanted = NewToken {
                user_id,
                name: request.name,
                scopes,
                expires_in_seconds: request.expires_in_seconds,
            };
            let (token, row) = app.auth.create(&wanted)?;
            let about = [("token", row.id.as_str()), ("user", &row.user_id), ("for", &row.scopes)];
            app.store.audit(caller.user_id(), "made a token", &about)?;
            let secret = token.reveal().to_owned();
            Ok(wire::CreateTokenResponse { token: Some(token_message(row)), secret })
        })
        .await
    }

    async fn list_tokens(
        &self,
        request: Request<wire::ListTokensRequest>,
    ) -> Answer<wire::ListTokensResponse> {
        self.answer(request, |app, _, request| {
            let mut tokens = app.store.tokens()?;
            tokens.retain(|token| request.user_id.is_empty() || token.user_id == request.user_id);
            tokens.sort_by_key(|token| token.created_at);
            let tokens = tokens.into_iter().map(token_message).collect();
            Ok(wire::ListTokensResponse { tokens })
        })
        .await
    }

    async fn revoke_token(
        &self,
        request: Request<wire::RevokeTokenRequest>,
    ) -> Answer<wire::Token> {
        self.answer(request, |app, caller, request| {
            let row = app.auth.revoke(&request.id)?;
            let about = [("token", row.id.as_str()), ("user", &row.user_id)];
            app.store.audit(caller.user_id(), "revoked a token", &about)?;
            Ok(token_message(row))
        })
        .await
    }

    async fn list_apps(
        &self,
        request: Request<wire::ListAppsRequest>,
    ) -> Answer<wire::ListAppsResponse> {
        self.answer(request, |app, caller, _| {
            let apps = app.store.apps(caller.user_id())?;
            Ok(wire::ListAppsResponse { ids: apps.into_iter().map(|app| app.id).collect() })
        })
        .await
    }

    async fn delete_app(
        &self,
        request: Request<wire::DeleteAppRequest>,
    ) -> Answer<wire::DeleteAppResponse> {
        self.answer(request, |app, caller, request| {
            app.store.delete_app(caller.user_id(), &request.id)?;
            app.store.audit(caller.user_id(), "deleted an app", &[("app", &request.id)])?;
            Ok(wire::DeleteAppResponse {})
        })
        .await
    }

    async fn list_models(
        &self,
        request: Request<wire::ListModelsRequest>,
    ) -> Answer<wire::ListModelsResponse> {
        self.answer(request, |app, caller, request| listing::models(app, caller, &request)).await
    }

    async fn list_versions(
        &self,
        request: Request<wire::ListVersionsRequest>,
    ) -> Answer<wire::ListVersionsResponse> {
        self.answer(request, |app, caller, request| {
            let name = named(caller, request.model)?;
            listing::versions(app, caller, &name, request.page, request.per_page)
        })
        .await
    }

    async fn promote_version(
        &self,
        request: Request<wire::PromoteVersionRequest>,
    ) -> Answer<wire::PromoteVersionResponse> {
        self.answer(request, |app, caller, request| {
            let name = named(caller, request.model)?;
            let version = Some(request.version_id.as_str()).filter(|version| !version.is_empty());
            app.deployments.promote(caller, &name, version)?;
            audit(app, caller, "promoted a version", &name, version.unwrap_or("the newest"))?;
            let promoted = app.deployments.find(&name);
            let called = promoted.as_ref().and_then(|model| model.current());
            let version_id = called.map(|called| called.version.clone()).unwrap_or_default();
            Ok(wire::PromoteVersionResponse { version_id })
        })
        .await
    }

    async fn roll_back_model(
        &self,
        request: Request<wire::RollBackModelRequest>,
    ) -> Answer<wire::RollBackModelResponse> {
        self.answer(request, |app, caller, request| {
            let name = named(caller, request.model)?;
            let version_id = app.deployments.roll_back(caller, &name)?;
            audit(app, caller, "rolled a model back", &name, &version_id)?;
            Ok(wire::RollBackModelResponse { version_id })
        })
        .await
    }

    async fn stop_model(
        &self,
        request: Request<wire::StopModelRequest>,
    ) -> Answer<wire::StopModelResponse> {
        self.answer(request, |app, caller, request| {
            let name = named(caller, request.model)?;
            app.deployments.stop(caller, &name)?;
            let calls_ended = app.running.cancel_all_of(&name);
            audit(app, caller, "stopped a model", &name, "")?;
            Ok(wire::StopModelResponse { calls_ended })
        })
        .await
    }

    async fn start_model(
        &self,
        request: Request<wire::StartModelRequest>,
    ) -> Answer<wire::StartModelResponse> {
        self.answer(request, |app, caller, request| {
            let name = named(caller, request.model)?;
            app.deployments.start(caller, &name)?;
            audit(app, caller, "started a model", &name, "")?;
            Ok(wire::StartModelResponse {})
        })
        .await
    }

    async fn delete_model(
        &self,
        request: Request<wire::DeleteModelRequest>,
    ) -> Answer<wire::DeleteModelResponse> {
        self.answer(request, |app, caller, request| {
            let name = named(caller, request.model)?;
            let version = Some(request.version_id.as_str()).filter(|version| !version.is_empty());
            let deployments = app.deployments.delete(caller, &name, version)?;
            audit(app, caller, "deleted a model", &name, version.unwrap_or("all"))?;
            Ok(wire::DeleteModelResponse { deployments })
        })
        .await
    }

    async fn share_model(
        &self,
        request: Request<wire::ShareModelRequest>,
    ) -> Answer<wire::ShareModelResponse> {
        self.answer(request, |app, caller, request| {
            let name = named(caller, request.model)?;
            app.deployments.share(caller, &name, &request.with, !request.end)?;
            let what = if request.end { "ended a share" } else { "shared a model" };
            let model = name.to_string();
            let about = [("model", model.as_str()), ("with", &request.with)];
            app.store.audit(caller.user_id(), what, &about)?;
            Ok(wire::ShareModelResponse {})
        })
        .await
    }

    async fn list_calls(
        &self,
        request: Request<wire::ListCallsRequest>,
    ) -> Answer<wire::ListCallsResponse> {
        self.answer(request, |app, caller, _| {
            let calls = app.running.list(caller).into_iter().map(|call| wire::Call {
                id: call.id,
                user_id: call.user_id,
                model: call.model.to_string(),
                version_id: call.version,
                function: call.function.as_str().to_owned(),
                running_ms: u64::try_from(call.started_at.elapsed().as_millis())
                    .unwrap_or(u64::MAX),
            });
            Ok(wire::ListCallsResponse { calls: calls.collect() })
        })
        .await
    }

    async fn cancel_call(
        &self,
        request: Request<wire::CancelCallRequest>,
    ) -> Answer<wire::CancelCallResponse> {
        self.answer(request, |app, caller, request| {
            if !app.running.cancel(caller, &request.id) {
                return Err(
                    StoreError::Absent { what: format!("call {} that runs", request.id) }.into()
                );
            }
            app.store.audit(caller.user_id(), "ended a call", &[("call", &request.id)])?;
            Ok(wire::CancelCallResponse {})
        })
        .await
    }

    async fn check_store(
        &self,
        request: Request<wire::CheckStoreRequest>,
    ) -> Answer<wire::CheckStoreResponse> {
        self.answer(request, |app, _, _| {
            let report = app.store.check()?;
            Ok(wire::CheckStoreResponse {
                problems: report.problems,
                versions: report.versions as u64,
                contents: report.contents as u64,
                unreferenced: report.unreferenced as u64,
                unreferenced_bytes: report.unreferenced_bytes,
            })
        })
        .await
    }

    async fn collect_garbage(
        &self,
        request: Request<wire::CollectGarbageRequest>,
    ) -> Answer<wire::CollectGarbageResponse> {
        self.answer(request, |app, caller, _| {
            let compiler = app.deployments.loader().compiler();
            let freed = app.store.collect_garbage(Some(compiler))?;
            let bytes = freed.bytes.to_string();
            app.store.audit(caller.user_id(), "freed what was not used", &[("bytes", &bytes)])?;
            Ok(wire::CollectGarbageResponse { files: freed.files as u64, bytes: freed.bytes })
        })
        .await
    }

    async fn back_up_store(
        &self,
        request: Request<wire::BackUpStoreRequest>,
    ) -> Answer<wire::BackUpStoreResponse> {
        self.answer(request, |app, caller, request| {
            let path = Path::new(&request.path);
            if !path.is_absolute() {
                return Err(Outcome::bad_request(
                    "write the path from the root of the host's disk",
                ));
            }
            let BackedUp { bytes, left_out } = app.store.backup(path)?;
            app.store.audit(caller.user_id(), "made a backup", &[("path", &request.path)])?;
            Ok(wire::BackUpStoreResponse { bytes, left_out })
        })
        .await
    }
}

/// Longest name of a token.
const NAME_BYTES_MAX: usize = 128;

fn named(caller: &Caller, name: Option<wire::ModelName>) -> Result<ModelName, Outcome> {
    let name = name.unwrap_or_default();
    name_of_parts(&name.user_id, &name.app_id, &name.id, caller.user_id())
}

fn audit(
    app: &App,
    caller: &Caller,
    what: &str,
    name: &ModelName,
    version: &str,
) -> Result<(), Outcome> {
    let name = name.to_string();
    app.store.audit(caller.user_id(), what, &[("model", &name), ("version", version)])?;
    Ok(())
}

fn set(row: &mut QuotaRow, quota: wire::Quota) {
    row.calls_max = quota.calls_max.or(row.calls_max);
    row.fuel_per_minute_max = quota.fuel_per_minute_max.or(row.fuel_per_minute_max);
    row.stored_bytes_max = quota.stored_bytes_max.or(row.stored_bytes_max);
    row.models_max = quota.models_max.or(row.models_max);
    row.compilations_per_hour_max =
        quota.compilations_per_hour_max.or(row.compilations_per_hour_max);
}

/// Limits that differ from the defaults, as the command line writes them.
fn quota_text(quota: &QuotaRow) -> String {
    let limits = [
        ("calls", quota.calls_max),
        ("fuel-per-minute", quota.fuel_per_minute_max),
        ("stored-bytes", quota.stored_bytes_max),
        ("models", quota.models_max),
        ("compilations-per-hour", quota.compilations_per_hour_max),
    ];
    let said = limits.into_iter().filter_map(|(name, limit)| Some(format!("{name}={}", limit?)));
    said.collect::<Vec<_>>().join(" ")
}

fn user_message(app: &App, user: UserRow) -> Result<wire::User, Outcome> {
    let usage = app.store.usage(&user.id)?;
    let QuotaRow {
        calls_max,
        fuel_per_minute_max,
        stored_bytes_max,
        models_max,
        compilations_per_hour_max,
    } = user.quota;
    Ok(wire::User {
        id: user.id,
        created_at: user.created_at,
        disabled: user.disabled,
        quota: Some(wire::Quota {
            calls_max,
            fuel_per_minute_max,
            stored_bytes_max,
            models_max,
            compilations_per_hour_max,
        }),
        models: usage.models,
        stored_bytes: usage.bytes,
    })
}

fn token_message(row: TokenRow) -> wire::Token {
    wire::Token {
        id: row.id,
        user_id: row.user_id,
        name: row.name,
        scopes: row.scopes.split_whitespace().map(str::to_owned).collect(),
        created_at: row.created_at,
        expires_at: row.expires_at,
        revoked_at: row.revoked_at,
    }
}
