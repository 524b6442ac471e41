//! The three calls: parse, lease, run, answer.
//!
//! Every outcome is in-band, and a stream always sends at least one message:
//! clients of this protocol break on a stream that is empty or ends in a gRPC
//! error. Dropping a response stops the guest, whenever that happens.

use super::App;
use super::answering::{Answering, Responses};
use super::names;
use super::request::{self, Parsed};
use super::response::{self, Selection};
use super::status::Outcome;
use crate::auth::Caller;
use crate::call::{Deadline, End, Event, Function, Input, Output, Receipt, Request};
use crate::deploy::{Lease, LeaseError};
use crate::package::config::ModelName;
use crate::proto::clarifai::api;
use crate::proto::clarifai::api::status::StatusCode;
use crate::worker::SendError;
use futures_util::{Stream, StreamExt};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// Time in which a stream has to say what it calls.
const FIRST_MESSAGE_TIMEOUT: Duration = Duration::from_secs(60);

/// One call on its way, from its first message to its answer.
pub(crate) struct CallContext {
    pub(crate) app: Arc<App>,
    pub(crate) req_id: String,
    pub(crate) function: Function,
    pub(crate) deadline: Option<Deadline>,
    pub(crate) started_at: Instant,
    pub(crate) authorization: Option<String>,
    /// The first number of the version of the Clarifai SDK that calls.
    pub(crate) client_major: Option<u32>,
    /// The model's name, once the request has told it.
    pub(crate) model: OnceLock<String>,
    pub(crate) completed: AtomicBool,
}

/// Where a request wants to go.
struct Target {
    name: ModelName,
    version: Option<String>,
}

impl CallContext {
    /// Answers one request as a whole.
    pub(crate) async fn predict(
        self,
        request: api::PostModelOutputsRequest,
    ) -> api::MultiOutputResponse {
        match self.predict_or_refuse(request).await {
            Ok((response, outcome, receipt)) => {
                self.completed(&outcome, receipt);
                response
            }
            Err(outcome) => {
                self.completed(&outcome, Receipt::default());
                self.refusal(&outcome)
            }
        }
    }

    async fn predict_or_refuse(
        &self,
        request: api::PostModelOutputsRequest,
    ) -> Result<(api::MultiOutputResponse, Outcome, Receipt), Outcome> {
        let caller = self.app.auth.caller(self.authorization.as_deref())?;
        let target = target(&self.app, &request, &caller)?;
        let mut parsed = request::parse(request)?;
        if parsed.method == request::GET_SIGNATURES {
            let text = "the model has no typed methods; call it with plain inputs";
            let unsupported = StatusCode::InputUnsupportedFormat;
            return Err(Outcome::new(unsupported, "NO_TYPED_METHODS", text));
        }
        let selection = Selection::from(parsed.output_config.take());
        let lease = self.lease(&caller, &target).await.map_err(|e| self.busy(e))?;

        let refused: Vec<Option<Outcome>> =
            parsed.inputs.iter().map(|input| input.as_ref().err().map(Outcome::from)).collect();
        let ids: Vec<String> = parsed.inputs.iter().map(id_of).collect();
        let mut answers = Vec::new();
        let mut end = Outcome::success();
        let mut receipt = Receipt::default();
        if refused.iter().any(Option::is_none) {
            let (inputs, mut outputs) = lease.call(Function::Predict);
            sent(inputs.send(parsed.request()).await)?;
            drop(inputs);
            loop {
                match outputs.next().await {
                    Some(Event::Output(output)) => answers.push(Ok(output)),
                    Some(Event::InputFailed(error)) => answers.push(Err(Outcome::from(&error))),
                    Some(Event::End(verdict)) => {
                        end = Outcome::from(&verdict);
                        receipt = verdict.receipt;
                        self.note_bug(&verdict.end);
                        break;
                    }
                    None => return Err(self.lost()),
                }
            }
        }
        if !end.is_success() {
            return Ok((self.refusal(&end), end, receipt));
        }
        let mut answers = answers.into_iter();
        let results: Vec<Result<Output, Outcome>> = refused
            .into_iter()
            .map(|refused| match refused {
                Some(outcome) => Err(outcome),
                None => answers.next().unwrap_or_else(|| Err(self.lost())),
            })
            .collect();
        let outcome = of_batch(&results);
        let outputs = results
            .into_iter()
            .zip(ids)
            .map(|(result, id)| self.output(result, id, &selection))
            .collect();
        let status = Some(outcome.status(&self.req_id));
        Ok((api::MultiOutputResponse { status, outputs }, outcome, receipt))
    }

