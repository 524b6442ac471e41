//! One sandbox: made fresh, loaded, used for one call, thrown away.

use super::bindings::ModelRunner;
use super::cpu::Share;
use super::engine::EPOCH;
use super::meters::{Meters, nanoseconds};
use super::program::{Shared, Surroundings};
use super::state::State;
use super::stop::{Stop, end_of, memory};
use super::streams::{Gone, Received, Sink, Source};
use super::thread_cpu::thread_cpu_about;
use super::trace;
use super::types::guest_error;
use crate::call::{
    End, Event, Function, GuestError, Origin, Output, Phase, Receipt, Trace, Verdict,
};
use crate::limits::Isolation;
use std::any::Any;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use wasmtime::{Store, UpdateDeadline};

/// Fuel after which a guest yields even if no epoch has ended, should the thread that
/// ends them get no CPU: a twentieth of a second of what burns it fastest, minutes of
/// what burns it slowest. Who yields so comes late to the queue for the next turn, so
/// it has to be rare.
const FUEL_YIELD_INTERVAL: u64 = 1_000_000_000;

/// Largest sandbox, in bytes of linear memory, that is unmapped after the caller
/// has been answered.
const LATE_DROP_BYTES_MAX: u64 = 4 << 20;

/// A sandbox whose `load-model` has run, or that begins as if it had, and which no call
/// has used.
pub(crate) struct Instance {
    shared: Arc<Shared>,
    held: Held,
    runner: ModelRunner,
}

/// A sandbox that has served its call. Unmapping its memory takes longer than
/// many calls, so the caller is answered first; but not where the next call may
/// need the room.
pub(crate) struct Used {
    _held: Held,
}

/// A store whose end is charged to its replica, wherever it comes: unmapping what
/// a guest has touched takes time, too. Fields are dropped in their order.
pub(super) struct Held {
    _begins: Begins,
    store: Store<State>,
    _ends: Ends,
}

/// When its end began, in time of the thread.
struct Begins(Arc<AtomicU64>);

struct Ends {
    began: Arc<AtomicU64>,
    share: Arc<Share>,
}

impl Held {
    pub(super) fn store(&mut self) -> &mut Store<State> {
        &mut self.store
    }

    fn new(store: Store<State>, share: &Arc<Share>) -> Self {
        let began = Arc::new(AtomicU64::new(0));
        let ends = Ends { began: began.clone(), share: share.clone() };
        Self { _begins: Begins(began), store, _ends: ends }
    }
}

impl Drop for Begins {
    fn drop(&mut self) {
        self.0.store(nanoseconds(thread_cpu_about()), Ordering::Relaxed);
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        let began = Duration::from_nanos(self.began.load(Ordering::Relaxed));
        self.share.charge(thread_cpu_about().saturating_sub(began));
    }
}

/// What lives as long as anything runs for a call, be it on an engine's thread.
pub(crate) type Hold = Arc<dyn Any + Send + Sync>;

/// What a call brings along.
pub(crate) struct Job {
    pub(crate) function: Function,
    pub(crate) origin: Origin,
    pub(crate) requests: mpsc::Receiver<Received>,
    pub(crate) sink: Sink,
    pub(crate) deadline: Instant,
    pub(crate) meters: Arc<Meters>,
    pub(crate) hold: Hold,
    pub(crate) stopped: CancellationToken,
}

impl Instance {
    /// Makes a sandbox, and runs `load-model` in it unless it begins as if it had.
    pub(crate) async fn load(
        shared: &Arc<Shared>,
        deadline: Instant,
    ) -> Result<Self, Box<Verdict>> {
        let limits = &shared.limits;
        let mut held = shared.share.charged(|| fresh(shared, deadline, shared.surroundings))?;
        let mut store = &mut held.store;
        let meters = store.data().meters.clone();
        let loading = async {
            let runner = shared.pre.instantiate_async(&mut store).await?;
            let loaded = match shared.copied {
                Some(_) => Ok(()),
                None => runner.ringfence_model_runner().call_load_model(&mut store).await?,
            };
            Ok::<_, wasmtime::Error>((runner, loaded))
        };
        let (end, error) = match before(deadline, shared.share.run(&meters, loading)).await {
            Some(Ok((runner, Ok(())))) => {
                return Ok(Self { shared: shared.clone(), held, runner });
            }
            Some(Ok((_, Err(error)))) => {
                (End::GuestError(guest_error(error, limits.error_text_bytes_max)), None)
            }
            Some(Err(error)) => (end_of(&error, store, limits), Some(error)),
            None => (End::DeadlinePassed, None),
        };
        let fuel = limits.fuel_per_call();
        Err(Box::new(verdict(end, Phase::Load, store, fuel, error.as_ref())))
    }

