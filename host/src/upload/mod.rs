//! An uploaded archive to a stored version.
//!
//! Owns what is between them: the archive in a file of its own, its unpacking,
//! what is asked of a package before it is taken, and what the uploader is told
//! meanwhile. What is refused or breaks off leaves nothing. Never touches the
//! wire, and looks at no component and no graph itself.

mod build;
mod builds;
mod quota;
mod receiving;
mod trial;

#[cfg(test)]
mod tests;

pub use builds::{BuildState, Line};
pub use receiving::{Receiving, Said};
pub use trial::{Example, Examples};

use crate::auth::Caller;
use crate::deploy::{Deployments, Full, Reservation};
use crate::limits::{UPLOAD_MESSAGE_BYTES_MAX, UPLOADS_MAX, limit};
use crate::package::archive::ArchiveError;
use crate::package::config::ModelName;
use crate::package::folder::PACKAGE_BYTES_MAX;
use crate::store::{Store, StoreError};
use builds::Builds;
use quota::Compilations;
use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Semaphore;
use tokio::task::JoinError;
use tokio_util::task::TaskTracker;

/// Archives and what is made of them, below the data directory.
const STAGING_FOLDER: &str = "staging";

/// Builds at a time; more wait.
const BUILDS_MAX: usize = 2;

/// Every upload and every build of a host.
#[derive(Debug)]
pub struct Uploads {
    deployments: Arc<Deployments>,
    examples: Examples,
    /// Emptied at every start.
    staging: PathBuf,
    /// Whose upload or build is under way; one for each user.
    under_way: Mutex<HashSet<String>>,
    builds: Mutex<Builds>,
    turns: Semaphore,
    compilations: Compilations,
    partial: receiving::Partial,
    tasks: TaskTracker,
}

/// Why an upload is not taken.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// Somebody else's model.
    #[error("there is no such model; upload to one of your own")]
    NotYours,
    /// Its user uploads something else.
    #[error("another upload of yours is under way; wait until it is built")]
    UnderWay,
    /// Too many users upload.
    #[error("the host takes {UPLOADS_MAX} uploads at a time; try again in a moment")]
    Busy,
    /// There is no memory for what comes.
    #[error("the host cannot take an upload now: {0}")]
    Full(#[from] Full),
    /// Nothing, or more than a package may have.
    #[error("an archive of {bytes} bytes is not taken; send 1 to {PACKAGE_BYTES_MAX}")]
    Size {
        /// What was said.
        bytes: u64,
    },
    /// More came, or less, than was said.
    #[error("{received} bytes of the archive came, and {said} were said")]
    Length {
        /// What came.
        received: u64,
        /// What was said.
        said: u64,
    },
    /// What came is not what was said.
    #[error("the archive has another digest than was said; send it again")]
    Digest,
    /// A limit of the user.
    #[error(transparent)]
    Quota(#[from] quota::QuotaError),
    /// The archive cannot be taken.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// What would come would not be what is called.
    #[error(
        "the model is served from a folder; change it there, or have the host started without \
         that folder"
    )]
    Folder,
    /// The archive cannot be kept meanwhile.
    #[error("cannot keep the archive in {path}")]
    Staging {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The store fails.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The host is shutting down.
    #[error("the host is being stopped")]
    Stopping,
    /// A fault of the host's own.
    #[error("the host failed while it took the archive")]
    Panicked,
}

impl From<JoinError> for UploadError {
    fn from(error: JoinError) -> Self {
        if error.is_panic() { Self::Panicked } else { Self::Stopping }
    }
}

impl Uploads {
    /// With an empty staging folder below the data directory. `examples` reads what a
    /// package is tried with.
    pub fn open(
        deployments: Arc<Deployments>,
        examples: Examples,
    ) -> Result<Arc<Self>, StoreError> {
        let staging = deployments.loader().store().emptied_folder(STAGING_FOLDER)?;
        Ok(Arc::new(Self {
            deployments,
            examples,
            staging,
            under_way: Mutex::default(),
            builds: Mutex::default(),
            turns: Semaphore::new(limit("builds_at_a_time", BUILDS_MAX)),
            compilations: Compilations::default(),
            partial: receiving::Partial::default(),
            tasks: TaskTracker::new(),
        }))
    }

    /// Lets a caller upload, one archive at a time, and reserves what one message
    /// of it takes while it comes.
    pub fn enter(self: &Arc<Self>, caller: &Caller) -> Result<Place, UploadError> {
        let mut place = Place::take(self, caller.user_id())?;
        place.buffer = Some(self.deployments.reserve_upload(UPLOAD_MESSAGE_BYTES_MAX as u64)?);
        Ok(place)
    }

    /// Begins an upload to a model of the caller's. `digest`, of the whole
    /// archive, makes it one that goes on where it broke off.
    pub fn begin(
        &self,
        place: Place,
        name: &ModelName,
        bytes: u64,
        digest: Option<[u8; 32]>,
        said: Said,
    ) -> Result<Receiving, UploadError> {
        if place.user_id != name.user_id() {
            return Err(UploadError::NotYours);
        }
        if bytes == 0 || bytes > limit("upload_bytes", PACKAGE_BYTES_MAX) {
            return Err(UploadError::Size { bytes });
        }
        if self.deployments.is_folder(name) {
            return Err(UploadError::Folder);
        }
        quota::may_store(self.store(), name, bytes)?;
        Receiving::begin(place, name.clone(), bytes, digest, said)
    }

    /// Whether the owner of a name may have one more model, if it is a new one.
    pub fn may_make(&self, name: &ModelName) -> Result<(), UploadError> {
        quota::may_store(self.store(), name, 0)
    }

    /// How the build of a version goes or went, if it was made by this host
    /// since its start and not long ago.
    pub fn build(&self, name: &ModelName, version: &str) -> Option<BuildState> {
        self.builds().state(name, version)
    }

    /// What was told of it.
    pub fn lines(&self, name: &ModelName, version: &str) -> Vec<Line> {
        self.builds().lines(name, version)
    }

    /// Waits for the builds that run.
    pub async fn drain(&self) {
        self.turns.close();
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn store(&self) -> &Arc<Store> {
        self.deployments.loader().store()
    }

    fn staging(&self) -> &Path {
        &self.staging
    }

    fn builds(&self) -> std::sync::MutexGuard<'_, Builds> {
        self.builds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to have one upload or build under way.
#[derive(Debug)]
pub struct Place {
    uploads: Arc<Uploads>,
    user_id: String,
    /// Memory for a message, while there are any to come.
    buffer: Option<Reservation>,
}

impl Place {
    fn take(uploads: &Arc<Uploads>, user_id: &str) -> Result<Self, UploadError> {
        let mut under_way = uploads.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let of_user = usize::from(under_way.contains(user_id));
        if of_user >= limit("uploads_per_user", 1) {
            return Err(UploadError::UnderWay);
        }
        if under_way.len() >= limit("uploads", UPLOADS_MAX) {
            return Err(UploadError::Busy);
        }
        under_way.insert(user_id.to_owned());
        Ok(Self { uploads: uploads.clone(), user_id: user_id.to_owned(), buffer: None })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut under_way = self.uploads.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        under_way.remove(&self.user_id);
    }
}
