//! ONNX Runtime: graphs on the CPU, or on an accelerator, by a library that the operator has.
//!
//! Owns the library's one environment, in the memory of which all graphs of this process
//! are. It is C++ that is linked as the process runs: it belongs into a worker, where its
//! end is one replica's.

mod arena;
mod device;
mod threads;
mod value;
mod watch;

use super::engine::{
    Beside, Cancel, Engine, Graph, LoadError, Means, OnDevices, Placement, Port, Ports, Run,
    RunError, reason,
};
use super::lock;
use super::onnx::ports;
use super::tensor::{ElementType, Elements, Tensor};
use arena::Arena;
use bytes::Bytes;
use device::On;
use ort::environment::{Environment, GlobalThreadPoolOptions};
use ort::session::builder::GraphOptimizationLevel;
use ort::session::{RunOptions, Session, SessionOutputs};
use ort::value::{Outlet, ValueType};
use std::ffi::CStr;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;
use threads::Helpers;
use watch::Watch;

const NAME: &str = "onnxruntime";

/// The oldest release whose behaviour is known here: 1.*this*.
const RELEASE_MIN: u32 = 32;

const MICROSOFT: &str = "com.microsoft";

/// Domains of operators that it has.
const DOMAINS: [&str; 4] = ["", "ai.onnx", "ai.onnx.ml", MICROSOFT];

/// Operators of [`MICROSOFT`] that read files.
const READS_FILES: [&str; 1] = ["EPContext"];

const SILENCE: &str = "ORT_DISABLE_TELEMETRY";

/// Whether this process has loaded a library: nothing takes it out again.
static LOADED: Mutex<bool> = Mutex::new(false);

/// The engine: a process has one, and runs graphs of one version at a time by it.
pub struct OnnxRuntime {
    begun: Arc<Mutex<Option<Begun>>>,
    helpers: Arc<Helpers>,
    /// What it computes on, if that is not the CPU.
    on: Option<On>,
}

/// What all graphs share.
struct Begun {
    environment: Environment,
    arena: Arena,
    watch: Watch,
}

/// Why a library cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OnnxRuntimeError {
    /// It cannot be loaded, or is something else.
    #[error("cannot load ONNX Runtime from {path}: {reason}")]
    Library {
        /// Where it is.
        path: String,
        /// What the loader says.
        reason: String,
    },
    /// It would tell its makers what it is used for, and it is too late to stop that.
    #[error("ONNX Runtime is not used by many threads without {SILENCE}=1 in the environment")]
    Telemetry,
    /// Its path cannot be told.
    #[error(transparent)]
    Path(#[from] std::io::Error),
    /// It is too old.
    #[error("{path} is ONNX Runtime {found}; 1.{RELEASE_MIN} or newer is needed")]
    TooOld {
        /// Where it is.
        path: String,
        /// Its release.
        found: String,
    },
}

/// What of it a host says without having it: which graphs it would run.
#[derive(Debug, Clone, Copy, Default)]
pub struct OnnxRuntimeElsewhere;

impl Engine for OnnxRuntimeElsewhere {
    fn name(&self) -> &'static str {
        NAME
    }

    fn has(&self, domain: &str, operator: &str) -> bool {
        has(domain, operator)
    }

    fn load(
        &self,
        name: &str,
        _: &[u8],
        _: &dyn Beside,
        _: Means,
    ) -> Result<Arc<dyn Graph>, LoadError> {
        let reason = "it is not in this process".to_owned();
        Err(LoadError::Engine { engine: NAME, name: name.to_owned(), reason })
    }

    fn elements(&self, _: ElementType, _: &[u32], data: &[u8]) -> Box<dyn Elements> {
        Box::new(Bytes::copy_from_slice(data))
    }
}

/// It says only when a graph is loaded which operators of a domain it has.
fn has(domain: &str, operator: &str) -> bool {
    DOMAINS.contains(&domain) && !(domain == MICROSOFT && READS_FILES.contains(&operator))
}

/// The library, in this process.
#[derive(Debug)]
pub struct OnnxRuntimeLibrary(());

