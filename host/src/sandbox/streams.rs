//! The two ends of a call inside the sandbox: `source` and `sink`.

#![allow(unreachable_pub, reason = "the generated bindings re-export what they are mapped to")]

use super::account::{Account, Charge};
use super::bindings::ringfence::model::streams;
use super::meters::Meters;
use super::size;
use super::state::State;
use super::stop::Stop;
use super::types::{Error, ErrorCode, refusal};
use super::wire;
use crate::call::{Event, Holder, HostCall, Output, Request};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::SendTimeoutError;
use wasmtime::component::Resource;

/// A request on its way to the guest, with what it makes the host hold.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) request: Request,
    pub(crate) charge: Charge,
}

/// An event on its way to the client, with what it makes the host hold.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) event: Event,
    pub(crate) charge: Option<Charge>,
}

/// The client's messages.
#[derive(Debug)]
pub struct Source {
    pub(crate) requests: mpsc::Receiver<Received>,
}

/// The client, and how much may still be sent to it.
#[derive(Debug)]
pub struct Sink {
    pub(crate) events: mpsc::Sender<Sent>,
    pub(crate) account: Account,
    pub(crate) meters: Arc<Meters>,
    pub(crate) output_bytes_left: u64,
    /// How long the client may leave its place for outputs full.
    pub(crate) unread_timeout: Duration,
}

/// The client has gone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gone;

/// Bytes that an output is charged with until it has left the host.
pub(super) fn held_by(output: &Output) -> u64 {
    size::of_output(output).saturating_add(wire::beside(output))
}

impl Sink {
    /// Sends an output and waits while the client is slow, but not for ever.
    pub(crate) async fn output(&mut self, output: Output) -> Result<Result<(), Gone>, Stop> {
        let bytes = size::of_output(&output);
        self.output_bytes_left =
            self.output_bytes_left.checked_sub(bytes).ok_or(Stop::OutputLimit)?;
        let charge = self.account.charge(Holder::Message, held_by(&output))?;
        self.meters.bytes_out.add(bytes);
        self.event(Event::Output(output), Some(charge)).await
    }

    /// Sends any event.
    pub(crate) async fn event(
        &self,
        event: Event,
        charge: Option<Charge>,
    ) -> Result<Result<(), Gone>, Stop> {
        let sent = self.events.send_timeout(Sent { event, charge }, self.unread_timeout);
        match sent.await {
            Ok(()) => Ok(Ok(())),
            Err(SendTimeoutError::Closed(_)) => Ok(Err(Gone)),
            Err(SendTimeoutError::Timeout(_)) => Err(Stop::Unread),
        }
    }
}

impl streams::Host for State {}

impl streams::HostSource for State {
    async fn next(&mut self, source: Resource<Source>) -> wasmtime::Result<Option<Request>> {
        self.note(HostCall::Next);
        let source = self.table.get_mut(&source).map_err(Stop::from)?;
        let received = source.requests.recv().await;
        Ok(received.map(|received| {
            self.meters.bytes_in.add(received.charge.bytes());
            received.request
        }))
    }

    async fn drop(&mut self, source: Resource<Source>) -> wasmtime::Result<()> {
        self.table.delete(source).map_err(Stop::from)?;
        Ok(())
    }
}

impl streams::HostSink for State {
    async fn send(
        &mut self,
        sink: Resource<Sink>,
        output: Output,
    ) -> wasmtime::Result<Result<(), Error>> {
        self.note(HostCall::Send);
        let sink = self.table.get_mut(&sink).map_err(Stop::from)?;
        match sink.output(output).await? {
            Ok(()) => Ok(Ok(())),
            Err(Gone) => Ok(Err(refusal(ErrorCode::Failed, "the caller has gone"))),
        }
    }

    async fn drop(&mut self, sink: Resource<Sink>) -> wasmtime::Result<()> {
        self.table.delete(sink).map_err(Stop::from)?;
        Ok(())
    }
}