    /// Asks the guest which typed methods it has, before `load-model`.
    pub(crate) async fn methods(
        shared: &Arc<Shared>,
        deadline: Instant,
    ) -> Result<String, Box<Verdict>> {
        let mut held = shared.share.charged(|| fresh(shared, deadline, shared.surroundings))?;
        let mut store = &mut held.store;
        let meters = store.data().meters.clone();
        let asking = async {
            let runner = shared.pre.instantiate_async(&mut store).await?;
            runner.ringfence_model_runner().call_methods(&mut store).await
        };
        let end = match before(deadline, shared.share.run(&meters, asking)).await {
            Some(Ok(text)) => return Ok(text),
            Some(Err(error)) => end_of(&error, store, &shared.limits),
            None => End::DeadlinePassed,
        };
        Err(Box::new(Verdict::early(end, Phase::Load)))
    }

    /// What instantiation and `load-model` took.
    pub(crate) fn load_receipt(&self) -> Receipt {
        receipt(&self.held.store, self.shared.limits.fuel_per_call())
    }

    /// Bytes of its linear memory.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.held.store.data().limiter.memory_bytes()
    }

    /// Runs one call, and gives the sandbox back where its caller may have it again. What
    /// is not wanted again is kept a little longer if there `is_room` for that.
    pub(crate) async fn call(mut self, job: Job, is_room: impl Fn() -> bool) -> (Verdict, Left) {
        let shared = self.shared.clone();
        let limits = &shared.limits;
        let fuel = limits.fuel_per_call();
        let deadline = job.deadline;
        let meters = job.meters.clone();
        let state = self.held.store.data_mut();
        state.deadline = deadline;
        state.meters = meters.clone();
        state.hold = Some(job.hold.clone());
        state.stopped = job.stopped.clone();
        // Nothing of `load-model` is left in what the call is judged by.
        state.limiter.start_call();
        state.forget_host_calls();
        state.log.lock().start_call(job.origin.clone(), limits);
        if let Err(error) = refuel(&mut self.held.store, fuel) {
            let end = End::HostBug(format!("{error:#}"));
            let verdict = verdict(end, Phase::Call, &mut self.held.store, fuel, None);
            return (verdict, Left::Nothing);
        }
        let Self { held: Held { store, .. }, runner, .. } = &mut self;
        let running = run(store, runner, job, limits.error_text_bytes_max);
        let running = shared.share.run(&meters, running);
        let (end, error) = match before(deadline, running).await {
            Some(Ok(end)) => (end, None),
            Some(Err(error)) => (end_of(&error, &mut self.held.store, limits), Some(error)),
            None => (End::DeadlinePassed, None),
        };
        let state = self.held.store.data_mut();
        state.hold = None;
        state.log.lock().finish();
        let verdict = verdict(end, Phase::Call, &mut self.held.store, fuel, error.as_ref());
        // One that something has stopped is in no state to go on.
        let is_whole = matches!(verdict.end, End::Done | End::GuestError(_));
        if is_whole && limits.isolation == Isolation::Caller {
            return (verdict, Left::Whole(Box::new(self)));
        }
        let bytes = verdict.receipt.memory_bytes_peak;
        // The next call may come before it is gone.
        let late = bytes <= LATE_DROP_BYTES_MAX && is_room();
        match late {
            true => (verdict, Left::Used(Used { _held: self.held })),
            false => (verdict, Left::Nothing),
        }
    }
}

/// What is left of a sandbox after a call.
pub(crate) enum Left {
    /// All of it, for its caller alone.
    Whole(Box<Instance>),
    /// Its memory, which is unmapped later.
    Used(Used),
    /// Nothing.
    Nothing,
}

/// A store with all of its limits, and nothing in it.
pub(super) fn fresh(
    shared: &Arc<Shared>,
    deadline: Instant,
    surroundings: Surroundings,
) -> Result<Held, Box<Verdict>> {
    let limits = &shared.limits;
    let early = |end| Box::new(Verdict::early(end, Phase::Load));
    let state = State::new(shared, deadline, surroundings).map_err(|stop| match stop {
        Stop::Memory(over) => early(memory(over)),
        stop => early(End::HostBug(stop.to_string())),
    })?;
    let mut store = Store::new(shared.runtime.engine(), state);
    shared.sandboxes_made.fetch_add(1, Ordering::Relaxed);
    store.limiter(|state| &mut state.limiter);
    store.set_hostcall_fuel(limits.hostcall_bytes());
    store.set_max_component_handles(limits.handles_max);
    store.epoch_deadline_callback(|context| {
        let state = context.data();
        if Instant::now() >= state.deadline {
            return Err(Stop::DeadlinePassed.into());
        }
        // Epochs go on while it waits: what counts is what it has run.
        if state.meters.turn_has_run() < EPOCH {
            return Ok(UpdateDeadline::Continue(1));
        }
        state.meters.yields();
        Ok(UpdateDeadline::YieldCustom(1, Box::pin(one_poll())))
    });

    let ready = refuel(&mut store, limits.fuel_per_call())
        .and_then(|()| store.fuel_async_yield_interval(Some(FUEL_YIELD_INTERVAL)));
    if let Err(error) = ready {
        return Err(early(End::HostBug(format!("{error:#}"))));
    }
    Ok(Held::new(store, &shared.share))
}

