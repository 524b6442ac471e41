//! The process boundary: what runs guests and graphs.
//!
//! Owns starting a version's replica, in a process of its own or in this one, and
//! handing calls to it; nothing above knows which. What an author sends is compiled in
//! one-shot processes. Never touches tonic.

mod cgroup;
mod driver;
mod jail;
mod kernels;
mod launch;
mod proving;
mod spawn;

mod frames;
mod one_shot;

mod link;
mod message;
mod passing;

mod here;
mod incoming;
mod kernel;
mod process;
mod serving;
mod socket;
mod turns;

pub use cgroup::{CgroupError, may_divide};
pub use driver::Driver;
pub use frames::Frame;
use jail::{Code, Root};
pub use jail::{GIVEN_UP, JailMode, Layer};
pub use kernel::Kernel;
pub use kernels::{KernelName, KernelTask};
pub use launch::{Confinement, Launcher};
pub use message::{Figures, Loaded, Unknown};
#[cfg(test)]
pub(crate) use one_shot::tests::{launcher_of, scripted};
pub use one_shot::{MachineCode, OneShot, OneShotError, Urgency};
#[doc(hidden)]
pub use process::{Heard, hear_anything, heed_anything};
pub use proving::{Proven, prove, prove_for, serve_proof};
pub use serving::serve;
pub use spawn::Starter;

use crate::call::{
    Deadline, End, Event, Function, Methods, Origin, Request, SignatureError, Verdict,
};
use crate::devices::Given;
use crate::limits::Limits;
use crate::package::Parts;
use crate::sandbox::{Calling, Charge, Compiled, Requests, Runtime, Snapshot};
use crate::telemetry::VersionLog;
use here::Here;
use message::Started;
use process::{Messages, Process, Taking};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use crate::sandbox::{AdmitError, OverLimit, SendError, Spent};

/// Where replicas run.
#[derive(Debug, Clone)]
pub enum Workers {
    /// In this process, with one wall around them.
    Here(Arc<Runtime>),
    /// Each in its own.
    Processes(Arc<Processes>),
}

/// What processes of replicas are started from.
#[derive(Debug)]
pub struct Processes {
    launcher: Launcher,
    fuel_per_cpu_second: u64,
    /// Below which each has a control group, where there is one.
    cgroups: Option<PathBuf>,
    load_timeout: Duration,
    tasks: TaskTracker,
}

/// What a replica is started for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Calls.
    Serve,
    /// To see whether its package can be kept; its CPU time is limited.
    TryOut,
}

/// One replica of a version.
#[derive(Debug)]
pub struct Worker {
    kind: Kind,
    methods: Result<Methods, Unknown>,
    loaded: Result<Loaded, Verdict>,
    written: Mutex<Option<Result<Snapshot, String>>>,
}

#[derive(Debug)]
enum Kind {
    Here(Here),
    Process(Process),
}

/// The end of a process, once it comes.
#[derive(Debug)]
pub struct Gone {
    gone: CancellationToken,
    tasks: TaskTracker,
}

/// Why a replica does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartFailure {
    /// The package cannot be run.
    #[error(transparent)]
    Admit(#[from] AdmitError),
    /// The same, in the words of the process that tried.
    #[error("{0}")]
    Refused(String),
    /// Its process has ended, or is not ready in time.
    #[error("its process does not start: {0}")]
    Process(String),
    /// The host cannot start one.
    #[error("no process can be started: {0}")]
    Host(String),
}

/// A call's outputs, to be read until [`Event::End`]. Dropping them stops the
/// guest and frees what the call held.
#[derive(Debug)]
pub struct Outputs {
    calling: Calling,
    /// Goes after the other, so that it finds that nobody wants any more.
    taking: Option<Taking>,
}

/// The way in for a call's messages. Dropping it tells the guest that there
/// are no more.
#[derive(Debug)]
pub struct Inputs(Way);

#[derive(Debug)]
enum Way {
    Here(Requests),
    Process(Messages),
}

