//! Machine code of components: from the cache, else from a one-shot process.
//!
//! Owns the turns of what is compiled or loaded. Nothing is compiled twice at a
//! time, and a call waits for no component but its own and those of other calls.

use super::error::StartError;
use crate::sandbox::{Compiled, Instrumented};
use crate::sealed::Sealed;
use crate::store::{Sha256Digest, Store, StoreError};
use crate::worker::{MachineCode, OneShot, Urgency};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::sync::{OwnedMutexGuard, Semaphore, SemaphorePermit, watch};

/// Versions that are compiled or loaded at a time for those who wait: so many
/// CPUs are left to calls as machines of a few have.
const STARTS_MAX: usize = 2;

/// Makes machine code, and keeps it.
#[derive(Debug)]
pub(super) struct Compiler {
    store: Arc<Store>,
    one_shot: OneShot,
    /// What the code depends on beside the component.
    id: String,
    turns: Semaphore,
    /// How many have a turn or wait for one.
    wanted: watch::Sender<usize>,
    /// Components that are being compiled, each with what is held meanwhile.
    under_way: Mutex<HashMap<Sha256Digest, Weak<tokio::sync::Mutex<()>>>>,
}

/// A component that is to be compiled.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) component: Vec<u8>,
    /// What it may start with.
    pub(super) memory_bytes_max: u64,
}

/// What became of a component that nobody waits for.
#[derive(Debug)]
pub(super) enum Ahead {
    /// Its code is kept now.
    Made,
    /// Its code is there, or a call makes it, or it is not there any more.
    NotNeeded,
    /// It was compiled for nothing.
    NotKept(StoreError),
}

/// The right to compile or load something that somebody waits for.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    _permit: SemaphorePermit<'a>,
    _wanted: Wanted<'a>,
}

/// Somebody who waits, until this is dropped.
#[derive(Debug)]
struct Wanted<'a>(&'a watch::Sender<usize>);

impl<'a> Wanted<'a> {
    fn enter(wanted: &'a watch::Sender<usize>) -> Self {
        wanted.send_modify(|count| *count += 1);
        Self(wanted)
    }
}

impl Drop for Wanted<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count = count.saturating_sub(1));
    }
}

impl Compiler {
    pub(super) fn new(store: Arc<Store>, one_shot: OneShot, id: String) -> Self {
        Self {
            store,
            one_shot,
            id,
            turns: Semaphore::new(STARTS_MAX),
            wanted: watch::Sender::new(0),
            under_way: Mutex::default(),
        }
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Waits for a turn.
    pub(super) async fn turn(&self) -> Result<Turn<'_>, StartError> {
        let wanted = Wanted::enter(&self.wanted);
        let permit = self.turns.acquire().await.map_err(|_| StartError::Stopping)?;
        Ok(Turn { _permit: permit, _wanted: wanted })
    }

    /// The machine code of a component that somebody waits for.
    pub(super) async fn compiled(
        &self,
        digest: Sha256Digest,
        component: &[u8],
        memory_bytes_max: u64,
    ) -> Result<Compiled, StartError> {
        if let Some(code) = self.cached(digest).await {
            return Ok(code);
        }
        let _alone = self.alone(digest).await;
        // Another may have made it meanwhile.
        if let Some(code) = self.cached(digest).await {
            return Ok(code);
        }
        let _turn = self.turn().await?;
        let code = self
            .one_shot
            .compile(component, Instrumented::ForSnapshot, memory_bytes_max, Urgency::Waited)
            .await;
        let (code, kept) = self.keep(digest, code.map_err(StartError::Compile)?).await?;
        if let Err(error) = kept {
            // It is slower the next time, and works.
            tracing::warn!(%error, "cannot keep a compiled component");
        }
        Ok(Compiled::trusted(code))
    }

    /// The machine code of a component with a version's state in it, or why there is none;
    /// the author reads that.
    pub(super) async fn of_snapshot(
        &self,
        component: &[u8],
        memory_bytes_max: u64,
    ) -> Result<Sealed, String> {
        let _turn = self.turn().await.map_err(|error| error.to_string())?;
        let code = self
            .one_shot
            .compile(component, Instrumented::No, memory_bytes_max, Urgency::Waited)
            .await
            .map_err(|error| format!("it cannot be compiled with its state: {error}"))?;
        let sealed = tokio::task::spawn_blocking(move || Sealed::of(code.bytes.as_slice())).await;
        sealed.map_err(std::io::Error::other).flatten().map_err(|error| error.to_string())
    }

    /// Has what is known under a key to oneself.
    pub(super) async fn alone(&self, key: Sha256Digest) -> OwnedMutexGuard<()> {
        self.place(key).lock_owned().await
    }

    /// Makes the machine code of a component that nobody waits for, once nobody
    /// waits for another. Is broken off where it is dropped.
    pub(super) async fn make_ahead(
        &self,
        digest: Sha256Digest,
        source: impl Future<Output = Result<Option<Source>, StartError>>,
    ) -> Result<Ahead, StartError> {
        // The sender lives as long as this.
        let _ = self.wanted.subscribe().wait_for(|count| *count == 0).await;
        let Some(_alone) = self.free(digest) else { return Ok(Ahead::NotNeeded) };
        if self.store.has_compiled(&digest, &self.id) {
            return Ok(Ahead::NotNeeded);
        }
        let Some(Source { component, memory_bytes_max }) = source.await? else {
            return Ok(Ahead::NotNeeded);
        };
        let code = self
            .one_shot
            .compile(&component, Instrumented::ForSnapshot, memory_bytes_max, Urgency::Ahead)
            .await;
        let (_, kept) = self.keep(digest, code.map_err(StartError::Compile)?).await?;
        Ok(kept.map_or_else(Ahead::NotKept, |()| Ahead::Made))
    }

    async fn cached(&self, digest: Sha256Digest) -> Option<Compiled> {
        let (store, id) = (self.store.clone(), self.id.clone());
        let cached = blocking(move || Ok(store.compiled(&digest, &id)));
        cached.await.ok().flatten().map(Compiled::trusted)
    }

    async fn keep(
        &self,
        digest: Sha256Digest,
        code: MachineCode,
    ) -> Result<(Sealed, Result<(), StoreError>), StartError> {
        let (store, id) = (self.store.clone(), self.id.clone());
        blocking(move || {
            let MachineCode { bytes, slow_because } = code;
            if let Some(limit) = slow_because {
                tracing::warn!(
                    component = crate::text::hex(&digest),
                    "it takes more than {limit} to compile well, and was compiled in one pass: its \
                     code is slower"
                );
            }
            let sealed = Sealed::of(bytes.as_slice()).map_err(StartError::Memory)?;
            drop(bytes);
            let kept = store.keep_compiled(&digest, &id, &sealed);
            Ok((sealed, kept))
        })
        .await
    }

    /// What whoever compiles a component holds, unless somebody does.
    fn free(&self, digest: Sha256Digest) -> Option<OwnedMutexGuard<()>> {
        self.place(digest).try_lock_owned().ok()
    }

    fn place(&self, digest: Sha256Digest) -> Arc<tokio::sync::Mutex<()>> {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = under_way.get(&digest).and_then(Weak::upgrade) {
            return place;
        }
        under_way.retain(|_, place| place.strong_count() > 0);
        let place = Arc::default();
        under_way.insert(digest, Arc::downgrade(&place));
        place
    }
}

/// Does what blocks on the disk.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StartError> + Send + 'static,
) -> Result<T, StartError> {
    tokio::task::spawn_blocking(work).await?
}
