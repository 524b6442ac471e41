//! The three calls: understand, lease, run, answer.
//!
//! Every outcome is in-band, and a stream always sends at least one message:
//! clients of this protocol break on a stream that is empty or ends in a gRPC
//! error. Dropping a response stops the guest, whenever that happens.

use super::App;
use super::answering::{Answering, Responses};
use super::bill::Bill;
use super::context::CallContext;
use super::names;
use super::request::{self, InputError, Parsed, Reading, Turn};
use super::response::{Form, Selection};
use super::running::Running;
use super::sent::Fetching;
use super::status::Outcome;
use super::typed;
use crate::auth::{Caller, Scope};
use crate::call::{Deadline, Event, Output, Request, Verdict};
use crate::deploy::{Lease, LeaseError, Target, Wanted};
use crate::package::config::ModelName;
use crate::proto::clarifai::api;
use crate::proto::clarifai::api::status::StatusCode;
use crate::worker::{Held, Inputs, Outputs, SendError};
use futures_util::{Stream, StreamExt};
use prost::Message as _;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Which model is called, and what is wanted of its outputs.
struct Asked {
    caller: Caller,
    name: ModelName,
    /// What is called, or why the caller may call nothing of that name.
    called: Result<Target, LeaseError>,
    /// Where it wants to run.
    wanted: Wanted,
    /// Whether the model decides which version it is.
    is_open: bool,
    form: Form,
    reading: Reading,
}

/// What a stream has time for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StreamTimeouts {
    /// To say what it calls.
    pub(crate) first_message: Duration,
    /// For both sides to say something.
    pub(crate) idle: Duration,
}

/// An answered batch: the message, and what the log says of it.
type Answered = (api::MultiOutputResponse, Outcome);

impl CallContext {
    /// Answers one request as a whole. It is large by itself, and would be copied with
    /// every future that has it.
    pub(crate) async fn predict(
        self,
        request: Box<api::PostModelOutputsRequest>,
    ) -> api::MultiOutputResponse {
        match self.predict_or_refuse(request).await {
            Ok((response, outcome)) => {
                self.completed(&outcome);
                response
            }
            Err(outcome) => {
                self.completed(&outcome);
                self.refusal(&outcome)
            }
        }
    }

    async fn predict_or_refuse(
        &self,
        request: Box<api::PostModelOutputsRequest>,
    ) -> Result<Answered, Outcome> {
        let (asked, parsed) = self.understand(request)?;
        if parsed.method == request::GET_SIGNATURES {
            return self.signatures(&asked);
        }
        let leasing = async { self.lease(&asked).await.map_err(|error| self.busy(error)) };
        let lease = self.unless_ended(leasing).await?;
        let fetched = self.unless_ended(parsed.fetched(&self.fetching(&lease))).await?;

        let refused: Vec<Result<String, Outcome>> = fetched.inputs.iter().map(id_of).collect();
        let mut answers = Vec::new();
        if refused.iter().any(Result::is_ok) {
            let (inputs, outputs) = self.start(lease);
            self.handed_over(inputs.send(fetched.request()).await)?;
            drop(inputs);
            let reading = async { read_all(outputs).await.ok_or_else(|| self.lost()) };
            let read = self.unless_ended(reading).await?;
            let verdict = read.verdict;
            answers = read.answers;
            self.ended(&verdict);
            let outcome = self.retried(Outcome::from(&verdict));
            if !outcome.is_success() {
                return Ok((self.refusal(&outcome), outcome));
            }
            self.slot.keep_outputs(read.held);
        }
        let mut answers = answers.into_iter();
        let results: Vec<(String, Result<Output, Outcome>)> = refused
            .into_iter()
            .map(|refused| match refused {
                Ok(id) => (id, answers.next().unwrap_or_else(|| Err(self.lost()))),
                Err(outcome) => (String::new(), Err(outcome)),
            })
            .collect();
        let (outcomes, outputs): (Vec<_>, Vec<_>) =
            results.into_iter().map(|(id, result)| self.output(result, id, &asked.form)).unzip();
        let outcome = of_batch(&outcomes);
        let status = Some(outcome.status(&self.req_id));
        Ok((api::MultiOutputResponse { status, outputs }, outcome))
    }

