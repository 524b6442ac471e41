//! A replica in this very process: for what is one process by its nature, such as
//! tests and measurements.

use super::StartFailure;
use super::message::{Figures, Loaded, Started, Unknown};
use crate::call::{Deadline, Function, Holder, Origin};
use crate::limits::Limits;
use crate::package::Parts;
use crate::sandbox::{Calling, Compiled, Lines, MethodsError, Program, Requests, Runtime};
use crate::telemetry::VersionLog;
use std::sync::Arc;
use std::time::Instant;
use tokio_util::sync::CancellationToken;

#[derive(Debug)]
pub(super) struct Here {
    program: Arc<Program>,
}

impl Here {
    pub(super) async fn start(
        runtime: &Arc<Runtime>,
        parts: Parts,
        compiled: Compiled,
        log: Option<VersionLog>,
    ) -> Result<(Self, Started), StartFailure> {
        let (runtime, lines) = (runtime.clone(), log.clone());
        let lines =
            lines.map(|log| Lines::to(move |origin, level, line| log.output(origin, level, line)));
        let admitted = tokio::task::spawn_blocking(move || {
            Program::of(&runtime, parts, &compiled, lines, || Ok(()), || Ok(()))
        });
        let program = match admitted.await {
            Ok(program) => Arc::new(program?),
            Err(panic) => return Err(StartFailure::Refused(panic.to_string())),
        };
        let started = started(&program).await;
        Ok((Self { program }, started))
    }

    pub(super) fn call<H: Send + Sync + 'static>(
        &self,
        ended: &CancellationToken,
        function: Function,
        origin: Origin,
        deadline: Deadline,
        hold: H,
    ) -> (Requests, Calling) {
        self.program.call_until(ended, function, origin, deadline, hold)
    }

    pub(super) fn limits(&self) -> &Limits {
        self.program.limits()
    }

    pub(super) fn figures(&self) -> Figures {
        figures_of(&self.program)
    }
}

/// Asks for the typed methods, and loads a first sandbox.
pub(super) async fn started(program: &Arc<Program>) -> Started {
    let methods = match program.methods().await {
        Ok(methods) => Ok(methods.declared().to_owned()),
        Err(error) => {
            let why = error.to_string();
            let ended = match error {
                MethodsError::Ended(verdict) => Some(verdict),
                MethodsError::Signature(_) => None,
            };
            Err(Unknown { why, ended })
        }
    };
    let began = Instant::now();
    let loaded = program.warm().await;
    let wall = began.elapsed();
    let loaded = loaded.map(|receipt| Loaded { receipt, wall }).map_err(|verdict| *verdict);
    Started { methods, loaded }
}

/// What a program's replica holds and has had.
pub(super) fn figures_of(program: &Program) -> Figures {
    Figures {
        memory_bytes: Holder::ALL.map(|holder| (holder, program.account().bytes_of(holder))),
        sandboxes_made: program.sandboxes_made(),
        cpu: program.cpu_charged(),
        lines_lost: 0,
    }
}
