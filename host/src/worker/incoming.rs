//! What a worker process says, checked before anything is made of it.

use super::link::Inbox;
use super::message::{
    Figures, Head, Line, SMALL_BYTES_MAX, Started, Tell, Unknown, carried, invalid, read,
};
use super::process::{Running, Shared};
use super::{StartFailure, lock};
use crate::call::{End, Event, GuestError, Holder, Output, Receipt, Verdict};
use crate::limits::{Limits, limit};
use crate::sandbox::{Charge, SNAPSHOT_BYTES_MAX, Snapshot, bytes_of, held_by, shown};
use crate::text::{cut, escape_controls};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// Whoever waits for the process to be ready.
type Ready = oneshot::Sender<Result<Started, StartFailure>>;

/// What a process may say that the first sandbox took to load.
const LOADED_MAX: Duration = Duration::from_secs(86_400);

/// What two clocks may differ by.
const ROUNDING: Duration = Duration::from_secs(1);

/// More than any call counts of anything.
const COUNT_MAX: u64 = 1 << 48;

/// The host's side of what comes.
pub(super) struct Incoming {
    pub(super) shared: Arc<Shared>,
    pub(super) ready: Option<Ready>,
    pub(super) written: Written,
}

/// A component with the state in it that `load-model` has left.
#[derive(Debug)]
pub(super) enum Written {
    /// None is to come.
    No,
    /// One may come before the process is ready.
    Awaited,
    /// It has come.
    Come(Snapshot),
}

impl Incoming {
    /// Takes what comes until the process closes its side. An error is the
    /// process's fault.
    pub(super) async fn listen(&mut self, mut inbox: Inbox) -> io::Result<()> {
        while let Some(head) = inbox.head::<Tell>().await? {
            // A process that never stops to talk is not all that this thread has to do.
            tokio::task::coop::consume_budget().await;
            if head.kind == Tell::Output {
                self.output(&head, &mut inbox).await?;
                continue;
            }
            if head.kind == Tell::Snapshot {
                self.snapshot(&head, &mut inbox).await?;
                continue;
            }
            if u64::from(head.length) > limit("worker_frame", SMALL_BYTES_MAX) {
                return Err(invalid("a frame is too long"));
            }
            let body = inbox.body(head.length).await?;
            self.take(&head, &body)?;
        }
        Ok(())
    }

    /// An output is charged before it is read: what it says that it holds, the worker
    /// has charged to the version, which has a limit.
    async fn output(&mut self, head: &Head<Tell>, inbox: &mut Inbox) -> io::Result<()> {
        let held = head.value;
        if u64::from(head.length) > held.saturating_add(SMALL_BYTES_MAX) {
            return Err(invalid("an output is longer than it says"));
        }
        let charge = self.shared.account.charge(Holder::Message, held);
        let charge = charge.map_err(|_| invalid("its outputs exceed cpu_memory"))?;
        let body = inbox.body(head.length).await?;
        let output: Output = carried(body, held)?;
        if held_by(&output) > held {
            return Err(invalid("an output holds more than it says"));
        }
        let bytes = bytes_of(&output);
        self.running(head, |running| {
            let left = running.output_bytes_left.checked_sub(bytes);
            running.output_bytes_left =
                left.ok_or_else(|| invalid("its outputs exceed max_output_bytes"))?;
            event(running, Event::Output(output), Some(charge))
        })
    }

    /// It is as long as a component may be, and is looked at in another process.
    async fn snapshot(&mut self, head: &Head<Tell>, inbox: &mut Inbox) -> io::Result<()> {
        if !matches!(self.written, Written::Awaited) {
            return Err(invalid("nothing was to be written"));
        }
        if u64::from(head.length) > limit("worker_frame", SNAPSHOT_BYTES_MAX) {
            return Err(invalid("a snapshot is too long"));
        }
        let component = inbox.body(head.length).await?.to_vec();
        let bytes = head.value.min(self.shared.limits.memory_bytes_max);
        self.written = Written::Come(Snapshot { component, bytes });
        Ok(())
    }

