//! One version's compiled component and all that its sandboxes share.

use super::Runtime;
use super::account::Account;
use super::bindings::ModelRunnerPre;
use super::bindings::ringfence::model::context;
use super::calling::{self, Calling, Requests};
use super::compiled::Beginning;
use super::cpu::Share;
use super::engine::Running;
use super::instance::{Hold, Instance, Job, Left, Used};
use super::kept::Kept;
use super::log::{self, Lines};
use super::ready::{Ready, Taken, load_deadline};
use super::snapshot::{self, Copied, Snapshot, Unfit};
use super::state::{State, files_of};
use super::streams::Sink;
use crate::call::{
    Deadline, End, Function, Holder, Methods, Origin, Phase, Receipt, SignatureError, Verdict,
};
use crate::limits::{Isolation, Limits};
use crate::nn::{Graphs, Placement};
use crate::package::{AssetFile, Assets, GraphFile, Package, Parts, Sheet, admission};
use crate::telemetry::Rate;
use bytes::Bytes;
use futures_util::FutureExt;
use std::collections::HashMap;
use std::fs::File;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use wasmtime::component::Component;
use wasmtime_wasi::filesystem::WasiFilesystemCtx;

/// A version that can be called.
pub struct Program {
    shared: Arc<Shared>,
    ready: Ready,
    /// Sandboxes of callers, where the author asks for that.
    kept: Kept<Box<Instance>>,
}

/// What every sandbox of a version needs.
pub(crate) struct Shared {
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) pre: ModelRunnerPre<State>,
    pub(crate) limits: Limits,
    pub(crate) account: Account,
    pub(crate) share: Arc<Share>,
    pub(crate) graphs: Graphs,
    pub(crate) info: context::ModelInfo,
    pub(crate) label: Arc<str>,
    /// What guests may open.
    pub(crate) files: WasiFilesystemCtx,
    _assets: Assets,
    pub(crate) asset_files: HashMap<String, File>,
    pub(crate) log_rate: Arc<Rate>,
    /// Where guests' lines go; nothing where nobody keeps them.
    pub(crate) log: Option<Lines>,
    pub(crate) sandboxes_made: AtomicU64,
    pub(crate) surroundings: Surroundings,
    /// What its sandboxes are copies of, if they are.
    pub(crate) copied: Option<Copied>,
}

/// What a guest finds around it: the time, and random numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Surroundings {
    /// The machine's own.
    Real,
    /// The same, with what the guest draws of random numbers counted.
    Watched,
    /// Made of a seed, the same in every sandbox, so that the same call burns
    /// the same fuel. For tests by a model's author.
    Seeded(u64),
}

impl Surroundings {
    /// The same, where it is counted how often a guest looks.
    pub(super) fn watched(self) -> Self {
        match self {
            Self::Real | Self::Watched => Self::Watched,
            Self::Seeded(seed) => Self::Seeded(seed),
        }
    }
}

/// What a program's machine code is made of.
#[derive(Debug)]
pub enum Code {
    /// The package's component, compiled here. For its own author only.
    Component,
    /// The same with its state in it, and the methods that it had before.
    Copies(Snapshot, Methods),
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

/// Why it is not known which typed methods a model has.
#[derive(Debug, thiserror::Error)]
pub enum MethodsError {
    /// The guest did not say it.
    #[error("the model does not say which typed methods it has: {}", .0.end)]
    Ended(Box<Verdict>),
    /// What it says makes no sense.
    #[error(transparent)]
    Signature(#[from] SignatureError),
}

impl Program {
    /// Makes a program of a package and loads its graphs. Takes seconds if it
    /// has to compile; blocks.
    pub fn admit(
        runtime: &Arc<Runtime>,
        package: &Package,
        code: &Code,
        surroundings: Surroundings,
    ) -> Result<Self, AdmitError> {
        admission::admit(&package.component, package.limits().memory_bytes_max)?;
        let (component, copied) = match code {
            Code::Component => {
                let asked = snapshot::asked(&package.component).ok();
                let bytes = asked.as_deref().unwrap_or(&package.component);
                (Component::from_binary(runtime.engine(), bytes), None)
            }
            Code::Copies(Snapshot { component, bytes }, methods) => {
                let copied = Copied { methods: methods.declared().to_owned(), bytes: *bytes };
                (Component::from_binary(runtime.engine(), component), Some(copied))
            }
        };
        Self::made(runtime, package.parts(), component, copied, None, surroundings)
    }

