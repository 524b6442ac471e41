//! A replica in this very process: for what is one process by its nature, such as
//! tests and measurements.

use super::StartFailure;
use super::message::{Figures, Loaded, Started, Unknown};
use crate::call::{Deadline, Function, Holder, Origin};
use crate::devices::Given;
use crate::limits::Limits;
use crate::package::Parts;
use crate::sandbox::{
    Beginning, Calling, Compiled, Lines, MethodsError, Program, Requests, Runtime,
};
use crate::telemetry::VersionLog;
use bytes::Bytes;
use std::io;
use std::sync::Arc;
use std::time::Instant;
use tokio_util::sync::CancellationToken;

#[derive(Debug)]
pub(super) struct Here {
    program: Arc<Program>,
    _given: Given,
}

impl Here {
    pub(super) async fn start(
        runtime: &Arc<Runtime>,
        parts: Parts,
        compiled: Compiled,
        log: Option<VersionLog>,
        given: Given,
    ) -> Result<(Self, Started), StartFailure> {
        let (runtime, lines) = (runtime.clone(), log.clone());
        let lines =
            lines.map(|log| Lines::to(move |origin, level, line| log.output(origin, level, line)));
        let component = to_write(&compiled);
        let admitted = tokio::task::spawn_blocking(move || {
            Program::of(&runtime, parts, &compiled, lines, || Ok(()), || Ok(()))
        });
        let program = match admitted.await {
            Ok(program) => Arc::new(program?),
            Err(panic) => return Err(StartFailure::Refused(panic.to_string())),
        };
        let component = component.map_err(|error| StartFailure::Host(error.to_string()))?;
        let started = started(&program, component).await;
        Ok((Self { program, _given: given }, started))
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

/// Asks for the typed methods, loads a first sandbox, and writes what that leaves into a
/// component, if there is one for it.
pub(super) async fn started(program: &Arc<Program>, component: Option<Bytes>) -> Started {
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
    let (snapshot, unfit) = match (component, &methods, &loaded) {
        (Some(component), Ok(_), Ok(_)) => match program.snapshot(component).await {
            Ok(snapshot) => (Some(snapshot), None),
            Err(unfit) => (None, Some(unfit.to_string())),
        },
        // Why is told already.
        (None, _, _) | (_, Err(_), _) | (_, _, Err(_)) => (None, None),
    };
    Started { methods, loaded, snapshot, unfit }
}

/// The component that is to be written, if one is.
pub(super) fn to_write(compiled: &Compiled) -> io::Result<Option<Bytes>> {
    match compiled.beginning() {
        Beginning::Write(component) => Ok(Some(component.to_vec()?.into())),
        Beginning::Load | Beginning::Copy(_) => Ok(None),
    }
}

/// What a program's replica holds and has had.
pub(super) fn figures_of(program: &Program) -> Figures {
    Figures {
        memory_bytes: Holder::ALL.map(|holder| (holder, program.held_by(holder))),
        sandboxes_made: program.sandboxes_made(),
        cpu: program.cpu_charged(),
        lines_lost: 0,
    }
}
