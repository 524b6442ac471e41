//! The streamed answers of one call, and the client's further messages.
//!
//! Owns what a stream of responses says last: it always says something, and the
//! failure of a bad message comes after the answers to the good ones.

use super::calls::{sent, single, unreadable, whole};
use super::context::CallContext;
use super::request::{Reading, Turn};
use super::response::Form;
use super::sent::Fetching;
use super::status::Outcome;
use crate::call::{Event, Function};
use crate::proto::clarifai::api;
use crate::worker::{Inputs, Outputs, Spent};
use futures_util::{Stream, StreamExt};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Answers being read from a guest.
pub(super) struct Answering {
    outputs: Outputs,
    form: Form,
    /// Why no more messages can be fed, once that is so.
    failure: Option<oneshot::Receiver<Outcome>>,
    /// When both sides have been silent for too long, where both may speak.
    idle: Option<Idle>,
    _feeder: Option<AbortOnDrop>,
    sent_any: bool,
}

impl Answering {
    pub(super) fn new(outputs: Outputs, form: Form) -> Self {
        Self { outputs, form, failure: None, idle: None, _feeder: None, sent_any: false }
    }

    /// Brings the client's further messages to the guest, from a task that ends
    /// with the answers.
    pub(super) fn fed_by<S>(
        mut self,
        inputs: Inputs,
        requests: S,
        reading: Reading,
        fetching: Fetching,
        idle_timeout: Duration,
    ) -> Self
    where
        S: Stream<Item = Result<api::PostModelOutputsRequest, tonic::Status>>
            + Send
            + Unpin
            + 'static,
    {
        let (failed, failure) = oneshot::channel();
        self.failure = Some(failure);
        let idle = Idle::new(idle_timeout);
        self.idle = Some(idle.clone());
        self._feeder = Some(AbortOnDrop(tokio::spawn(async move {
            if let Err(outcome) = feed(&inputs, requests, &reading, &fetching, &idle).await {
                // The stream of answers may be over already.
                let _ = failed.send(outcome);
            }
            // Only now may the guest see the end of its messages, and end: what
            // ended them has been told.
            drop(inputs);
        })));
        self
    }

    /// Why the client's messages could not all be read, if that is so. Asked at
    /// the end: the answers to good messages come before the failure of a bad
    /// one, which ends the guest's messages and so the guest.
    fn failure(&mut self) -> Option<Outcome> {
        self.failure.as_mut()?.try_recv().ok()
    }
}

/// A stream of responses that knows how it must end.
pub(super) struct Responses {
    context: CallContext,
    state: Result<Answering, Outcome>,
    over: bool,
}

impl Responses {
    pub(super) fn new(context: CallContext, state: Result<Answering, Outcome>) -> Self {
        Self { context, state, over: false }
    }

    pub(super) fn into_stream(self) -> impl Stream<Item = api::MultiOutputResponse> + Send {
        futures_util::stream::unfold(self, |mut responses| async move {
            let response = responses.next().await?;
            Some((response, responses))
        })
    }

    async fn next(&mut self) -> Option<api::MultiOutputResponse> {
        if self.over {
            return None;
        }
        let answering = match &mut self.state {
            Ok(answering) => answering,
            Err(outcome) => {
                let outcome = outcome.clone();
                return Some(self.end(&outcome));
            }
        };
        let Answering { outputs, idle, .. } = answering;
        let spent = self.context.spent();
        let worked = || spent.map(Spent::receipt).map(|spent| spent.guest_cpu + spent.engine_cpu);
        let next = async {
            tokio::select! {
                biased;
                event = outputs.next() => Ok(event),
                () = silence(idle.as_ref(), worked) => Err(Outcome::silent()),
            }
        };
        let event = match self.context.unless_ended(next).await {
            Ok(event) => event,
            Err(outcome) => {
                // Whoever reads no more stops the guest.
                self.state = Err(outcome.clone());
                return Some(self.end(&outcome));
            }
        };
        match event {
            Some(Event::Output(output)) => {
                answering.sent_any = true;
                if let Some(idle) = &answering.idle {
                    idle.over();
                }
                let (outcome, output) =
                    self.context.output(Ok(output), String::new(), &answering.form);
                if !outcome.is_success() {
                    return Some(self.end(&outcome));
                }
                let status = Some(outcome.status(&self.context.req_id));
                Some(api::MultiOutputResponse { status, outputs: vec![output] })
            }
            Some(Event::InputFailed(error)) => {
                let outcome = Outcome::from(&error);
                Some(self.end(&outcome))
            }
            Some(Event::End(verdict)) => {
                self.context.ended(&verdict);
                let mut outcome = answering.failure().unwrap_or_else(|| Outcome::from(&verdict));
                outcome = match answering.sent_any || self.context.function == Function::Stream {
                    true => outcome.not_retried(),
                    false => self.context.retried(outcome),
                };
                if outcome.is_success() && answering.sent_any {
                    self.over = true;
                    self.context.completed(&outcome);
                    return None;
                }
                Some(self.end(&outcome))
            }
            None => {
                let outcome = self.context.lost();
                Some(self.end(&outcome))
            }
        }
    }

    fn end(&mut self, outcome: &Outcome) -> api::MultiOutputResponse {
        self.over = true;
        self.context.completed(outcome);
        let mut response = self.context.refusal(outcome);
        if outcome.is_success() {
            // A guest that sent nothing has answered all the same.
            let output = api::Output { status: response.status.clone(), ..Default::default() };
            response.outputs.push(output);
        }
        response
    }
}

/// How long nobody has said anything.
#[derive(Debug, Clone)]
struct Idle {
    within: Duration,
    state: Arc<Mutex<IdleState>>,
}

#[derive(Debug)]
struct IdleState {
    since: Instant,
    /// Whether a message of the client's is waited for.
    listens: bool,
}

impl Idle {
    fn new(within: Duration) -> Self {
        let state = IdleState { since: Instant::now(), listens: false };
        Self { within, state: Arc::new(Mutex::new(state)) }
    }

    /// Somebody has.
    fn over(&self) {
        self.lock().since = Instant::now();
    }

    /// The client may say something from now on, or has, or has said all.
    fn listens(&self, listens: bool) {
        *self.lock() = IdleState { since: Instant::now(), listens };
    }

    fn lock(&self) -> MutexGuard<'_, IdleState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Resolves when nobody has said anything for too long, though the client could
/// have, and the guest has not worked either.
async fn silence(idle: Option<&Idle>, worked: impl Fn() -> Option<Duration>) {
    let Some(idle) = idle else { return std::future::pending().await };
    let mut before = worked();
    loop {
        let ends = idle.lock().since + idle.within;
        if Instant::now() < ends {
            tokio::time::sleep_until(ends.into()).await;
            continue;
        }
        let now = worked();
        if idle.lock().listens && now == before {
            return;
        }
        before = now;
        idle.over();
    }
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Brings the client's further messages to the guest.
async fn feed<S>(
    inputs: &Inputs,
    mut requests: S,
    reading: &Reading,
    fetching: &Fetching,
    idle: &Idle,
) -> Result<(), Outcome>
where
    S: Stream<Item = Result<api::PostModelOutputsRequest, tonic::Status>> + Unpin,
{
    loop {
        idle.listens(true);
        let message = requests.next().await;
        idle.listens(false);
        let Some(message) = message else { return Ok(()) };
        let message = message.map_err(|status| unreadable(&status))?;
        let parsed = single(reading.parse(message, Turn::Next)?)?;
        let request = whole(parsed, fetching).await?;
        sent(inputs.send(request).await)?;
    }
}