/// Ends the poll in which it is begun. It wakes nobody: a turn's end has its guest
/// polled again.
fn one_poll() -> impl Future<Output = ()> + Send {
    let mut has_begun = false;
    std::future::poll_fn(move |_| match std::mem::replace(&mut has_begun, true) {
        true => Poll::Ready(()),
        false => Poll::Pending,
    })
}

/// Runs a future to its end or until the deadline.
///
/// A guest that spins is stopped by its epoch callback; this stops one that
/// waits.
async fn before<T>(deadline: Instant, future: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout_at(deadline.into(), future).await.ok()
}

fn refuel(store: &mut Store<State>, fuel: u64) -> wasmtime::Result<()> {
    store.set_epoch_deadline(1);
    store.set_fuel(fuel)
}

/// What has been spent since the store had all of its fuel.
fn receipt(store: &Store<State>, fuel_max: u64) -> Receipt {
    let state = store.data();
    Receipt {
        fuel: fuel_max.saturating_sub(store.get_fuel().unwrap_or(0)),
        memory_bytes_peak: state.limiter.memory_bytes_peak(),
        host_calls: state.host_calls(),
        ..state.meters.receipt()
    }
}

fn verdict(
    end: End,
    phase: Phase,
    store: &mut Store<State>,
    fuel_max: u64,
    error: Option<&wasmtime::Error>,
) -> Verdict {
    let spent = receipt(store, fuel_max);
    let fuel = match &end {
        End::FuelExhausted { .. } => fuel_max,
        _ => spent.fuel,
    };
    let fuel_is_lower_bound =
        !matches!(end, End::Done | End::GuestError(_) | End::FuelExhausted { .. });
    let state = store.data();
    let receipt = Receipt { fuel, fuel_is_lower_bound, ..spent };
    let stopped = !matches!(end, End::Done | End::GuestError(_));
    let trace = (stopped && state.shared.runtime.diagnoses()).then(|| {
        Box::new(Trace {
            frames: error.map(trace::frames).unwrap_or_default(),
            last_host_call: state.last_host_call,
            memory_bytes_start: state.limiter.memory_bytes_start(),
            memory_growths: state.limiter.memory_growths(),
        })
    });
    Verdict { end, phase, receipt, trace }
}

/// Calls the function. Ends of the guest's own making are `Ok`; what stopped it
/// is the error.
async fn run(
    store: &mut Store<State>,
    runner: &ModelRunner,
    job: Job,
    text_bytes_max: usize,
) -> wasmtime::Result<End> {
    let Job { function, mut requests, sink, .. } = job;
    let guest = runner.ringfence_model_runner();
    let ended = match function {
        Function::Predict => {
            let Some(Received { request, charge }) = requests.recv().await else {
                return Ok(End::Cancelled);
            };
            store.data().meters.bytes_in.add(charge.bytes());
            let asked = request.inputs.len();
            match guest.call_predict(&mut *store, &request).await? {
                Ok(results) => {
                    return Ok(send_results(results, asked, sink, text_bytes_max).await?);
                }
                Err(error) => Err(error),
            }
        }
        Function::Generate => {
            let Some(Received { request, charge }) = requests.recv().await else {
                return Ok(End::Cancelled);
            };
            store.data().meters.bytes_in.add(charge.bytes());
            let outputs = store.data_mut().table.push(sink).map_err(Stop::from)?;
            guest.call_generate(&mut *store, &request, outputs).await?
        }
        Function::Stream => {
            let table = &mut store.data_mut().table;
            let source = table.push(Source { requests }).map_err(Stop::from)?;
            let outputs = table.push(sink).map_err(Stop::from)?;
            guest.call_stream(&mut *store, source, outputs).await?
        }
    };
    Ok(match ended {
        Ok(()) => End::Done,
        Err(error) => End::GuestError(guest_error(error, text_bytes_max)),
    })
}

async fn send_results(
    results: Vec<Result<Output, GuestError>>,
    asked: usize,
    mut sink: Sink,
    text_bytes_max: usize,
) -> Result<End, Stop> {
    if results.len() != asked {
        let text = format!("predict returned {} results for {asked} inputs", results.len());
        return Ok(End::Contract(text));
    }
    for result in results {
        let sent = match result {
            Ok(output) => sink.output(output).await?,
            Err(error) => {
                let error = guest_error(error, text_bytes_max);
                sink.event(Event::InputFailed(error), None).await?
            }
        };
        if let Err(Gone) = sent {
            return Ok(End::Cancelled);
        }
    }
    Ok(End::Done)
}