    /// Answers one request with a stream.
    pub(crate) fn generate(
        self,
        request: api::PostModelOutputsRequest,
    ) -> impl Stream<Item = api::MultiOutputResponse> + Send {
        let start = async move {
            let started = async {
                let caller = self.app.auth.caller(self.authorization.as_deref())?;
                let target = target(&self.app, &request, &caller)?;
                let mut parsed = request::parse(request)?;
                let selection = Selection::from(parsed.output_config.take());
                let request = single(parsed)?;
                let lease = self.lease(&caller, &target).await.map_err(|e| self.busy(e))?;
                let (inputs, outputs) = lease.call(Function::Generate);
                sent(inputs.send(request).await)?;
                Ok(Answering::new(outputs, selection))
            };
            let started = started.await;
            Responses::new(self, started)
        };
        futures_util::stream::once(start).flat_map(Responses::into_stream)
    }

    /// Answers messages as they come.
    pub(crate) fn stream<S>(
        self,
        mut requests: S,
    ) -> impl Stream<Item = api::MultiOutputResponse> + Send
    where
        S: Stream<Item = Result<api::PostModelOutputsRequest, tonic::Status>>
            + Send
            + Unpin
            + 'static,
    {
        let start = async move {
            let started = async {
                let caller = self.app.auth.caller(self.authorization.as_deref())?;
                let deadline = Deadline::after(FIRST_MESSAGE_TIMEOUT);
                let deadline = self.deadline.map_or(deadline, |asked| asked.min(deadline));
                let first = tokio::time::timeout_at(deadline.instant().into(), requests.next());
                let first = match first.await {
                    Ok(Some(Ok(first))) => first,
                    Ok(Some(Err(status))) => return Err(unreadable(&status)),
                    Err(_) => return Err(LeaseError::DeadlinePassed.into()),
                    Ok(None) => {
                        return Err(Outcome::bad_request(
                            "the stream has no message; send at least one",
                        ));
                    }
                };
                let target = target(&self.app, &first, &caller)?;
                let mut parsed = request::parse(first)?;
                let selection = Selection::from(parsed.output_config.take());
                let first = single(parsed)?;
                let lease = self.lease(&caller, &target).await.map_err(not_retried)?;
                let (inputs, outputs) = lease.call(Function::Stream);
                sent(inputs.send(first).await)?;
                Ok(Answering::new(outputs, selection).fed_by(inputs, requests))
            };
            let started = started.await;
            Responses::new(self, started)
        };
        futures_util::stream::once(start).flat_map(Responses::into_stream)
    }

    async fn lease(&self, caller: &Caller, target: &Target) -> Result<Lease, LeaseError> {
        // Set at most once: a call has one lease.
        let _ = self.model.set(target.name.to_string());
        let version = target.version.as_deref();
        self.app.deployments.lease(caller, &target.name, version, self.deadline).await
    }

    /// Clients before version 12 do not know the code of a busy model, and
    /// raise; they do wait and try again when they are throttled.
    fn busy(&self, error: LeaseError) -> Outcome {
        let outcome = Outcome::from(error);
        match (error, self.client_major) {
            (LeaseError::Busy, Some(..12)) => {
                Outcome { code: StatusCode::ConnThrottled, ..outcome }
            }
            _ => outcome,
        }
    }

    pub(super) fn output(
        &self,
        result: Result<Output, Outcome>,
        id: String,
        selection: &Selection,
    ) -> api::Output {
        let (outcome, mut output) = match result {
            Ok(output) => (Outcome::success(), response::output(output, selection)),
            Err(outcome) => (outcome, api::Output::default()),
        };
        output.id = match id.is_empty() {
            true => crate::telemetry::request_id(),
            false => id,
        };
        output.status = Some(outcome.status(&self.req_id));
        output
    }

