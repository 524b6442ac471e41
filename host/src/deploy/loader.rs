//! A stored version, or a folder, to a running replica.
//!
//! Owns reading a version's files back, with every byte compared with what was
//! stored. Its machine code is the compiler's to find or make.

use super::compiler::{Compiler, Source, blocking};
use super::error::StartError;
use super::kernels::Kernels;
use crate::call::{Origin, Verdict};
use crate::devices::{Devices, Given, NoDevice};
use crate::digest::sha256_of;
use crate::limits::EngineName;
use crate::package::config::{Config, ModelName};
use crate::package::folder::{self, Taking};
use crate::package::{Package, Parts};
use crate::sandbox::Compiled;
use crate::store::{FileRow, Sha256Digest, Store, StoreError};
use crate::telemetry::{VersionLog, VersionLogs};
use crate::worker::{OneShot, Purpose, Unknown, Worker, Workers};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// What is compiled for devices, in the folder of running versions.
const KERNELS_FOLDER: &str = "kernels";

/// Starts replicas.
#[derive(Debug, Clone)]
pub struct Loader {
    workers: Workers,
    logs: Option<Arc<VersionLogs>>,
    store: Arc<Store>,
    /// Private folders of running versions.
    run: PathBuf,
    code: Arc<Compiler>,
    /// What graphs are computed on beside CPUs.
    devices: Devices,
    kernels: Option<Arc<Kernels>>,
}

impl Loader {
    /// `run` is an empty folder in the data directory's file system. Where there are no
    /// logs, what guests write is told to `tracing` at best.
    pub fn new(
        workers: Workers,
        one_shot: OneShot,
        compiler: String,
        store: Arc<Store>,
        run: PathBuf,
        logs: Option<Arc<VersionLogs>>,
    ) -> Self {
        let code = Arc::new(Compiler::new(store.clone(), one_shot, compiler));
        let (devices, kernels) = (Devices::default(), None);
        Self { workers, logs, store, run, code, devices, kernels }
    }

    /// The same on a machine with these, whose kernels such processes compile.
    #[must_use]
    pub fn with_devices(self, devices: Devices, one_shot: OneShot) -> Self {
        let folder = self.run.join(KERNELS_FOLDER);
        let kernels = Kernels::new(one_shot, self.store.clone(), &folder, &devices);
        let kernels = (!devices.all().is_empty()).then(|| Arc::new(kernels));
        Self { devices, kernels, ..self }
    }

    /// Compiles what engines run on this machine's devices, if it has some.
    pub async fn compile_kernels(&self) {
        if let Some(kernels) = &self.kernels {
            // Why there are none is told by that, and whoever needs them.
            let _ = kernels.ready().await;
        }
    }

    /// The kernels of a replica that has devices, unless its author asks for an engine that
    /// needs none. Waits until they are compiled.
    pub(super) async fn kernels_of(
        &self,
        parts: &Parts,
        given: &Given,
    ) -> Option<Result<Arc<Path>, String>> {
        let needs = match parts.sheet.limits.engine {
            None | Some(EngineName::Tract) => !given.is_empty() && !parts.graphs.is_empty(),
            Some(EngineName::OnnxRuntime) => false,
        };
        match &self.kernels {
            Some(kernels) if needs => Some(kernels.ready().await),
            Some(_) | None => None,
        }
    }

    /// Of this process alone, and with another program for one-shot processes.
    #[cfg(test)]
    pub(crate) fn compiling_with(one_shot: OneShot, store: Arc<Store>, run: PathBuf) -> Self {
        use crate::sandbox::{Diagnostics, Runtime, compiler_id};
        let workers = Workers::Here(Runtime::start(Diagnostics::Off).unwrap());
        Self::new(workers, one_shot, compiler_id().unwrap(), store, run, None)
    }

    /// What graphs are computed on beside CPUs.
    pub fn devices(&self) -> &Devices {
        &self.devices
    }

    /// The store that versions are read from.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// The folder for private folders.
    pub fn run_folder(&self) -> &Path {
        &self.run
    }

    /// What compiled code depends on beside the component.
    pub fn compiler(&self) -> &str {
        self.code.id()
    }

    /// Fuel that the fastest mix burns in a second of this machine's CPU time.
    pub fn fuel_per_cpu_second(&self) -> u64 {
        self.workers.fuel_per_cpu_second()
    }

    pub(super) fn machine_code(&self) -> &Compiler {
        &self.code
    }

    pub(super) fn workers(&self) -> &Workers {
        &self.workers
    }

    /// Where what guests of a version write is kept, if it is.
    pub fn log(&self, name: &ModelName, version: &str) -> Option<VersionLog> {
        self.logs.as_ref().map(|logs| logs.of(name, version))
    }

    /// Starts a replica of a package.
    pub async fn start(&self, package: Package) -> Result<Worker, StartError> {
        let given = self.give(&package)?;
        let compiled = self.code(&package, &given).await?;
        let name = package.config.name.clone();
        self.start_again(&name, package.into(), compiled, given).await
    }

    /// Gives a replica of a package the devices that it asks for.
    pub(super) fn give(&self, package: &Package) -> Result<Given, NoDevice> {
        self.devices.give(&package.limits().accelerators)
    }

    /// Starts a replica of what was compiled before, on these devices.
    pub(super) async fn start_again(
        &self,
        name: &ModelName,
        parts: Parts,
        compiled: Compiled,
        given: Given,
    ) -> Result<Worker, StartError> {
        let kernels = self.kernels_of(&parts, &given).await;
        let _turn = self.code.turn().await?;
        let began = Instant::now();
        let log = self.log(name, &parts.sheet.version);
        let (workers, lines, purpose) = (&self.workers, log.clone(), Purpose::Serve);
        let on = (!given.is_empty()).then(|| given.to_string());
        let worker =
            Worker::start(workers, parts, compiled, lines, purpose, given, kernels).await?;
        let (pid, took_ms) = (worker.pid(), took_ms(began));
        tracing::info!(model = %name, pid, took_ms, on, "a replica runs");
        tell(&name.to_string(), log.as_ref(), &worker);
        Ok(worker)
    }

