//! A replica in a process of its own, as the host sees it.
//!
//! Owns the life of the process and the calls that it runs. What it says is checked,
//! whatever it is: one frame that makes no sense, or an output beyond what it may hold,
//! ends it. So does a call that it has not ended in time.

mod anything;
mod watch;

pub use anything::{Heard, hear_anything, heed_anything};

use super::cgroup::Cgroup;
use super::incoming::{Incoming, Written};
use super::launch::Confinement;
use super::link::{Inbox, Outbox, ends};
use super::message::{
    Ask, Begin, Begins, Figures, Start, Started, VERSION, bare, carrying, frame, places_of,
};
use super::passing;
use super::{Gone, Processes, Purpose, SendError, StartFailure, lock};
use crate::call::{Deadline, End, Event, Function, Origin, Phase, Receipt, Request, Verdict};
use crate::devices::Given;
use crate::limits::{Limits, lifted, limit};
use crate::nn::OnDevices;
use crate::package::{Assets, Parts};
use crate::sandbox::{Account, Answers, Beginning, Calling, Compiled, rate, sides};
use crate::sched::cpus;
use crate::telemetry::{Rate, VersionLog};
use crate::text::{cut, escape_controls};
use rustix::net::Shutdown;
use std::collections::HashMap;
use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStderr};
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use watch::{Left, Watched};

/// Messages of a client that may be on their way to the guest's side.
const MESSAGES_AHEAD: usize = 1;

/// Time after its deadline in which a call ends by itself.
const DEADLINE_GRACE: Duration = Duration::from_millis(250);

/// Time in which a call ends that was told to; then its process is killed.
const CANCEL_GRACE: Duration = Duration::from_millis(500);

/// Time in which a process ends that nobody needs any more.
const STOP_GRACE: Duration = Duration::from_millis(500);

/// What a start may take beside the guest's own functions: graphs have to be loaded.
pub(super) const LOAD_TIMEOUT: Duration = Duration::from_secs(120);

/// How often the driver is asked what a process has of its devices.
const DEVICE_PERIOD: Duration = Duration::from_millis(250);

/// What libraries may have of them beside a model's graphs and tensors.
const DEVICE_BYTES_BESIDE: u64 = 1 << 30;

/// Time in which it takes what it starts from.
const PASSING_TIMEOUT: Duration = Duration::from_secs(20);

/// Lines that a process may say of itself, and bytes of each.
const SAID_LINES_MAX: usize = 20;
const SAID_LINE_BYTES_MAX: u64 = 512;
const SAID_BYTES_MAX: usize = 200;

/// A replica that runs elsewhere. Its process ends with this.
#[derive(Debug)]
pub(super) struct Process {
    shared: Arc<Shared>,
}

/// What the tasks of a process have together.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) name: String,
    pub(super) outbox: Arc<Outbox>,
    pub(super) limits: Limits,
    /// What this side holds of the outputs.
    pub(super) account: Account,
    calls: Mutex<Calls>,
    pub(super) figures: Mutex<Figures>,
    pub(super) log: Option<VersionLog>,
    pub(super) lines: Arc<Rate>,
    pid: u32,
    /// CPUs that there are.
    pub(super) cpus: u32,
    /// What its accelerator has failed with, if that has.
    device_lost: OnceLock<String>,
    /// Why it has to end at once.
    why_killed: OnceLock<String>,
    killed: CancellationToken,
    /// Nobody needs it any more.
    stopped: CancellationToken,
    /// It has ended.
    gone: CancellationToken,
    /// Those who watch its calls, or wait for its end.
    tasks: TaskTracker,
    /// There is a call to look after.
    called: Notify,
    /// Calls that are over and may still be read.
    left: Mutex<Vec<Left>>,
}

#[derive(Debug, Default)]
struct Calls {
    next: u32,
    running: HashMap<u32, Running>,
    /// Why there will be none any more.
    over: Option<String>,
}