impl OnnxRuntimeLibrary {
    /// Loads it, which does what it likes as it is loaded.
    pub fn load(library: &Path) -> Result<Self, OnnxRuntimeError> {
        if !is_silent() && crate::sched::threads() != Some(1) {
            return Err(OnnxRuntimeError::Telemetry);
        }
        // The loader would look for a relative one elsewhere first.
        let library = &std::path::absolute(library)?;
        let path = library.display().to_string();
        let refused = |reason| OnnxRuntimeError::Library { path: path.clone(), reason };
        let mut loaded = lock(&LOADED);
        // Whoever loads another one would be given the first, and told nothing.
        if *loaded {
            return Err(refused("this process has loaded it already".to_owned()));
        }
        ort::init_from(library).map_err(|error| refused(error.to_string()))?;
        *loaded = true;
        let found = release(library).map_err(|error| refused(error.to_string()))?;
        if minor(&found).is_none_or(|minor| minor < RELEASE_MIN) {
            return Err(OnnxRuntimeError::TooOld { path, found });
        }
        Ok(Self(()))
    }

    /// The engine, which begins, and has threads, with its first graph. No thread may have
    /// been started since the library was loaded, unless `ORT_DISABLE_TELEMETRY` was among
    /// the variables of the process.
    pub fn engine(self) -> OnnxRuntime {
        be_silent();
        OnnxRuntime { begun: Arc::default(), helpers: Arc::default(), on: None }
    }
}

/// From release 1.32 on, what its makers build sends them what it is used for, over the
/// network, unless this variable is there as it begins.
#[allow(
    unsafe_code,
    reason = "JUSTIFICATION: the library has no other way to be told before it begins"
)]
fn be_silent() {
    if !is_silent() {
        // SAFETY: there was no other thread that could look at variables when the library was
        // loaded, and whoever calls this has started none. It is looked at there, because a
        // worker sees no /proc once it is in its jail, which it enters in between.
        unsafe { std::env::set_var(SILENCE, "1") };
    }
}

fn is_silent() -> bool {
    std::env::var_os(SILENCE).is_some()
}

impl OnnxRuntime {
    /// The same for graphs on these devices, if the library computes on such.
    #[must_use]
    pub fn on(self, devices: &OnDevices) -> Self {
        Self { on: On::cuda(devices), ..self }
    }

    /// The same library on a device, if it computes on such.
    #[cfg(test)]
    pub(super) fn on_cuda(&self, devices: &OnDevices) -> Option<Self> {
        let (begun, helpers) = (self.begun.clone(), self.helpers.clone());
        On::cuda(devices).map(|on| Self { begun, helpers, on: Some(on) })
    }

    /// The same library on a device that is the CPU.
    #[cfg(test)]
    pub(super) fn as_if_on(&self, devices: &OnDevices) -> Self {
        let (begun, helpers) = (self.begun.clone(), self.helpers.clone());
        Self { begun, helpers, on: Some(On::cpu(devices)) }
    }

    fn session(&self, onnx: &[u8], means: Means) -> ort::Result<(Session, Watch)> {
        let mut begun = lock(&self.begun);
        let begun = match &mut *begun {
            Some(begun) => {
                if begun.arena.bytes_max() != means.memory_bytes_max {
                    begun.arena.replace(means.memory_bytes_max)?;
                }
                begun
            }
            nothing => nothing.insert(Begun::with(means, &self.helpers)?),
        };
        let builder = Session::builder(&begun.environment)?
            .with_optimization_level(GraphOptimizationLevel::Level3)?
            .with_env_allocators()?
            // Else it reads what begins like a format of its own, which nobody has scanned.
            .with_config_entry("session.load_model_format", "ONNX")?;
        let mut builder = match &self.on {
            Some(on) => on.configured(builder)?,
            None => builder,
        };
        Ok((builder.commit_from_memory(onnx)?, begun.watch.clone()))
    }
}

