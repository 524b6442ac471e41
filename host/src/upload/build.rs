//! From an archive that has come to a version that is stored: unpacked,
//! compiled, tried out, and only then kept.

use super::builds::BuildState;
use super::receiving::{Receiving, Said};
use super::{Place, UploadError, quota, trial};
use crate::deploy::{Amount, Deployments, StartError, Taken, component_of};
use crate::devices::{Given, NoDevice};
use crate::package::archive::{self, ArchiveError};
use crate::package::checkpoint;
use crate::package::config::ModelName;
use crate::package::folder::{self, FolderError, Taking};
use crate::package::quantity::Quantity;
use crate::package::{ListedFile, Package};
use crate::sandbox::Compiled;
use crate::store::{StoreError, Stored, VersionFile, VersionRow, now};
use crate::text::{hex, with_causes};
use crate::worker::OneShotError;
use cap_std::ambient_authority;
use cap_std::fs::Dir;
use futures_util::FutureExt;
use std::fs::File;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::time::Instant;
use tempfile::TempDir;

/// Digits of the id of what is no version because it is no package.
const ID_DIGITS: usize = 32;

/// A build, with all that goes when it is over.
struct Build {
    place: Place,
    name: ModelName,
    version: String,
    said: Said,
    /// Whether there was no such model when the build began.
    is_new_model: bool,
    /// The unpacked archive.
    folder: TempDir,
}

/// Why a package is not taken; the uploader reads this.
type Refusal = String;

const HOST_FAILED: &str = "the host failed; its log says why";

/// Unpacks an archive and begins what takes longer. Returns the version's id.
pub(super) async fn begin(
    mut receiving: Receiving,
    digest: [u8; 32],
) -> Result<String, UploadError> {
    let uploads = receiving.uploads().clone();
    let staging = uploads.staging().to_owned();
    let run = uploads.deployments.loader().run_folder().to_owned();
    let (path, wanted_by) = (receiving.path().clone(), receiving.name().clone());
    let unpacked = tokio::task::spawn_blocking(move || unpack(&path, &staging));
    let (folder, unpacked) = unpacked.await??;
    let opening = {
        let (folder, store) = (folder.path().to_owned(), uploads.store().clone());
        let name = wanted_by.clone();
        tokio::task::spawn_blocking(move || {
            let opened = folder::open(&folder, &run, Taking::Link).and_then(|package| {
                // What is tried out and kept from here on has no secrets.
                folder::cut_secrets(&folder)?;
                Ok(package)
            });
            (opened, store.model(&name).map(|model| model.is_none()))
        })
    };
    let (opened, is_new_model) = opening.await?;
    let version = match &opened {
        Ok(package) => package.version.clone(),
        Err(_) => hex(&digest).chars().take(ID_DIGITS).collect(),
    };
    let is_new_model = is_new_model?;
    uploads.builds().begin(&wanted_by, &version);
    let said = receiving.said().clone();
    let build = Build {
        name: wanted_by,
        version: version.clone(),
        said,
        is_new_model,
        folder,
        place: receiving.take_place()?,
    };
    build.tell(&format!(
        "unpacked {} files of {} bytes; {} others are no part of a package",
        unpacked.files, unpacked.bytes, unpacked.skipped
    ));
    let package = match opened {
        Ok(package) => package,
        Err(error) => {
            build.end(Err(refusal_of(&error)));
            return Ok(version);
        }
    };
    uploads.tasks.spawn(async move {
        let began = Instant::now();
        let built = AssertUnwindSafe(build.run(package)).catch_unwind().await;
        let built = built.unwrap_or_else(|_| Err(HOST_FAILED.to_owned()));
        tracing::info!(
            model = %build.name,
            version = build.version,
            outcome = if built.is_ok() { "stored" } else { "refused" },
            wall_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            "a build ended"
        );
        build.end(built);
    });
    Ok(version)
}

