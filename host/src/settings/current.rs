//! The settings of a running host, and how they change.
//!
//! Owns what is in force and who is told of a change. A change is whole or it
//! does not happen.

use super::keys::{Effect, SETTINGS};
use super::{Settings, tls::TlsError};
use crate::server::Options;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::watch;

/// What is in force.
#[derive(Debug)]
pub struct Current {
    settings: watch::Sender<Arc<Settings>>,
    options: watch::Sender<Options>,
    reloads: AtomicU64,
    reloads_failed: AtomicU64,
}

/// What a change did. Each setting is named by its path.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Change {
    /// What is in force now.
    pub took_effect: Vec<&'static str>,
    /// What waits for the next start.
    pub needs_restart: Vec<&'static str>,
}

impl Current {
    /// Puts settings in force. Reads the TLS files that they name.
    pub fn new(settings: Settings) -> Result<Self, TlsError> {
        let options = options(&settings)?;
        Ok(Self {
            settings: watch::Sender::new(Arc::new(settings)),
            options: watch::Sender::new(options),
            reloads: AtomicU64::new(0),
            reloads_failed: AtomicU64::new(0),
        })
    }

    /// The settings in force, now and after each change.
    pub fn settings(&self) -> watch::Receiver<Arc<Settings>> {
        self.settings.subscribe()
    }

    /// What the front goes by, now and after each change.
    pub fn options(&self) -> watch::Receiver<Options> {
        self.options.subscribe()
    }

    /// Reads everything again and puts in force what can change while the host
    /// runs. When anything is wrong nothing changes. Opens files.
    pub fn reload<E: From<TlsError>>(
        &self,
        read: impl FnOnce() -> Result<Settings, E>,
    ) -> Result<Change, E> {
        let changed = read().and_then(|wanted| Ok(self.adopt(&wanted)?));
        let counter = match changed {
            Ok(_) => &self.reloads,
            Err(_) => &self.reloads_failed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        changed
    }

    fn adopt(&self, wanted: &Settings) -> Result<Change, TlsError> {
        let before = self.settings.borrow().clone();
        let mut after = Settings::clone(&before);
        for setting in &SETTINGS {
            if let Effect::AtOnce(adopt) = setting.effect {
                adopt(&mut after, wanted);
            }
        }
        // Files that will be needed at the next start are looked at as well.
        if let Some(tls) = &wanted.tls {
            tls.load()?;
        }
        let options = options(&after)?;
        let differing = |a: &Settings, b: &Settings| {
            let differs =
                |setting: &&super::keys::Setting| (setting.shown)(a) != (setting.shown)(b);
            SETTINGS.iter().filter(differs).map(|setting| setting.path).collect()
        };
        let change = Change {
            took_effect: differing(&before, &after),
            needs_restart: differing(&after, wanted),
        };
        self.settings.send_replace(Arc::new(after));
        self.options.send_replace(options);
        Ok(change)
    }

    /// How often all was read again and put in force.
    pub fn reloads(&self) -> u64 {
        self.reloads.load(Ordering::Relaxed)
    }

    /// How often the old settings stayed, because the new ones were wrong.
    pub fn reloads_failed(&self) -> u64 {
        self.reloads_failed.load(Ordering::Relaxed)
    }
}

fn options(settings: &Settings) -> Result<Options, TlsError> {
    let tls = settings.tls.as_ref().map(|files| files.load()).transpose()?;
    Ok(Options { tls, ..settings.front.clone() })
}