    /// Makes a program of a package whose component another process has admitted and
    /// compiled. Its guests' lines go where `lines` says. `mapped` is called once all
    /// machine code is there, and `imaged` when what memories begin with is there too,
    /// before anything else of the package is looked at.
    pub fn of(
        runtime: &Arc<Runtime>,
        parts: Parts,
        compiled: &super::Compiled,
        lines: Option<Lines>,
        mapped: impl FnOnce() -> Result<(), String>,
        imaged: impl FnOnce() -> Result<(), String>,
    ) -> Result<Self, AdmitError> {
        let component = super::compiled::load(runtime.engine(), compiled);
        mapped().map_err(AdmitError::Component)?;
        // Else the first sandbox makes it, which may never come as far as that.
        let component = component.and_then(|component| {
            component.initialize_copy_on_write_image()?;
            Ok(component)
        });
        imaged().map_err(AdmitError::Component)?;
        let copied = match compiled.beginning() {
            Beginning::Load | Beginning::Write(_) => None,
            Beginning::Copy(copied) => Some(copied.clone()),
        };
        Self::made(runtime, parts, component, copied, lines, Surroundings::Real)
    }

    fn made(
        runtime: &Arc<Runtime>,
        parts: Parts,
        component: wasmtime::Result<Component>,
        copied: Option<Copied>,
        log: Option<Lines>,
        surroundings: Surroundings,
    ) -> Result<Self, AdmitError> {
        let failed = |error: wasmtime::Error| AdmitError::Component(format!("{error:#}"));
        let pre = runtime.linker().instantiate_pre(&component.map_err(failed)?);
        let pre = ModelRunnerPre::new(pre.map_err(failed)?).map_err(failed)?;
        let Parts { sheet, graphs, assets } = parts;

        let fuel_per_cpu_second = runtime.fuel_per_cpu_second();
        let limits = Limits { fuel_per_cpu_second, ..sheet.limits.clone() }.lifted();
        let account = Account::new(limits.memory_bytes_max);
        let share = Share::new(runtime.cpus(), limits.cpu_millis);
        let info = info_of(&sheet, &graphs, &assets);
        let graphs = Graphs::load(runtime.nn(), &graphs, &assets, &account, &limits)?;
        let mut asset_files = HashMap::new();
        for asset in &assets.files {
            let file = File::open(assets.path().join(&asset.name))
                .map_err(|source| AdmitError::Asset { name: asset.name.clone(), source })?;
            asset_files.insert(asset.name.clone(), file);
        }
        let files = files_of(&assets).map_err(|error| AdmitError::Asset {
            name: "/model".to_owned(),
            source: std::io::Error::other(error),
        })?;
        let label = sheet.name.into();
        let shared = Shared {
            runtime: runtime.clone(),
            pre,
            limits,
            account,
            share,
            graphs,
            info,
            label,
            files,
            _assets: assets,
            asset_files,
            log_rate: log::rate(),
            log,
            sandboxes_made: AtomicU64::new(0),
            surroundings,
            copied,
        };
        Ok(Self { shared: Arc::new(shared), ready: Ready::new(), kept: Kept::new() })
    }

    /// Asks the guest which typed methods it has, in a sandbox of its own that
    /// does nothing else.
    pub async fn methods(self: &Arc<Self>) -> Result<Methods, MethodsError> {
        if let Some(copied) = &self.shared.copied {
            return Ok(Methods::parse(&copied.methods)?);
        }
        let program = self.clone();
        let asked = self.on_executor(async move {
            Instance::methods(&program.shared, load_deadline(&program.shared)).await
        });
        let asked = asked.await.unwrap_or_else(dropped);
        Ok(Methods::parse(&asked.map_err(MethodsError::Ended)?)?)
    }

    /// Loads a first sandbox, so that a model that cannot load is known before
    /// it is called. Returns what `load-model` took.
    pub async fn warm(self: &Arc<Self>) -> Result<Receipt, Box<Verdict>> {
        let program = self.clone();
        // Kept even if whoever asked has gone.
        let warmed = self.on_executor(async move { program.ready.warm(&program.shared).await });
        warmed.await.unwrap_or_else(dropped)
    }

    /// Runs `load-model` in a sandbox of its own, and writes what that leaves into
    /// `component`, which this program was made of.
    pub async fn snapshot(self: &Arc<Self>, component: Bytes) -> Result<Snapshot, Unfit> {
        let program = self.clone();
        // What comes of this replaces the program: nobody needs the sandbox that waits.
        program.ready.clear();
        let taken = self.on_executor(async move {
            let taking = Instance::snapshot(&program.shared, &component);
            AssertUnwindSafe(taking).catch_unwind().await.ok()
        });
        taken.await.flatten().unwrap_or_else(|| Err(broken()))
    }

