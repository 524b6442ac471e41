//! What a worker process does: it becomes one replica, and serves the calls that come
//! over its socket.
//!
//! Owns the process's side of the protocol. The host is trusted here; what runs in the
//! sandboxes is not, and reaches the socket only as what a call gives.

use super::here::{figures_of, started, to_write};
use super::jail::{Code, JailError, JailMode, Root, no_more_code, no_more_files};
use super::launch::Confinement;
use super::link::{Inbox, Outbox, ends};
use super::message::{
    Ask, Begin, Figures, Line, SMALL_BYTES_MAX, Tell, VERSION, Whole, bare, carried, carrying,
    frame, invalid, places_of, read, whole,
};
use super::passing;
use super::turns::{Over, Turns, Work};
use super::{OverLimit, SendError, lock};
use crate::call::{
    Deadline, End, Event, Function, Holder, Origin, Phase, Receipt, Request, Verdict,
};
use crate::devices::{find_compiled_in, see_only};
use crate::limits;
use crate::nn::{Engines, OnDevices, OnnxRuntimeLibrary};
use crate::package::{Assets, AssetsFolder, Content, GraphFile, Parts};
use crate::sandbox::{
    Calling, Charge, Lines, Program, Requests, Runtime, Snapshot, Spent, thread_has_waited,
};
use crate::telemetry::LogFormat;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// Bytes of lines that wait for the host; what is written beyond that is lost, and
/// counted.
const LINES_BYTES_MAX: usize = 1 << 20;

/// How often the host hears what runs.
const FIGURES_PERIOD: Duration = Duration::from_millis(100);

/// How long after the last call it gives free memory back to the system.
const TRIM_AFTER: Duration = Duration::from_millis(500);

/// How long after the last call it still tells what has changed.
const IDLE_AFTER: Duration = Duration::from_secs(1);

/// A call that takes less CPU time is done before another thread had begun with it.
const SHORT_CALL_NS: u64 = 200_000;

/// Outputs of a call that leave together, where more of them come all the time.
const OUTPUTS_TOGETHER: u32 = 16;

/// How long a call waits for what its guest had, so that the next one finds room for it.
const FREED_WITHIN: Duration = Duration::from_millis(100);

/// How long the answer of a call is kept, to leave with those of calls that are next: the
/// host then wakes once for all of them.
const TOGETHER: Duration = Duration::from_micros(200);

/// Messages of a client that wait for the guest beside those that the call has room
/// for.
const MESSAGES_AHEAD: usize = 1;