/// A call that runs.
pub(super) struct Running {
    pub(super) answers: Answers,
    pub(super) origin: Origin,
    /// Places for messages of the client's.
    pub(super) messages: Arc<Semaphore>,
    pub(super) has_ended: bool,
    /// Whoever wants to know that it has.
    ends: Option<oneshot::Sender<()>>,
    /// Events that may still come, where their number is known.
    pub(super) events_left: Option<usize>,
    /// Bytes of outputs that may.
    pub(super) output_bytes_left: u64,
    began: Instant,
    /// What it holds as long as anything runs for it, and whoever wants to know.
    runs: Option<(Box<dyn Send + Sync>, oneshot::Sender<()>)>,
    /// Whoever watches it has what is left.
    done: oneshot::Sender<Answers>,
    /// What it takes to watch it, until somebody does.
    watched: Option<Watched>,
}

/// The way in for a call's messages.
#[derive(Debug)]
pub(super) struct Messages {
    shared: Arc<Shared>,
    call: u32,
    function: Function,
    places: Arc<Semaphore>,
    has_sent: AtomicBool,
}

/// Tells the process that outputs were taken, and that nobody takes more.
#[derive(Debug)]
pub(super) struct Taking {
    shared: Arc<Shared>,
    call: u32,
    /// Places of outputs that were taken since it was told.
    taken: usize,
    /// Those that there are.
    places: usize,
}

impl Process {
    pub(super) async fn start(
        processes: &Processes,
        parts: Parts,
        compiled: Compiled,
        log: Option<VersionLog>,
        purpose: Purpose,
        given: &Given,
        kernels: Option<Result<Arc<Path>, String>>,
    ) -> Result<(Self, Started), StartFailure> {
        let name = parts.sheet.name.clone();
        let fuel_per_cpu_second = processes.fuel_per_cpu_second;
        let limits = Limits { fuel_per_cpu_second, ..parts.sheet.limits.clone() }.lifted();
        let failed = |error: std::io::Error| StartFailure::Host(error.to_string());
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        let folder = File::open(parts.assets.path()).map_err(failed)?;
        let launcher = &processes.launcher;
        let library = launcher.onnxruntime_for(&parts);
        let (mode, has_library) = (launcher.mode(), library.is_some());
        let confinement = Confinement::of_replica(mode, &parts, &compiled, purpose, has_library)
            .with_driver((!given.is_empty()).then(|| launcher.driver_of(given.devices(), library)));
        let mut command = launcher.command(&["call-worker"], &confinement);
        if let Some(library) = library {
            command.arg("--onnxruntime").arg(library);
        }
        let no_kernels = match kernels {
            None => None,
            Some(Ok(folder)) => {
                command.arg("--kernels").arg(&*folder);
                None
            }
            Some(Err(why)) => Some(why),
        };
        command
            .current_dir(parts.assets.empty())
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(folder)
            .stderr(Stdio::piped());
        let mut child = launcher.spawn(command).await.map_err(failed)?;
        let pid = child.id().unwrap_or_default();
        let cgroup = processes.cgroups.as_deref().and_then(|root| {
            let quota = confinement.quota(parts.sheet.limits.cpu_millis);
            let group = Cgroup::for_worker(root, &format!("replica-{pid}"), quota);
            let group = group.and_then(|group| group.add(pid).map(|()| group));
            group
                .inspect_err(|error| tracing::warn!(model = name, "no control group: {error}"))
                .ok()
        });
        let stderr = child.stderr.take();
        let devices = given.devices().cloned().collect();

        let begins = match compiled.beginning() {
            Beginning::Load => Begins::Load,
            Beginning::Write(_) => Begins::Write,
            Beginning::Copy(copied) => Begins::Copy(copied.clone()),
        };
        let written = match begins {
            Begins::Write => Written::Awaited,
            Begins::Load | Begins::Copy(_) => Written::No,
        };
        // Its folder of assets is open there, and has to stay.
        let passed = tokio::task::spawn_blocking(move || {
            let start = Start {
                version: VERSION,
                sheet: parts.sheet.clone(),
                fuel_per_cpu_second,
                begins,
                graphs: parts.graphs.iter().map(|g| (g.name.clone(), g.folder.clone())).collect(),
                assets: parts.assets.files.clone(),
                assets_path: parts.assets.path(),
                devices,
                no_kernels,
                lifted: lifted().to_owned(),
            };
            ours.set_write_timeout(Some(PASSING_TIMEOUT))?;
            passing::send(&ours, &start, &compiled, &parts.graphs)?;
            ours.set_nonblocking(true)?;
            Ok::<_, std::io::Error>((ours, parts.assets))
        })
        .await
        .map_err(|error| failed(std::io::Error::other(error)))?;
        let (ours, assets) = match passed {
            Ok(passed) => passed,
            // It says why it takes nothing.
            Err(_) => {
                let hearing = tokio::spawn(hear(name, stderr));
                return Err(StartFailure::Process(own_words(&mut child, hearing).await));
            }
        };
        let call_timeout = limits.call_timeout;
        let (shared, inbox) = Shared::of(ours, name, limits, log, pid).map_err(failed)?;
        let (ready, started) = oneshot::channel();
        let incoming = Incoming { shared: shared.clone(), ready: Some(ready), written };
        processes.tasks.spawn(tend(
            shared.clone(),
            child,
            inbox,
            stderr,
            incoming,
            Kept { given: given.clone(), assets, cgroup },
        ));
        // Its process goes with this, should the start not come to an end.
        let process = Self { shared };
        // `methods`, and `load-model` once more where what it leaves is written.
        let within = call_timeout.saturating_mul(3).saturating_add(processes.load_timeout);
        let within = limit("start_time", within);
        let started = match tokio::time::timeout(within, started).await {
            Ok(Ok(started)) => started?,
            Ok(Err(_)) => {
                process.shared.gone.cancelled().await;
                return Err(StartFailure::Process(process.shared.why()));
            }
            Err(_) => {
                let why = format!("its process was not ready within {} s", within.as_secs());
                return Err(StartFailure::Process(why));
            }
        };
        Ok((process, started))
    }

