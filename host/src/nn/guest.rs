//! wasi-nn as guests see it.
//!
//! Owns the handles of a sandbox: every tensor is checked and charged, every
//! error carries a text for the author and nothing of the host's.

#![allow(unreachable_pub, reason = "the generated bindings re-export what they are mapped to")]

mod tensors;

use super::engine::RunError;
use super::{Compute, Graphs, NamedGraph};
use crate::call::HostCall;
use crate::limits::limit;
use crate::sandbox::nn_bindings::errors::ErrorCode;
use crate::sandbox::nn_bindings::{errors, graph, inference};
use crate::sandbox::{Account, State, Stop};
use crate::telemetry::Level;
use std::sync::Arc;
use wasmtime::component::Resource;

pub use tensors::GuestTensor;
pub(crate) use tensors::link as link_tensors;

/// What a sandbox needs for wasi-nn.
pub(crate) struct NnState {
    graphs: Graphs,
    account: Account,
}

impl NnState {
    pub(crate) fn new(graphs: &Graphs, account: &Account) -> Self {
        Self { graphs: graphs.clone(), account: account.clone() }
    }
}

/// An error handle.
#[derive(Debug, Clone)]
pub struct GuestFailure {
    code: ErrorCode,
    text: String,
}

/// A graph handle.
#[derive(Debug, Clone)]
pub struct GuestGraph(Arc<NamedGraph>);

/// An execution context: a graph about to compute.
#[derive(Debug, Clone)]
pub struct GuestContext(Arc<NamedGraph>);

/// Bytes of an error's text. A guest may hold many errors, and names that a
/// package chose are part of them.
const FAILURE_BYTES_MAX: usize = 1 << 10;

fn failure(code: ErrorCode, text: impl Into<String>) -> GuestFailure {
    let mut text = text.into();
    crate::text::cut(&mut text, limit("nn_error_text", FAILURE_BYTES_MAX));
    text.shrink_to_fit();
    GuestFailure { code, text }
}

impl State {
    fn fail<T>(
        &mut self,
        failure: GuestFailure,
    ) -> wasmtime::Result<Result<T, Resource<GuestFailure>>> {
        Ok(Err(self.table.push(failure).map_err(Stop::from)?))
    }
}

impl errors::Host for State {}

impl errors::HostError for State {
    fn code(&mut self, error: Resource<GuestFailure>) -> wasmtime::Result<ErrorCode> {
        Ok(self.table.get(&error).map_err(Stop::from)?.code)
    }

    fn data(&mut self, error: Resource<GuestFailure>) -> wasmtime::Result<String> {
        Ok(self.table.get(&error).map_err(Stop::from)?.text.clone())
    }

    fn drop(&mut self, error: Resource<GuestFailure>) -> wasmtime::Result<()> {
        self.table.delete(error).map_err(Stop::from)?;
        Ok(())
    }
}

impl graph::Host for State {
    fn load(
        &mut self,
        _: Vec<graph::GraphBuilder>,
        _: graph::GraphEncoding,
        _: graph::ExecutionTarget,
    ) -> wasmtime::Result<Result<Resource<GuestGraph>, Resource<GuestFailure>>> {
        let text = "graphs come from the model's package; open them with load-by-name";
        self.fail(failure(ErrorCode::UnsupportedOperation, text))
    }

    fn load_by_name(
        &mut self,
        name: String,
    ) -> wasmtime::Result<Result<Resource<GuestGraph>, Resource<GuestFailure>>> {
        self.note(HostCall::LoadGraph);
        match self.nn.graphs.named(&name) {
            Some(graph) => Ok(Ok(self.table.push(GuestGraph(graph)).map_err(Stop::from)?)),
            None => {
                let mut shown = name;
                crate::text::cut(&mut shown, 128);
                let names = self.nn.graphs.names().collect::<Vec<_>>().join(", ");
                let text = match names.is_empty() {
                    true => format!("no graph is named {shown:?}: the package has none"),
                    false => format!("no graph is named {shown:?}; the package has {names}"),
                };
                self.fail(failure(ErrorCode::NotFound, text))
            }
        }
    }
}

impl graph::HostGraph for State {
    fn init_execution_context(
        &mut self,
        graph: Resource<GuestGraph>,
    ) -> wasmtime::Result<Result<Resource<GuestContext>, Resource<GuestFailure>>> {
        let graph = self.table.get(&graph).map_err(Stop::from)?.0.clone();
        Ok(Ok(self.table.push(GuestContext(graph)).map_err(Stop::from)?))
    }

    fn drop(&mut self, graph: Resource<GuestGraph>) -> wasmtime::Result<()> {
        self.table.delete(graph).map_err(Stop::from)?;
        Ok(())
    }
}

impl inference::Host for State {}

impl inference::HostGraphExecutionContext for State {
    async fn compute(
        &mut self,
        context: Resource<GuestContext>,
        inputs: Vec<inference::NamedTensor>,
    ) -> wasmtime::Result<Result<Vec<inference::NamedTensor>, Resource<GuestFailure>>> {
        self.note(HostCall::Compute);
        let graph = self.table.get(&context).map_err(Stop::from)?.0.clone();
        let mut named = Vec::with_capacity(inputs.len());
        let mut held = Vec::with_capacity(inputs.len());
        for (name, handle) in inputs {
            // The handles are the call's to drop, whatever comes of them.
            let tensor = self.table.delete(handle).map_err(Stop::from)?;
            named.push((name, tensor.tensor));
            held.push(tensor.charge);
        }
        let ordered = match graph.arrange(named) {
            Ok(ordered) => ordered,
            Err(text) => return self.fail(failure(ErrorCode::InvalidArgument, text)),
        };
        let job = Compute {
            inputs: ordered,
            held,
            hold: self.hold.clone(),
            meters: self.meters.clone(),
            deadline: self.deadline,
            stopped: self.stopped.clone(),
        };
        let outputs = match graph.compute(job, &self.shared.share).await {
            Ok(outputs) => outputs,
            Err(error) => {
                let code = match &error {
                    // Nobody but the deadline cancels what the guest waits for.
                    RunError::Cancelled => return Err(Stop::DeadlinePassed.into()),
                    RunError::Memory(over) => return Err(Stop::from(*over).into()),
                    RunError::DeviceLost(why) => {
                        return Err(Stop::DeviceLost(why.clone()).into());
                    }
                    RunError::Engine(_) => ErrorCode::RuntimeError,
                    RunError::OutputType { .. } => ErrorCode::UnsupportedOperation,
                    RunError::Panicked => {
                        // In the guest's log, whose rate is limited: a guest
                        // can do this as often as it likes.
                        let line = format!("the engine panicked in graph {:?}", graph.name());
                        self.log.lock().line(Level::Error, &line);
                        ErrorCode::Unknown
                    }
                };
                return self.fail(failure(code, error.to_string()));
            }
        };
        let mut handles = Vec::with_capacity(outputs.len());
        for (name, tensor, charge) in outputs {
            let tensor = GuestTensor { tensor: Ok(tensor), charge };
            handles.push((name, self.table.push(tensor).map_err(Stop::from)?));
        }
        Ok(Ok(handles))
    }

    async fn drop(&mut self, context: Resource<GuestContext>) -> wasmtime::Result<()> {
        self.table.delete(context).map_err(Stop::from)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_an_error_is_cut() {
        let failure = failure(ErrorCode::RuntimeError, "ä".repeat(1 << 20));
        assert_eq!(failure.text.len(), FAILURE_BYTES_MAX);
        assert!(failure.text.capacity() < 2 * FAILURE_BYTES_MAX);
    }
}
