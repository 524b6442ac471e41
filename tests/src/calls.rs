//! A client of the host's gRPC, in the words of a test.

use ringfence::proto::clarifai::api;
use ringfence::proto::clarifai::api::status::{Status, StatusCode};
use ringfence::proto::clarifai::api::v2_client::V2Client;
use ringfence::proto::json;
use tokio_stream::Stream;
use tonic::transport::Channel;
use tonic::{Request, Streaming};

/// A connection and a token.
#[derive(Debug, Clone)]
pub struct Client {
    v2: V2Client<Channel>,
    pat: String,
}

/// One response, with its status taken apart.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The in-band status.
    pub status: Status,
    /// The outputs.
    pub outputs: Vec<api::Output>,
}

impl Client {
    /// Connects to a host with a token.
    pub async fn connect(base: &str, pat: &str) -> Self {
        Self::of(V2Client::connect(base.to_owned()).await.unwrap(), pat)
    }

    /// Over a connection that is there already.
    pub fn of(v2: V2Client<Channel>, pat: &str) -> Self {
        let v2 = v2.max_decoding_message_size(usize::MAX).max_encoding_message_size(usize::MAX);
        Self { v2, pat: pat.to_owned() }
    }

    /// The generated client, for RPCs that have no word here.
    pub fn v2(&self) -> V2Client<Channel> {
        self.v2.clone()
    }

    /// A request with the token in its metadata.
    pub fn with_token<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let value = format!("Key {}", self.pat).parse().unwrap();
        request.metadata_mut().insert("authorization", value);
        request
    }

    /// A predict call of `local/main/MODEL`.
    pub async fn predict(&self, model: &str, inputs: Vec<api::Input>) -> Answer {
        self.predict_request(request(model, inputs)).await
    }

    /// A predict call with every field of the request.
    pub async fn predict_request(&self, request: api::PostModelOutputsRequest) -> Answer {
        let request = self.with_token(request);
        self.v2().post_model_outputs(request).await.unwrap().into_inner().into()
    }

    /// A generate call; the answers as they come.
    pub async fn generate(
        &self,
        request: api::PostModelOutputsRequest,
    ) -> Streaming<api::MultiOutputResponse> {
        let request = self.with_token(request);
        self.v2().generate_model_outputs(request).await.unwrap().into_inner()
    }

    /// A stream call; the answers as they come.
    pub async fn stream(
        &self,
        requests: impl Stream<Item = api::PostModelOutputsRequest> + Send + 'static,
    ) -> Streaming<api::MultiOutputResponse> {
        let request = self.with_token(requests);
        self.v2().stream_model_outputs(request).await.unwrap().into_inner()
    }

    /// Every answer of a generate call.
    pub async fn generate_all(&self, request: api::PostModelOutputsRequest) -> Vec<Answer> {
        collect(self.generate(request).await).await
    }
}

/// Every message of a stream of answers.
pub async fn collect(mut stream: Streaming<api::MultiOutputResponse>) -> Vec<Answer> {
    let mut answers = Vec::new();
    while let Some(response) = stream.message().await.unwrap() {
        answers.push(response.into());
    }
    answers
}

impl From<api::MultiOutputResponse> for Answer {
    fn from(response: api::MultiOutputResponse) -> Self {
        Self { status: response.status.unwrap(), outputs: response.outputs }
    }
}

impl Answer {
    /// The code.
    pub fn code(&self) -> StatusCode {
        self.status.code()
    }

    /// The reason that the details begin with.
    pub fn reason(&self) -> &str {
        self.status.details.split(':').next().unwrap_or_default()
    }

    /// The text of the first output.
    pub fn text(&self) -> String {
        let output = self.outputs.first().unwrap_or_else(|| panic!("no output in {self:?}"));
        output.data.clone().unwrap_or_default().text.unwrap_or_default().raw
    }

    /// The concepts of the first output.
    pub fn concepts(&self) -> Vec<api::Concept> {
        let output = self.outputs.first().unwrap_or_else(|| panic!("no output in {self:?}"));
        output.data.clone().unwrap_or_default().concepts
    }
}

/// A request for a model of the user `local` and the app `main`.
pub fn request(model: &str, inputs: Vec<api::Input>) -> api::PostModelOutputsRequest {
    api::PostModelOutputsRequest {
        user_app_id: Some(api::UserAppIdSet { user_id: "local".into(), app_id: "main".into() }),
        model_id: model.into(),
        inputs,
        ..Default::default()
    }
}

/// An input of text.
pub fn text_input(text: &str) -> api::Input {
    let text = api::Text { raw: text.into(), url: String::new() };
    input(api::Data { text: Some(text), ..Default::default() })
}

/// An input of an image file.
pub fn image_input(bytes: impl Into<Vec<u8>>) -> api::Input {
    let image = api::Image { url: String::new(), base64: bytes.into().into() };
    input(api::Data { image: Some(image), ..Default::default() })
}

/// An input of bytes of no kind.
pub fn bytes_input(bytes: impl Into<Vec<u8>>) -> api::Input {
    input(api::Data { bytes_value: bytes.into().into(), ..Default::default() })
}

fn input(data: api::Data) -> api::Input {
    api::Input { id: String::new(), data: Some(data) }
}

/// The same request with inference parameters.
pub fn params(
    mut request: api::PostModelOutputsRequest,
    params: serde_json::Value,
) -> api::PostModelOutputsRequest {
    let serde_json::Value::Object(fields) = params else { panic!("parameters are an object") };
    output_info(&mut request).params = Some(json::to_struct(fields));
    request
}

/// The same request with an output configuration.
pub fn output_config(
    mut request: api::PostModelOutputsRequest,
    config: api::OutputConfig,
) -> api::PostModelOutputsRequest {
    output_info(&mut request).output_config = Some(config);
    request
}

fn output_info(request: &mut api::PostModelOutputsRequest) -> &mut api::OutputInfo {
    request
        .model
        .get_or_insert_default()
        .model_version
        .get_or_insert_default()
        .output_info
        .get_or_insert_default()
}
