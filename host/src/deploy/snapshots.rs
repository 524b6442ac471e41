//! Machine code that holds a version's state after `load-model`, so that its sandboxes
//! are copies and need not load.
//!
//! Owns when such code is made, and that a version which does not fit that is known, with
//! the reason. A replica that is thrown away runs `load-model` for it and writes what that
//! leaves, which is compiled where all else is.

use super::compiler::blocking;
use super::error::StartError;
use super::loader::Loader;
use crate::devices::Given;
use crate::package::{Package, Parts};
use crate::sandbox::{Beginning, Compiled, Copied, Snapshot};
use crate::sealed::Sealed;
use crate::store::SnapshotKeys;
use crate::telemetry::VersionLog;
use crate::worker::{Purpose, StartFailure, Worker};
use serde::{Deserialize, Serialize};

/// Bytes of what is known of a version: the methods that it declares, mostly.
const KNOWN_BYTES_MAX: u64 = 2 << 20;

/// What is known of a version, as the store keeps it.
#[derive(Debug, Serialize, Deserialize)]
enum Known {
    /// There is code whose sandboxes are copies.
    Copied(Copied),
    /// There is none, for this reason.
    Unfit(String),
}

/// What became of a version's snapshot.
#[derive(Debug)]
pub enum Taken {
    /// Code whose sandboxes are copies.
    Copies(Compiled),
    /// Each sandbox runs `load-model`, for this reason.
    Unfit(String),
}

impl Loader {
    /// The machine code that replicas of a package run. It is made if need be.
    pub(super) async fn code(
        &self,
        package: &Package,
        given: &Given,
    ) -> Result<Compiled, StartError> {
        let keys = keys_of(package);
        let _alone = self.machine_code().alone(keys.about).await;
        let taken = match self.taken(keys).await? {
            Some(taken) => taken,
            None => {
                let log = self.log(&package.config.name, &package.version);
                let code = self.code_to_try(package, None).await?;
                let worker = self.start_to_write(package.parts(), code, log, given).await?;
                let taken = self.keep_written(package, &worker).await?;
                ended(worker, given).await;
                taken
            }
        };
        if let Taken::Unfit(why) = &taken {
            let model = &package.config.name;
            tracing::info!(%model, "load-model runs for each call, since there is no snapshot: {why}");
        }
        self.code_to_try(package, Some(&taken)).await
    }

    /// The machine code that a package is tried out with. Where it is not known what became
    /// of its snapshot, a replica of it writes what `load-model` leaves, for
    /// [`Loader::keep_written`].
    pub async fn code_to_try(
        &self,
        package: &Package,
        taken: Option<&Taken>,
    ) -> Result<Compiled, StartError> {
        if let Some(Taken::Copies(code)) = taken {
            return Ok(code.clone());
        }
        let compiled = self.compiled(package).await?;
        if taken.is_some() {
            return Ok(compiled);
        }
        let component = package.component.clone();
        let component = blocking(move || Sealed::of(&component[..]).map_err(StartError::Memory));
        Ok(compiled.beginning_with(Beginning::Write(component.await?)))
    }

    /// Starts a replica that nobody calls but to try it out; what its guests write is
    /// kept nowhere.
    pub async fn try_out(
        &self,
        parts: Parts,
        code: Compiled,
        given: &Given,
    ) -> Result<Worker, StartError> {
        self.start_to_write(parts, code, None, given).await
    }