fn unpack(path: &Path, staging: &Path) -> Result<(TempDir, archive::Unpacked), UploadError> {
    let staging_error = |source| UploadError::Staging { path: staging.to_owned(), source };
    let folder =
        tempfile::Builder::new().prefix("package-").tempdir_in(staging).map_err(staging_error)?;
    let into = Dir::open_ambient_dir(folder.path(), ambient_authority()).map_err(staging_error)?;
    let file = File::open(path).map_err(staging_error)?;
    match archive::unpack(file, &into, is_wanted) {
        Ok(unpacked) => Ok((folder, unpacked)),
        // The disk's fault is none of the archive's.
        Err(ArchiveError::Write { source, .. }) => Err(staging_error(source)),
        Err(error) => Err(error.into()),
    }
}

/// Whether a file of an archive is a part of its package, or says something of
/// it.
fn is_wanted(path: &str) -> bool {
    path == "config.yaml"
        || path == checkpoint::LOCK
        || path.starts_with("1/")
        || (path.starts_with("example.") && !path.contains('/'))
}

impl Build {
    async fn run(&self, mut package: Package) -> Result<(), Refusal> {
        let uploads = &self.place.uploads;
        self.check_name(&package)?;
        package.config.name = self.name.clone();
        for note in package.config.notes.iter().chain(&package.config.warnings) {
            self.tell(note);
        }
        self.compare(&package);
        let asked = package.limits().accelerators.clone();
        uploads.deployments.loader().devices().check(&asked).map_err(device_refusal)?;
        let machine = uploads.deployments.pools().machine();
        // A replica that reaches its limit has to find the memory.
        let needs = Amount::of(&package.config);
        let memory_bytes = needs.memory_bytes.max(package.limits().memory_bytes_max);
        if let Err(full) = machine.fits(Amount { memory_bytes, ..needs })
            && full.is_for_ever()
        {
            return Err(full.to_string());
        }
        let waited = uploads.turns.acquire().await;
        let _turn = waited.map_err(|_| "the host is being stopped".to_owned())?;
        let store = uploads.store().clone();
        // What was sent is smaller than what it becomes.
        let is_new = store.files(&self.name, &self.version).map(|files| files.is_empty());
        if is_new.map_err(|error| store_refusal(&error))? {
            quota::may_store(&store, &self.name, bytes_of(&package)).map_err(upload_refusal)?;
        }
        let quota =
            quota::quota_of(&store, self.name.user_id()).map_err(|error| store_refusal(&error))?;
        let loader = uploads.deployments.loader();
        let component = component_of(&package).map_err(|error| error.to_string())?;
        let snapshot = loader.snapshot(&package).await.map_err(|error| start_refusal(&error))?;
        if !store.has_compiled(&component, loader.compiler()) || snapshot.is_none() {
            uploads
                .compilations
                .note(self.name.user_id(), quota.compilations_per_hour_max, Instant::now())
                .map_err(|error| error.to_string())?;
        }
        let began = Instant::now();
        let compiled = loader.code_to_try(&package, snapshot.as_ref()).await;
        let compiled = compiled.map_err(|error| start_refusal(&error))?;
        self.tell(&format!("1/model.wasm was compiled in {} ms", began.elapsed().as_millis()));
        let waits = |taken: &NoDevice| self.tell(&format!("waits for what others have: {taken}"));
        let given = uploads.deployments.devices_to_try(&asked, waits).await;
        let given = given.map_err(device_refusal)?;
        let methods = self.try_out(&mut package, compiled, snapshot, &given).await?;
        drop(given);
        self.keep(package, methods).await
    }

    /// The owner in the file has to be the one who uploads, if there is one.
    fn check_name(&self, package: &Package) -> Result<(), Refusal> {
        let (config, named) = (&package.config.name, package.config.named);
        let differs = (named.user && config.user_id() != self.name.user_id())
            || (named.app && config.app_id() != self.name.app_id())
            || config.id() != self.name.id();
        match differs {
            true => Err(format!(
                "config.yaml says that the model is {config}, and it was uploaded as {}; make them \
                 the same",
                self.name
            )),
            false => Ok(()),
        }
    }