    pub(super) fn call<H: Send + Sync + 'static>(
        &self,
        ended: &CancellationToken,
        function: Function,
        origin: Origin,
        deadline: Deadline,
        hold: H,
    ) -> (Messages, Calling, Taking) {
        let shared = &self.shared;
        let stopped = ended.child_token();
        let places = shared.limits.outputs_buffered_max;
        let (mut answers, calling) = sides(places, deadline, stopped.clone().drop_guard());
        let messages = Arc::new(Semaphore::new(MESSAGES_AHEAD));
        let user = origin.user.to_string();
        let (ends, has_ended) = oneshot::channel();
        let (over, is_over) = oneshot::channel();
        let (done, is_done) = oneshot::channel();
        let killed_at =
            Deadline::after(shared.limits.call_timeout).instant() + DEADLINE_GRACE + CANCEL_GRACE;
        let call = {
            let mut calls = shared.calls();
            // A number comes again after four billion others.
            loop {
                calls.next = calls.next.wrapping_add(1);
                if !calls.running.contains_key(&calls.next) {
                    break;
                }
            }
            let call = calls.next;
            if let Some(why) = &calls.over {
                answers.end(Verdict::early(End::WorkerDied(why.clone()), Phase::Call));
                messages.close();
                shared.keep(answers, stopped);
            } else {
                let watched =
                    Watched { call, deadline, killed_at, stopped, has_ended, is_over, is_done };
                let running = Running {
                    answers,
                    origin,
                    messages: messages.clone(),
                    has_ended: false,
                    ends: Some(ends),
                    events_left: None,
                    output_bytes_left: shared.limits.output_bytes_max,
                    began: Instant::now(),
                    runs: Some((Box::new(hold), over)),
                    done,
                    watched: Some(watched),
                };
                calls.running.insert(call, running);
            }
            call
        };
        let begin = Begin { function, user, left: deadline.left() };
        if let Ok(begin) = frame(Ask::Call, call, 0, &begin) {
            match function {
                // A message follows, or that there is none any more.
                Function::Predict | Function::Generate => shared.outbox.send_with_next(begin),
                Function::Stream => shared.outbox.send_later(begin),
            }
        }
        shared.called.notify_one();
        let taking = Taking { shared: shared.clone(), call, taken: 0, places };
        let has_sent = AtomicBool::new(false);
        let messages =
            Messages { shared: shared.clone(), call, function, places: messages, has_sent };
        (messages, calling, taking)
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    pub(super) fn figures(&self) -> Figures {
        *lock(&self.shared.figures)
    }

    pub(super) fn pid(&self) -> u32 {
        self.shared.pid
    }

    pub(super) fn has_gone(&self) -> bool {
        self.shared.gone.is_cancelled()
    }

    pub(super) fn gone(&self) -> Gone {
        Gone { gone: self.shared.gone.clone(), tasks: self.shared.tasks.clone() }
    }

    /// Why the process has ended.
    pub(super) fn why(&self) -> String {
        self.shared.why()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.shared.stopped.cancel();
    }
}