impl Begun {
    fn with(means: Means, helpers: &Arc<Helpers>) -> ort::Result<Self> {
        let threads = GlobalThreadPoolOptions::default()
            .with_intra_threads(means.threads)?
            .with_inter_threads(1)?
            .with_spin_control(false)?
            .with_thread_manager(helpers.manager())?;
        // What it has to say comes as an error; its lines would be anybody's to fill.
        let silent = Arc::new(|_, _: &str, _: &str, _: &str, _: &str| {});
        let environment = ort::init()
            .with_name("ringfence")
            .with_telemetry(false)
            .with_logger(silent)
            .with_global_thread_pool(threads)
            .build()?;
        let arena = Arena::of(&environment, means.memory_bytes_max)?;
        let watch = Watch::start().map_err(|error| ort::Error::new(error.to_string()))?;
        Ok(Self { environment, arena, watch })
    }
}

impl Engine for OnnxRuntime {
    fn name(&self) -> &'static str {
        NAME
    }

    fn devices_max(&self) -> Option<u32> {
        self.on.as_ref().map(|_| 1)
    }

    fn has(&self, domain: &str, operator: &str) -> bool {
        has(domain, operator)
    }

    fn load(
        &self,
        name: &str,
        onnx: &[u8],
        beside: &dyn Beside,
        means: Means,
    ) -> Result<Arc<dyn Graph>, LoadError> {
        let whole = ports::whole(&mut ports::read(onnx, name)?, name, beside)?;
        let onnx = whole.as_deref().unwrap_or(onnx);
        let failed = |error: ort::Error| self.load_error(name, &error);
        let (session, watch) = self.session(onnx, means).map_err(failed)?;
        let placed = |on: &On| on.placed(&session).map_err(failed);
        let placement = self.on.as_ref().map(placed).transpose()?;
        let ports = Ports {
            inputs: session.inputs().iter().map(port).collect(),
            outputs: session.outputs().iter().map(port).collect(),
        };
        let (session, bytes) = (Mutex::new(Some(session)), onnx.len() as u64);
        let (helpers, is_back) = (self.helpers.clone(), Condvar::new());
        let on = self.on.clone().zip(placement);
        Ok(Arc::new(OrtGraph { session, is_back, helpers, watch, ports, bytes, on }))
    }

    fn elements(&self, element: ElementType, shape: &[u32], data: &[u8]) -> Box<dyn Elements> {
        match value::of(element, shape, data) {
            Ok(value) => Box::new(value),
            // A run says why.
            Err(_) => Box::new(Bytes::copy_from_slice(data)),
        }
    }
}

impl OnnxRuntime {
    fn load_error(&self, name: &str, error: &ort::Error) -> LoadError {
        let name = name.to_owned();
        let reason = match self.on.as_ref().map(|on| on.failure(error)) {
            Some(RunError::Memory(source)) => return LoadError::Memory { name, source },
            Some(RunError::DeviceLost(reason)) => return LoadError::DeviceLost { name, reason },
            Some(_) | None => reason(error),
        };
        LoadError::Engine { engine: NAME, name, reason }
    }
}

/// A graph, which runs once at a time: on as many threads as are paid for.
struct OrtGraph {
    session: Mutex<Option<Session>>,
    /// Somebody has given it back.
    is_back: Condvar,
    helpers: Arc<Helpers>,
    watch: Watch,
    ports: Ports,
    bytes: u64,
    /// What it is on, and which of its nodes are.
    on: Option<(On, Placement)>,
}