    /// Tells where the client has understood the file otherwise.
    fn compare(&self, package: &Package) {
        let limits = package.limits();
        let cpu = self.said.cpu_limit.parse::<Quantity>().and_then(Quantity::cpu_millis);
        let memory = self.said.cpu_memory.parse::<Quantity>().and_then(Quantity::bytes);
        let differs = cpu.is_ok_and(|cpu| cpu != limits.cpu_millis)
            || memory.is_ok_and(|memory| memory != limits.memory_bytes_max)
            || (self.said.concepts > 0 && self.said.concepts != package.config.concepts.len());
        if differs {
            self.tell("the client said other limits or concepts than config.yaml, which counts");
        }
    }

    /// Has a replica of its own load the model and answer the example. Returns the typed
    /// methods.
    async fn try_out(
        &self,
        package: &mut Package,
        code: Compiled,
        snapshot: Option<Taken>,
        given: &Given,
    ) -> Result<String, Refusal> {
        let uploads = &self.place.uploads;
        let loader = uploads.deployments.loader();
        let worker = loader.try_out(package.take_parts(), code, given).await;
        let worker = worker.map_err(|error| start_refusal(&error))?;
        let examples = uploads.examples;
        // Its files are small, and those of a package that was just unpacked.
        let example = |methods: &_| examples(self.folder.path(), package, methods);
        let methods = trial::try_out(&worker, example, |text| self.tell(text)).await?;
        let taken = match snapshot {
            Some(taken) => Ok(taken),
            None => loader.keep_written(package, &worker).await,
        };
        match taken.map_err(|error| start_refusal(&error))? {
            Taken::Copies(_) => self.tell("calls start from what load-model has left"),
            Taken::Unfit(why) => {
                self.tell(&format!(
                    "load-model runs for each call, since there is no snapshot: {why}"
                ));
            }
        }
        Ok(methods)
    }

    /// Stores the version and makes it callable.
    async fn keep(&self, package: Package, methods: String) -> Result<(), Refusal> {
        let (root, row) = (self.folder.path().to_owned(), self.row(&package, methods));
        let (deployments, is_new_model) =
            (self.place.uploads.deployments.clone(), self.is_new_model);
        let kept = tokio::task::spawn_blocking(move || {
            keep(&deployments, &root, &package.listing, &row, is_new_model)
        });
        match kept.await.map_err(|error| hidden(&error))?? {
            Stored::New(_) => {
                self.audit("uploaded a version");
                self.tell(&format!("stored; {} can be called", self.name));
            }
            Stored::Same(_) => self
                .tell("this version was stored before; it is whole, and nothing else has changed"),
        }
        Ok(())
    }

    fn row(&self, package: &Package, methods: String) -> VersionRow {
        VersionRow {
            name: self.name.clone(),
            id: package.version.clone(),
            number: 0,
            created_at: now(),
            model_type_id: package.config.model_type_id.clone(),
            concepts: package.config.concepts.len() as u64,
            methods,
            bytes: bytes_of(package),
        }
    }

    fn audit(&self, what: &str) {
        let model = self.name.to_string();
        let about = [("model", model.as_str()), ("version", &self.version)];
        if let Err(error) = self.place.uploads.store().audit(self.name.user_id(), what, &about) {
            tracing::error!(%error, "cannot write the audit log");
        }
    }

    fn tell(&self, text: &str) {
        self.place.uploads.builds().tell(&self.name, &self.version, text);
    }

    /// Tells how it ended, when nothing is left of it: whoever is told may upload
    /// again at once.
    fn end(self, built: Result<(), Refusal>) {
        let Self { place, name, version, folder, .. } = self;
        let uploads = place.uploads.clone();
        drop((folder, place));
        let mut builds = uploads.builds();
        let state = match built {
            Ok(()) => BuildState::Built,
            Err(refusal) => {
                builds.tell(&name, &version, &refusal);
                BuildState::Failed(refusal)
            }
        };
        builds.end(&name, &version, state);
    }
}

