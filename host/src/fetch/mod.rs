//! URL inputs: what a caller names by a URL, the host fetches, so that a guest
//! sees bytes and never a URL.
//!
//! Owns which hosts may be asked, which addresses are public, one fetch with
//! its limits, and `data:` URLs. Never touches guests, what runs them, or the
//! store; carries nothing of the caller's to anybody.

mod allow;
mod origin;

mod address;
mod connect;

mod get;

mod data;
mod media;

mod error;

#[cfg(test)]
mod tests;

pub use allow::{AllowError, AllowedHost};
pub use error::FetchError;
pub use media::Media;

use crate::limits::limit;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;

/// Limits of every fetch.
#[derive(Debug, Clone)]
pub(crate) struct FetchLimits {
    /// Bytes that one URL may lead to: as many as a client's message may hold.
    pub(crate) body_bytes_max: u64,
    /// Bytes of the URL itself, if it is no `data:` URL.
    pub(crate) url_bytes_max: usize,
    /// Times that a URL may lead on to another.
    pub(crate) redirects_max: usize,
    /// Time of one fetch with all its redirects, once it is its turn.
    pub(crate) fetch_timeout: Duration,
    /// Time in which one address has to take the connection.
    pub(crate) connect_timeout: Duration,
    /// Fetches at a time, of all callers; more wait until their deadline.
    pub(crate) fetches_max: usize,
    /// Look-ups of names at a time. A look-up cannot be cancelled, so it keeps
    /// its place until the system answers.
    pub(crate) lookups_max: usize,
    /// Addresses of a name that are looked at.
    pub(crate) addresses_max: usize,
    /// Bytes of the head of an answer.
    pub(crate) head_bytes_max: usize,
}

impl Default for FetchLimits {
    fn default() -> Self {
        Self {
            body_bytes_max: 16 << 20,
            url_bytes_max: 8 << 10,
            redirects_max: 5,
            fetch_timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(5),
            fetches_max: 32,
            lookups_max: 16,
            addresses_max: 16,
            head_bytes_max: 16 << 10,
        }
    }
}

/// What URLs of inputs are asked of; one for the whole host.
pub struct Fetcher {
    limits: FetchLimits,
    /// Nothing where the operator has opened no host.
    open: Option<Open>,
}

/// What it takes to fetch.
struct Open {
    allowed: Vec<AllowedHost>,
    tls: TlsConnector,
    fetches: Semaphore,
    lookups: Arc<Semaphore>,
    limits: FetchLimits,
}

impl std::fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let allowed = self.open.as_ref().map_or(&[][..], |open| &open.allowed);
        f.debug_struct("Fetcher").field("allowed", &allowed).finish_non_exhaustive()
    }
}

/// Why nothing can be fetched over TLS.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The text holds no certificate.
    #[error("it holds no certificate in PEM")]
    NoCertificate,
    /// One of them cannot be read.
    #[error("a certificate in it cannot be read")]
    Unreadable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The library refuses what it was set up with.
    #[error("TLS cannot be set up")]
    Tls(#[source] tokio_rustls::rustls::Error),
}

impl Fetcher {
    /// Decodes `data:` URLs and fetches nothing.
    pub fn off() -> Self {
        Self { limits: FetchLimits::default(), open: None }
    }

    /// Fetches from the allowed hosts. Beside the public authorities, which are
    /// compiled in, the certificates of `ca_pem` are trusted.
    pub fn new(allowed: Vec<AllowedHost>, ca_pem: Option<&[u8]>) -> Result<Self, TrustError> {
        Self::with_limits(allowed, ca_pem, FetchLimits::default())
    }

    fn with_limits(
        allowed: Vec<AllowedHost>,
        ca_pem: Option<&[u8]>,
        limits: FetchLimits,
    ) -> Result<Self, TrustError> {
        let mut roots = connect::public_roots();
        if let Some(pem) = ca_pem {
            connect::trust(&mut roots, pem)?;
        }
        let open = Open {
            allowed,
            tls: connect::tls(roots)?,
            fetches: Semaphore::new(limit("fetches", limits.fetches_max)),
            lookups: Arc::new(Semaphore::new(limit("lookups", limits.lookups_max))),
            limits: limits.clone(),
        };
        Ok(Self { limits, open: Some(open) })
    }

    /// Bytes that one URL may lead to.
    pub fn body_bytes_max(&self) -> u64 {
        self.limits.body_bytes_max
    }

    /// What a URL leads to, if that is at most `bytes_max` bytes. Waits for its
    /// turn without end: a deadline is the caller's to set. Dropping the future
    /// ends the fetch.
    pub async fn fetch(
        &self,
        url: &str,
        media: Media,
        bytes_max: u64,
    ) -> Result<Vec<u8>, FetchError> {
        let bytes_max = bytes_max.min(limit("url_bytes", self.limits.body_bytes_max));
        if let Some(content) = data::content_of(url) {
            return data::decode(content, media, bytes_max);
        }
        let url = get::parse(url, self.limits.url_bytes_max)?;
        let origin = origin::Origin::of(&url)?;
        let Some(open) = &self.open else { return Err(allow::off(&origin)) };
        // What is off needs no turn to be told so.
        allow::admit(&open.allowed, &origin)?;
        let Ok(_turn) = open.fetches.acquire().await else { return Err(FetchError::TooSlow) };
        let fetching = get::get(open, url, media, bytes_max);
        let fetch_timeout = limit("url_time", self.limits.fetch_timeout);
        let fetched = tokio::time::timeout(fetch_timeout, fetching).await;
        fetched.unwrap_or(Err(FetchError::TooSlow))
    }
}