    /// Answers one request with a stream.
    pub(crate) fn generate(
        self,
        request: Box<api::PostModelOutputsRequest>,
    ) -> impl Stream<Item = api::MultiOutputResponse> + Send {
        let start = async move {
            let started = async {
                let (asked, parsed) = self.understand(request)?;
                let parsed = single(parsed)?;
                let leasing = async { self.lease(&asked).await.map_err(|error| self.busy(error)) };
                let lease = self.unless_ended(leasing).await?;
                let request = self.unless_ended(whole(parsed, &self.fetching(&lease))).await?;
                let (inputs, outputs) = self.start(lease);
                self.handed_over(inputs.send(request).await)?;
                Ok(Answering::new(outputs, asked.form))
            };
            let started = started.await;
            Responses::new(self, started)
        };
        futures_util::stream::once(start).flat_map(Responses::into_stream)
    }

    /// Answers messages as they come. The first, which says what is called, has
    /// to come within its timeout, and somebody has to say something within the
    /// other.
    pub(crate) fn stream<S>(
        self,
        mut requests: S,
        timeouts: StreamTimeouts,
    ) -> impl Stream<Item = api::MultiOutputResponse> + Send
    where
        S: Stream<Item = Result<api::PostModelOutputsRequest, tonic::Status>>
            + Send
            + Unpin
            + 'static,
    {
        let start = async move {
            let started = async {
                self.caller.clone()?;
                let deadline = Deadline::after(timeouts.first_message);
                let deadline = self.deadline.map_or(deadline, |asked| asked.min(deadline));
                let first = first(&mut requests, deadline).await?;
                if let Some(received) = &self.received {
                    let bytes = first.encoded_len() as u64;
                    received.grow(bytes).map_err(|full| Outcome::no_room(full.to_string()))?;
                }
                let (asked, parsed) = self.understand(Box::new(first))?;
                let parsed = single(parsed)?;
                let leasing = async { self.lease(&asked).await.map_err(not_retried) };
                let lease = self.unless_ended(leasing).await?;
                let fetching = self.fetching(&lease);
                let request = self.unless_ended(whole(parsed, &fetching)).await?;
                let (inputs, outputs) = self.start(lease);
                self.handed_over(inputs.send(request).await)?;
                let answering = Answering::new(outputs, asked.form);
                Ok(answering.fed_by(inputs, requests, asked.reading, fetching, timeouts.idle))
            };
            let started = started.await;
            Responses::new(self, started)
        };
        futures_util::stream::once(start).flat_map(Responses::into_stream)
    }

    fn understand(
        &self,
        request: Box<api::PostModelOutputsRequest>,
    ) -> Result<(Asked, Parsed), Outcome> {
        let caller = self.caller.clone()?;
        if let Some(error) = self.bad_timeout {
            return Err(Outcome::bad_request(error.to_string()));
        }
        let version = (!request.version_id.is_empty()).then(|| request.version_id.clone());
        let name = name_of(&self.app, &request, &caller)?;
        // Set at most once: a call has one model.
        let _ = self.model.set(name.to_string());
        let seen = self.app.deployments.see(&caller, &name);
        if seen.is_some() {
            let _ = self.found.model.set(name.clone());
        }
        let wanted = names::wanted(request.runner_selector.as_ref(), &name, caller.user_id())?;
        let called = seen.ok_or(LeaseError::NoSuchModel).and_then(|seen| {
            self.app.deployments.called(&caller, &seen, version.as_deref(), &wanted)
        });
        let methods = called.as_ref().map(|called| called.version.methods.clone());
        let methods = methods.unwrap_or_default();
        let reading = Reading { function: self.function, methods };
        let mut parsed = reading.parse(*request, Turn::First)?;
        let selection = Selection::from(parsed.output_config.take());
        let form = Form { selection, typed: parsed.typed.take() };
        let is_open = version.is_none();
        Ok((Asked { caller, name, called, wanted, is_open, form, reading }, parsed))
    }

    /// What a client asks for that has not found signatures elsewhere.
    fn signatures(&self, asked: &Asked) -> Result<Answered, Outcome> {
        if asked.called.is_err() {
            return Err(LeaseError::NoSuchModel.into());
        }
        if asked.reading.methods.is_empty() {
            return Err(Outcome::no_typed_methods());
        }
        let outcome = Outcome::success();
        let raw = typed::signatures_json(&asked.reading.methods);
        let text = api::Text { raw, url: String::new() };
        let output = api::Output {
            id: crate::telemetry::request_id(),
            status: Some(outcome.status(&self.req_id)),
            data: Some(api::Data { text: Some(text), ..Default::default() }),
            ..Default::default()
        };
        let status = Some(outcome.status(&self.req_id));
        let response = api::MultiOutputResponse { status, outputs: vec![output] };
        Ok((response, outcome))
    }