impl Processes {
    /// Started from these, on a machine that burns so much fuel in a second, and in
    /// control groups below a directory, if there is one.
    pub fn new(launcher: Launcher, fuel_per_cpu_second: u64, cgroups: Option<PathBuf>) -> Self {
        let load_timeout = process::LOAD_TIMEOUT;
        Self { launcher, fuel_per_cpu_second, cgroups, load_timeout, tasks: TaskTracker::new() }
    }
}

/// Makes the control group of this process ready for those of replicas, where it may.
pub fn control_groups() -> Result<PathBuf, CgroupError> {
    cgroup::prepare()
}

/// Enters the jail of a process that only computes something, from what it is given to
/// what it gives. `parent` has started it.
pub fn enter_to_compute(confinement: &Confinement, parent: i32) -> anyhow::Result<()> {
    let (root, code) = match confinement.driver {
        Some(_) => (Root::Kept, Code::Libraries),
        None => (Root::Here, Code::None),
    };
    confinement.enter(parent, root, code, &[])?;
    Ok(())
}

impl Workers {
    /// Fuel that the fastest mix burns in a second of this machine's CPU time.
    pub fn fuel_per_cpu_second(&self) -> u64 {
        match self {
            Self::Here(runtime) => runtime.fuel_per_cpu_second(),
            Self::Processes(processes) => processes.fuel_per_cpu_second,
        }
    }

    /// Waits until no guest runs any more. Whoever drains has stopped calls
    /// from starting, and let go of the replicas.
    pub async fn drain(&self) {
        match self {
            Self::Here(runtime) => runtime.drain().await,
            Self::Processes(processes) => {
                processes.tasks.close();
                processes.tasks.wait().await;
            }
        }
    }
}

impl Gone {
    /// Waits until it has come.
    pub async fn wait(&self) {
        self.gone.cancelled().await;
    }

    /// Does something then, which [`Workers::drain`] waits for.
    pub fn then(self, act: impl FnOnce() + Send + 'static) {
        let Self { gone, tasks } = self;
        tasks.spawn(async move {
            gone.cancelled().await;
            act();
        });
    }
}

impl Worker {
    /// Loads a package's machine code, its graphs and a first sandbox, on these devices,
    /// which it has until nothing of it runs any more. Where an engine needs kernels for
    /// them, they are in a folder, or not there for a reason.
    ///
    /// A model whose `load-model` fails is started all the same: its callers
    /// are told, and the operator by the log.
    pub async fn start(
        workers: &Workers,
        parts: Parts,
        compiled: Compiled,
        log: Option<VersionLog>,
        purpose: Purpose,
        given: Given,
        kernels: Option<Result<Arc<Path>, String>>,
    ) -> Result<Self, StartFailure> {
        let (kind, started) = match workers {
            Workers::Here(runtime) => {
                let (here, started) =
                    Here::start(runtime, parts, compiled, log, given.clone()).await?;
                (Kind::Here(here), started)
            }
            Workers::Processes(processes) => {
                let (process, started) =
                    Process::start(processes, parts, compiled, log, purpose, &given, kernels)
                        .await?;
                (Kind::Process(process), started)
            }
        };
        let Started { methods, loaded, snapshot, unfit } = started;
        if let Err(Verdict { end: End::DeviceLost(why), .. }) = &loaded {
            given.have_failed();
            return Err(StartFailure::Process(format!("an accelerator failed: {why}")));
        }
        let written = match (snapshot, unfit) {
            (Some(snapshot), _) => Some(Ok(snapshot)),
            (None, unfit) => unfit.map(Err),
        };
        let methods = methods.and_then(|text| {
            let unknown = |error: SignatureError| Unknown { why: error.to_string(), ended: None };
            Methods::parse(&text).map_err(unknown)
        });
        Ok(Self { kind, methods, loaded, written: Mutex::new(written) })
    }

