//! A stored version, or a folder, to a running replica.
//!
//! Owns reading a version's files back, with every byte compared with what was
//! stored, and getting its machine code: from the cache, else from a one-shot
//! process.

use crate::package::Package;
use crate::package::config::ModelName;
use crate::package::folder::{self, FolderError, Taking};
use crate::sandbox::{Compiled, Runtime};
use crate::store::{Sha256Digest, Store, StoreError};
use crate::telemetry::VersionLog;
use crate::worker::{AdmitError, OneShot, OneShotError, Worker};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Versions that are compiled or loaded at a time: so many CPUs are left to
/// calls as machines of a few have.
const STARTS_MAX: usize = 2;

/// Starts replicas.
#[derive(Debug, Clone)]
pub struct Loader {
    runtime: Arc<Runtime>,
    store: Arc<Store>,
    one_shot: OneShot,
    /// Private folders of running versions.
    run: PathBuf,
    starts: Arc<Semaphore>,
    compiler: Arc<str>,
}

/// Why a version does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The files are not what was stored.
    #[error("its stored files are damaged: {0}; upload it again, or restore a backup")]
    Corrupt(String),
    /// The store fails.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A folder is not a package any more.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The component cannot be compiled.
    #[error("1/model.wasm cannot be compiled: {0}")]
    Compile(OneShotError),
    /// The host cannot run it.
    #[error(transparent)]
    Admit(#[from] AdmitError),
    /// The host is shutting down.
    #[error("the host is being stopped")]
    Stopping,
}

impl Loader {
    /// `run` is an empty folder in the data directory's file system.
    pub fn new(runtime: Arc<Runtime>, store: Arc<Store>, run: PathBuf) -> Self {
        let compiler = runtime.compiler_id().into();
        let one_shot = OneShot::of_this_program();
        let starts = Arc::new(Semaphore::new(STARTS_MAX));
        Self { runtime, store, one_shot, run, starts, compiler }
    }

    /// The store that versions are read from.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// What one-shot processes are started from.
    pub fn one_shot(&self) -> &OneShot {
        &self.one_shot
    }

    /// The folder for private folders.
    pub fn run_folder(&self) -> &Path {
        &self.run
    }

    /// What compiled code depends on beside the component.
    pub fn compiler(&self) -> &str {
        &self.compiler
    }

    /// Where what guests of a version write is kept, if it is.
    pub fn log(&self, name: &ModelName, version: &str) -> Option<VersionLog> {
        self.runtime.logs().map(|logs| logs.of(name, version))
    }

    /// Starts a replica of a package.
    pub async fn start(&self, package: Package) -> Result<Worker, StartError> {
        let compiled = self.compiled(&package).await?;
        let _turn = self.starts.acquire().await.map_err(|_| StartError::Stopping)?;
        Ok(Worker::start(&self.runtime, package, compiled).await?)
    }

    /// The machine code of a package's component.
    pub async fn compiled(&self, package: &Package) -> Result<Compiled, StartError> {
        let digest = component_of(package)?;
        if let Some(code) = self.cached(digest).await {
            return Ok(code);
        }
        let _turn = self.starts.acquire().await.map_err(|_| StartError::Stopping)?;
        // Another may have made it meanwhile.
        if let Some(code) = self.cached(digest).await {
            return Ok(code);
        }
        let memory_bytes_max = package.limits().memory_bytes_max;
        let code = self
            .one_shot
            .compile(&package.component, memory_bytes_max)
            .await
            .map_err(StartError::Compile)?;
        let (store, compiler) = (self.store.clone(), self.compiler.clone());
        let kept = blocking(move || {
            let kept = store.keep_compiled(&digest, &compiler, &code);
            Ok((code, kept))
        });
        let (code, kept) = kept.await?;
        if let Err(error) = kept {
            // It is slower the next time, and works.
            tracing::warn!(%error, "cannot keep a compiled component");
        }
        Ok(Compiled::trusted(code))
    }

    async fn cached(&self, digest: Sha256Digest) -> Option<Compiled> {
        let (store, compiler) = (self.store.clone(), self.compiler.clone());
        let cached = blocking(move || Ok(store.compiled(&digest, &compiler)));
        cached.await.ok().flatten().map(Compiled::trusted)
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
}

/// The digest of a package's component.
pub fn component_of(package: &Package) -> Result<Sha256Digest, StartError> {
    let file = package.listing.iter().find(|file| file.path == folder::COMPONENT_PATH);
    file.map(|file| file.sha256)
        .ok_or_else(|| StartError::Corrupt("it has no component".to_owned()))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StartError> + Send + 'static,
) -> Result<T, StartError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(StartError::Stopping))
}
