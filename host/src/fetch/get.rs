//! One GET, over as many hops as it takes.
//!
//! Owns what is sent, which is nothing of the caller's, and what is taken of an
//! answer. Every hop is a fresh connection to an origin that is asked about
//! like the first.

use super::allow::admit;
use super::connect::Connection;
use super::media::{Media, Other};
use super::origin::Origin;
use super::{FetchError, Open};
use crate::limits::limit;
use bytes::Bytes;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderMap, LOCATION,
    USER_AGENT,
};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::pin::pin;
use url::Url;

/// What the host calls itself.
const AGENT: &str = "ringfence";

/// Header fields of an answer.
const FIELDS_MAX: usize = 100;

/// Bytes of an answer that are read ahead.
const BUFFER_BYTES: usize = 64 << 10;

/// What comes back from one hop.
enum Answer {
    Content(Vec<u8>),
    Elsewhere(String),
}

/// A URL of at most this length.
pub(super) fn parse(url: &str, url_bytes_max: usize) -> Result<Url, FetchError> {
    if url.len() > limit("url_length", url_bytes_max) {
        return Err(FetchError::TooLong { url_bytes_max });
    }
    match Url::parse(url) {
        Ok(url) => Ok(url),
        // A path.
        Err(url::ParseError::RelativeUrlWithoutBase) => Err(FetchError::Scheme),
        Err(error) => Err(FetchError::Malformed(error)),
    }
}

/// What a URL leads to.
pub(super) async fn get(
    open: &Open,
    mut url: Url,
    media: Media,
    bytes_max: u64,
) -> Result<Vec<u8>, FetchError> {
    let limits = &open.limits;
    for _ in 0..=limit("url_redirects", limits.redirects_max) {
        let origin = Origin::of(&url)?;
        admit(&open.allowed, &origin)?;
        let connection = open.connect(&origin).await?;
        let asked = Asked { origin: &origin, url: &url, media, bytes_max };
        match asked.ask(connection, limits.head_bytes_max).await? {
            Answer::Content(bytes) => return Ok(bytes),
            Answer::Elsewhere(location) => {
                let next = url.join(&location).map_err(FetchError::Malformed)?;
                if next.as_str().len() > limit("url_length", limits.url_bytes_max) {
                    return Err(FetchError::TooLong { url_bytes_max: limits.url_bytes_max });
                }
                url = next;
            }
        }
    }
    Err(FetchError::Redirects { redirects_max: limits.redirects_max })
}

/// One hop.
struct Asked<'a> {
    origin: &'a Origin,
    url: &'a Url,
    media: Media,
    bytes_max: u64,
}

impl Asked<'_> {
    async fn ask(
        &self,
        connection: Box<dyn Connection>,
        head_bytes_max: usize,
    ) -> Result<Answer, FetchError> {
        let mut builder = http1::Builder::new();
        builder
            .max_buf_size(BUFFER_BYTES)
            .max_header_size(limit("url_head", head_bytes_max))
            // The library makes room for as many.
            .max_headers(limit("url_fields", FIELDS_MAX).min(1 << 10));
        let (mut sender, connection) = builder
            .handshake(TokioIo::new(connection))
            .await
            .map_err(|error| self.broken(&error))?;
        let request = self.request()?;
        let exchange = async move {
            let response = sender.send_request(request).await;
            let response = response.map_err(|error| self.broken(&error))?;
            let (head, body) = response.into_parts();
            match head.status {
                StatusCode::OK => {
                    self.check(&head.headers)?;
                    Ok(Answer::Content(self.content(body).await?))
                }
                StatusCode::MOVED_PERMANENTLY
                | StatusCode::FOUND
                | StatusCode::SEE_OTHER
                | StatusCode::TEMPORARY_REDIRECT
                | StatusCode::PERMANENT_REDIRECT => self.elsewhere(head.status, &head.headers),
                other => Err(self.status(other)),
            }
        };
        // The connection is driven here and not by a task, so that it is gone
        // when nobody waits for the answer any more.
        let (mut exchange, mut connection) = (pin!(exchange), pin!(connection));
        tokio::select! {
            biased;
            answer = &mut exchange => return answer,
            _ = &mut connection => {}
        }
        // It has ended, and what it had read is still to be taken.
        exchange.await
    }

    fn request(&self) -> Result<Request<Empty<Bytes>>, FetchError> {
        let target = match self.url.query() {
            Some(query) => format!("{}?{query}", self.url.path()),
            None => self.url.path().to_owned(),
        };
        Request::get(target)
            .header(HOST, self.origin.authority())
            .header(USER_AGENT, AGENT)
            .header(ACCEPT, self.media.accept())
            .header(ACCEPT_ENCODING, "identity")
            .header(CONNECTION, "close")
            .body(Empty::new())
            .map_err(|_| FetchError::Malformed(url::ParseError::InvalidDomainCharacter))
    }

    /// Refuses a content that is of another type, or encoded.
    fn check(&self, headers: &HeaderMap) -> Result<(), FetchError> {
        let host = || self.origin.authority();
        let encoded = headers.get_all(CONTENT_ENCODING).iter();
        if encoded.into_iter().any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
            return Err(FetchError::Encoding { host: host() });
        }
        let mut types = headers.get_all(CONTENT_TYPE).iter();
        let (Some(only), None) = (types.next(), types.next()) else {
            return Err(self.media.refuse(host(), "no content type, or two".to_owned()));
        };
        let only = String::from_utf8_lossy(only.as_bytes());
        self.media.check(&only).map_err(|Other(given)| self.media.refuse(host(), given))
    }

    /// The whole body: its length is looked at if the server tells one, and what
    /// comes is counted in any case.
    async fn content(&self, mut body: Incoming) -> Result<Vec<u8>, FetchError> {
        let too_large = || FetchError::TooLarge { bytes_max: self.bytes_max };
        if body.size_hint().lower() > self.bytes_max {
            return Err(too_large());
        }
        let mut content = Vec::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|error| self.broken(&error))?.into_data() else {
                continue;
            };
            let length = content.len().saturating_add(data.len());
            if u64::try_from(length).is_ok_and(|length| length > self.bytes_max) {
                return Err(too_large());
            }
            content.extend_from_slice(&data);
        }
        Ok(content)
    }

    fn elsewhere(&self, status: StatusCode, headers: &HeaderMap) -> Result<Answer, FetchError> {
        let location = headers.get(LOCATION).and_then(|location| location.to_str().ok());
        match location {
            Some(location) => Ok(Answer::Elsewhere(location.to_owned())),
            None => Err(self.status(status)),
        }
    }

    fn status(&self, status: StatusCode) -> FetchError {
        FetchError::Status { host: self.origin.authority(), status: status.as_u16() }
    }

    fn broken(&self, error: &hyper::Error) -> FetchError {
        tracing::debug!(host = self.origin.authority(), %error, "a URL's host answered badly");
        FetchError::Broken { host: self.origin.authority() }
    }
}