    /// A response of nothing but an outcome.
    pub(super) fn refusal(&self, outcome: &Outcome) -> api::MultiOutputResponse {
        let status = Some(outcome.status(&self.req_id));
        api::MultiOutputResponse { status, outputs: Vec::new() }
    }

    pub(super) fn lost(&self) -> Outcome {
        tracing::error!(req_id = %self.req_id, "a call ended without a verdict");
        Outcome::host_bug()
    }

    pub(super) fn note_bug(&self, end: &End) {
        if let End::HostBug(text) = end {
            tracing::error!(req_id = %self.req_id, %text, "the host failed in a call");
        }
    }

    /// The one log line of a call.
    pub(super) fn completed(&self, outcome: &Outcome, receipt: Receipt) {
        self.completed.store(true, Ordering::Relaxed);
        tracing::info!(
            target: "call",
            req_id = %self.req_id,
            model = self.model.get().map_or("", String::as_str),
            function = ?self.function,
            code = outcome.code as i32,
            reason = outcome.reason,
            wall_ms = u64::try_from(self.started_at.elapsed().as_millis()).unwrap_or(u64::MAX),
            fuel = receipt.fuel,
            memory_bytes_peak = receipt.memory_bytes_peak,
            "call ended"
        );
    }
}

impl Drop for CallContext {
    /// A client that leaves drops the call wherever it is.
    fn drop(&mut self) {
        if !self.completed.load(Ordering::Relaxed) {
            self.completed(&Outcome::from(&End::Cancelled), Receipt::default());
        }
    }
}

/// A message that comes too late is no failure: the guest's own end, which is
/// on its way, says more.
pub(super) fn sent(sent: Result<(), SendError>) -> Result<(), Outcome> {
    match sent {
        Ok(()) | Err(SendError::Over) => Ok(()),
        Err(SendError::Memory(over)) => Err(over.into()),
    }
}

fn target(
    app: &App,
    request: &api::PostModelOutputsRequest,
    caller: &Caller,
) -> Result<Target, Outcome> {
    let version = (!request.version_id.is_empty()).then(|| request.version_id.clone());
    let name = match (&app.default_model, request.model_id.as_str()) {
        (Some(default), "") => default.clone(),
        (_, model) => names::model_name(&request.user_app_id, model, caller.user_id())?,
    };
    Ok(Target { name, version })
}

/// The only input of a request of `generate` or `stream`.
pub(super) fn single(mut parsed: Parsed) -> Result<Request, Outcome> {
    match parsed.inputs.as_slice() {
        [Ok(_)] => Ok(parsed.request()),
        [Err(error)] => Err(Outcome::from(error)),
        inputs => Err(Outcome::bad_request(format!(
            "the message has {} inputs; generate and stream take one at a time",
            inputs.len()
        ))),
    }
}

fn id_of(input: &Result<Input, request::InputError>) -> String {
    input.as_ref().map(|input| input.id.clone()).unwrap_or_default()
}

/// The outcome of a batch, from those of its inputs.
fn of_batch(results: &[Result<Output, Outcome>]) -> Outcome {
    let failures = results.iter().filter_map(|result| result.as_ref().err());
    match (failures.clone().count(), results) {
        (0, _) => Outcome::success(),
        (_, [Err(outcome)]) => outcome.clone(),
        (failed, all) if failed == all.len() => Outcome::all_failed(),
        _ => Outcome::mixed(),
    }
}

pub(super) fn unreadable(status: &tonic::Status) -> Outcome {
    Outcome::bad_request(format!("a message cannot be read: {}", status.message()))
}

/// Clients retry a busy answer, and a stream that is retried has lost the
/// messages it had sent.
fn not_retried(error: LeaseError) -> Outcome {
    let outcome = Outcome::from(error);
    match error {
        LeaseError::Busy => Outcome { code: StatusCode::RpcRequestQueueFull, ..outcome },
        LeaseError::NoSuchModel | LeaseError::NoSuchVersion | LeaseError::DeadlinePassed => outcome,
    }
}