    /// Starts a call, which ends without a verdict when `ended` is cancelled.
    /// `hold` is kept until nothing runs for the call any more, whether or not anybody
    /// still reads the outputs.
    pub fn call<H: Send + Sync + 'static>(
        &self,
        ended: &CancellationToken,
        function: Function,
        origin: Origin,
        deadline: Deadline,
        hold: H,
    ) -> (Inputs, Outputs) {
        match &self.kind {
            Kind::Here(here) => {
                let (requests, calling) = here.call(ended, function, origin, deadline, hold);
                (Inputs(Way::Here(requests)), Outputs { calling, taking: None })
            }
            Kind::Process(process) => {
                let (messages, calling, taking) =
                    process.call(ended, function, origin, deadline, hold);
                (Inputs(Way::Process(messages)), Outputs { calling, taking: Some(taking) })
            }
        }
    }

    /// The typed methods of its version, or why they are not known.
    pub fn methods(&self) -> Result<&Methods, &Unknown> {
        self.methods.as_ref()
    }

    /// What loading the first sandbox took, or how it ended.
    pub fn loaded(&self) -> Result<&Loaded, &Verdict> {
        self.loaded.as_ref()
    }

    /// The component with the state in it that `load-model` has left, or why there is none;
    /// once, where that was to be written and the model has loaded.
    pub fn take_written(&self) -> Option<Result<Snapshot, String>> {
        lock(&self.written).take()
    }

    /// Its process was not the first to try, and is not to write anything; why, is for
    /// [`Worker::take_written`].
    pub fn is_unwritten(&self, why: String) {
        *lock(&self.written) = Some(Err(why));
    }

    /// What it holds now, and has had.
    pub fn figures(&self) -> Figures {
        match &self.kind {
            Kind::Here(here) => here.figures(),
            Kind::Process(process) => process.figures(),
        }
    }

    /// The limits of its version.
    pub fn limits(&self) -> &Limits {
        match &self.kind {
            Kind::Here(here) => here.limits(),
            Kind::Process(process) => process.limits(),
        }
    }

    /// What the kernel says of its process, if it has one of its own.
    pub fn kernel(&self) -> Kernel {
        self.pid().map(Kernel::of).unwrap_or_default()
    }

    /// Its process, if it has one of its own.
    pub fn pid(&self) -> Option<u32> {
        match &self.kind {
            Kind::Here(_) => None,
            Kind::Process(process) => Some(process.pid()),
        }
    }

    /// Whether its process has ended, if it has one.
    pub fn has_gone(&self) -> bool {
        match &self.kind {
            Kind::Here(_) => false,
            Kind::Process(process) => process.has_gone(),
        }
    }

    /// The end of its process, if it has one, for whoever does something then.
    pub fn gone(&self) -> Option<Gone> {
        match &self.kind {
            Kind::Here(_) => None,
            Kind::Process(process) => Some(process.gone()),
        }
    }

    /// Why its process has ended.
    pub fn why(&self) -> String {
        match &self.kind {
            Kind::Here(_) => String::new(),
            Kind::Process(process) => process.why(),
        }
    }
}

/// What a mutex guards. Nothing is left half done under one, so a panic of whoever had it
/// is no reason for others to panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What an output makes its version hold, as long as this lives.
#[derive(Debug)]
pub struct Held {
    _charge: Charge,
}

impl Outputs {
    /// What the call has taken so far.
    pub fn spent(&self) -> &Spent {
        self.calling.spent()
    }

    /// The next event; nothing after the end. What the one before it made the
    /// version hold is given back, unless it was taken.
    pub async fn next(&mut self) -> Option<Event> {
        let event = self.calling.next().await;
        if let (Some(event), Some(taking)) = (&event, &mut self.taking) {
            taking.one(event, self.calling.held_bytes());
        }
        event
    }

    /// What the last event makes the version hold, for whoever keeps its output.
    pub fn held(&mut self) -> Option<Held> {
        self.calling.held().map(|charge| Held { _charge: charge })
    }
}

impl Inputs {
    /// Sends a message and waits while the guest is slow.
    pub async fn send(&self, request: Request) -> Result<(), SendError> {
        match &self.0 {
            Way::Here(requests) => requests.send(request).await,
            Way::Process(messages) => messages.send(request).await,
        }
    }
}