    /// The guest has the request, or nobody; it is not what the front holds.
    fn handed_over(&self, sent_to_guest: Result<(), SendError>) -> Result<(), Outcome> {
        if let Some(received) = &self.received {
            received.clear();
        }
        sent(sent_to_guest)
    }

    async fn lease(&self, asked: &Asked) -> Result<Lease, LeaseError> {
        let allowance = self.app.auth.allow(&asked.caller)?;
        let per_second = self.app.deployments.loader().fuel_per_cpu_second();
        let bill = Bill::new(allowance.payer().clone(), per_second);
        // A call is allowed once.
        let _ = (self.allowance.set(allowance), self.bill.set(Arc::new(bill)));
        let called = asked.called.as_ref().map_err(Clone::clone)?;
        let began = Instant::now();
        let deployments = &self.app.deployments;
        let lease = match deployments.lease(called, self.deadline).await {
            // It was deleted since it was looked up; the model may have another.
            Err(LeaseError::NoSuchVersion) if asked.is_open => {
                let seen = deployments.see(&asked.caller, &asked.name);
                let seen = seen.ok_or(LeaseError::NoSuchModel)?;
                let called = deployments.called(&asked.caller, &seen, None, &asked.wanted)?;
                deployments.lease(&called, self.deadline).await
            }
            lease => lease,
        };
        let is_own = asked.caller.user_id() == asked.name.user_id();
        let lease = lease.map_err(|error| match error {
            // What others have reserved is the owner's and the operator's to know.
            LeaseError::Full(_) if !is_own && !asked.caller.may(Scope::Admin) => LeaseError::NoRoom,
            error => error,
        });
        let lease = lease.inspect_err(|error| {
            // Else there was no queue to wait in.
            if is_busy(error) || matches!(error, LeaseError::DeadlinePassed) {
                self.found.leased(&called.version, began.elapsed(), Duration::ZERO);
            }
        })?;
        let version = lease.version();
        self.found.leased(version, lease.queued(), lease.started());
        let running = self.app.running.begin(
            &self.req_id,
            &asked.caller,
            &asked.name,
            &version.version,
            self.function,
        );
        // A call runs once.
        let _ = self.running.set(running);
        // Whoever stops a model ends the calls that run; those that have waited
        // look for themselves.
        match deployments.see(&asked.caller, &asked.name) {
            Some(seen) => seen.admitted().map(|()| lease),
            None => Ok(lease),
        }
    }

    /// Starts the guest.
    fn start(&self, lease: Lease) -> (Inputs, Outputs) {
        let never = CancellationToken::new();
        let ended = self.running.get().map_or(&never, Running::ended);
        let bill = self.bill.get();
        let (inputs, outputs) = lease.call(ended, self.function, self.origin(), bill.cloned());
        if let Some(bill) = bill {
            bill.begins(outputs.spent());
        }
        (inputs, outputs)
    }

    /// Only an admitted call may have something fetched, and no longer than it
    /// may last.
    fn fetching(&self, lease: &Lease) -> Fetching {
        Fetching { fetcher: self.app.fetcher(), deadline: lease.deadline() }
    }

    /// Clients before version 12 do not know the code of a busy model, and
    /// raise; they do wait and try again when they are throttled.
    fn busy(&self, error: LeaseError) -> Outcome {
        let is_busy = is_busy(&error);
        let outcome = Outcome::from(error);
        if is_busy { self.retried(outcome) } else { outcome }
    }

    /// The same in the form that this client tries again.
    pub(super) fn retried(&self, outcome: Outcome) -> Outcome {
        match (outcome.code, self.client_major) {
            (StatusCode::ModelBusyPleaseRetry, Some(..12)) => {
                Outcome { code: StatusCode::ConnThrottled, ..outcome }
            }
            _ => outcome,
        }
    }
}

/// The model that a request names, or the only one where it need not.
fn name_of(
    app: &App,
    request: &api::PostModelOutputsRequest,
    caller: &Caller,
) -> Result<ModelName, Outcome> {
    match (&app.default_model, request.model_id.as_str()) {
        (Some(default), "") => Ok(default.clone()),
        (_, model) => names::model_name(&request.user_app_id, model, caller.user_id()),
    }
}

/// The first message of a stream.
async fn first<S>(
    requests: &mut S,
    deadline: Deadline,
) -> Result<api::PostModelOutputsRequest, Outcome>
where
    S: Stream<Item = Result<api::PostModelOutputsRequest, tonic::Status>> + Unpin,
{
    match tokio::time::timeout_at(deadline.instant().into(), requests.next()).await {
        Ok(Some(Ok(first))) => Ok(first),
        Ok(Some(Err(status))) => Err(unreadable(&status)),
        Ok(None) => Err(Outcome::bad_request("the stream has no message; send at least one")),
        Err(_) => Err(LeaseError::DeadlinePassed.into()),
    }
}

