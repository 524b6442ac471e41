//! The same protocol without a host: no token, no sandbox, no limits.

use ringfence::nn::{Cancel, ElementType, Graph, Tensor};
use ringfence::proto::clarifai::api;
use ringfence::proto::clarifai::api::v2_server::{V2, V2Server};
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

/// Serves on a free port of loopback until the process ends; returns its base.
pub(crate) async fn serve(graph: Option<Arc<dyn Graph>>) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let service = V2Server::new(Service { graph });
    tokio::spawn(
        tonic::transport::Server::builder()
            .tcp_nodelay(true)
            .add_service(service)
            .serve_with_incoming(TcpListenerStream::new(listener)),
    );
    base
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
            let tensor = Tensor::new(ElementType::F32, shape, cells.collect()).unwrap();
            let outputs = graph.run(vec![tensor], &Cancel::default()).unwrap();
            let values = outputs[0].data().chunks_exact(4);
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

    async fn get_model(
        &self,
        _: Request<api::GetModelRequest>,
    ) -> Answer<api::SingleModelResponse> {
        Err(Status::unimplemented(""))
    }

    async fn get_model_type(
        &self,
        _: Request<api::GetModelTypeRequest>,
    ) -> Answer<api::SingleModelTypeResponse> {
        Err(Status::unimplemented(""))
    }

    async fn list_model_types(
        &self,
        _: Request<api::ListModelTypesRequest>,
    ) -> Answer<api::MultiModelTypeResponse> {
        Err(Status::unimplemented(""))
    }

    async fn get_model_version(
        &self,
        _: Request<api::GetModelVersionRequest>,
    ) -> Answer<api::SingleModelVersionResponse> {
        Err(Status::unimplemented(""))
    }

    async fn get_user(&self, _: Request<api::GetUserRequest>) -> Answer<api::SingleUserResponse> {
        Err(Status::unimplemented(""))
    }

    async fn list_models(
        &self,
        _: Request<api::ListModelsRequest>,
    ) -> Answer<api::MultiModelResponse> {
        Err(Status::unimplemented(""))
    }

    async fn list_model_versions(
        &self,
        _: Request<api::ListModelVersionsRequest>,
    ) -> Answer<api::MultiModelVersionResponse> {
        Err(Status::unimplemented(""))
    }
}