    /// Compiles and keeps what a replica has written of its package. What it has not
    /// written because the model does not load may be written another time.
    pub async fn keep_written(
        &self,
        package: &Package,
        worker: &Worker,
    ) -> Result<Taken, StartError> {
        let methods = worker.methods().map(|methods| methods.declared().to_owned());
        let (methods, written) = match (methods, worker.take_written()) {
            (Ok(methods), Some(written)) => (methods, written),
            (Err(_), _) | (_, None) => return Ok(Taken::Unfit("it does not load".to_owned())),
        };
        let keys = keys_of(package);
        let code = match written {
            Ok(Snapshot { component, bytes }) => {
                let memory_bytes_max = package.limits().memory_bytes_max;
                let code = self.machine_code().of_snapshot(&component, memory_bytes_max).await;
                code.map(|code| (Copied { methods, bytes }, code))
            }
            Err(why) => Err(why),
        };
        match code {
            Ok((copied, code)) => {
                self.remember(keys, Known::Copied(copied.clone()), Some(code.clone())).await?;
                Ok(copies(copied, code))
            }
            Err(why) => {
                self.remember(keys, Known::Unfit(why.clone()), None).await?;
                Ok(Taken::Unfit(why))
            }
        }
    }

    /// A replica that writes what its `load-model` leaves, and lasts as long as what comes
    /// back. Where it ends over that, there is one that does not.
    async fn start_to_write(
        &self,
        parts: Parts,
        code: Compiled,
        log: Option<VersionLog>,
        given: &Given,
    ) -> Result<Worker, StartError> {
        let kernels = self.kernels_of(&parts, given).await;
        let start = |code: Compiled, log| {
            let (purpose, kernels) = (Purpose::TryOut, kernels.clone());
            Worker::start(self.workers(), parts.clone(), code, log, purpose, given.clone(), kernels)
        };
        match start(code.clone(), log.clone()).await {
            Err(StartFailure::Process(why)) => {
                let worker = start(code.beginning_with(Beginning::Load), log).await?;
                worker.is_unwritten(format!("the process that was to write it: {why}"));
                Ok(worker)
            }
            started => Ok(started?),
        }
    }

    async fn taken(&self, keys: SnapshotKeys) -> Result<Option<Taken>, StartError> {
        let (store, compiler) = (self.store().clone(), self.compiler().to_owned());
        blocking(move || {
            let Some(known) = store.compiled(&keys.about, &compiler) else { return Ok(None) };
            let known = match known.len() <= KNOWN_BYTES_MAX {
                true => known.to_vec().map_err(StartError::Memory)?,
                false => return Ok(None),
            };
            // Its MAC is right, so it is what this program or another of its kind wrote.
            Ok(match postcard::from_bytes(&known) {
                Ok(Known::Unfit(why)) => Some(Taken::Unfit(why)),
                Ok(Known::Copied(copied)) => {
                    store.compiled(&keys.code, &compiler).map(|code| copies(copied, code))
                }
                Err(_) => None,
            })
        })
        .await
    }

    /// Keeps what is known. What cannot be kept is found out once more the next time.
    async fn remember(
        &self,
        keys: SnapshotKeys,
        known: Known,
        code: Option<Sealed>,
    ) -> Result<(), StartError> {
        let (store, compiler) = (self.store().clone(), self.compiler().to_owned());
        blocking(move || {
            let known = postcard::to_stdvec(&known).unwrap_or_default();
            let known = Sealed::of(known.as_slice()).map_err(StartError::Memory)?;
            let kept =
                code.map_or(Ok(()), |code| store.keep_compiled(&keys.code, &compiler, &code));
            if let Err(error) =
                kept.and_then(|()| store.keep_compiled(&keys.about, &compiler, &known))
            {
                tracing::warn!(%error, "cannot keep a snapshot");
            }
            Ok(())
        })
        .await
    }

    /// What became of a package's snapshot, if that is known.
    pub async fn snapshot(&self, package: &Package) -> Result<Option<Taken>, StartError> {
        self.taken(keys_of(package)).await
    }
}

/// Lets a replica go, and waits until its devices have nothing of it any more.
async fn ended(worker: Worker, given: &Given) {
    let gone = worker.gone().filter(|_| !given.is_empty());
    drop(worker);
    if let Some(gone) = gone {
        gone.wait().await;
    }
}

fn keys_of(package: &Package) -> SnapshotKeys {
    SnapshotKeys::of(&package.config.name, &package.version)
}

fn copies(copied: Copied, code: Sealed) -> Taken {
    Taken::Copies(Compiled::trusted(code).beginning_with(Beginning::Copy(copied)))
}