/// A request of `generate` or `stream` has one input, and that one is right.
pub(super) fn single(parsed: Parsed) -> Result<Parsed, Outcome> {
    match parsed.inputs.as_slice() {
        [] => Err(Outcome::bad_request("signatures are asked for by predict")),
        [Ok(_)] => Ok(parsed),
        [Err(error)] => Err(Outcome::from(error)),
        inputs => Err(Outcome::bad_request(format!(
            "the message has {} inputs; generate and stream take one at a time",
            inputs.len()
        ))),
    }
}

/// The request that the guest sees, once all of its only input is there.
pub(super) async fn whole(parsed: Parsed, fetching: &Fetching) -> Result<Request, Outcome> {
    let fetched = parsed.fetched(fetching).await?;
    match fetched.inputs.iter().find_map(|input| input.as_ref().err()) {
        Some(error) => Err(Outcome::from(error)),
        None => Ok(fetched.request()),
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

pub(super) fn unreadable(status: &tonic::Status) -> Outcome {
    let text = format!("a message cannot be read: {}", status.message());
    match status.code() {
        tonic::Code::Unavailable => Outcome::no_room(text),
        tonic::Code::DeadlineExceeded => {
            Outcome::new(StatusCode::RpcRequestTimeout, "WALL_DEADLINE", text)
        }
        _ => Outcome::bad_request(text),
    }
}

/// Everything that comes out of a call.
struct Whole {
    answers: Vec<Result<Output, Outcome>>,
    /// What they make the version hold.
    held: Vec<Held>,
    verdict: Verdict,
}

/// All of it, or nothing if its end does not come.
async fn read_all(mut outputs: Outputs) -> Option<Whole> {
    let (mut answers, mut held) = (Vec::new(), Vec::new());
    loop {
        match outputs.next().await? {
            Event::Output(output) => answers.push(Ok(output)),
            Event::InputFailed(error) => answers.push(Err(Outcome::from(&error))),
            Event::End(verdict) => return Some(Whole { answers, held, verdict }),
        }
        held.extend(outputs.held());
    }
}

/// The id of an input that the guest sees, or why it does not.
fn id_of(input: &Result<crate::call::Input, InputError>) -> Result<String, Outcome> {
    match input {
        Ok(input) => Ok(input.id.clone()),
        Err(error) => Err(Outcome::from(error)),
    }
}

/// The outcome of a batch, from those of its inputs.
fn of_batch(outcomes: &[Outcome]) -> Outcome {
    let failed = outcomes.iter().filter(|outcome| !outcome.is_success()).count();
    match (failed, outcomes) {
        (0, _) => Outcome::success(),
        (_, [outcome]) => outcome.clone(),
        (failed, all) if failed == all.len() => Outcome::all_failed(),
        _ => Outcome::mixed(),
    }
}

/// Whether the same call may be taken later.
fn is_busy(error: &LeaseError) -> bool {
    match error {
        LeaseError::Busy | LeaseError::Full(_) | LeaseError::NoRoom | LeaseError::Quota(_) => true,
        LeaseError::NoSuchModel
        | LeaseError::NoSuchVersion
        | LeaseError::NoVersion
        | LeaseError::Stopped
        | LeaseError::StoppedByOperator
        | LeaseError::NoSuchNodepool(_)
        | LeaseError::NoSuchDeployment(_)
        | LeaseError::NotDeployedThere(_)
        | LeaseError::OtherVersion { .. }
        | LeaseError::DeadlinePassed
        | LeaseError::Start(_) => false,
    }
}

/// Clients retry a busy answer, and a stream that is retried has lost the
/// messages it had sent.
fn not_retried(error: LeaseError) -> Outcome {
    let is_busy = is_busy(&error);
    let outcome = Outcome::from(error);
    match is_busy {
        true => Outcome { code: StatusCode::RpcRequestQueueFull, ..outcome },
        false => outcome,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Clients of 12.5 retry these codes: 21351, 21354 and 21355.
    #[test]
    fn no_stream_is_told_what_clients_retry() {
        let retried = [
            StatusCode::ModelDeploying,
            StatusCode::ModelBusyPleaseRetry,
            StatusCode::ModelLoading,
        ];
        for error in [LeaseError::Busy, LeaseError::NoRoom, LeaseError::DeadlinePassed] {
            let told = not_retried(error.clone()).code;
            assert!(!retried.contains(&told), "{error}: {told:?}");
        }
    }
}
