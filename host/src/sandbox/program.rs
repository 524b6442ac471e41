//! One version's compiled component and all that its sandboxes share.

use super::Runtime;
use super::account::Account;
use super::bindings::ModelRunnerPre;
use super::bindings::ringfence::model::context;
use super::engine::Running;
use super::instance::{Instance, Job, Used};
use super::log::LogRate;
use super::state::State;
use super::streams::{Received, Sent, Sink};
use crate::call::{Deadline, End, Event, Function, Holder, Phase, Receipt, Request, Verdict};
use crate::limits::Limits;
use crate::nn::Graphs;
use crate::package::{Assets, Package, admission};
use futures_util::FutureExt;
use std::collections::HashMap;
use std::fs::File;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};
use wasmtime::component::Component;

/// A version that can be called.
pub struct Program {
    shared: Arc<Shared>,
    ready: Mutex<Option<Instance>>,
    refilling: AtomicBool,
}

/// What every sandbox of a version needs.
pub(crate) struct Shared {
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) pre: ModelRunnerPre<State>,
    pub(crate) limits: Limits,
    pub(crate) account: Account,
    pub(crate) graphs: Graphs,
    pub(crate) info: context::ModelInfo,
    pub(crate) label: Arc<str>,
    pub(crate) assets: Assets,
    pub(crate) asset_files: HashMap<String, File>,
    pub(crate) log_rate: Arc<LogRate>,
}