impl Shared {
    /// Of a process at the other end of a socket.
    fn of(
        stream: UnixStream,
        name: String,
        limits: Limits,
        log: Option<VersionLog>,
        pid: u32,
    ) -> std::io::Result<(Arc<Self>, Inbox)> {
        let (outbox, inbox) = ends(stream)?;
        let released = outbox.clone();
        let account =
            Account::telling(limits.memory_bytes_max, move |bytes| released.release(bytes));
        let shared = Self {
            name,
            outbox,
            limits,
            account,
            calls: Mutex::default(),
            figures: Mutex::default(),
            log,
            lines: rate(),
            pid,
            cpus: u32::try_from(cpus()).unwrap_or(u32::MAX),
            device_lost: OnceLock::new(),
            why_killed: OnceLock::new(),
            killed: CancellationToken::new(),
            stopped: CancellationToken::new(),
            gone: CancellationToken::new(),
            tasks: TaskTracker::new(),
            called: Notify::new(),
            left: Mutex::default(),
        };
        Ok((Arc::new(shared), inbox))
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        lock(&self.calls)
    }

    /// Does something with a call that runs, which may end it.
    pub(super) fn change<T>(&self, call: u32, change: impl FnOnce(&mut Running) -> T) -> Option<T> {
        let mut calls = self.calls();
        let running = calls.running.get_mut(&call)?;
        let changed = change(running);
        let ended = match running.has_ended && running.runs.is_none() {
            true => calls.running.remove(&call),
            false => None,
        };
        drop(calls);
        // What it held goes without the lock.
        if let Some(ended) = ended {
            ended.finish(self);
        }
        Some(changed)
    }

    /// Ends the process at once.
    pub(super) fn kill(&self, why: impl Into<String>) {
        // The first reason is the one.
        let _ = self.why_killed.set(why.into());
        self.killed.cancel();
    }

    /// Ends it as its accelerator has failed, with which another process begins anew.
    pub(super) fn lose_device(&self, why: &str) {
        let _ = self.device_lost.set(why.to_owned());
        self.kill(format!("an accelerator failed: {why}"));
    }

    fn why(&self) -> String {
        self.calls().over.clone().unwrap_or_else(|| "it still runs".to_owned())
    }

    /// Its process has ended, and with it every call.
    fn end(&self, why: &str) {
        let running = {
            let mut calls = self.calls();
            calls.over = Some(why.to_owned());
            std::mem::take(&mut calls.running)
        };
        // Whoever tries again at once finds another.
        self.gone.cancel();
        // A message may be on its way, whose sender waits.
        self.outbox.close();
        for mut running in running.into_values() {
            running.end_early(match self.device_lost.get() {
                Some(lost) => End::DeviceLost(lost.clone()),
                None => End::WorkerDied(why.to_owned()),
            });
            running.finish(self);
        }
    }
}

