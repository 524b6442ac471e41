//! A hub of model repositories over HTTP: what a repository holds, and its
//! files, piece by piece.
//!
//! Owns the protocol and where the token goes: to the hub's own origin, and to
//! no other that it sends us to. Writes no file but the one it is given.
//!
//! The protocol is that of huggingface.co: `GET
//! /api/models/REPO/revision/REVISION?blobs=true` lists a commit, `GET
//! /REPO/resolve/COMMIT/NAME` is a file or sends to where it is, ranges are
//! honoured, and `X-Error-Code` says why not.

mod error;

pub use error::HubError;

use crate::package::checkpoint::{Digest, LockedFile};
use crate::text::escape_controls;
use serde::Deserialize;
use std::io::{Read, Seek, SeekFrom, Write};
use std::time::{Duration, Instant};
use ureq::Agent;
use ureq::http::{Response, StatusCode, header};
use url::Url;

/// Longest listing of a repository.
const LISTING_BYTES_MAX: u64 = 16 << 20;
/// Most times that one request is sent elsewhere.
const REDIRECTS_MAX: usize = 8;
/// What has to come within `wait_max`, and what an attempt has to bring beyond
/// all before it to count as one that did.
const PROGRESS_BYTES_MIN: u64 = 64 << 10;
/// A listing comes whole within this many times `wait_max`.
const LISTING_WAITS: u32 = 10;
const COPY_BYTES: usize = 64 << 10;

/// How patient a download is.
#[derive(Debug, Clone)]
pub struct Patience {
    /// Until a connection or the next bytes are there.
    pub wait_max: Duration,
    /// Attempts in a row that bring nothing.
    pub attempts_max: u32,
    /// Between two of them, more each time.
    pub pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { wait_max: Duration::from_secs(30), attempts_max: 5, pause: Duration::from_secs(1) }
    }
}

/// A hub and who asks.
pub struct Hub {
    endpoint: Url,
    token: Option<String>,
    agent: Agent,
    patience: Patience,
}

/// What a repository holds at a commit.
#[derive(Debug)]
pub struct Listing {
    /// 40 hexadecimal digits.
    pub commit: String,
    /// Every file.
    pub files: Vec<LockedFile>,
}

