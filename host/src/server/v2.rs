//! The service `clarifai.api.V2`: one line or two for each RPC.

use super::App;
use super::catalog;
use super::context::{CallContext, Found};
use super::gate::caller_of;
use super::logs;
use super::receipt::Slot;
use super::status::Outcome;
use super::timeout;
use crate::auth::Caller;
use crate::call::Function;
use crate::proto::clarifai::api;
use crate::proto::clarifai::api::v2_server::V2;
use crate::telemetry::request_id;
use futures_util::{Stream, StreamExt};
use std::pin::Pin;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tonic::{Request, Response, Status, Streaming};

/// The service.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    pub(crate) app: Arc<App>,
    /// Time in which a stream has to say what it calls.
    pub(crate) first_message_timeout: Duration,
}

type Responses = Pin<Box<dyn Stream<Item = Result<api::MultiOutputResponse, Status>> + Send>>;
type Answer<T> = Result<Response<T>, Status>;

impl Service {
    fn call<T>(&self, function: Function, request: &Request<T>) -> CallContext {
        CallContext {
            app: self.app.clone(),
            req_id: request_id(),
            function,
            caller: caller_of(request),
            deadline: timeout::deadline_of(request.metadata()),
            started_at: Instant::now(),
            client_major: client_major(request),
            model: OnceLock::new(),
            found: Found::default(),
            slot: Slot::default(),
            completed: AtomicBool::new(false),
        }
    }
}

fn caller<T>(request: &Request<T>) -> Result<Caller, Outcome> {
    Ok(caller_of(request)?)
}

/// The SDK says its version where it gives its requests a name.
fn client_major<T>(request: &Request<T>) -> Option<u32> {
    let prefix = request.metadata().get("x-clarifai-request-id-prefix")?.to_str().ok()?;
    prefix.strip_prefix("sdk-python-")?.split('.').next()?.parse().ok()
}

/// A response whose trailers will have what is left in the slot.
fn receipted<T>(slot: Slot, message: T) -> Response<T> {
    let mut response = Response::new(message);
    response.extensions_mut().insert(slot);
    response
}

/// The answer's status and, if there is one, its content.
fn answer<T: Default>(found: Result<T, Outcome>) -> (Option<api::status::Status>, Option<T>) {
    let req_id = request_id();
    match found {
        Ok(found) => (Some(Outcome::success().status(&req_id)), Some(found)),
        Err(outcome) => (Some(outcome.status(&req_id)), None),
    }
}

#[tonic::async_trait]
impl V2 for Service {
    async fn get_model(
        &self,
        request: Request<api::GetModelRequest>,
    ) -> Answer<api::SingleModelResponse> {
        let caller = caller(&request);
        let found = caller.and_then(|caller| catalog::model(&self.app, &caller, request.get_ref()));
        let (status, model) = answer(found);
        Ok(Response::new(api::SingleModelResponse { status, model }))
    }

    async fn get_model_type(
        &self,
        request: Request<api::GetModelTypeRequest>,
    ) -> Answer<api::SingleModelTypeResponse> {
        let caller = caller(&request);
        let found = caller.and_then(|_| catalog::model_type(&request.get_ref().model_type_id));
        let (status, model_type) = answer(found);
        Ok(Response::new(api::SingleModelTypeResponse { status, model_type }))
    }

    async fn list_model_types(
        &self,
        request: Request<api::ListModelTypesRequest>,
    ) -> Answer<api::MultiModelTypeResponse> {
        let caller = caller(&request);
        let api::ListModelTypesRequest { page, per_page, .. } = request.into_inner();
        let (status, found) = answer(caller.map(|_| catalog::model_types(page, per_page)));
        let model_types = found.unwrap_or_default();
        Ok(Response::new(api::MultiModelTypeResponse { status, model_types }))
    }

    async fn get_model_version(
        &self,
        request: Request<api::GetModelVersionRequest>,
    ) -> Answer<api::SingleModelVersionResponse> {
        let caller = caller(&request);
        let found =
            caller.and_then(|caller| catalog::version(&self.app, &caller, request.get_ref()));
        let (status, model_version) = answer(found);
        Ok(Response::new(api::SingleModelVersionResponse { status, model_version }))
    }

    async fn get_user(
        &self,
        request: Request<api::GetUserRequest>,
    ) -> Answer<api::SingleUserResponse> {
        let caller = caller(&request);
        let found =
            caller.and_then(|caller| catalog::user(&caller, &request.get_ref().user_app_id));
        let (status, user) = answer(found);
        Ok(Response::new(api::SingleUserResponse { status, user }))
    }

    async fn list_models(
        &self,
        request: Request<api::ListModelsRequest>,
    ) -> Answer<api::MultiModelResponse> {
        let caller = caller(&request);
        let found = caller.map(|caller| catalog::models(&self.app, &caller, request.get_ref()));
        let (status, found) = answer(found);
        let models = found.unwrap_or_default();
        Ok(Response::new(api::MultiModelResponse { status, models }))
    }

    async fn list_model_versions(
        &self,
        request: Request<api::ListModelVersionsRequest>,
    ) -> Answer<api::MultiModelVersionResponse> {
        let caller = caller(&request);
        let found =
            caller.and_then(|caller| catalog::versions(&self.app, &caller, request.get_ref()));
        let (status, found) = answer(found);
        let model_versions = found.unwrap_or_default();
        Ok(Response::new(api::MultiModelVersionResponse { status, model_versions }))
    }

    async fn list_log_entries(
        &self,
        request: Request<api::ListLogEntriesRequest>,
    ) -> Answer<api::MultiLogEntryResponse> {
        let found = match caller(&request) {
            Ok(caller) => logs::entries(&self.app, &caller, request.get_ref()).await,
            Err(outcome) => Err(outcome),
        };
        let (status, found) = answer(found);
        Ok(Response::new(api::MultiLogEntryResponse { status, ..found.unwrap_or_default() }))
    }

    /// Stops the guest if the client goes away or the deadline passes.
    async fn post_model_outputs(
        &self,
        request: Request<api::PostModelOutputsRequest>,
    ) -> Answer<api::MultiOutputResponse> {
        let call = self.call(Function::Predict, &request);
        let slot = call.slot.clone();
        Ok(receipted(slot, call.predict(request.into_inner()).await))
    }

    type GenerateModelOutputsStream = Responses;

    /// Stops the guest if the client goes away or the deadline passes.
    async fn generate_model_outputs(
        &self,
        request: Request<api::PostModelOutputsRequest>,
    ) -> Answer<Self::GenerateModelOutputsStream> {
        let call = self.call(Function::Generate, &request);
        let slot = call.slot.clone();
        Ok(receipted(slot, Box::pin(call.generate(request.into_inner()).map(Ok))))
    }

    type StreamModelOutputsStream = Responses;

    /// Stops the guest if the client goes away or the deadline passes.
    async fn stream_model_outputs(
        &self,
        request: Request<Streaming<api::PostModelOutputsRequest>>,
    ) -> Answer<Self::StreamModelOutputsStream> {
        let call = self.call(Function::Stream, &request);
        let slot = call.slot.clone();
        let answers = call.stream(request.into_inner(), self.first_message_timeout);
        Ok(receipted(slot, Box::pin(answers.map(Ok))))
    }
}