/// Becomes a replica, in its jail. Standard input is the socket to the host, and standard
/// output the folder of assets. `onnxruntime` is the library of that engine, where there is
/// one, and `kernels` the folder of what is compiled for devices. Returns when the host needs
/// it no longer.
pub fn serve(
    confinement: &Confinement,
    parent: i32,
    onnxruntime: Option<&Path>,
    kernels: Option<&Path>,
) -> anyhow::Result<()> {
    // No code comes into the process once it is in its jail.
    let library = onnxruntime.map(OnnxRuntimeLibrary::load).transpose()?;
    let folder = io::stdout();
    let kernels = kernels.map(File::open).transpose()?;
    let (root, code_left) = match confinement.driver {
        Some(_) => (Root::Kept, Code::Libraries),
        None => (Root::Above, Code::None),
    };
    let reads = [folder.as_fd()].into_iter().chain(kernels.as_ref().map(AsFd::as_fd));
    let jail = confinement.enter(parent, root, Code::Made, &reads.collect::<Vec<_>>())?;
    // It may have variables now, and has one thread.
    let onnxruntime = library.map(OnnxRuntimeLibrary::engine);
    let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let (start, compiled, graphs) = passing::receive(&socket)?;
    if start.version != VERSION {
        return Err(invalid("the host is of another version").into());
    }
    limits::lift(&start.lifted);
    let devices = match start.devices.as_slice() {
        [] => None,
        devices => {
            // There is one thread yet.
            see_only(devices);
            if let Some(kernels) = &kernels {
                find_compiled_in(&path_of(kernels));
            }
            let devices = OnDevices::of(&start.sheet.limits.accelerators, devices);
            Some(OnDevices { no_kernels: start.no_kernels.clone(), ..devices })
        }
    };
    let engines = Engines::of_process(onnxruntime, devices.as_ref());
    // What is told here the host hears from standard error.
    crate::telemetry::start(Some("warn"), LogFormat::Text)?;
    let assets_path = match (jail.is_rooted, root) {
        (true, _) => AssetsFolder::path_in_root(),
        (false, Root::Kept) => path_of(&folder),
        (false, Root::Here | Root::Above) => start.assets_path.clone(),
    };
    socket.set_nonblocking(true)?;
    let tokio = tokio::runtime::Builder::new_current_thread()
        .on_thread_unpark(thread_has_waited)
        .enable_all()
        .build()?;
    crate::sched::be_prompt();
    crate::heap::keep_freed();
    let (mode, cpus) = (confinement.mode, confinement.cpus);
    tokio.block_on(async {
        let (outbox, inbox) = ends(socket)?;
        let lines_lost = Arc::new(AtomicU64::new(0));
        let writing = {
            let outbox = outbox.clone();
            tokio::spawn(async move { outbox.run().await })
        };
        let lines = lines_to(&outbox, &lines_lost);
        let (fuel_per_cpu_second, limits) = (start.fuel_per_cpu_second, &start.sheet.limits);
        let runtime = Runtime::of_compiled(fuel_per_cpu_second, cpus, limits, &compiled, engines)?;
        let graphs = start.graphs.into_iter().zip(graphs);
        let graphs = graphs.map(|((name, folder), file)| {
            let bytes = file.metadata()?.len();
            Ok(GraphFile { name, folder, content: Content::File { file: Arc::new(file), bytes } })
        });
        let parts = Parts {
            sheet: start.sheet,
            graphs: graphs.collect::<io::Result<_>>()?,
            assets: Assets { folder: AssetsFolder::Passed(assets_path), files: start.assets },
        };
        let component = to_write(&compiled)?;
        // No thread makes any more of these, whatever the package has in it.
        let demanded = |refused: Result<(), JailError>| match refused {
            Err(error) if mode == JailMode::Required => Err(crate::text::with_causes(&error)),
            Ok(()) | Err(_) => Ok(()),
        };
        let program = Program::of(
            &runtime,
            parts,
            &compiled,
            Some(lines),
            || demanded(no_more_code(code_left)),
            || demanded(no_more_files()),
        );
        drop(compiled);
        let program = match program {
            Ok(program) => Arc::new(program),
            Err(error) => {
                let why = crate::text::with_causes(&error);
                outbox.send(frame(Tell::Refused, 0, 0, &why)?);
                // The host closes its side once it has read that.
                return Ok(wait_for_the_end(inbox).await?);
            }
        };
        let mut started = started(&program, component).await;
        let serving = Arc::new(Serving {
            calls: Mutex::default(),
            held: Mutex::new(program.account().charge(Holder::Message, 0)?),
            program,
            outbox,
            lines_lost,
            call_ns: AtomicU64::new(0),
            told: Mutex::default(),
            turns: Turns::default(),
        });
        crate::heap::give_back_program();
        serving.tell_figures()?;
        if let Some(Snapshot { component, bytes }) = started.snapshot.take() {
            serving.outbox.send_whole(whole(Tell::Snapshot, 0, bytes, component.into())?).await;
        }
        serving.outbox.send(frame(Tell::Ready, 0, 0, &started)?);
        let served = serving.serve(inbox).await;
        writing.abort();
        Ok(served?)
    })
}

/// The path of a folder that is open, which whoever may not go there by its own can take.
fn path_of(folder: &impl AsRawFd) -> PathBuf {
    format!("/proc/self/fd/{}", folder.as_raw_fd()).into()
}

async fn wait_for_the_end(mut inbox: Inbox) -> io::Result<()> {
    while let Some(head) = inbox.head::<Ask>().await? {
        inbox.body(head.length).await?;
    }
    Ok(())
}

