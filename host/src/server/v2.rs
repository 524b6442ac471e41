//! The service `clarifai.api.V2`: a line or two for each RPC.

use super::App;
use super::calls::StreamTimeouts;
use super::catalog;
use super::compute;
use super::context::{CallContext, Found};
use super::gate::{caller_of, received_of};
use super::logs;
use super::receipt::Slot;
use super::status::Outcome;
use super::timeout;
use super::uploading::{self, blocking};
use crate::auth::Caller;
use crate::call::Function;
use crate::proto::clarifai::api;
use crate::proto::clarifai::api::status::StatusCode;
use crate::proto::clarifai::api::v2_server::V2;
use crate::telemetry::request_id;
use futures_util::{Stream, StreamExt};
use std::pin::Pin;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Instant;
use tonic::{Request, Response, Status, Streaming};

/// The service.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    pub(crate) app: Arc<App>,
    /// What a stream has time for.
    pub(crate) timeouts: StreamTimeouts,
}

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Answer<T> = Result<Response<T>, Status>;

impl Service {
    fn call<T>(&self, function: Function, request: &Request<T>) -> CallContext {
        let deadline = timeout::deadline_of(request.metadata());
        CallContext {
            app: self.app.clone(),
            req_id: request_id(),
            function,
            caller: caller_of(request),
            deadline: deadline.unwrap_or_default(),
            bad_timeout: deadline.err(),
            received: received_of(request),
            started_at: Instant::now(),
            client_major: client_major(request),
            model: OnceLock::new(),
            found: Found::default(),
            slot: Slot::default(),
            completed: AtomicBool::new(false),
            running: OnceLock::new(),
            allowance: OnceLock::new(),
            bill: OnceLock::new(),
        }
    }

    /// The answer's status and, if there is one, its content, of what is in
    /// memory.
    fn answer<Q, T>(
        &self,
        request: &Request<Q>,
        work: impl FnOnce(&App, &Caller, &Q) -> Result<T, Outcome>,
    ) -> (Option<api::status::Status>, Option<T>) {
        let caller = caller_of(request).map_err(Outcome::from);
        told(caller.and_then(|caller| work(&self.app, &caller, request.get_ref())))
    }

    /// The same of what may wait for the disk.
    async fn answer_from_disk<Q, T>(
        &self,
        request: Request<Q>,
        work: impl FnOnce(&App, &Caller, &Q) -> Result<T, Outcome> + Send + 'static,
    ) -> (Option<api::status::Status>, Option<T>)
    where
        Q: Send + 'static,
        T: Send + 'static,
    {
        match caller_of(&request) {
            Ok(caller) => {
                let app = self.app.clone();
                told(blocking(move || work(&app, &caller, request.get_ref())).await.flatten())
            }
            Err(error) => told(Err(error.into())),
        }
    }
}