impl Hub {
    /// A hub at an address such as `https://huggingface.co`.
    pub fn new(
        endpoint: &str,
        token: Option<String>,
        patience: Patience,
    ) -> Result<Self, HubError> {
        let mut url = Url::parse(endpoint).map_err(|_| HubError::Endpoint)?;
        if !matches!(url.scheme(), "http" | "https")
            || !url.username().is_empty()
            || url.password().is_some()
            || url.query().is_some()
            || url.fragment().is_some()
        {
            return Err(HubError::Endpoint);
        }
        // A mirror may live below a path.
        let path = url.path().trim_end_matches('/').to_owned();
        url.set_path(&path);
        let token = token.map(|token| token.trim().to_owned());
        if let Some(token) = &token {
            if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(HubError::TokenForm);
            }
            if url.scheme() == "http" && !is_this_machine(&url) {
                return Err(HubError::TokenInTheOpen { host: host(&url) });
            }
        }
        let mut config = Agent::config_builder();
        if url.scheme() == "http" {
            // A proxy would read along; one for https only passes bytes on.
            config = config.proxy(None);
        }
        let agent = config
            .http_status_as_error(false)
            .max_redirects(0)
            .accept_encoding("identity")
            .user_agent(concat!("ringfence/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(patience.wait_max))
            .timeout_per_read(Some(patience.wait_max))
            .timeout_per_write(Some(patience.wait_max))
            .timeout_recv_response(Some(patience.wait_max))
            .build()
            .new_agent();
        Ok(Self { endpoint: url, token, agent, patience })
    }

    /// Lists a repository at a revision: a commit, or a branch such as `main`.
    pub fn listing(&self, repo_id: &str, revision: &str) -> Result<Listing, HubError> {
        let mut url = self.url(&["api", "models"], repo_id, &["revision", revision]);
        url.set_query(Some("blobs=true"));
        let mut attempt = 0;
        loop {
            let asked = self.listing_once(&url, repo_id, revision);
            match asked {
                Err(error) if error.may_pass() && attempt + 1 < self.patience.attempts_max => {
                    attempt += 1;
                    std::thread::sleep(self.patience.pause * attempt);
                }
                asked => return asked,
            }
        }
    }

    fn listing_once(&self, url: &Url, repo_id: &str, revision: &str) -> Result<Listing, HubError> {
        let whole = self.patience.wait_max * LISTING_WAITS;
        let (url, mut response) = self.get(url.clone(), None, Some(whole))?;
        if response.status() != StatusCode::OK {
            return Err(self.refusal(&url, &response, repo_id, Asked::Revision(revision)));
        }
        let host = host(&url);
        let mut bytes = Vec::new();
        response
            .body_mut()
            .as_reader()
            .take(LISTING_BYTES_MAX + 1)
            .read_to_end(&mut bytes)
            .map_err(|source| HubError::Broken { host: host.clone(), source })?;
        let protocol =
            |what: &str| HubError::Protocol { host: host.clone(), what: what.to_owned() };
        if bytes.len() as u64 > LISTING_BYTES_MAX {
            return Err(protocol("a listing that is too long"));
        }
        let listed: Listed =
            serde_json::from_slice(&bytes).map_err(|_| protocol("no listing of a repository"))?;
        if !is_hex(&listed.sha, 40) {
            return Err(protocol("a commit that is none"));
        }
        let files = listed.siblings.into_iter().map(|sibling| {
            let name = sibling.rfilename;
            let (size, digest) = match (sibling.lfs, sibling.size, sibling.blob_id) {
                (Some(lfs), ..) if is_hex(&lfs.sha256, 64) => {
                    (lfs.size, Digest::Sha256(lfs.sha256))
                }
                (None, Some(size), Some(blob)) if is_hex(&blob, 40) => {
                    (size, Digest::GitBlob(blob))
                }
                _ => {
                    let what = format!("no length or digest of {}", escape_controls(&name));
                    return Err(protocol(&what));
                }
            };
            Ok(LockedFile { name, size, digest })
        });
        Ok(Listing { commit: listed.sha, files: files.collect::<Result<_, _>>()? })
    }

    /// Appends to `part` what it lacks of a file, and tells `progress` how many
    /// bytes come, or go (negative) where the hub begins anew.
    pub fn download(
        &self,
        repo_id: &str,
        commit: &str,
        file: &LockedFile,
        part: &mut std::fs::File,
        progress: &mut dyn FnMut(i64),
    ) -> Result<(), HubError> {
        let path: Vec<&str> = ["resolve", commit].into_iter().chain(file.name.split('/')).collect();
        let url = self.url(&[], repo_id, &path);
        let mut there = part.seek(SeekFrom::End(0)).map_err(HubError::Write)?;
        if there > file.size {
            restart(part)?;
            there = 0;
        }
        progress(there.cast_signed());
        let (mut fruitless, mut most) = (0, there);
        while there < file.size {
            let attempt = self.download_once(&url, repo_id, file, part, &mut there, progress);
            let Err(error) = attempt else { continue };
            let brought = there.saturating_sub(most);
            most = most.max(there);
            fruitless = if brought >= PROGRESS_BYTES_MIN { 0 } else { fruitless + 1 };
            if !error.may_pass() {
                return Err(error);
            }
            if fruitless >= self.patience.attempts_max {
                let name = file.name.clone();
                return Err(HubError::Stalled {
                    name,
                    there,
                    size: file.size,
                    source: error.into(),
                });
            }
            std::thread::sleep(self.patience.pause * fruitless);
        }
        Ok(())
    }

    fn download_once(
        &self,
        url: &Url,
        repo_id: &str,
        file: &LockedFile,
        part: &mut std::fs::File,
        there: &mut u64,
        progress: &mut dyn FnMut(i64),
    ) -> Result<(), HubError> {
        let (url, mut response) = self.get(url.clone(), Some(*there), None)?;
        let host = host(&url);
        match response.status() {
            StatusCode::PARTIAL_CONTENT if starts_at(&response) == Some(*there) => {}
            // Ranges are not for every server.
            StatusCode::OK => {
                restart(part)?;
                progress(-there.cast_signed());
                *there = 0;
            }
            StatusCode::PARTIAL_CONTENT => {
                let what = "another range than was asked for".to_owned();
                return Err(HubError::Protocol { host, what });
            }
            StatusCode::RANGE_NOT_SATISFIABLE => {
                restart(part)?;
                progress(-there.cast_signed());
                *there = 0;
                let what = format!("less of {} than the hub lists", file.name);
                return Err(HubError::Protocol { host, what });
            }
            _ => return Err(self.refusal(&url, &response, repo_id, Asked::File(&file.name))),
        }
        let mut window = (Instant::now(), *there);
        let mut body = response.body_mut().as_reader().take(file.size - *there);
        let mut buffer = vec![0; COPY_BYTES];
        while *there < file.size {
            let count = match body.read(&mut buffer) {
                Ok(count) => count,
                Err(source) => return Err(HubError::Broken { host, source }),
            };
            let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else {
                let source = std::io::ErrorKind::UnexpectedEof.into();
                return Err(HubError::Broken { host, source });
            };
            part.write_all(bytes).map_err(HubError::Write)?;
            *there += count as u64;
            progress(i64::try_from(count).unwrap_or(0));
            let (began, from) = window;
            if began.elapsed() > self.patience.wait_max {
                if *there - from < PROGRESS_BYTES_MIN {
                    let source = std::io::ErrorKind::TimedOut.into();
                    return Err(HubError::Broken { host, source });
                }
                window = (Instant::now(), *there);
            }
        }
        Ok(())
    }

    /// One request, followed to where it is sent. The token goes with it as
    /// long as it stays at the hub.
    fn get(
        &self,
        mut url: Url,
        from: Option<u64>,
        whole: Option<Duration>,
    ) -> Result<(Url, Response<ureq::Body>), HubError> {
        for _ in 0..=REDIRECTS_MAX {
            let mut request = self.agent.get(url.as_str());
            if let Some(from) = from {
                request = request.header(header::RANGE, format!("bytes={from}-"));
            }
            if let Some(token) = &self.token
                && url.origin() == self.endpoint.origin()
            {
                request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
            }
            let host = host(&url);
            let request = request.config().timeout_global(whole).build();
            let response = request.call().map_err(|source| HubError::Network {
                host: host.clone(),
                source: source.into(),
            })?;
            if !response.status().is_redirection() {
                return Ok((url, response));
            }
            let location = response.headers().get(header::LOCATION);
            let next = location.and_then(|l| l.to_str().ok()).and_then(|l| url.join(l).ok());
            url = match next {
                Some(next) if is_as_safe(&next, &self.endpoint) => next,
                _ => {
                    let what = "us to no address, or from https to http".to_owned();
                    return Err(HubError::Protocol { host, what });
                }
            };
        }
        Err(HubError::Protocol {
            host: host(&url),
            what: format!("us on more than {REDIRECTS_MAX} times"),
        })
    }

    fn url(&self, before: &[&str], repo_id: &str, after: &[&str]) -> Url {
        let mut url = self.endpoint.clone();
        // An http address always has a path.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(before).extend(repo_id.split('/')).extend(after);
        }
        url
    }