impl Running {
    /// Since it began.
    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Nothing runs for it any more. Gives what it held, unless that was so before.
    pub(super) fn over(&mut self) -> Option<Box<dyn Send + Sync>> {
        let (hold, over) = self.runs.take()?;
        self.messages.close();
        // Whoever watches may have ended with the runtime.
        let _ = over.send(());
        Some(hold)
    }

    /// Its guest says no more.
    pub(super) fn end(&mut self, verdict: Verdict) {
        self.has_ended = true;
        self.answers.end(verdict);
        if let Some(ends) = self.ends.take() {
            // Whoever watches may have ended with the runtime.
            let _ = ends.send(());
        }
    }

    /// The same, unless it has said how it ended.
    fn end_early(&mut self, end: End) {
        if !self.has_ended {
            let early = self.early(end);
            self.end(early);
        }
    }

    /// Its caller is told so, whatever the process says later.
    fn is_late(&mut self) {
        if !self.has_ended {
            let late = self.early(End::DeadlinePassed);
            self.answers.end(late);
        }
    }

    fn early(&self, end: End) -> Verdict {
        let receipt = Receipt { fuel_is_lower_bound: true, ..self.answers.meters.receipt() };
        Verdict { receipt, ..Verdict::early(end, Phase::Call) }
    }

    fn finish(self, shared: &Shared) {
        self.messages.close();
        match self.watched {
            Some(Watched { stopped, .. }) => shared.keep(self.answers, stopped),
            // Whoever watches may have ended with the runtime.
            None => drop(self.done.send(self.answers)),
        }
    }
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").field("origin", &self.origin).finish_non_exhaustive()
    }
}

/// What a process has as long as it runs.
struct Kept {
    given: Given,
    assets: Assets,
    cgroup: Option<Cgroup>,
}

/// Waits until a process has more of its devices than it may: what an engine does not count
/// itself, the driver does. What libraries keep there for themselves is not the model's.
async fn too_much_held(given: &Given, shared: &Shared) -> u64 {
    if given.is_empty() {
        return std::future::pending().await;
    }
    let most = OnDevices::of(&shared.limits.accelerators, given.devices()).memory.bytes_max();
    let most = most.saturating_add(DEVICE_BYTES_BESIDE);
    loop {
        tokio::time::sleep(DEVICE_PERIOD).await;
        let (given, pid) = (given.clone(), shared.pid);
        // It asks the driver.
        let held = tokio::task::spawn_blocking(move || given.held_by(pid)).await;
        if let Ok(Some(held)) = held
            && held > limit("device_memory_held", most)
        {
            return held;
        }
    }
}

/// Sees to the process until it has ended, and to those who wait for that.
async fn tend(
    shared: Arc<Shared>,
    mut child: Child,
    inbox: Inbox,
    stderr: Option<ChildStderr>,
    mut incoming: Incoming,
    kept: Kept,
) {
    let hearing = tokio::spawn(hear(shared.name.clone(), stderr));
    let why = {
        let mut listening = std::pin::pin!(incoming.listen(inbox));
        tokio::select! {
            biased;
            () = shared.killed.cancelled() => shared.why_killed.get().cloned(),
            () = shared.stopped.cancelled() => {
                let _ = rustix::net::shutdown(shared.outbox.socket(), Shutdown::Write);
                // What it says until then is of no call.
                let _ = tokio::time::timeout(STOP_GRACE, &mut listening).await;
                Some("it was stopped".to_owned())
            }
            ended = &mut listening => match ended {
                // One that ends before it has read all that it was sent.
                Err(error) if error.kind() == ErrorKind::ConnectionReset => None,
                Err(error) => Some(format!("it broke the protocol: {error}")),
                Ok(()) => None,
            },
            _ = shared.outbox.run() => None,
            never = shared.sweep() => match never {},
            held = too_much_held(&kept.given, &shared) => {
                Some(format!("it had {held} bytes of its accelerators, more than accelerator_memory"))
            }
        }
    };
    let why = match why {
        Some(why) => {
            let _ = child.start_kill();
            let _ = child.wait().await;
            why
        }
        // One that has closed its socket has ended by itself, and says how.
        None => own_words(&mut child, hearing).await,
    };
    if !shared.stopped.is_cancelled() {
        tracing::error!(model = shared.name, pid = shared.pid, "a worker ended: {why}");
    }
    let Kept { given, assets, cgroup } = kept;
    if shared.device_lost.get().is_some() {
        given.have_failed();
    }
    // Whoever tries again at once finds them free.
    drop(given);
    shared.end(&why);
    drop((assets, cgroup));
    // What has come out of its calls may still be read.
    shared.sweep_to_the_end().await;
    shared.tasks.close();
    shared.tasks.wait().await;
}