/// Why a package cannot be made a program.
#[derive(Debug, thiserror::Error)]
pub enum AdmitError {
    /// It is not a component of the world, or wants more than this host gives.
    #[error(transparent)]
    Admission(#[from] admission::AdmissionError),
    /// The component does not compile, or its imports or exports have other
    /// types than the world says.
    #[error("1/model.wasm is not a component that this host can run: {0}")]
    Component(String),
    /// A graph cannot be loaded.
    #[error(transparent)]
    Graph(#[from] crate::nn::LoadError),
    /// An asset cannot be opened.
    #[error("cannot open the asset {name}")]
    Asset {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// A call in progress. Dropping it stops the guest.
#[derive(Debug)]
pub struct Calling {
    events: mpsc::Receiver<Sent>,
    _stop: DropGuard,
}

/// The way of a call's messages to its guest.
#[derive(Debug)]
pub struct Requests {
    sender: mpsc::Sender<Received>,
    account: Account,
}

/// Why a message did not reach the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The call is over.
    #[error("the call is over")]
    Over,
    /// Holding the message would exceed `cpu_memory`.
    #[error(transparent)]
    Memory(#[from] super::account::OverLimit),
}

impl Program {
    /// Compiles a package and loads its graphs. Takes seconds; blocks.
    pub fn admit(runtime: &Arc<Runtime>, package: Package) -> Result<Self, AdmitError> {
        admission::admit(&package.component, package.limits().memory_bytes_max)?;
        let component = |error: wasmtime::Error| AdmitError::Component(format!("{error:#}"));
        let compiled =
            Component::from_binary(runtime.engine(), &package.component).map_err(component)?;
        let pre = runtime.linker().instantiate_pre(&compiled).map_err(component)?;
        let pre = ModelRunnerPre::new(pre).map_err(component)?;

        let limits = package.limits().clone();
        let account = Account::new(limits.memory_bytes_max);
        let graphs = Graphs::load(runtime.nn(), &package.graphs, &account)?;
        let mut asset_files = HashMap::new();
        for asset in &package.assets.files {
            let file = File::open(package.assets.path().join(&asset.name))
                .map_err(|source| AdmitError::Asset { name: asset.name.clone(), source })?;
            asset_files.insert(asset.name.clone(), file);
        }
        let info = info_of(&package);
        let label = package.config.name.to_string().into();
        let shared = Shared {
            runtime: runtime.clone(),
            pre,
            limits,
            account,
            graphs,
            info,
            label,
            assets: package.assets,
            asset_files,
            log_rate: Arc::new(LogRate::new()),
        };
        Ok(Self {
            shared: Arc::new(shared),
            ready: Mutex::new(None),
            refilling: AtomicBool::new(false),
        })
    }

    /// Loads a first sandbox, so that a model that cannot load is known before
    /// it is called.
    pub async fn warm(self: &Arc<Self>) -> Result<(), Verdict> {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let program = self.clone();
        self.shared.runtime.executor().spawn(async move {
            let loaded = program.fresh(program.load_deadline()).await;
            // Whoever asked may have gone; the sandbox is kept all the same.
            let _ = sender.send(loaded.map(|instance| program.keep(instance)));
        });
        receiver.await.unwrap_or_else(|_| {
            Err(host_bug("the task that loads a sandbox was dropped", Phase::Load))
        })
    }

    /// The limits of the version.
    pub fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    /// The memory account of the version.
    pub fn account(&self) -> &Account {
        &self.shared.account
    }

    /// Starts a call. The guest runs on its own executor; requests go in by
    /// [`Requests`], events come out of [`Calling`]. `hold` is dropped when the
    /// guest has ended, whoever still reads.
    pub fn call<H: Send + 'static>(
        self: &Arc<Self>,
        function: Function,
        deadline: Deadline,
        hold: H,
    ) -> (Requests, Calling) {
        let buffered = self.shared.limits.messages_buffered_max;
        let (request_sender, requests) = mpsc::channel(buffered);
        let (event_sender, events) = mpsc::channel(buffered);
        let stop = CancellationToken::new();

        let program = self.clone();
        let stopped = stop.clone();
        let account = self.shared.account.clone();
        let sink = Sink {
            events: event_sender,
            account: account.clone(),
            output_bytes_left: self.shared.limits.output_bytes_max,
        };
        self.shared.runtime.executor().spawn(async move {
            let events = sink.events.clone();
            let job = Job { function, requests, sink, deadline: deadline.instant() };
            let run = AssertUnwindSafe(program.run(job)).catch_unwind();
            let (verdict, used) = tokio::select! {
                biased;
                () = stopped.cancelled() => {
                    drop(hold);
                    return program.refill().await;
                }
                ended = run => ended
                    .unwrap_or_else(|_| (host_bug("the host panicked in a call", Phase::Call), None)),
            };
            let end = Sent { event: Event::End(verdict), charge: None };
            tokio::select! {
                () = stopped.cancelled() => {}
                // Nobody is told of the end if everybody has gone.
                _ = events.send(end) => {}
            }
            drop(used);
            drop(hold);
            program.refill().await;
        });
        let requests = Requests { sender: request_sender, account };
        (requests, Calling { events, _stop: stop.drop_guard() })
    }

    async fn run(&self, job: Job) -> (Verdict, Option<Used>) {
        let _running = self.running();
        let ready = self.lock_ready().take();
        let instance = match ready {
            Some(instance) => Ok(instance),
            None => self.fresh(job.deadline).await,
        };
        match instance {
            Ok(instance) => instance.call(job).await,
            Err(verdict) => (verdict, None),
        }
    }

    /// Makes the sandbox for the next call, unless there is one already.
    async fn refill(&self) {
        if self.lock_ready().is_some() || self.refilling.swap(true, Ordering::AcqRel) {
            return;
        }
        // A version that cannot load says so to the next caller.
        if let Ok(instance) = self.fresh(self.load_deadline()).await {
            self.keep(instance);
        }
        self.refilling.store(false, Ordering::Release);
    }

    async fn fresh(&self, deadline: Instant) -> Result<Instance, Verdict> {
        let _running = self.running();
        Instance::load(&self.shared, deadline).await
    }

    fn keep(&self, instance: Instance) {
        *self.lock_ready() = Some(instance);
    }

    fn load_deadline(&self) -> Instant {
        Deadline::after(self.shared.limits.call_timeout).instant()
    }

    fn running(&self) -> Running {
        self.shared.runtime.ticker().running()
    }

    fn lock_ready(&self) -> std::sync::MutexGuard<'_, Option<Instance>> {
        self.ready.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Program").field("model", &self.shared.label).finish_non_exhaustive()
    }
}

impl Calling {
    /// The next event; nothing after the end.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await.map(|Sent { event, charge }| {
            // From here on the message is the server's, which has its own limits.
            drop(charge);
            event
        })
    }
}

impl Requests {
    /// Sends a message to the guest and waits while the guest is slow.
    pub async fn send(&self, request: Request) -> Result<(), SendError> {
        let bytes = super::size::of_request(&request);
        let _charge = self.account.charge(Holder::Message, bytes)?;
        self.sender.send(Received { request, _charge }).await.map_err(|_| SendError::Over)
    }
}

fn host_bug(text: &str, phase: Phase) -> Verdict {
    Verdict { end: End::HostBug(text.to_owned()), phase, receipt: Receipt::default() }
}

fn info_of(package: &Package) -> context::ModelInfo {
    let config = &package.config;
    context::ModelInfo {
        id: config.name.id().to_owned(),
        version: package.version.clone(),
        model_type: config.model_type_id.clone(),
        concepts: config
            .concepts
            .iter()
            .map(|concept| context::Concept {
                id: concept.id.clone(),
                name: concept.name.clone(),
                value: 0.0,
            })
            .collect(),
        graphs: package.graphs.iter().map(|graph| graph.name.clone()).collect(),
        assets: package
            .assets
            .files
            .iter()
            .map(|asset| context::AssetInfo { name: asset.name.clone(), size: asset.size })
            .collect(),
    }
}