fn told<T>(found: Result<T, Outcome>) -> (Option<api::status::Status>, Option<T>) {
    let req_id = request_id();
    match found {
        Ok(found) => (Some(Outcome::success().status(&req_id)), Some(found)),
        Err(outcome) => {
            if outcome.code == StatusCode::InternalServerIssue {
                tracing::error!(req_id, "the host failed in a request, as said above");
            }
            (Some(outcome.status(&req_id)), None)
        }
    }
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

/// A response of a status and one more field.
macro_rules! response {
    ($answer:expr, $response:ident { $field:ident }) => {{
        let (status, found) = $answer;
        Ok(Response::new(api::$response { status, $field: found }))
    }};
    ($answer:expr, $response:ident [ $field:ident ]) => {{
        let (status, found) = $answer;
        let $field = found.unwrap_or_default();
        Ok(Response::new(api::$response { status, $field }))
    }};
}

#[tonic::async_trait]
impl V2 for Service {
    async fn get_model(
        &self,
        request: Request<api::GetModelRequest>,
    ) -> Answer<api::SingleModelResponse> {
        response!(self.answer(&request, catalog::model), SingleModelResponse { model })
    }

    async fn get_model_type(
        &self,
        request: Request<api::GetModelTypeRequest>,
    ) -> Answer<api::SingleModelTypeResponse> {
        response!(
            self.answer(&request, catalog::model_type),
            SingleModelTypeResponse { model_type }
        )
    }

    async fn list_model_types(
        &self,
        request: Request<api::ListModelTypesRequest>,
    ) -> Answer<api::MultiModelTypeResponse> {
        response!(self.answer(&request, catalog::model_types), MultiModelTypeResponse[model_types])
    }

    async fn get_model_version(
        &self,
        request: Request<api::GetModelVersionRequest>,
    ) -> Answer<api::SingleModelVersionResponse> {
        response!(
            self.answer(&request, catalog::version),
            SingleModelVersionResponse { model_version }
        )
    }

    async fn get_user(
        &self,
        request: Request<api::GetUserRequest>,
    ) -> Answer<api::SingleUserResponse> {
        response!(self.answer(&request, catalog::user), SingleUserResponse { user })
    }

    async fn list_models(
        &self,
        request: Request<api::ListModelsRequest>,
    ) -> Answer<api::MultiModelResponse> {
        response!(self.answer(&request, catalog::models), MultiModelResponse[models])
    }

    async fn list_model_versions(
        &self,
        request: Request<api::ListModelVersionsRequest>,
    ) -> Answer<api::MultiModelVersionResponse> {
        response!(
            self.answer(&request, catalog::versions),
            MultiModelVersionResponse[model_versions]
        )
    }

    async fn get_app(
        &self,
        request: Request<api::GetAppRequest>,
    ) -> Answer<api::SingleAppResponse> {
        response!(self.answer_from_disk(request, uploading::app).await, SingleAppResponse { app })
    }

    async fn post_apps(
        &self,
        request: Request<api::PostAppsRequest>,
    ) -> Answer<api::MultiAppResponse> {
        response!(
            self.answer_from_disk(request, uploading::post_apps).await,
            MultiAppResponse[apps]
        )
    }

    async fn post_models(
        &self,
        request: Request<api::PostModelsRequest>,
    ) -> Answer<api::SingleModelResponse> {
        response!(
            self.answer_from_disk(request, uploading::post_models).await,
            SingleModelResponse { model }
        )
    }

    type PostModelVersionsUploadStream = Responses<api::PostModelVersionsUploadResponse>;

    /// Forgets what has come if the client goes away, but for what it can go on
    /// from. A build that has begun goes on.
    async fn post_model_versions_upload(
        &self,
        request: Request<Streaming<api::PostModelVersionsUploadRequest>>,
    ) -> Answer<Self::PostModelVersionsUploadStream> {
        let caller = caller_of(&request).map_err(Outcome::from);
        let digest = uploading::digest_of(request.metadata());
        let answers = uploading::upload(self.app.clone(), caller, digest, request.into_inner());
        Ok(Response::new(Box::pin(answers.map(Ok))))
    }

    async fn list_log_entries(
        &self,
        request: Request<api::ListLogEntriesRequest>,
    ) -> Answer<api::MultiLogEntryResponse> {
        let found = match caller_of(&request) {
            Ok(caller) => logs::entries(&self.app, &caller, request.get_ref()).await,
            Err(error) => Err(error.into()),
        };
        let outcome = found.as_ref().map_or_else(Outcome::clone, |_| Outcome::success());
        let status = Some(outcome.status(&request_id()));
        Ok(Response::new(api::MultiLogEntryResponse { status, ..found.unwrap_or_default() }))
    }

    async fn post_compute_clusters(
        &self,
        request: Request<api::PostComputeClustersRequest>,
    ) -> Answer<api::MultiComputeClusterResponse> {
        response!(
            self.answer_from_disk(request, compute::post_clusters).await,
            MultiComputeClusterResponse[compute_clusters]
        )
    }

    async fn list_compute_clusters(
        &self,
        request: Request<api::ListComputeClustersRequest>,
    ) -> Answer<api::MultiComputeClusterResponse> {
        response!(
            self.answer_from_disk(request, compute::clusters).await,
            MultiComputeClusterResponse[compute_clusters]
        )
    }

    async fn get_compute_cluster(
        &self,
        request: Request<api::GetComputeClusterRequest>,
    ) -> Answer<api::SingleComputeClusterResponse> {
        response!(
            self.answer_from_disk(request, compute::cluster).await,
            SingleComputeClusterResponse { compute_cluster }
        )
    }

    async fn patch_compute_clusters(
        &self,
        request: Request<api::PatchComputeClustersRequest>,
    ) -> Answer<api::MultiComputeClusterResponse> {
        response!(
            self.answer_from_disk(request, compute::patch_clusters).await,
            MultiComputeClusterResponse[compute_clusters]
        )
    }

    async fn delete_compute_clusters(
        &self,
        request: Request<api::DeleteComputeClustersRequest>,
    ) -> Answer<api::status::BaseResponse> {
        let (status, _) = self.answer_from_disk(request, compute::delete_clusters).await;
        Ok(Response::new(api::status::BaseResponse { status }))
    }

    async fn post_nodepools(
        &self,
        request: Request<api::PostNodepoolsRequest>,
    ) -> Answer<api::MultiNodepoolResponse> {
        response!(
            self.answer_from_disk(request, compute::post_nodepools).await,
            MultiNodepoolResponse[nodepools]
        )
    }

    async fn list_nodepools(
        &self,
        request: Request<api::ListNodepoolsRequest>,
    ) -> Answer<api::MultiNodepoolResponse> {
        response!(
            self.answer_from_disk(request, compute::nodepools).await,
            MultiNodepoolResponse[nodepools]
        )
    }

    async fn get_nodepool(
        &self,
        request: Request<api::GetNodepoolRequest>,
    ) -> Answer<api::SingleNodepoolResponse> {
        response!(
            self.answer_from_disk(request, compute::nodepool).await,
            SingleNodepoolResponse { nodepool }
        )
    }

    async fn patch_nodepools(
        &self,
        request: Request<api::PatchNodepoolsRequest>,
    ) -> Answer<api::MultiNodepoolResponse> {
        response!(
            self.answer_from_disk(request, compute::patch_nodepools).await,
            MultiNodepoolResponse[nodepools]
        )
    }

    async fn delete_nodepools(
        &self,
        request: Request<api::DeleteNodepoolsRequest>,
    ) -> Answer<api::status::BaseResponse> {
        let (status, _) = self.answer_from_disk(request, compute::delete_nodepools).await;
        Ok(Response::new(api::status::BaseResponse { status }))
    }

    async fn post_deployments(
        &self,
        request: Request<api::PostDeploymentsRequest>,
    ) -> Answer<api::MultiDeploymentResponse> {
        response!(
            self.answer_from_disk(request, compute::post_deployments).await,
            MultiDeploymentResponse[deployments]
        )
    }

    async fn list_deployments(
        &self,
        request: Request<api::ListDeploymentsRequest>,
    ) -> Answer<api::MultiDeploymentResponse> {
        response!(
            self.answer_from_disk(request, compute::deployments).await,
            MultiDeploymentResponse[deployments]
        )
    }

    async fn get_deployment(
        &self,
        request: Request<api::GetDeploymentRequest>,
    ) -> Answer<api::SingleDeploymentResponse> {
        response!(
            self.answer_from_disk(request, compute::deployment).await,
            SingleDeploymentResponse { deployment }
        )
    }

    async fn patch_deployments(
        &self,
        request: Request<api::PatchDeploymentsRequest>,
    ) -> Answer<api::MultiDeploymentResponse> {
        response!(
            self.answer_from_disk(request, compute::patch_deployments).await,
            MultiDeploymentResponse[deployments]
        )
    }

    async fn delete_deployments(
        &self,
        request: Request<api::DeleteDeploymentsRequest>,
    ) -> Answer<api::status::BaseResponse> {
        let (status, _) = self.answer_from_disk(request, compute::delete_deployments).await;
        Ok(Response::new(api::status::BaseResponse { status }))
    }

    /// Stops the guest if the client goes away or the deadline passes.
    async fn post_model_outputs(
        &self,
        request: Request<api::PostModelOutputsRequest>,
    ) -> Answer<api::MultiOutputResponse> {
        let call = self.call(Function::Predict, &request);
        let slot = call.slot.clone();
        Ok(receipted(slot, call.predict(Box::new(request.into_inner())).await))
    }

    type GenerateModelOutputsStream = Responses<api::MultiOutputResponse>;

    /// Stops the guest if the client goes away or the deadline passes.
    async fn generate_model_outputs(
        &self,
        request: Request<api::PostModelOutputsRequest>,
    ) -> Answer<Self::GenerateModelOutputsStream> {
        let call = self.call(Function::Generate, &request);
        let slot = call.slot.clone();
        let answers = call.generate(Box::new(request.into_inner())).map(Ok);
        let mut answers = Box::pin(answers.peekable());
        // The head leaves with the first.
        answers.as_mut().peek().await;
        Ok(receipted(slot, answers))
    }

    type StreamModelOutputsStream = Responses<api::MultiOutputResponse>;

    /// Stops the guest if the client goes away or the deadline passes.
    async fn stream_model_outputs(
        &self,
        request: Request<Streaming<api::PostModelOutputsRequest>>,
    ) -> Answer<Self::StreamModelOutputsStream> {
        let call = self.call(Function::Stream, &request);
        let slot = call.slot.clone();
        let answers = call.stream(request.into_inner(), self.timeouts);
        Ok(receipted(slot, Box::pin(answers.map(Ok))))
    }
}
