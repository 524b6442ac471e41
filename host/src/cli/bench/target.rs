//! One server, and one call of it from its first byte to its last.
//!
//! Owns what a call of each function is: the same request for each, sent as it is. What a
//! call saw is told, not judged.

use super::codec::{Answer, Whole};
use crate::cli::client::Client;
use crate::cli::{BenchFunction, GlobalArgs};
use crate::proto::clarifai::api::PostModelOutputsRequest;
use crate::proto::clarifai::api::status::StatusCode;
use bytes::Bytes;
use http::uri::PathAndQuery;
use prost::Message;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Request, Streaming};

const PREDICT: &str = "/clarifai.api.V2/PostModelOutputs";
const GENERATE: &str = "/clarifai.api.V2/GenerateModelOutputs";
const STREAM: &str = "/clarifai.api.V2/StreamModelOutputs";

/// What an answer may have.
const MESSAGE_BYTES_MAX: usize = 1 << 30;

/// What each call is.
#[derive(Debug, Clone)]
pub(super) struct Call {
    function: BenchFunction,
    /// Messages of a stream.
    messages: usize,
    message: Bytes,
}

impl Call {
    pub(super) fn of(
        function: BenchFunction,
        messages: usize,
        message: &PostModelOutputsRequest,
    ) -> Self {
        Self { function, messages, message: message.encode_to_vec().into() }
    }
}

/// A server with connections to it.
pub(super) struct Target {
    call: Call,
    /// The first, and others.
    connections: (Grpc<Channel>, Vec<Grpc<Channel>>),
    authorization: Option<MetadataValue<Ascii>>,
}

/// What one call saw. Times are from `began`.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) began: Instant,
    /// To its first output.
    pub(super) first: Option<Duration>,
    /// Between each output and the next, or, of a stream, from each message to its output.
    pub(super) each: Vec<Duration>,
    pub(super) whole: Duration,
    pub(super) outputs: u64,
    /// Why it failed, if it did.
    pub(super) error: Option<String>,
}

impl Target {
    pub(super) async fn connect(
        global: &GlobalArgs,
        connections: usize,
        call: Call,
    ) -> anyhow::Result<Self> {
        let grpc = |channel| Grpc::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let (channel, authorization) = Client::connect(global).await?.into_parts();
        let mut others = Vec::with_capacity(connections.saturating_sub(1));
        for _ in 1..connections {
            others.push(grpc(Client::connect(global).await?.into_parts().0));
        }
        Ok(Self { call, connections: (grpc(channel), others), authorization })
    }

    /// The connection of a caller.
    pub(super) fn connection(&self, caller: usize) -> Grpc<Channel> {
        let (first, others) = &self.connections;
        let place = caller % (others.len() + 1);
        place.checked_sub(1).and_then(|place| others.get(place)).unwrap_or(first).clone()
    }

    /// Makes one call. `began` may be earlier than now: when it was to be made.
    pub(super) async fn call(&self, connection: &mut Grpc<Channel>, began: Instant) -> Seen {
        let mut seen = Seen {
            began,
            first: None,
            each: vec![],
            whole: Duration::ZERO,
            outputs: 0,
            error: None,
        };
        let called = self.try_call(connection, &mut seen).await;
        seen.whole = seen.began.elapsed();
        if let Err(status) = called {
            seen.error = Some(format!("{}: {}", status.code(), status.message()));
        }
        seen
    }

    async fn try_call(
        &self,
        connection: &mut Grpc<Channel>,
        seen: &mut Seen,
    ) -> Result<(), tonic::Status> {
        let ready = connection.ready().await;
        ready.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
        match self.call.function {
            BenchFunction::Predict => self.predict(connection, seen).await,
            BenchFunction::Generate => self.generate(connection, seen).await,
            BenchFunction::Stream => self.stream(connection, seen).await,
        }
    }

    async fn predict(
        &self,
        connection: &mut Grpc<Channel>,
        seen: &mut Seen,
    ) -> Result<(), tonic::Status> {
        let request = self.request(self.call.message.clone());
        let answer = connection.unary(request, PathAndQuery::from_static(PREDICT), Whole).await?;
        seen.answer(&answer.into_inner());
        Ok(())
    }

    async fn generate(
        &self,
        connection: &mut Grpc<Channel>,
        seen: &mut Seen,
    ) -> Result<(), tonic::Status> {
        let request = self.request(self.call.message.clone());
        let path = PathAndQuery::from_static(GENERATE);
        let mut answers = connection.server_streaming(request, path, Whole).await?.into_inner();
        let mut last = None;
        while let Some(answer) = answers.message().await? {
            let now = Instant::now();
            seen.each.extend(last.map(|last| now - last));
            last = Some(now);
            seen.answer(&answer);
        }
        Ok(())
    }

    /// Each message waits for the output of the one before it.
    async fn stream(
        &self,
        connection: &mut Grpc<Channel>,
        seen: &mut Seen,
    ) -> Result<(), tonic::Status> {
        let (sender, messages) = mpsc::channel(1);
        let mut sent = Instant::now();
        // There is room for it, and whoever takes it is there.
        drop(sender.try_send(self.call.message.clone()));
        let mut left = self.call.messages.saturating_sub(1);
        let request = self.request(ReceiverStream::new(messages));
        let path = PathAndQuery::from_static(STREAM);
        let answers = connection.streaming(request, path, Whole).await?;
        let mut answers: Streaming<Answer> = answers.into_inner();
        let mut sender = Some(sender);
        while let Some(answer) = answers.message().await? {
            seen.each.push(sent.elapsed());
            seen.answer(&answer);
            if left == 0 || seen.error.is_some() {
                sender = None;
            } else if let Some(sender) = &sender {
                left -= 1;
                sent = Instant::now();
                drop(sender.try_send(self.call.message.clone()));
            }
        }
        Ok(())
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(authorization) = &self.authorization {
            request.metadata_mut().insert("authorization", authorization.clone());
        }
        request
    }
}

impl Seen {
    fn answer(&mut self, answer: &Answer) {
        if !answer.outputs.is_empty() {
            self.first.get_or_insert_with(|| self.began.elapsed());
        }
        self.outputs += answer.outputs.len() as u64;
        let status = answer.status.as_ref();
        let code = status.map_or(0, |status| status.code);
        if code != StatusCode::Success as i32 {
            let name = StatusCode::try_from(code).map_or("UNKNOWN", |code| code.as_str_name());
            let text = status.map_or("", |status| match status.details.as_str() {
                "" => &status.description,
                details => details,
            });
            self.error = Some(format!("{name}: {text}"));
        }
    }
}