    fn take(&mut self, head: &Head<Tell>, body: &[u8]) -> io::Result<()> {
        let shared = self.shared.clone();
        let (limits, cpus) = (&shared.limits, shared.cpus);
        match head.kind {
            Tell::Ready => {
                let mut started = read::<Started>(body, SMALL_BYTES_MAX)?;
                started.snapshot = match std::mem::replace(&mut self.written, Written::No) {
                    Written::Come(snapshot) => Some(snapshot),
                    Written::No | Written::Awaited => None,
                };
                let ready = self.ready.take();
                let ready = ready.ok_or_else(|| invalid("it is ready once more"))?;
                // Whoever waited may have given up.
                drop(ready.send(Ok(cleaned_start(started, limits, cpus))));
                Ok(())
            }
            Tell::Refused => {
                let why: String = read(body, SMALL_BYTES_MAX)?;
                let ready = self.ready.take();
                let ready = ready.ok_or_else(|| invalid("it refuses what it has taken"))?;
                drop(
                    ready
                        .send(Err(StartFailure::Refused(shown(&why, limits.error_text_bytes_max)))),
                );
                Ok(())
            }
            Tell::Output | Tell::Snapshot => Err(invalid("it is no small frame")),
            Tell::InputFailed => {
                let error = cleaned_error(read(body, SMALL_BYTES_MAX)?, limits);
                let held = error.message.len() + error.info.len() + size_of::<GuestError>();
                let charge = self.shared.account.charge(Holder::Message, held as u64);
                let charge = charge.map_err(|_| invalid("its outputs exceed cpu_memory"))?;
                self.running(head, |running| {
                    event(running, Event::InputFailed(error), Some(charge))
                })
            }
            Tell::End => {
                let mut verdict: Verdict = read(body, SMALL_BYTES_MAX)?;
                clean_end(&mut verdict.end, limits);
                if let End::DeviceLost(why) = &verdict.end {
                    // Its calls are told once the process is no more, so that whoever tries
                    // again finds another.
                    shared.lose_device(why);
                    return Ok(());
                }
                self.running(head, |running| {
                    if running.has_ended {
                        return Err(invalid("a call ends twice"));
                    }
                    let verdict = cleaned(verdict, running, limits, cpus);
                    running.end(verdict);
                    Ok(())
                })
            }
            Tell::Over => {
                let receipt: Receipt = read(body, 0)?;
                let held = self.shared.change(head.call, |running| {
                    running.answers.meters.set(&bounded(receipt, running.elapsed(), limits, cpus));
                    running.over()
                });
                match held {
                    // It goes without the lock: it may be the last that needs the process.
                    Some(Some(held)) => {
                        drop(held);
                        Ok(())
                    }
                    Some(None) => Err(invalid("a call is over twice")),
                    None => Err(invalid("it is about no call")),
                }
            }
            Tell::Taken => self.running(head, |running| {
                if running.messages.available_permits() > 0 {
                    return Err(invalid("it takes messages that were not sent"));
                }
                running.messages.add_permits(1);
                Ok(())
            }),
            Tell::Spent => {
                let receipt: Receipt = read(body, 0)?;
                self.running(head, |running| {
                    running.answers.meters.set(&bounded(receipt, running.elapsed(), limits, cpus));
                    Ok(())
                })
            }
            Tell::Line => {
                let Line { level, text } = read(body, SMALL_BYTES_MAX)?;
                // The worker keeps to this rate; one that does not is cut short here.
                if let Some(log) = self.shared.log.as_ref().filter(|_| self.shared.lines.take()) {
                    let line = shown(&text, limits.log_line_bytes_max.saturating_mul(8));
                    let origin = self.shared.change(head.call, |running| running.origin.clone());
                    log.output(&origin.unwrap_or_else(|| "".into()), level, line);
                }
                Ok(())
            }
            Tell::Figures => {
                let figures: Figures = read(body, 0)?;
                let mut there = lock(&self.shared.figures);
                let more = figures.lines_lost.saturating_sub(there.lines_lost);
                if let Some(log) = &self.shared.log {
                    log.lost(more.min(COUNT_MAX));
                }
                *there = figures.bounded(COUNT_MAX);
                Ok(())
            }
        }
    }

