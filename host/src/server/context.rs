//! One call on its way, from its first message to its answer.
//!
//! Owns what a call is known by, its end: one log line, its numbers, its receipt,
//! and how outcomes become messages. The end is told whatever happens to the
//! call.

use super::App;
use super::bill::Bill;
use super::inbound::Received;
use super::receipt::{Slot, Usage, milliseconds};
use super::response::{self, Form};
use super::running::Running;
use super::status::Outcome;
use super::timeout::NoTimeout;
use crate::auth::{Allowance, AuthError, Caller};
use crate::call::{Deadline, End, Function, Origin, Output, Receipt, Verdict};
use crate::deploy::Version;
use crate::package::config::ModelName;
use crate::proto::clarifai::api;
use crate::telemetry::CallFigures;
use crate::worker::Spent;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// What a call is known by.
pub(crate) struct CallContext {
    pub(crate) app: Arc<App>,
    pub(crate) req_id: String,
    pub(crate) function: Function,
    pub(crate) caller: Result<Caller, AuthError>,
    /// The client's own deadline.
    pub(crate) deadline: Option<Deadline>,
    /// Why there is none, where the client has said something else.
    pub(crate) bad_timeout: Option<NoTimeout>,
    pub(crate) started_at: Instant,
    /// What it has brought, until a guest has it.
    pub(crate) received: Option<Arc<Received>>,
    /// The first number of the version of the Clarifai SDK that calls.
    pub(crate) client_major: Option<u32>,
    /// The model's name, once the request has told it.
    pub(crate) model: OnceLock<String>,
    /// What becomes known on the way.
    pub(crate) found: Found,
    /// Where the receipt goes.
    pub(crate) slot: Slot,
    pub(crate) completed: AtomicBool,
    /// Among the calls that run, once it does.
    pub(crate) running: OnceLock<Running>,
    /// Counts for its caller, once it does.
    pub(crate) allowance: OnceLock<Allowance>,
    /// What its caller pays for it, once it does.
    pub(crate) bill: OnceLock<Arc<Bill>>,
}

/// What becomes known of a call on its way, each at most once.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// The model, where the caller may see it.
    pub(crate) model: OnceLock<ModelName>,
    /// What was called.
    version: OnceLock<Arc<Version>>,
    /// Time in the queue.
    queue: OnceLock<Duration>,
    /// Time that the start of a replica took.
    start: OnceLock<Duration>,
    /// Time to the first output.
    first_output: OnceLock<Duration>,
    /// What the guest took.
    receipt: OnceLock<Receipt>,
}

impl Found {
    /// A place was asked for, and given or not.
    pub(super) fn leased(&self, version: &Arc<Version>, queue: Duration, start: Duration) {
        // A call asks for one place.
        let _ = self.version.set(version.clone());
        let _ = self.queue.set(queue);
        let _ = self.start.set(start);
    }
}

impl CallContext {
    /// What logs say of where the call comes from.
    pub(super) fn origin(&self) -> Origin {
        let user = self.caller.as_ref().map_or("", Caller::user_id);
        Origin { call: self.req_id.as_str().into(), user: user.into() }
    }

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
        if outcome.is_success() {
            // Only the first one is.
            let _ = self.found.first_output.set(self.started_at.elapsed());
        }
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
                Some(running) => running.ended().cancelled().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // The token's end is that of the call, too.
            biased;
            () = token => AuthError::Refused.into(),
            () = ended => Outcome::ended_by_others(),
        }
    }

    /// What work gives, unless others end the call before.
    pub(super) async fn unless_ended<T>(
        &self,
        work: impl Future<Output = Result<T, Outcome>>,
    ) -> Result<T, Outcome> {
        tokio::select! {
            // A guest that others have ended has no verdict.
            biased;
            outcome = self.ended_by_others() => Err(outcome),
            done = work => done,
        }
    }

    /// Takes note of how the guest ended: what it took, what its owner has to
    /// know, and what a caller must not be told.
    pub(super) fn ended(&self, verdict: &Verdict) {
        // A call has one verdict.
        let _ = self.found.receipt.set(verdict.receipt);
        if let Some(log) = self.found.version.get().and_then(|version| version.log()) {
            log.ended(&self.origin(), verdict);
        }
        if let End::HostBug(text) = &verdict.end {
            tracing::error!(req_id = %self.req_id, %text, "the host failed in a call");
        }
    }

    /// The one end of a call: its log line, its numbers, its receipt.
    pub(super) fn completed(&self, outcome: &Outcome) {
        self.completed.store(true, Ordering::Relaxed);
        let usage = self.usage();
        let receipt = &usage.receipt;
        if let Some(bill) = self.bill.get() {
            match self.found.receipt.get() {
                Some(verdict) => bill.settle(verdict),
                None => bill.pay(receipt),
            }
        }
        if self.is_told() {
            tracing::info!(
                target: "call",
                req_id = %self.req_id,
                model = self.model.get().map_or("", String::as_str),
                version = usage.version,
                user = self.caller.as_ref().map_or("", Caller::user_id),
                function = self.function.as_str(),
                code = outcome.code as i32,
                reason = outcome.reason,
                wall_ms = milliseconds(usage.wall),
                queue_ms = milliseconds(usage.queue),
                load_ms = milliseconds(receipt.load),
                first_output_ms = usage.first_output.map(milliseconds),
                cpu_ms = milliseconds(receipt.guest_cpu),
                cpu_wait_ms = milliseconds(receipt.cpu_wait),
                tensor_ms = milliseconds(receipt.engine_cpu),
                device_ms = milliseconds(receipt.device),
                computes = receipt.computes,
                fuel = receipt.fuel,
                fuel_is_lower_bound = receipt.fuel_is_lower_bound,
                memory_bytes_peak = receipt.memory_bytes_peak,
                bytes_in = receipt.bytes_in,
                bytes_out = receipt.bytes_out,
                "call ended"
            );
        } else {
            self.app.telemetry.log_lines_dropped.add();
        }
        // A name that a client made up is no label.
        let model = self.found.model.get().map(ToString::to_string);
        self.app.telemetry.metrics.call(&CallFigures {
            model: model.as_deref(),
            function: self.function,
            verdict: if outcome.reason.is_empty() { "OK" } else { outcome.reason },
            wall: usage.wall,
            queue: self.found.queue.get().copied(),
            first_output: usage.first_output,
            receipt: *receipt,
        });
        self.slot.leave(usage);
    }

    /// Whether there is a line for the call: anybody can make calls with bad tokens.
    fn is_told(&self) -> bool {
        self.caller.is_ok() || self.app.telemetry.refusals.take()
    }

    /// What its guest has taken so far, once there is one.
    pub(super) fn spent(&self) -> Option<&Spent> {
        self.bill.get()?.spent()
    }

    fn usage(&self) -> Usage {
        let found = &self.found;
        // A call that is broken off has no verdict, but has cost something.
        let so_far = || self.spent().map(Spent::receipt);
        let version = found.version.get().map(|version| version.version.clone());
        let mut receipt = found.receipt.get().copied().or_else(so_far).unwrap_or_default();
        // To its caller a replica that starts is a model that loads.
        receipt.load += found.start.get().copied().unwrap_or_default();
        Usage {
            call_id: self.req_id.clone(),
            version: version.unwrap_or_default(),
            wall: self.started_at.elapsed(),
            queue: found.queue.get().copied().unwrap_or_default(),
            first_output: found.first_output.get().copied(),
            receipt,
        }
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
            self.completed(&Outcome::from(&End::Cancelled));
        }
        self.slot.keep_allowance(self.allowance.take());
    }
}
