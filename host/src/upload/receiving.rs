//! An archive while it comes: in a file, counted, and able to go on where it
//! broke off.

use super::{Place, UploadError, Uploads, build};
use crate::digest::sha256_of;
use crate::limits::limit;
use crate::package::config::ModelName;
use crate::text::hex;
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long the beginning of an archive is kept for its continuation.
const KEPT: Duration = Duration::from_secs(3600);
/// How many are.
const KEPT_MAX: usize = 16;
/// Bytes of all of them.
const KEPT_BYTES_MAX: u64 = 32 << 30;

/// What a client says of a package beside the package itself. It decides
/// nothing; where it differs, the uploader is told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said {
    /// `cpu_limit`, or empty.
    pub cpu_limit: String,
    /// `cpu_memory`, or empty.
    pub cpu_memory: String,
    /// How many concepts.
    pub concepts: usize,
}

/// An archive that comes.
#[derive(Debug)]
pub struct Receiving {
    /// Nothing once a build has it.
    place: Option<Place>,
    uploads: Arc<Uploads>,
    name: ModelName,
    said: Said,
    path: PathBuf,
    file: Arc<File>,
    /// Whether a write failed.
    failed: bool,
    bytes: u64,
    received: u64,
    digest: Option<[u8; 32]>,
    done: bool,
}

/// The beginnings of archives that broke off, by user and digest.
#[derive(Debug, Default)]
pub(super) struct Partial(Mutex<HashMap<PathBuf, (u64, Instant)>>);

impl Receiving {
    pub(super) fn begin(
        place: Place,
        name: ModelName,
        bytes: u64,
        digest: Option<[u8; 32]>,
        said: Said,
    ) -> Result<Self, UploadError> {
        let uploads = place.uploads.clone();
        let staging = uploads.staging();
        let error = |source| UploadError::Staging { path: staging.to_owned(), source };
        let path = match digest {
            Some(digest) => staging.join(format!("{}-{}.tar.gz", name.user_id(), hex(&digest))),
            None => staging.join(format!("{}.tar.gz", crate::telemetry::request_id())),
        };
        let kept = uploads.partial.take(&path).filter(|kept| *kept <= bytes);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(error)?;
        let received = kept.unwrap_or(0);
        file.set_len(received).map_err(error)?;
        Ok(Self {
            place: Some(place),
            uploads,
            name,
            said,
            path,
            file: Arc::new(file),
            failed: false,
            bytes,
            received,
            digest,
            done: false,
        })
    }

    /// Bytes that need not be sent, or have been.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Bytes of the whole archive.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes the next bytes.
    pub async fn write(&mut self, piece: bytes::Bytes) -> Result<(), UploadError> {
        let length = piece.len() as u64;
        if self.received.saturating_add(length) > self.bytes {
            let received = self.received.saturating_add(length);
            return Err(UploadError::Length { received, said: self.bytes });
        }
        // Whoever leaves meanwhile leaves what was written before.
        let (file, at) = (self.file.clone(), self.received);
        let written = tokio::task::spawn_blocking(move || file.write_all_at(&piece, at));
        let written = written.await?;
        if let Err(source) = written {
            self.failed = true;
            return Err(UploadError::Staging { path: self.path.clone(), source });
        }
        self.received += length;
        Ok(())
    }

    /// Everything has come: begins the build, and returns the version's id.
    pub async fn finish(mut self) -> Result<String, UploadError> {
        if self.received != self.bytes {
            return Err(UploadError::Length { received: self.received, said: self.bytes });
        }
        self.done = true;
        let (path, digest) = (self.path.clone(), self.digest);
        let hashed = tokio::task::spawn_blocking(move || sha256_of(File::open(path)?));
        let hashed = hashed.await?;
        let (hashed, _) =
            hashed.map_err(|source| UploadError::Staging { path: self.path.clone(), source })?;
        if digest.is_some_and(|digest| digest != hashed) {
            return Err(UploadError::Digest);
        }
        build::begin(self, hashed).await
    }

    pub(super) fn uploads(&self) -> &Arc<Uploads> {
        &self.uploads
    }

    /// The place under way, for what follows.
    pub(super) fn take_place(&mut self) -> Result<Place, UploadError> {
        let mut place = self.place.take().ok_or(UploadError::Stopping)?;
        place.buffer = None;
        Ok(place)
    }

    pub(super) fn name(&self) -> &ModelName {
        &self.name
    }

    pub(super) fn said(&self) -> &Said {
        &self.said
    }

    pub(super) fn path(&self) -> &PathBuf {
        &self.path
    }
}

impl Drop for Receiving {
    /// What broke off is kept for a while if it can go on, else it goes.
    fn drop(&mut self) {
        if !self.done && self.digest.is_some() && !self.failed {
            self.uploads.partial.keep(self.path.clone(), self.received);
        } else {
            remove(&self.path);
        }
    }
}

impl Partial {
    fn take(&self, path: &PathBuf) -> Option<u64> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.remove(path).map(|(received, _)| received)
    }

    fn keep(&self, path: PathBuf, received: u64) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.insert(path, (received, Instant::now()));
        let bytes_max = limit("kept_beginning_bytes", KEPT_BYTES_MAX);
        let time_max = limit("kept_beginning_time", KEPT);
        while kept.len() > limit("kept_beginnings", KEPT_MAX)
            || kept.values().map(|(bytes, _)| bytes).sum::<u64>() > bytes_max
            || kept.values().any(|(_, at)| at.elapsed() > time_max)
        {
            let oldest = kept.iter().min_by_key(|(_, (_, at))| *at).map(|(path, _)| path.clone());
            let Some(oldest) = oldest else { return };
            kept.remove(&oldest);
            remove(&oldest);
        }
    }
}

fn remove(path: &PathBuf) {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "cannot remove what was uploaded");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun(folder: &std::path::Path, number: usize) -> PathBuf {
        let path = folder.join(number.to_string());
        std::fs::write(&path, "x").unwrap();
        path
    }

    #[test]
    fn beginnings_of_archives_are_kept_up_to_a_number_some_bytes_and_an_hour() {
        let folder = tempfile::TempDir::new().unwrap();
        let there = |number: usize| folder.path().join(number.to_string()).exists();
        let partial = Partial::default();
        for number in 0..=KEPT_MAX {
            partial.keep(begun(folder.path(), number), 1);
        }
        assert!(!there(0) && (1..=KEPT_MAX).all(there), "the oldest goes, and its file");
        assert_eq!(partial.take(&folder.path().join("1")), Some(1));
        assert_eq!(partial.take(&folder.path().join("1")), None, "it goes on once");

        let large = KEPT_MAX + 1;
        partial.keep(begun(folder.path(), large), KEPT_BYTES_MAX);
        assert!(there(large) && !(2..=KEPT_MAX).any(there), "they are too many bytes together");
        partial.keep(begun(folder.path(), large + 1), 1);
        assert!(!there(large) && there(large + 1));

        let long_ago = Instant::now().checked_sub(KEPT + Duration::from_secs(1)).unwrap();
        partial.0.lock().unwrap().values_mut().for_each(|(_, at)| *at = long_ago);
        partial.keep(begun(folder.path(), large + 2), 1);
        assert!(!there(large + 1) && there(large + 2), "an hour is over");
    }
}