    /// Runs what a guest does outside of a call where guests run; nothing comes of it where
    /// its task is dropped.
    async fn on_executor<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let running = self.running();
        self.beside(async move {
            let _running = running;
            // Whoever asked may have gone.
            let _ = sender.send(work.await);
        });
        receiver.await.ok()
    }

    /// Runs what a call needs beside its guest where guests run, so that nobody has to be
    /// woken elsewhere for it.
    pub(crate) fn beside(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.shared.runtime.executor().spawn(work);
    }

    /// Whether its guests have graphs to compute.
    pub(crate) fn has_graphs(&self) -> bool {
        self.shared.graphs.names().next().is_some()
    }

    /// The limits of the version.
    pub fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    /// The memory account of the version.
    pub fn account(&self) -> &Account {
        &self.shared.account
    }

    /// What it has on devices, if it is computed on any.
    pub fn device(&self) -> Option<&Account> {
        self.shared.runtime.nn().devices().map(|devices| &devices.memory)
    }

    /// Each graph that is on a device: its name, its engine, and where its nodes are.
    pub fn placements(&self) -> impl Iterator<Item = (&str, &'static str, &Placement)> {
        self.shared.graphs.placements()
    }

    /// Bytes held now by one kind of holder.
    pub fn held_by(&self, holder: Holder) -> u64 {
        let account = match holder {
            Holder::Device => self.device(),
            Holder::Memory
            | Holder::Table
            | Holder::Stack
            | Holder::Tensor
            | Holder::Message
            | Holder::Graph
            | Holder::Engine => Some(self.account()),
        };
        account.map_or(0, |account| account.bytes_of(holder))
    }

    /// CPU time that was charged to `cpu_limit`.
    pub fn cpu_charged(&self) -> Duration {
        self.shared.share.charged_so_far()
    }

    /// Sandboxes made since the version was admitted.
    pub fn sandboxes_made(&self) -> u64 {
        self.shared.sandboxes_made.load(Ordering::Relaxed)
    }

    /// Starts a call. The guest runs on its own executor; requests go in by
    /// [`Requests`], events come out of [`Calling`]. `hold` is dropped when the
    /// guest has ended, whoever still reads. `origin` is what logs say of it.
    pub fn call<H: Send + Sync + 'static>(
        self: &Arc<Self>,
        function: Function,
        origin: impl Into<Origin>,
        deadline: Deadline,
        hold: H,
    ) -> (Requests, Calling) {
        self.call_until(&CancellationToken::new(), function, origin, deadline, hold)
    }