    /// The page of a repository, for people.
    fn page(&self, repo_id: &str) -> String {
        self.url(&[], repo_id, &[]).into()
    }

    fn refusal(
        &self,
        url: &Url,
        response: &Response<ureq::Body>,
        repo_id: &str,
        asked: Asked<'_>,
    ) -> HubError {
        let repo_id = || repo_id.to_owned();
        let code = response.headers().get("x-error-code").and_then(|code| code.to_str().ok());
        let page = || self.page(&repo_id());
        let status = response.status();
        if url.origin() != self.endpoint.origin() {
            let host = host(url);
            return match status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS {
                true => HubError::Elsewhere { host, status },
                false => HubError::Status { host, status },
            };
        }
        match (status, code, &self.token) {
            (_, Some("GatedRepo"), None) => {
                HubError::GatedForStrangers { repo_id: repo_id(), url: page() }
            }
            (_, Some("GatedRepo"), Some(_)) => HubError::Gated { repo_id: repo_id(), url: page() },
            (_, Some("RevisionNotFound"), _) => match asked {
                Asked::Revision(revision) => {
                    HubError::Revision { repo_id: repo_id(), revision: revision.to_owned() }
                }
                Asked::File(name) => HubError::File { repo_id: repo_id(), name: name.to_owned() },
            },
            (_, Some("EntryNotFound"), _) => HubError::File {
                repo_id: repo_id(),
                name: match asked {
                    Asked::File(name) | Asked::Revision(name) => name.to_owned(),
                },
            },
            (_, Some("RepoNotFound"), None)
            | (StatusCode::UNAUTHORIZED, _, None)
            | (StatusCode::NOT_FOUND, None, None) => {
                HubError::MissingOrPrivate { repo_id: repo_id() }
            }
            (StatusCode::UNAUTHORIZED, _, Some(_)) => HubError::Token,
            (StatusCode::FORBIDDEN, _, Some(_)) => HubError::TokenRights { repo_id: repo_id() },
            (_, Some("RepoNotFound"), Some(_)) | (StatusCode::NOT_FOUND, None, Some(_)) => {
                HubError::Missing { repo_id: repo_id() }
            }
            (status, ..) => HubError::Status { host: host(url), status },
        }
    }
}

/// What a refused request was about.
#[derive(Clone, Copy)]
enum Asked<'a> {
    Revision(&'a str),
    File(&'a str),
}

/// The hub's answer about a revision, as far as it matters.
#[derive(Deserialize)]
struct Listed {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: String,
    size: u64,
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Begins a download anew.
fn restart(part: &mut std::fs::File) -> Result<(), HubError> {
    part.set_len(0).map_err(HubError::Write)?;
    part.seek(SeekFrom::Start(0)).map_err(HubError::Write)?;
    Ok(())
}

/// Where a partial answer begins: RFC 9110, 14.4.
fn starts_at(response: &Response<ureq::Body>) -> Option<u64> {
    let range = response.headers().get(header::CONTENT_RANGE)?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok()
}

fn is_this_machine(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// A hub on https sends nobody to http.
fn is_as_safe(next: &Url, endpoint: &Url) -> bool {
    next.scheme() == "https" || (next.scheme() == "http" && endpoint.scheme() == "http")
}

fn host(url: &Url) -> String {
    let name = url.host_str().unwrap_or("the hub");
    url.port().map_or_else(|| name.to_owned(), |port| format!("{name}:{port}"))
}
