//! The same protocol without a host: no token, no sandbox, no limits.

use ringfence::call::Holder;
use ringfence::nn::{Cancel, ElementType, Engine, Graph, Means, Run, Tensor, Tract};
use ringfence::proto::clarifai::api;
use ringfence::proto::clarifai::api::v2_server::{V2, V2Server};
use ringfence::sandbox::Account;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use tokio_stream::Empty;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, Streaming};
use zune_core::bytestream::ZCursor;

/// Answers a text with the text and a PNG of 8x8 grey pixels with the outputs
/// of a graph.
pub(crate) struct Service {
    graph: Option<Arc<dyn Graph>>,
}

/// The argument by which the benchmark starts itself as this server.
pub(crate) const WORD: &str = "serve-bare";

/// The server as a process of its own, as the host is one. Ends with this value.
pub(crate) struct Process {
    child: Child,
    base: String,
}

impl Process {
    /// Starts it, with a graph to compute if there is a path to one.
    pub(crate) fn start(graph: Option<&str>) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg(WORD)
            .args(graph)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut base = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut base).unwrap();
        Self { child, base: base.trim().to_owned() }
    }

    /// Where it listens.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// One thread, and as much memory as anybody needs.
pub(crate) const MEANS: Means = Means { threads: 1, memory_bytes_max: 1 << 30 };

/// Serves on a free port of loopback until the process is ended. The runtime is
/// set as the host's is.
pub(crate) fn serve() {
    let graph = std::env::args().nth(2).map(|path| {
        let onnx = std::fs::read(path).unwrap();
        Tract.load("digits", &onnx, &(), MEANS).unwrap()
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .event_interval(1)
        .global_queue_interval(1)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("http://{}", listener.local_addr().unwrap());
        tonic::transport::Server::builder()
            .tcp_nodelay(true)
            .add_service(V2Server::new(Service { graph }))
            .serve_with_incoming(TcpListenerStream::new(listener))
            .await
            .unwrap();
    });
}

impl Service {
    fn answer(&self, input: api::Input) -> api::Output {
        let data = input.data.unwrap_or_default();
        let mut answer = api::Data { text: data.text, ..Default::default() };
        if let (Some(graph), Some(image)) = (&self.graph, data.image) {
            let mut decoder = zune_png::PngDecoder::new(ZCursor::new(image.base64));
            let grey = decoder.decode_raw().unwrap();
            let cells = grey.iter().flat_map(|grey| (f32::from(*grey) / 255.0).to_le_bytes());
            let shape = vec![1, 1, 8, 8];
            let cells: Vec<u8> = cells.collect();
            let tensor = Tensor::new(ElementType::F32, shape, cells).unwrap();
            let account = Account::new(1 << 30);
            let mut scratch = account.charge(Holder::Engine, 0).unwrap();
            let outputs =
                graph.run(vec![tensor], &mut Run::new(&Cancel::default(), &mut scratch)).unwrap();
            let data = outputs[0].read().unwrap();
            let values = data.chunks_exact(4);
            answer.concepts = values
                .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
                .enumerate()
                .map(|(id, value)| api::Concept { id: id.to_string(), name: id.to_string(), value })
                .collect();
            answer.concepts.sort_by(|a, b| b.value.total_cmp(&a.value));
        }
        let status = api::status::Status { code: 10000, ..Default::default() };
        api::Output { data: Some(answer), status: Some(status), ..Default::default() }
    }
}

type Answer<T> = Result<Response<T>, Status>;

/// The service, with one RPC that does something; of the others there are only
/// the names.
macro_rules! service {
    ($($rpc:ident($request:ident) -> $($answer:ident)::+;)*) => {
        #[tonic::async_trait]
        impl V2 for Service {
            async fn post_model_outputs(
                &self,
                request: Request<api::PostModelOutputsRequest>,
            ) -> Answer<api::MultiOutputResponse> {
                let inputs = request.into_inner().inputs;
                let outputs = inputs.into_iter().map(|input| self.answer(input)).collect();
                let status = Some(api::status::Status { code: 10000, ..Default::default() });
                Ok(Response::new(api::MultiOutputResponse { status, outputs }))
            }

            type GenerateModelOutputsStream = Empty<Result<api::MultiOutputResponse, Status>>;
            type StreamModelOutputsStream = Empty<Result<api::MultiOutputResponse, Status>>;
            type PostModelVersionsUploadStream =
                Empty<Result<api::PostModelVersionsUploadResponse, Status>>;

            async fn generate_model_outputs(
                &self,
                _: Request<api::PostModelOutputsRequest>,
            ) -> Answer<Self::GenerateModelOutputsStream> {
                Err(Status::unimplemented(""))
            }

            async fn stream_model_outputs(
                &self,
                _: Request<Streaming<api::PostModelOutputsRequest>>,
            ) -> Answer<Self::StreamModelOutputsStream> {
                Err(Status::unimplemented(""))
            }

            async fn post_model_versions_upload(
                &self,
                _: Request<Streaming<api::PostModelVersionsUploadRequest>>,
            ) -> Answer<Self::PostModelVersionsUploadStream> {
                Err(Status::unimplemented(""))
            }

            $(async fn $rpc(
                &self,
                _: Request<api::$request>,
            ) -> Answer<api::$($answer)::+> {
                Err(Status::unimplemented(""))
            })*
        }
    };
}

service! {
    get_model(GetModelRequest) -> SingleModelResponse;
    get_model_type(GetModelTypeRequest) -> SingleModelTypeResponse;
    list_model_types(ListModelTypesRequest) -> MultiModelTypeResponse;
    get_model_version(GetModelVersionRequest) -> SingleModelVersionResponse;
    get_user(GetUserRequest) -> SingleUserResponse;
    list_models(ListModelsRequest) -> MultiModelResponse;
    list_model_versions(ListModelVersionsRequest) -> MultiModelVersionResponse;
    get_app(GetAppRequest) -> SingleAppResponse;
    post_apps(PostAppsRequest) -> MultiAppResponse;
    post_models(PostModelsRequest) -> SingleModelResponse;
    list_log_entries(ListLogEntriesRequest) -> MultiLogEntryResponse;
    post_compute_clusters(PostComputeClustersRequest) -> MultiComputeClusterResponse;
    list_compute_clusters(ListComputeClustersRequest) -> MultiComputeClusterResponse;
    get_compute_cluster(GetComputeClusterRequest) -> SingleComputeClusterResponse;
    patch_compute_clusters(PatchComputeClustersRequest) -> MultiComputeClusterResponse;
    delete_compute_clusters(DeleteComputeClustersRequest) -> status::BaseResponse;
    post_nodepools(PostNodepoolsRequest) -> MultiNodepoolResponse;
    list_nodepools(ListNodepoolsRequest) -> MultiNodepoolResponse;
    get_nodepool(GetNodepoolRequest) -> SingleNodepoolResponse;
    patch_nodepools(PatchNodepoolsRequest) -> MultiNodepoolResponse;
    delete_nodepools(DeleteNodepoolsRequest) -> status::BaseResponse;
    post_deployments(PostDeploymentsRequest) -> MultiDeploymentResponse;
    list_deployments(ListDeploymentsRequest) -> MultiDeploymentResponse;
    get_deployment(GetDeploymentRequest) -> SingleDeploymentResponse;
    patch_deployments(PatchDeploymentsRequest) -> MultiDeploymentResponse;
    delete_deployments(DeleteDeploymentsRequest) -> status::BaseResponse;
}
