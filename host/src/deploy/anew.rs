//! What has no machine code of this program's compiler, as after an upgrade:
//! made anew in the background, so that few calls have to wait for theirs.
//!
//! Owns the order, most recently called first, and how many at a time.

use super::Deployments;
use super::compiler::{Ahead, Source, blocking};
use super::error::StartError;
use super::loader::Loader;
use crate::package::config::ModelName;
use crate::store::{Sha256Digest, StoreError};
use futures_util::stream::{self, StreamExt};
use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::sync::{Mutex, PoisonError};

/// Versions that are compiled at a time while nobody waits for them.
const ANEW_MAX: usize = 2;

/// A version without machine code.
#[derive(Debug)]
struct Stale {
    name: ModelName,
    version: String,
    component: Sha256Digest,
}

/// Components that cannot be compiled.
type Unfit = Mutex<HashSet<Sha256Digest>>;

impl Deployments {
    /// Compiles every stored version that has no machine code, those first that
    /// were called last. `left` is told how many there are still. What cannot be
    /// compiled is logged and left out. It stops where it is dropped.
    pub async fn compile_anew(&self, left: impl Fn(usize)) {
        let loader = self.loader.clone();
        let stale = match blocking(move || Ok(loader.stale()?)).await {
            Ok(stale) => stale,
            Err(error) => {
                return tracing::error!(%error, "cannot find out what is to be compiled anew");
            }
        };
        if stale.is_empty() {
            return;
        }
        tracing::info!("{} versions are compiled anew", stale.len());
        left(stale.len());
        let unfit = Unfit::default();
        let each = stream::iter(&stale).map(|stale| self.loader.make_anew(stale, &unfit));
        let mut each = pin!(each.buffer_unordered(ANEW_MAX));
        let (mut over, mut made, mut failed) = (0, 0, 0);
        while let Some(ahead) = each.next().await {
            match ahead {
                Some(Ahead::Made) => made += 1,
                Some(Ahead::NotNeeded) => {}
                Some(Ahead::NotKept(error)) => {
                    tracing::error!(
                        %error, "cannot keep machine code; the other versions are compiled when they \
                         are called"
                    );
                    return left(0);
                }
                None => failed += 1,
            }
            over += 1;
            left(stale.len().saturating_sub(over));
        }
        tracing::info!(components = made, failed, "all versions have been compiled anew");
    }
}

impl Loader {
    /// Every stored version without machine code, in the order in which it is
    /// made.
    fn stale(&self) -> Result<Vec<Stale>, StoreError> {
        let store = self.store();
        let key = |name: &ModelName, version: &str| (name.clone(), version.to_owned());
        let called = store.calls()?.into_iter();
        let called: HashMap<_, i64> =
            called.map(|row| (key(&row.name, &row.version_id), row.called_at_ms)).collect();
        let components = store.components()?.into_iter();
        let mut components: HashMap<_, Sha256Digest> =
            components.map(|row| (key(&row.name, &row.version_id), row.sha256)).collect();
        let mut versions = store.versions()?;
        versions.sort_by_cached_key(|row| {
            let called_at_ms = called.get(&key(&row.name, &row.id)).copied();
            Reverse((called_at_ms, row.created_at, row.number))
        });
        let stale = versions.into_iter().filter_map(|row| {
            let component = components.remove(&key(&row.name, &row.id))?;
            let stale = Stale { name: row.name, version: row.id, component };
            (!store.has_compiled(&component, self.compiler())).then_some(stale)
        });
        Ok(stale.collect())
    }

    /// Nothing where it cannot be compiled.
    async fn make_anew(&self, stale: &Stale, unfit: &Unfit) -> Option<Ahead> {
        let Stale { name, version, component } = stale;
        let is_unfit = || unfit.lock().unwrap_or_else(PoisonError::into_inner).contains(component);
        if is_unfit() {
            return None;
        }
        let made = self.machine_code().make_ahead(*component, async {
            tracing::debug!(model = %name, version, "is compiled anew");
            self.source(name, version).await
        });
        match made.await {
            Ok(ahead) => Some(ahead),
            Err(error) => {
                tracing::warn!(
                    model = %name, version, "a version cannot be compiled anew and is left out: {error}"
                );
                if let StartError::Compile(_) = error {
                    unfit.lock().unwrap_or_else(PoisonError::into_inner).insert(*component);
                }
                None
            }
        }
    }

    /// What is compiled of a stored version, if it is there.
    async fn source(&self, name: &ModelName, version: &str) -> Result<Option<Source>, StartError> {
        let (loader, name, version) = (self.clone(), name.clone(), version.to_owned());
        blocking(move || loader.read_source(&name, &version)).await
    }
}

#[cfg(test)]
#[path = "anew_tests.rs"]
mod tests;
