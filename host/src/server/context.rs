//! One call on its way, from its first message to its answer.
//!
//! Owns what a call is known by, its one log line, and how outcomes become
//! messages. The line is written whatever happens to the call.

use super::App;
use super::response::{self, Form};
use super::running::Running;
use super::status::Outcome;
use crate::auth::{AuthError, Caller};
use crate::call::{Deadline, End, Function, Output, Receipt};
use crate::proto::clarifai::api;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

/// What a call is known by.
pub(crate) struct CallContext {
    pub(crate) app: Arc<App>,
    pub(crate) req_id: String,
    pub(crate) function: Function,
    pub(crate) caller: Result<Caller, AuthError>,
    /// The client's own deadline.
    pub(crate) deadline: Option<Deadline>,
    pub(crate) started_at: Instant,
    /// The first number of the version of the Clarifai SDK that calls.
    pub(crate) client_major: Option<u32>,
    /// The model's name, once the request has told it.
    pub(crate) model: OnceLock<String>,
    pub(crate) completed: AtomicBool,
    /// Among the calls that run, once it does.
    pub(crate) running: OnceLock<Running>,
}

impl CallContext {
    /// The answer to one input, with its id and its status, and how that went.
    pub(super) fn output(
        &self,
        result: Result<Output, Outcome>,
        id: String,
        form: &Form,
    ) -> (Outcome, api::Output) {
        let (outcome, mut output) = match result.and_then(|output| response::output(output, form)) {
            Ok(output) => (Outcome::success(), output),
            Err(outcome) => (outcome, api::Output::default()),
        };
        output.id = match id.is_empty() {
            true => crate::telemetry::request_id(),
            false => id,
        };
        output.status = Some(outcome.status(&self.req_id));
        (outcome, output)
    }

    /// A response of nothing but an outcome.
    pub(super) fn refusal(&self, outcome: &Outcome) -> api::MultiOutputResponse {
        let status = Some(outcome.status(&self.req_id));
        api::MultiOutputResponse { status, outputs: Vec::new() }
    }

    /// The outcome of a call whose events stopped before their end.
    pub(super) fn lost(&self) -> Outcome {
        tracing::error!(req_id = %self.req_id, "a call ended without a verdict");
        Outcome::host_bug()
    }

    /// Resolves when others end the call: its token counts no more, or somebody
    /// who may has ended it. Says which.
    pub(super) async fn ended_by_others(&self) -> Outcome {
        let token = async {
            match &self.caller {
                Ok(caller) => caller.is_over().await,
                Err(_) => std::future::pending().await,
            }
        };
        let ended = async {
            match self.running.get() {
                Some(running) => running.is_ended().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = token => AuthError::Refused.into(),
            () = ended => Outcome::ended_by_others(),
        }
    }

    /// Logs what a caller must not be told.
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

/// The log line of a request that is no call and failed.
pub(super) fn request_failed(req_id: &str, what: &str, outcome: &Outcome) {
    tracing::info!(
        req_id,
        what,
        code = outcome.code as i32,
        reason = outcome.reason,
        text = outcome.text,
        "a request failed"
    );
}

impl Drop for CallContext {
    /// A client that leaves drops the call wherever it is.
    fn drop(&mut self) {
        if !self.completed.load(Ordering::Relaxed) {
            self.completed(&Outcome::from(&End::Cancelled), Receipt::default());
        }
    }
}
