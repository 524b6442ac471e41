//! The process boundary: what runs guests and graphs.
//!
//! Owns starting a version's replica and handing calls to it. For now the
//! replica lives in this process, so a guest has one wall around it and not
//! two; whoever starts the host is told. What an author sends is compiled and
//! first tried in one-shot processes. Never touches tonic.

mod confine;
mod frames;
mod one_shot;

pub use confine::{Confinement, confine};
pub use frames::Frame;
#[cfg(test)]
pub(crate) use one_shot::tests::scripted;
pub use one_shot::{Given, OneShot, OneShotError, Urgency};

use crate::call::{Deadline, Event, Function, Holder, Methods, Origin, Request};
use crate::limits::Limits;
use crate::package::Package;
use crate::sandbox::{
    Calling, Charge, Code, Compiled, MethodsError, Program, Requests, Runtime, Surroundings,
};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

pub use crate::sandbox::{AdmitError, OverLimit, SendError, Spent};

/// One replica of a version.
#[derive(Debug)]
pub struct Worker {
    program: Arc<Program>,
    methods: Methods,
}

/// A call's outputs, to be read until [`Event::End`]. Dropping them stops the
/// guest and frees what the call held.
#[derive(Debug)]
pub struct Outputs(Calling);

/// The way in for a call's messages. Dropping it tells the guest that there
/// are no more.
#[derive(Debug)]
pub struct Inputs(Requests);

impl Worker {
    /// Loads the package's machine code, its graphs and a first sandbox.
    ///
    /// A model whose `load-model` fails is started all the same: its callers
    /// are told, and the operator by the log.
    pub async fn start(
        runtime: &Arc<Runtime>,
        package: Package,
        compiled: Compiled,
    ) -> Result<Self, AdmitError> {
        let name = package.config.name.to_string();
        let runtime = runtime.clone();
        let admitted = tokio::task::spawn_blocking(move || {
            Program::admit(&runtime, package, &Code::Compiled(compiled), Surroundings::Real)
        })
        .await;
        let program = match admitted {
            Ok(program) => Arc::new(program?),
            Err(panic) => return Err(AdmitError::Component(panic.to_string())),
        };
        let methods = match program.methods().await {
            Ok(methods) => methods,
            Err(error) => {
                // What a guest says goes to its own log.
                let why = match &error {
                    MethodsError::Ended(verdict) => verdict.end.without_words(),
                    MethodsError::Signature(error) => error.to_string(),
                };
                tracing::warn!(
                    model = %name,
                    "it is called with plain inputs only, since its typed methods are not known: \
                     {why}"
                );
                if let (MethodsError::Ended(verdict), Some(log)) = (&error, program.log()) {
                    log.ended(&Origin::from(""), verdict);
                }
                Methods::default()
            }
        };
        if let Err(verdict) = program.warm().await {
            tracing::warn!(
                model = %name,
                "the model cannot be loaded, and its callers are told so; `ringfence logs` has its \
                 words: {}",
                verdict.end.without_words()
            );
            if let Some(log) = program.log() {
                log.ended(&Origin::from(""), &verdict);
            }
        }
        Ok(Self { program, methods })
    }

    /// Starts a call, which ends without a verdict when `ended` is cancelled.
    /// `hold` is kept until the guest has ended, whether or not anybody still
    /// reads the outputs.
    pub fn call<H: Send + 'static>(
        &self,
        ended: &CancellationToken,
        function: Function,
        origin: Origin,
        deadline: Deadline,
        hold: H,
    ) -> (Inputs, Outputs) {
        let (requests, calling) = self.program.call_until(ended, function, origin, deadline, hold);
        (Inputs(requests), Outputs(calling))
    }

    /// The typed methods of its version.
    pub fn methods(&self) -> &Methods {
        &self.methods
    }

    /// Bytes held for its version now, by what holds them.
    pub fn memory_bytes(&self) -> [(Holder, u64); Holder::ALL.len()] {
        Holder::ALL.map(|holder| (holder, self.program.account().bytes_of(holder)))
    }

    /// Sandboxes made since it started.
    pub fn sandboxes_made(&self) -> u64 {
        self.program.sandboxes_made()
    }

    /// The limits of its version.
    pub fn limits(&self) -> &Limits {
        self.program.limits()
    }
}

/// What an output makes its version hold, as long as this lives.
#[derive(Debug)]
pub struct Held {
    _charge: Charge,
}

impl Outputs {
    /// What the call has taken so far.
    pub fn spent(&self) -> &Spent {
        self.0.spent()
    }

    /// The next event; nothing after the end. What the one before it made the
    /// version hold is given back, unless it was taken.
    pub async fn next(&mut self) -> Option<Event> {
        self.0.next().await
    }

    /// What the last event makes the version hold, for whoever keeps its output.
    pub fn held(&mut self) -> Option<Held> {
        self.0.held().map(|charge| Held { _charge: charge })
    }
}

impl Inputs {
    /// Sends a message and waits while the guest is slow.
    pub async fn send(&self, request: Request) -> Result<(), SendError> {
        self.0.send(request).await
    }
}