    /// The same, which ends when `ended` is cancelled as when its outputs are
    /// dropped: then no verdict comes.
    pub fn call_until<H: Send + Sync + 'static>(
        self: &Arc<Self>,
        ended: &CancellationToken,
        function: Function,
        origin: impl Into<Origin>,
        deadline: Deadline,
        hold: H,
    ) -> (Requests, Calling) {
        let (requests, calling, running) = self.prepared(ended, function, origin, deadline, hold);
        self.beside(running);
        (requests, calling)
    }

    /// The same, whose guest runs as what comes back is polled: with time of this runtime
    /// or another one, until something makes it wait.
    pub(crate) fn prepared<H: Send + Sync + 'static>(
        self: &Arc<Self>,
        ended: &CancellationToken,
        function: Function,
        origin: impl Into<Origin>,
        deadline: Deadline,
        hold: H,
    ) -> (Requests, Calling, impl Future<Output = ()> + Send + 'static) {
        let limits = &self.shared.limits;
        let (request_sender, requests) = mpsc::channel(limits.messages_buffered_max);
        let stop = ended.child_token();
        let stopped = stop.clone();
        let (mut answers, calling) =
            calling::sides(limits.messages_buffered_max, deadline, stop.drop_guard());

        let program = self.clone();
        let origin = origin.into();
        let account = self.shared.account.clone();
        let meters = answers.meters.clone();
        let sink = Sink {
            events: answers.sender(),
            account: account.clone(),
            meters: meters.clone(),
            output_bytes_left: limits.output_bytes_max,
            unread_timeout: limits.unread_timeout,
        };
        let hold: Hold = Arc::new(hold);
        let running = async move {
            let (deadline, held) = (deadline.instant(), hold.clone());
            let job = {
                let stopped = stopped.clone();
                Job { function, origin, requests, sink, deadline, meters, hold, stopped }
            };
            let loaded = AtomicBool::new(false);
            let run = AssertUnwindSafe(program.run(job, &loaded)).catch_unwind();
            let ended = tokio::select! {
                biased;
                () = stopped.cancelled() => None,
                ended = run => Some(ended.unwrap_or_else(|_| {
                    (host_bug("the host panicked in a call", Phase::Call), None)
                })),
            };
            // A version that cannot load says so to the next caller. Who asks for the verdict
            // calls again, and finds that the next sandbox is on its way.
            let ready = &program.ready;
            let promise = loaded.into_inner().then(|| ready.promise(&program.shared)).flatten();
            let used = ended.and_then(|(verdict, used)| {
                answers.end(verdict);
                used
            });
            drop(held);
            // Whoever waits for the verdict goes first, where the next call has room beside
            // what is left of this one.
            if let Some(used) = used {
                tokio::task::yield_now().await;
                drop(used);
            }
            let refilled = async {
                if let Some(promise) = promise {
                    let _running = program.running();
                    promise.keep(&program.shared).await;
                }
            };
            tokio::join!(refilled, answers.discarded(&stopped));
        };
        (Requests { sender: request_sender, account }, calling, running)
    }

    async fn run(&self, job: Job, loaded: &AtomicBool) -> (Verdict, Option<Used>) {
        let _running = self.running();
        let _call = self.ready.call();
        let began = Instant::now();
        let caller = self.keeps_for(&job.origin);
        let own = caller.as_ref().and_then(|caller| self.kept.take(caller));
        let taken = match own {
            Some(own) => Taken::Ready(own),
            None => self.ready.take(job.deadline, &self.shared).await,
        };
        let (instance, load) = match taken {
            Taken::Ready(instance) => (Ok(*instance), Duration::ZERO),
            Taken::Awaited(instance) => (Ok(instance), began.elapsed()),
            Taken::Own(_loads) => {
                let loaded = Instance::load(&self.shared, job.deadline).await;
                (loaded, began.elapsed())
            }
        };
        let (mut verdict, left) = match instance {
            Ok(instance) => {
                loaded.store(true, Ordering::Relaxed);
                instance.call(job, || self.ready.has_room(&self.shared)).await
            }
            Err(verdict) => (*verdict, Left::Nothing),
        };
        verdict.receipt.load = load;
        match (left, caller) {
            (Left::Whole(instance), Some(caller)) => {
                let account = &self.shared.account;
                self.kept.put(caller, instance, || account.leaves_half_beside(0));
                (verdict, None)
            }
            (Left::Used(used), _) => (verdict, Some(used)),
            (Left::Whole(_) | Left::Nothing, _) => (verdict, None),
        }
    }

    /// Whose sandbox is kept after the call, if it is. Who is not known has none.
    fn keeps_for(&self, origin: &Origin) -> Option<Arc<str>> {
        let is_kept = self.shared.limits.isolation == Isolation::Caller && !origin.user.is_empty();
        is_kept.then(|| origin.user.clone())
    }

    fn running(&self) -> Running {
        self.shared.runtime.ticker().running()
    }
}

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Program").field("model", &self.shared.label).finish_non_exhaustive()
    }
}

/// What writes it panics where it does not know how.
fn broken() -> Unfit {
    Unfit::Form("it has something that is not known how to write".to_owned())
}

fn dropped<T>() -> Result<T, Box<Verdict>> {
    Err(Box::new(host_bug("a task of the executor was dropped", Phase::Load)))
}

fn host_bug(text: &str, phase: Phase) -> Verdict {
    Verdict::early(End::HostBug(text.to_owned()), phase)
}

fn info_of(sheet: &Sheet, graphs: &[GraphFile], assets: &Assets) -> context::ModelInfo {
    let concept = |(id, name): &(String, String)| context::Concept {
        id: id.clone(),
        name: name.clone(),
        value: 0.0,
    };
    let asset =
        |asset: &AssetFile| context::AssetInfo { name: asset.name.clone(), size: asset.size };
    context::ModelInfo {
        id: sheet.id.clone(),
        version: sheet.version.clone(),
        model_type: sheet.model_type_id.clone(),
        concepts: sheet.concepts.iter().map(concept).collect(),
        graphs: graphs.iter().map(|graph| graph.name.clone()).collect(),
        assets: assets.files.iter().map(asset).collect(),
    }
}