/// Guests' lines, which go to the host as long as it takes them.
fn lines_to(outbox: &Arc<Outbox>, lost: &Arc<AtomicU64>) -> Lines {
    let (outbox, lost) = (outbox.clone(), lost.clone());
    Lines::to(move |origin, level, text| {
        let call = origin.call.parse().unwrap_or_default();
        let has_room = outbox.bytes_waiting() < LINES_BYTES_MAX;
        match frame(Tell::Line, call, 0, &Line { level, text }) {
            Ok(line) if has_room => outbox.send_later(line),
            _ => {
                lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    })
}

/// A replica, and what it has said to the host.
struct Serving {
    program: Arc<Program>,
    outbox: Arc<Outbox>,
    calls: Mutex<HashMap<u32, Running>>,
    /// What the host still has of the outputs.
    held: Mutex<Charge>,
    lines_lost: Arc<AtomicU64>,
    /// CPU time of a call, of late: of its guest and of engines.
    call_ns: AtomicU64,
    /// What the host knows.
    told: Mutex<Figures>,
    /// For guests that run where their message was read.
    turns: Turns,
}

/// A call that runs, as the frames about it find it.
struct Running {
    messages: Way,
    /// Outputs that the host has room for.
    places: Arc<Semaphore>,
    cancelled: CancellationToken,
    spent: Spent,
    told: Option<Receipt>,
}

/// The way of a client's messages to the guest.
enum Way {
    /// There is one, with which the guest starts.
    One(Box<Starting>),
    /// There are many, which are brought to the guest as it takes them.
    Many(mpsc::Sender<Request>),
    /// There are no more.
    Over,
}

/// A call whose guest does not run yet.
struct Starting {
    requests: Requests,
    /// Whoever hears why its message was not taken.
    refused: oneshot::Sender<End>,
    guest: Work,
    /// What brings its outputs to the host.
    answer: Work,
}

impl Serving {
    /// Serves until the host closes its side.
    async fn serve(self: &Arc<Self>, mut inbox: Inbox) -> io::Result<()> {
        let mut ticks = tokio::time::interval(FIGURES_PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut busy_at, mut is_trimmed) = (Instant::now(), true);
        // Since when answers are kept for those of calls that have come with theirs.
        let mut held_since = None;
        loop {
            if !lock(&self.calls).is_empty() {
                (busy_at, is_trimmed) = (Instant::now(), false);
            }
            let head = tokio::select! {
                biased;
                head = inbox.head::<Ask>() => head?,
                // What is idle sleeps.
                _ = ticks.tick(), if busy_at.elapsed() < IDLE_AFTER => {
                    self.tell()?;
                    // What calls have freed is nobody's.
                    if !is_trimmed && busy_at.elapsed() >= TRIM_AFTER {
                        crate::heap::give_back();
                        is_trimmed = true;
                    }
                    continue;
                }
            };
            let Some(head) = head else { return Ok(()) };
            let body = inbox.body(head.length).await?;
            match head.kind {
                Ask::Start => return Err(invalid("it has started")),
                Ask::Call => self.begin(head.call, read(&body, SMALL_BYTES_MAX)?),
                Ask::Message => {
                    let request = carried(body, u64::from(head.length).saturating_mul(32))?;
                    let since = *held_since.get_or_insert_with(Instant::now);
                    match inbox.has_frame::<Ask>() && since.elapsed() < TOGETHER {
                        true => self.outbox.hold(),
                        // With its own answer those leave that were kept.
                        false => self.outbox.let_go(),
                    }
                    self.message(head.call, request).await;
                }
                Ask::NoMore => self.no_more(head.call),
                Ask::Cancel => {
                    self.with(head.call, |call| call.cancelled.cancel());
                    self.no_more(head.call);
                }
                Ask::Taken => self.with(head.call, |call| {
                    call.places.add_permits(usize::try_from(head.value).unwrap_or(0));
                }),
                Ask::Released => lock(&self.held).shrink(head.value),
            }
            if let Some(since) = held_since
                && (!inbox.has_frame::<Ask>() || since.elapsed() >= TOGETHER)
            {
                held_since = None;
                self.outbox.let_go();
                self.outbox.flush();
            }
        }
    }

    /// Does something with a call that is not over.
    fn with(&self, call: u32, change: impl FnOnce(&mut Running)) {
        if let Some(running) = lock(&self.calls).get_mut(&call) {
            change(running);
        }
    }

    /// A message for a guest, which may be what it starts with.
    async fn message(&self, call: u32, request: Request) {
        let starting = {
            let mut calls = lock(&self.calls);
            // One that is over takes none.
            let Some(running) = calls.get_mut(&call) else { return };
            match std::mem::replace(&mut running.messages, Way::Over) {
                Way::One(starting) => starting,
                Way::Many(messages) => {
                    // The host sends no more than there is room for.
                    drop(messages.try_send(request));
                    running.messages = Way::Many(messages);
                    return;
                }
                Way::Over => return,
            }
        };
        let Starting { requests, refused, guest, answer } = *starting;
        match requests.first(request) {
            Ok(()) | Err(SendError::Over) => {}
            Err(SendError::Memory(over)) => refuse(refused, over),
        }
        drop(requests);
        self.start(guest, answer).await;
    }

    /// There are no more messages for a guest; it starts without one if it has had none.
    fn no_more(&self, call: u32) {
        let mut way = Way::Over;
        self.with(call, |call| way = std::mem::replace(&mut call.messages, Way::Over));
        if let Way::One(starting) = way {
            self.program.beside(starting.guest);
            self.program.beside(starting.answer);
        }
    }

    /// Runs a guest where guests run. One that is expected to be soon done begins here: to
    /// wake another thread would take longer than it.
    async fn start(&self, mut guest: Work, mut answer: Work) {
        let mut over = Over { guest: false, answer: false };
        // A graph may compute for longer than a host waits for its frames to be read.
        let is_short = self.call_ns.load(Ordering::Relaxed) < SHORT_CALL_NS;
        if is_short && !self.program.has_graphs() {
            over = tokio::task::coop::unconstrained(async {
                let mut over = self.turns.take(&mut guest, &mut answer);
                // What it leaves to do keeps nobody waiting, unless another call does.
                if !over.guest && over.answer && lock(&self.calls).is_empty() {
                    over.guest = futures_util::poll!(guest.as_mut()).is_ready();
                }
                over
            })
            .await;
        }
        if !over.guest {
            self.program.beside(guest);
        }
        if !over.answer {
            self.program.beside(answer);
        }
    }

    /// Starts a call, and what brings its messages and its outputs.
    fn begin(self: &Arc<Self>, call: u32, begin: Begin) {
        let Begin { function, user, left } = begin;
        // Lines are told by the number of their call.
        let origin = Origin { call: call.to_string().into(), user: user.into() };
        let cancelled = CancellationToken::new();
        let (hold, nothing_runs) = oneshot::channel::<()>();
        let (requests, calling, guest) = self.program.prepared(
            &CancellationToken::new(),
            function,
            origin,
            Deadline::after(left),
            Mutex::new(hold),
        );
        let places = Arc::new(Semaphore::new(self.program.limits().outputs_buffered_max));
        let spent = calling.spent().clone();
        let (refused, refusal) = oneshot::channel();
        let running = Running {
            messages: Way::Over,
            places: places.clone(),
            cancelled: cancelled.clone(),
            spent: spent.clone(),
            told: None,
        };
        let answering = Answering { call, calling, places, cancelled, refusal };
        let answer = |feeding| {
            let serving = self.clone();
            async move { serving.answer_to_the_end(answering, feeding, nothing_runs, &spent).await }
        };
        match function {
            Function::Predict | Function::Generate => {
                let (guest, answer): (Work, Work) = (Box::pin(guest), Box::pin(answer(None)));
                let messages = Way::One(Box::new(Starting { requests, refused, guest, answer }));
                lock(&self.calls).insert(call, Running { messages, ..running });
            }
            Function::Stream => {
                let (sender, receiver) = mpsc::channel(MESSAGES_AHEAD);
                let messages = Way::Many(sender);
                lock(&self.calls).insert(call, Running { messages, ..running });
                let feeding = tokio::spawn(self.clone().feed(call, receiver, requests, refused));
                self.program.beside(guest);
                self.program.beside(answer(Some(feeding)));
            }
        }
    }

    /// Brings the messages of a stream to the guest.
    async fn feed(
        self: Arc<Self>,
        call: u32,
        mut messages: mpsc::Receiver<Request>,
        requests: Requests,
        refused: oneshot::Sender<End>,
    ) {
        while let Some(request) = messages.recv().await {
            match requests.send(request).await {
                Ok(()) => {}
                Err(SendError::Over) => return,
                Err(SendError::Memory(over)) => return refuse(refused, over),
            }
            self.outbox.send(bare(Tell::Taken, call, 0));
        }
    }

    /// Says how a call has ended, and that nothing runs for it any more, in whichever
    /// order that comes: a guest has often gone before its last outputs are wanted.
    async fn answer_to_the_end(
        &self,
        answering: Answering,
        feeding: Option<JoinHandle<()>>,
        mut nothing_runs: oneshot::Receiver<()>,
        spent: &Spent,
    ) {
        let call = answering.call;
        let over = || {
            // What cannot be told is told at the next tick.
            let _ = self.tell_figures();
            frame(Tell::Over, call, 0, &spent.receipt()).unwrap_or_default()
        };
        let mut answer = pin!(self.answer(answering));
        let mut is_over = false;
        let verdict = loop {
            tokio::select! {
                biased;
                _ = &mut nothing_runs, if !is_over => {
                    is_over = true;
                    // The end may be there, too.
                    self.outbox.send_later(over());
                    if let Poll::Ready(verdict) = futures_util::poll!(answer.as_mut()) {
                        break verdict;
                    }
                    self.outbox.flush();
                }
                verdict = answer.as_mut() => break verdict,
            }
        };
        // A message that waits for the guest is not held any more when the next call comes.
        if let Some(feeding) = feeding {
            feeding.abort();
            let _ = feeding.await;
        }
        self.note(verdict.receipt.guest_cpu + verdict.receipt.engine_cpu);
        if !is_over && matches!(verdict.end, End::MemoryLimit { .. }) {
            // Where a message was too much, the guest has only now been told to stop. What it
            // had is free again when the next call comes.
            is_over = tokio::time::timeout(FREED_WITHIN, &mut nothing_runs).await.is_ok();
            if is_over {
                self.outbox.send_later(over());
            }
        }
        let end = frame(Tell::End, call, 0, &verdict).unwrap_or_default();
        if !is_over {
            self.outbox.send(end);
            let _ = nothing_runs.await;
            lock(&self.calls).remove(&call);
            self.outbox.send(over());
            return;
        }
        // Nothing more is said of it after its last frame.
        lock(&self.calls).remove(&call);
        self.outbox.send(end);
    }

    /// What a call took; the next one is expected to take as much as the last ones.
    fn note(&self, cpu: Duration) {
        let ns = u64::try_from(cpu.as_nanos()).unwrap_or(u64::MAX);
        let before = self.call_ns.load(Ordering::Relaxed);
        self.call_ns.store(before / 8 * 7 + ns / 8, Ordering::Relaxed);
    }

    /// Brings what comes out of a call to the host, as far as it has room, and the guest
    /// to its end. Gives the verdict.
    async fn answer(&self, answering: Answering) -> Verdict {
        let Answering { call, mut calling, places, cancelled, refusal } = answering;
        let spent = calling.spent().clone();
        let early = |end| Verdict { receipt: spent.receipt(), ..Verdict::early(end, Phase::Call) };
        let mut refused = pin!(async {
            match refusal.await {
                Ok(end) => end,
                Err(_) => std::future::pending().await,
            }
        });
        // Outputs that leave next. What they took is told before the first of them.
        let unsent = AtomicU32::new(0);
        loop {
            let event = tokio::select! {
                biased;
                () = cancelled.cancelled() => return early(End::Cancelled),
                end = &mut refused => return early(end),
                event = self.together(self.next(&places, &mut calling), &unsent) => event,
            };
            let sent = match event {
                Some(Event::End(verdict)) => return verdict,
                None => return early(End::Cancelled),
                Some(event) => {
                    // A client that has seen enough is told what that took.
                    if unsent.fetch_add(1, Ordering::Relaxed) == 0
                        && let Ok(spent) = frame(Tell::Spent, call, 0, &spent.receipt())
                    {
                        self.outbox.send_with_next(spent);
                    }
                    self.frame_of(call, event, &mut calling)
                }
            };
            match sent {
                Ok(sent) => self.outbox.send_with_next(sent),
                Err(error) => return early(End::HostBug(error.to_string())),
            }
            if unsent.load(Ordering::Relaxed) >= OUTPUTS_TOGETHER {
                self.send(&unsent);
            }
        }
    }

    /// An output, or what an input of its own has failed with.
    fn frame_of(&self, call: u32, event: Event, calling: &mut Calling) -> io::Result<Whole> {
        match event {
            Event::Output(output) => {
                let bytes = calling.held_bytes();
                if let Some(charge) = calling.held() {
                    lock(&self.held).absorb(charge);
                }
                carrying(Tell::Output, call, bytes, output)
            }
            Event::InputFailed(error) => frame(Tell::InputFailed, call, 0, &error).map(Into::into),
            Event::End(_) => Err(invalid("an end is said by itself")),
        }
    }

    /// The next event, once the host has room for it.
    async fn next(&self, places: &Semaphore, calling: &mut Calling) -> Option<Event> {
        let place = places.acquire().await.ok()?;
        let event = calling.next().await;
        if !matches!(event, Some(Event::End(_)) | None) {
            place.forget();
            let all = self.program.limits().outputs_buffered_max;
            let more = places_of(calling.held_bytes(), all) - 1;
            places.acquire_many(u32::try_from(more).unwrap_or(u32::MAX)).await.ok()?.forget();
        }
        event
    }

    /// Waits for what may be there already. What has not been sent yet goes before it, and
    /// at once if it is not.
    async fn together<T>(&self, coming: impl Future<Output = T>, unsent: &AtomicU32) -> T {
        let mut coming = pin!(coming);
        for _ in 0..2 {
            if let Poll::Ready(come) = futures_util::poll!(coming.as_mut()) {
                return come;
            }
            // A guest has often ended when its last output comes.
            give_way().await;
        }
        self.send(unsent);
        coming.await
    }

    /// Sends the outputs of a call that have not been.
    fn send(&self, unsent: &AtomicU32) {
        self.outbox.flush();
        unsent.store(0, Ordering::Relaxed);
    }

    fn figures(&self) -> Figures {
        Figures { lines_lost: self.lines_lost.load(Ordering::Relaxed), ..figures_of(&self.program) }
    }

    /// Says what has changed of the replica since it was last told.
    fn tell_figures(&self) -> io::Result<()> {
        let now = self.figures();
        let mut told = lock(&self.told);
        if now != *told {
            *told = now;
            self.outbox.send_later(frame(Tell::Figures, 0, 0, &now)?);
        }
        Ok(())
    }

    /// Says what has changed.
    fn tell(&self) -> io::Result<()> {
        self.tell_figures()?;
        for (call, running) in lock(&self.calls).iter_mut() {
            let receipt = running.spent.receipt();
            if running.told != Some(receipt) {
                running.told = Some(receipt);
                self.outbox.send_later(frame(Tell::Spent, *call, 0, &receipt)?);
            }
        }
        Ok(())
    }
}

/// Lets others go on that have something to do.
fn give_way() -> impl Future<Output = ()> {
    let mut has_given = false;
    std::future::poll_fn(move |context| match std::mem::replace(&mut has_given, true) {
        true => Poll::Ready(()),
        false => {
            context.waker().wake_by_ref();
            Poll::Pending
        }
    })
}

/// A message is not taken. The call may have ended by itself.
fn refuse(refused: oneshot::Sender<End>, over: OverLimit) {
    let OverLimit { holder, memory_bytes_max } = over;
    let _ = refused.send(End::MemoryLimit { holder, memory_bytes_max });
}

/// The outputs of a call, on their way to the host.
struct Answering {
    call: u32,
    calling: Calling,
    places: Arc<Semaphore>,
    cancelled: CancellationToken,
    /// Why a message was not taken.
    refusal: oneshot::Receiver<End>,
}