    /// The machine code of a package's component.
    pub async fn compiled(&self, package: &Package) -> Result<Compiled, StartError> {
        let digest = component_of(package)?;
        let memory_bytes_max = package.limits().memory_bytes_max;
        self.code.compiled(digest, &package.component, memory_bytes_max).await
    }

    /// Reads a stored version back.
    pub async fn package(&self, name: &ModelName, version: &str) -> Result<Package, StartError> {
        let (loader, name, version) = (self.clone(), name.clone(), version.to_owned());
        blocking(move || loader.read_back(&name, &version)).await
    }

    /// The same, where it may wait for the disk.
    pub(super) fn read_back(&self, name: &ModelName, version: &str) -> Result<Package, StartError> {
        let folder = tempfile::Builder::new()
            .prefix("version-")
            .tempdir_in(&self.run)
            .map_err(|source| StoreError::File { path: self.run.clone(), source })?;
        let stored = self.store.files(name, version)?;
        for file in &stored {
            let place = folder.path().join(&file.path);
            let content = self.store.content_path(&file.sha256);
            let link = || -> io::Result<()> {
                if let Some(parent) = place.parent() {
                    std::fs::create_dir_all(parent)?;
                }
                std::fs::hard_link(&content, &place)
            };
            link().map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => {
                    StartError::Corrupt(format!("{} is not there", file.path))
                }
                _ => StoreError::File { path: content.clone(), source: error }.into(),
            })?;
        }
        // What cannot be read any more has been read once, when it was stored.
        let mut package = folder::open(folder.path(), &self.run, Taking::Link)
            .map_err(|error| StartError::Corrupt(error.to_string()))?;
        if package.version != version {
            let damaged = package.listing.iter().find(|read| {
                !stored.iter().any(|row| row.path == read.path && row.sha256 == read.sha256)
            });
            let path = damaged.map_or("a file", |file| file.path.as_str());
            return Err(StartError::Corrupt(format!("{path} has another content than was stored")));
        }
        package.config.name = name.clone();
        Ok(package)
    }

    /// What is compiled of a stored version, without its other files; nothing if
    /// it is not there.
    pub(super) fn read_source(
        &self,
        name: &ModelName,
        version: &str,
    ) -> Result<Option<Source>, StartError> {
        let stored = self.store.files(name, version)?;
        if stored.is_empty() {
            return Ok(None);
        }
        let component = self.read(&stored, folder::COMPONENT_PATH)?;
        let memory_bytes_max = self.config(&stored)?.limits.memory_bytes_max;
        Ok(Some(Source { component, memory_bytes_max }))
    }

    /// A stored version's configuration, without its other files.
    pub(super) fn read_config(
        &self,
        name: &ModelName,
        version: &str,
    ) -> Result<Config, StartError> {
        self.config(&self.store.files(name, version)?)
    }

    fn config(&self, stored: &[FileRow]) -> Result<Config, StartError> {
        let corrupt = |error: &dyn std::error::Error| StartError::Corrupt(error.to_string());
        let text = String::from_utf8(self.read(stored, folder::CONFIG_PATH)?);
        Config::parse(&text.map_err(|error| corrupt(&error))?).map_err(|error| corrupt(&error))
    }

    /// One file of a version, as it was stored.
    fn read(&self, stored: &[FileRow], path: &str) -> Result<Vec<u8>, StartError> {
        let file = stored.iter().find(|file| file.path == path);
        let file = file.ok_or_else(|| StartError::Corrupt(format!("it has no {path}")))?;
        let mut bytes = Vec::new();
        let content = File::open(self.store.content_path(&file.sha256));
        let read = content.and_then(|content| content.take(file.bytes + 1).read_to_end(&mut bytes));
        read.map_err(|error| StartError::Corrupt(format!("{path} cannot be read: {error}")))?;
        match sha256_of(bytes.as_slice()) {
            Ok((digest, _)) if digest == file.sha256 => Ok(bytes),
            _ => Err(StartError::Corrupt(format!("{path} has another content than was stored"))),
        }
    }
}

fn took_ms(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Tells the operator what is wrong with a model that is started all the same. What a
/// guest says goes to its own log.
fn tell(name: &str, log: Option<&VersionLog>, worker: &Worker) {
    let keep = |verdict: &Verdict| {
        if let Some(log) = log {
            log.ended(&Origin::from(""), verdict);
        }
    };
    if let Err(Unknown { why, ended }) = worker.methods() {
        let why = ended.as_ref().map_or_else(|| why.clone(), |ended| ended.end.without_words());
        tracing::warn!(
            model = %name,
            "it is called with plain inputs only, since its typed methods are not known: {why}"
        );
        if let Some(ended) = ended {
            keep(ended);
        }
    }
    if let Err(verdict) = worker.loaded() {
        tracing::warn!(
            model = %name,
            "the model cannot be loaded, and its callers are told so; `ringfence logs` has its \
             words: {}",
            verdict.end.without_words()
        );
        keep(verdict);
    }
}

/// The digest of a package's component.
pub fn component_of(package: &Package) -> Result<Sha256Digest, StartError> {
    let file = package.listing.iter().find(|file| file.path == folder::COMPONENT_PATH);
    file.map(|file| file.sha256)
        .ok_or_else(|| StartError::Corrupt("it has no component".to_owned()))
}