/// How a process has ended, in the words of the kernel and its own last ones.
async fn own_words(child: &mut Child, hearing: JoinHandle<String>) -> String {
    let status = match tokio::time::timeout(STOP_GRACE, child.wait()).await {
        Ok(status) => status.ok(),
        Err(_) => {
            let _ = child.start_kill();
            child.wait().await.ok()
        }
    };
    let ended = status.map_or_else(|| "unknown".to_owned(), |status| status.to_string());
    // It has nothing to add that it has not said by now.
    let last = tokio::time::timeout(STOP_GRACE, hearing).await;
    let mut last = last.ok().and_then(Result::ok).unwrap_or_default();
    cut(&mut last, SAID_BYTES_MAX);
    format!("its process ended ({ended}) {}", escape_controls(last.trim())).trim().to_owned()
}

/// What a process says of itself: its first lines are told, and the last is given.
async fn hear(name: String, stderr: Option<ChildStderr>) -> String {
    let mut last = String::new();
    let Some(stderr) = stderr else { return last };
    let mut reader = BufReader::new(stderr);
    let mut told = 0;
    loop {
        let mut line = Vec::new();
        let mut limited = (&mut reader).take(SAID_LINE_BYTES_MAX);
        match limited.read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return last,
            Ok(_) => {}
        }
        last = String::from_utf8_lossy(&line).into_owned();
        if told < SAID_LINES_MAX {
            told += 1;
            tracing::warn!(model = name, "its process says: {}", escape_controls(last.trim_end()));
        }
    }
}

impl Messages {
    /// Sends a message, and waits while the guest is slow.
    pub(super) async fn send(&self, request: Request) -> Result<(), SendError> {
        let place = self.places.acquire().await.map_err(|_| SendError::Over)?;
        place.forget();
        if self.function == Function::Predict {
            // One event for each input, and the end.
            let inputs = request.inputs.len();
            self.shared.change(self.call, |running| running.events_left = Some(inputs));
        }
        let message = carrying(Ask::Message, self.call, 0, request).map_err(|_| SendError::Over)?;
        self.has_sent.store(true, Ordering::Relaxed);
        // Until then whoever has received it is charged for it.
        self.shared.outbox.send_whole(message).await;
        Ok(())
    }
}

impl Drop for Messages {
    fn drop(&mut self) {
        let has_one = match self.function {
            Function::Predict | Function::Generate => true,
            Function::Stream => false,
        };
        // Of one alone the process knows that it was the last.
        if !(has_one && *self.has_sent.get_mut()) {
            self.shared.outbox.send(bare(Ask::NoMore, self.call, 0));
        }
    }
}

impl Taking {
    /// An event was taken that holds so many bytes.
    pub(super) fn one(&mut self, event: &Event, held_bytes: u64) {
        self.taken += match event {
            Event::Output(_) => places_of(held_bytes, self.places),
            // The process charges nothing for it.
            Event::InputFailed(_) => places_of(0, self.places),
            Event::End(_) => return,
        };
        // Half of them are free to be filled meanwhile.
        if self.taken >= self.places.div_ceil(2) {
            self.shared.outbox.send(bare(Ask::Taken, self.call, self.taken as u64));
            self.taken = 0;
        }
    }
}

impl Drop for Taking {
    fn drop(&mut self) {
        self.shared.unwanted(self.call);
    }
}

#[cfg(test)]
#[path = "process_tests.rs"]
mod tests;