impl Graph for OrtGraph {
    fn ports(&self) -> &Ports {
        &self.ports
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn placement(&self) -> Option<&Placement> {
        self.on.as_ref().map(|(_, placement)| placement)
    }

    fn run(&self, inputs: Vec<Tensor>, run: &mut Run<'_>) -> Result<Vec<Tensor>, RunError> {
        let failed = |error: ort::Error| match (run.cancel.is_cancelled(), &self.on) {
            (true, _) => RunError::Cancelled,
            (false, Some((on, _))) => on.failure(&error),
            (false, None) => RunError::Engine(reason(&error)),
        };
        let inputs = inputs.into_iter().map(value::taken);
        let inputs = inputs.collect::<Result<Vec<_>, _>>()?;
        let options = Arc::new(RunOptions::new().map_err(failed)?);
        let mut taken = self.take(run.cancel)?;
        let gone = || RunError::Engine("its session has gone".to_owned());
        let session = taken.session.as_mut().ok_or_else(gone)?;
        let watched = self.watch.over(run.cancel.clone(), options.clone());
        let named = self.inputs().iter().zip(&inputs);
        let named: Vec<_> = named.map(|(port, tensor)| (port.name.as_str(), &**tensor)).collect();
        let taken_out = |mut outputs: SessionOutputs<'_>| {
            let of = |port: &Port| outputs.remove(&port.name);
            self.outputs().iter().map(of).collect::<Vec<_>>()
        };
        let began = Instant::now();
        let ran = match &self.on {
            None => session.run_with_options(named, &*options).map(taken_out),
            Some((on, _)) => {
                let outputs = self.outputs().iter().map(|port| port.name.as_str());
                on.bound(session, named.into_iter(), outputs).and_then(|binding| {
                    session.run_binding_with_options(&binding, &options).map(taken_out)
                })
            }
        };
        if self.on.is_some() {
            run.device = began.elapsed();
        }
        drop((watched, taken));
        run.cpu_beside = self.helpers.take();
        let outputs = self.outputs().iter().zip(ran.map_err(failed)?);
        let outputs = outputs.map(|(port, output)| {
            let missing = || RunError::Engine(format!("there is no output {:?}", port.name));
            value::given(output.ok_or_else(missing)?, &port.name, &inputs)
        });
        outputs.collect()
    }

    fn is_free(&self) -> bool {
        lock(&self.session).is_some()
    }
}

impl OrtGraph {
    /// The session, when nobody else has it.
    fn take(&self, cancel: &Cancel) -> Result<Taken<'_>, RunError> {
        let mut session = lock(&self.session);
        loop {
            if cancel.is_cancelled() {
                return Err(RunError::Cancelled);
            }
            if session.is_some() {
                return Ok(Taken { graph: self, session: session.take() });
            }
            let waited = self.is_back.wait_timeout(session, watch::PERIOD);
            session = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// The session of a graph, which has it back with the end of this.
struct Taken<'a> {
    graph: &'a OrtGraph,
    session: Option<Session>,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        *lock(&self.graph.session) = self.session.take();
        self.graph.is_back.notify_one();
    }
}

fn port(outlet: &Outlet) -> Port {
    let (element, shape) = match outlet.dtype() {
        ValueType::Tensor { ty, shape, .. } => {
            let axes = shape.iter().map(|axis| u32::try_from(*axis).ok());
            (value::element(*ty), axes.collect())
        }
        ValueType::Sequence(_) | ValueType::Map { .. } | ValueType::Optional(_) => {
            (None, Vec::new())
        }
    };
    Port { name: outlet.name().to_owned(), element, shape }
}

/// The release of a library that is loaded, such as `1.32.0`.
#[allow(
    unsafe_code,
    reason = "JUSTIFICATION: the crate tells the release to nobody; the library has a function of C"
)]
fn release(library: &Path) -> Result<String, libloading::Error> {
    type GetApiBase = unsafe extern "C" fn() -> *const ort::sys::OrtApiBase;
    // SAFETY: it is loaded already: nothing of it begins anew.
    let library = unsafe { libloading::Library::new(library) }?;
    // SAFETY: that is the type of the function of this name, which the crate has called.
    let base = unsafe { library.get::<GetApiBase>(b"OrtGetApiBase") }?;
    // SAFETY: the function takes nothing. What it gives lives as long as the library, which
    // nothing takes out, as does the text.
    let version = unsafe { CStr::from_ptr(((*base()).GetVersionString)()) };
    Ok(version.to_string_lossy().into_owned())
}

fn minor(release: &str) -> Option<u32> {
    release.split('.').nth(1)?.parse().ok()
}