/// Blocks. A model that was deleted since its build began does not come back.
fn keep(
    deployments: &Deployments,
    root: &Path,
    listing: &[ListedFile],
    row: &VersionRow,
    is_new_model: bool,
) -> Result<Stored, Refusal> {
    let store = deployments.loader().store();
    let failed = |error: StoreError| match error {
        StoreError::OtherContent { .. } => error.to_string(),
        other => store_refusal(&other),
    };
    let deleted = || Err("the model was deleted meanwhile; upload it again".to_owned());
    if store.model(&row.name).map_err(failed)?.is_none() {
        if !is_new_model {
            return deleted();
        }
        store.ensure_app(row.name.user_id(), row.name.app_id()).map_err(failed)?;
        deployments.ensure_model(&row.name, &row.model_type_id).map_err(|error| hidden(&error))?;
    }
    let mut files = Vec::with_capacity(listing.len());
    for file in listing {
        let path = root.join(&file.path);
        let content =
            File::open(&path).map_err(|source| failed(StoreError::File { path, source }))?;
        let (path, sha256, bytes) = (file.path.clone(), file.sha256, file.bytes);
        files.push(VersionFile { path, sha256, bytes, content });
    }
    let stored = store.add_version(row, &mut files).map_err(failed)?;
    let is_there = match &stored {
        Stored::New(row) => deployments.stored(row).map_err(failed)?,
        Stored::Same(row) => {
            deployments.mended(&row.name, &row.id);
            !store.files(&row.name, &row.id).map_err(failed)?.is_empty()
        }
    };
    if is_there { Ok(stored) } else { deleted() }
}

fn bytes_of(package: &Package) -> u64 {
    package.listing.iter().map(|file| file.bytes).sum()
}

/// What an uploader is told of a folder that is no package: nothing of where it
/// lies here.
fn refusal_of(error: &FolderError) -> Refusal {
    match error {
        FolderError::NotBuilt { .. } => {
            "1/model.wasm is missing: this host runs WebAssembly; see Porting".to_owned()
        }
        FolderError::NoCheckpoint { repo_id, .. } => format!(
            "the checkpoint {repo_id} is not in 1/checkpoints; run `ringfence build`, and upload \
             the folder with it"
        ),
        FolderError::OtherCheckpoint { .. } => {
            "1/checkpoints is of other `checkpoints` than those of config.yaml; run \
             `ringfence build`"
                .to_owned()
        }
        FolderError::Open { .. } | FolderError::Scratch { .. } => hidden(error),
        other => other.to_string(),
    }
}

fn upload_refusal(error: UploadError) -> Refusal {
    match error {
        UploadError::Store(error) => store_refusal(&error),
        other => other.to_string(),
    }
}

fn start_refusal(error: &StartError) -> Refusal {
    match error {
        StartError::Store(error) => store_refusal(error),
        StartError::Compile(OneShotError::Start(_)) | StartError::Memory(_) => hidden(error),
        StartError::Folder(error) => refusal_of(error),
        StartError::Compile(_)
        | StartError::Corrupt(_)
        | StartError::Replica(_)
        | StartError::Accelerators(_)
        | StartError::Crashes(_)
        | StartError::Stopping
        | StartError::Panicked => error.to_string(),
    }
}

fn device_refusal(none: NoDevice) -> Refusal {
    let told = format!("the model cannot have what it asks for: {none}");
    // What others have may be free soon.
    if none.is_for_ever() { told } else { format!("{told}; upload it again later") }
}

/// A fault of the store's, or of the disk below it.
fn store_refusal(error: &StoreError) -> Refusal {
    let refusal = hidden(error);
    match error.is_of_disk() {
        true => "the host cannot keep the version; its operator has to look at its disk".to_owned(),
        false => refusal,
    }
}

/// A fault of the host: its log has the cause.
fn hidden(error: &dyn std::error::Error) -> Refusal {
    tracing::error!("a build failed on the host's side: {}", with_causes(error));
    HOST_FAILED.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who uploads can put one right by waiting, and not the other.
    #[test]
    fn a_refusal_for_want_of_devices_says_whether_to_try_again() {
        let (asked, there) = ("1 accelerator".to_owned(), "NVIDIA-A10G with 23028Mi".to_owned());
        let taken = NoDevice::Taken { asked: asked.clone(), there: there.clone() };
        assert!(device_refusal(taken).ends_with("; upload it again later"));
        assert!(device_refusal(NoDevice::Absent { asked, there }).ends_with("23028Mi"));
    }
}