    fn running(
        &self,
        head: &Head<Tell>,
        change: impl FnOnce(&mut Running) -> io::Result<()>,
    ) -> io::Result<()> {
        let changed = self.shared.change(head.call, change);
        changed.unwrap_or_else(|| Err(invalid("it is about no call")))
    }
}

fn cleaned_start(mut started: Started, limits: &Limits, cpus: u32) -> Started {
    if let Err(Unknown { why, ended }) = &mut started.methods {
        *why = shown(why, limits.error_text_bytes_max);
        if let Some(verdict) = ended {
            clean_end(&mut verdict.end, limits);
        }
    }
    if let Some(unfit) = &mut started.unfit {
        *unfit = shown(unfit, limits.error_text_bytes_max);
    }
    match &mut started.loaded {
        Err(verdict) => {
            clean_end(&mut verdict.end, limits);
            verdict.receipt = bounded(verdict.receipt, limits.call_timeout, limits, cpus);
        }
        Ok(loaded) => {
            loaded.wall = loaded.wall.min(LOADED_MAX);
            loaded.receipt = bounded(loaded.receipt, limits.call_timeout, limits, cpus);
        }
    }
    started
}

/// A verdict with no more in it than one of this process could have.
fn cleaned(mut verdict: Verdict, running: &Running, limits: &Limits, cpus: u32) -> Verdict {
    clean_end(&mut verdict.end, limits);
    verdict.receipt = bounded(verdict.receipt, running.elapsed(), limits, cpus);
    verdict
}

fn clean_end(end: &mut End, limits: &Limits) {
    match end {
        End::GuestError(error) => *error = cleaned_error(error.clone(), limits),
        End::Trap(text)
        | End::Panic(text)
        | End::Contract(text)
        | End::DeviceLost(text)
        | End::WorkerDied(text)
        | End::HostBug(text) => *text = shown(text, limits.error_text_bytes_max),
        End::Done
        | End::Exit(_)
        | End::FuelExhausted { .. }
        | End::DeadlinePassed
        | End::MemoryLimit { .. }
        | End::HandleLimit { .. }
        | End::OutputLimit { .. }
        | End::HostcallLimit { .. }
        | End::Unread { .. }
        | End::Cancelled => {}
    }
}

fn cleaned_error(mut error: GuestError, limits: &Limits) -> GuestError {
    cut(&mut error.message, limits.error_text_bytes_max);
    error.message = escape_controls(&error.message);
    cut(&mut error.message, limits.error_text_bytes_max);
    if error.info.len() > limits.error_text_bytes_max {
        error.info = String::new();
    }
    error
}

/// What a call can have taken at most in so much time: callers pay for it, and sums are
/// made of it.
fn bounded(receipt: Receipt, elapsed: Duration, limits: &Limits, cpus: u32) -> Receipt {
    let wall_max = elapsed.saturating_add(ROUNDING);
    let cpu_max = wall_max.saturating_mul(cpus);
    Receipt {
        fuel: receipt.fuel.min(limits.fuel_per_call()),
        fuel_is_lower_bound: receipt.fuel_is_lower_bound,
        memory_bytes_peak: receipt.memory_bytes_peak.min(limits.memory_bytes_max),
        guest_cpu: receipt.guest_cpu.min(cpu_max),
        engine_cpu: receipt.engine_cpu.min(cpu_max),
        device: receipt.device.min(wall_max.saturating_mul(limits.accelerators.count)),
        cpu_wait: receipt.cpu_wait.min(wall_max),
        load: receipt.load.min(wall_max),
        computes: receipt.computes.min(COUNT_MAX),
        bytes_in: receipt.bytes_in.min(COUNT_MAX),
        bytes_out: receipt.bytes_out.min(limits.output_bytes_max),
        host_calls: receipt.host_calls,
    }
}

/// Hands an event on, if there may be one.
fn event(running: &mut Running, event: Event, charge: Option<Charge>) -> io::Result<()> {
    if running.has_ended {
        return Err(invalid("an output comes after the end"));
    }
    let more = || invalid("it sends more outputs than were asked for");
    if let Some(left) = &mut running.events_left {
        *left = left.checked_sub(1).ok_or_else(more)?;
    }
    match running.answers.event(event, charge) {
        true => Ok(()),
        false => Err(more()),
    }
}
