//! A hub of model repositories on loopback, which answers as huggingface.co
//! does: listings with digests, small files itself, large ones by a redirect to
//! another origin, ranges, and refusals told apart by `X-Error-Code`.
//!
//! It is a stand-in: the real hub cannot be reached by tests. What it does
//! wrong, it does on request.

use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// The only token that may read private and gated repositories.
pub const TOKEN: &str = "hf_CANARYCANARY";
/// One that the hub knows, and that may read neither.
pub const TOKEN_OF_STRANGER: &str = "hf_STRANGER";
/// Files from this length on lie at the other origin.
const LARGE_BYTES: usize = 1 << 10;

/// Who may read a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everybody.
    Public,
    /// Whoever has the token.
    Private,
    /// Everybody sees that it is there, whoever has the token reads it.
    Gated,
}

/// How the other origin sends large files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// As it should.
    Good,
    /// The connection ends after this many bytes of each answer.
    BreaksOff(usize),
    /// Nothing more comes after this many bytes of all.
    Stalls(usize),
    /// A byte after the other, a pause between them, until the client has gone.
    Drips,
    /// The same for listings.
    DripsListing,
    /// By turns ten bytes from the beginning and a long piece from where it was.
    Turns,
    /// Listings say another length than files have.
    Longer,
    /// Listings are of this commit, whatever was asked for.
    OtherCommit,
    /// Listings have other digests than before.
    OtherDigests,
    /// 403, as of a signature that is too old.
    Expired,
    /// 429.
    TooMany,
    /// From the first byte, whatever was asked for.
    WithoutRanges,
    /// Other bytes of the same length.
    OtherBytes,
    /// 503.
    Unavailable,
    /// The redirect names itself.
    Circle,
}

/// A repository at a commit.
#[derive(Debug, Clone)]
pub struct Repository {
    /// Who may read it.
    pub access: Access,
    /// 40 hexadecimal digits; what `main` is.
    pub commit: String,
    /// Names and contents.
    pub files: Vec<(String, Vec<u8>)>,
}

/// One request that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Whether it came to the other origin.
    pub elsewhere: bool,
    /// Path and query.
    pub path: String,
    /// The value of `authorization`.
    pub authorization: Option<String>,
    /// The value of `range`.
    pub range: Option<String>,
}

#[derive(Default)]
struct State {
    /// The newest commit of each, and the earlier ones.
    repositories: HashMap<String, Repository>,
    earlier: Vec<(String, Repository)>,
    turns: usize,
    manner: Option<Manner>,
    seen: Vec<Seen>,
    ends: bool,
}

/// Both origins; they end when it is dropped.
pub struct Hub {
    address: SocketAddr,
    elsewhere: SocketAddr,
    state: Arc<Mutex<State>>,
    threads: Vec<JoinHandle<()>>,
}

impl Hub {
    /// Without any repository.
    pub fn start() -> Self {
        let listen = || TcpListener::bind("127.0.0.1:0").unwrap();
        let (hub, files) = (listen(), listen());
        let (address, elsewhere) = (hub.local_addr().unwrap(), files.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State::default()));
        let serve = |listener: TcpListener, is_elsewhere: bool| {
            let state = state.clone();
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    if lock(&state).ends {
                        return;
                    }
                    // A client that has gone is its own affair.
                    let _ = answer(stream.unwrap(), &state, elsewhere, is_elsewhere);
                }
            })
        };
        let threads = vec![serve(hub, false), serve(files, true)];
        Self { address, elsewhere, state, threads }
    }

    /// For `HF_ENDPOINT`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Adds a repository, or a commit to it. The commit is made of the contents.
    pub fn add(&self, repo_id: &str, access: Access, files: &[(&str, &[u8])]) -> String {
        let mut hash = Sha1::new();
        for (name, bytes) in files {
            hash.update(name);
            hash.update(bytes);
        }
        let commit = hex(&hash.finalize());
        let files = files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec()));
        let repository = Repository { access, commit: commit.clone(), files: files.collect() };
        let mut state = lock(&self.state);
        if let Some(earlier) = state.repositories.insert(repo_id.to_owned(), repository) {
            state.earlier.push((repo_id.to_owned(), earlier));
        }
        commit
    }

    /// How large files are sent from now on.
    pub fn behave(&self, manner: Manner) {
        lock(&self.state).manner = Some(manner);
    }

    /// All requests since the last time.
    pub fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut lock(&self.state).seen)
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        lock(&self.state).ends = true;
        for address in [self.address, self.elsewhere] {
            // Each wakes the thread that waits for a client.
            let _ = TcpStream::connect(address);
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn git_blob(bytes: &[u8]) -> String {
    let mut hash = Sha1::new();
    hash.update(format!("blob {}\0", bytes.len()));
    hash.update(bytes);
    hex(&hash.finalize())
}

struct Reply {
    status: &'static str,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    /// How much of the body is sent, and whether the connection then stays.
    sent: usize,
    stalls: bool,
    drips: bool,
}

impl Reply {
    fn new(status: &'static str, body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        Self { status, headers: Vec::new(), sent: body.len(), body, stalls: false, drips: false }
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn refusal(status: &'static str, code: &str) -> Self {
        let body = format!("{{\"error\":\"{code}\"}}");
        Self::new(status, body).with("X-Error-Code", code)
    }
}

fn answer(
    mut stream: TcpStream,
    state: &Mutex<State>,
    elsewhere: SocketAddr,
    is_elsewhere: bool,
) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let (mut authorization, mut range) = (None, None);
    for line in lines.by_ref() {
        let line = line?;
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':') {
            match name.to_ascii_lowercase().as_str() {
                "authorization" => authorization = Some(value.trim().to_owned()),
                "range" => range = Some(value.trim().to_owned()),
                _ => {}
            }
        }
    }
    let seen = Seen { elsewhere: is_elsewhere, path, authorization, range };
    let reply = {
        let mut state = lock(state);
        state.seen.push(seen.clone());
        state.turns += usize::from(is_elsewhere);
        if is_elsewhere { of_file(&state, &seen) } else { of_hub(&state, &seen, elsewhere) }
    };
    let mut head = format!("HTTP/1.1 {}\r\nConnection: close\r\n", reply.status);
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("Content-Length: {}\r\n\r\n", reply.body.len()));
    stream.write_all(head.as_bytes())?;
    if reply.drips {
        for byte in &reply.body {
            stream.write_all(&[*byte])?;
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    stream.write_all(&reply.body[..reply.sent])?;
    if reply.stalls {
        // Until the client gives up, which it says by closing.
        for line in lines {
            line?;
        }
    }
    Ok(())
}

/// The hub's own origin.
fn of_hub(state: &State, seen: &Seen, elsewhere: SocketAddr) -> Reply {
    let token = seen.authorization.as_deref().and_then(|value| value.strip_prefix("Bearer "));
    if token.is_some_and(|token| token != TOKEN && token != TOKEN_OF_STRANGER) {
        return Reply::new("401 Unauthorized", "{\"error\":\"Invalid credentials\"}");
    }
    let (path, query) = seen.path.split_once('?').unwrap_or((&seen.path, ""));
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    let (repo_id, revision, name) = match parts.as_slice() {
        ["api", "models", owner, repo, "revision", revision] => {
            (format!("{owner}/{repo}"), *revision, None)
        }
        // Where small files are sent on to, on this origin.
        ["api", "resolve-cache", owner, repo, revision, name @ ..] => {
            (format!("{owner}/{repo}"), *revision, Some(name.join("/")))
        }
        [owner, repo, "resolve", revision, name @ ..] => {
            (format!("{owner}/{repo}"), *revision, Some(name.join("/")))
        }
        _ => return Reply::new("404 Not Found", ""),
    };
    let Some(repository) = state.repositories.get(&repo_id) else {
        // A name in other letters is sent to the right one, on this origin.
        let canonical =
            state.repositories.keys().find(|there| there.eq_ignore_ascii_case(&repo_id));
        return match (canonical, token) {
            (Some(there), _) => Reply::new("307 Temporary Redirect", "")
                .with("Location", seen.path.replacen(&repo_id, there, 1)),
            (None, None) => Reply::refusal("401 Unauthorized", "RepoNotFound"),
            (None, Some(_)) => Reply::refusal("404 Not Found", "RepoNotFound"),
        };
    };
    match (repository.access, token, &name) {
        (Access::Private, None, _) => return Reply::refusal("401 Unauthorized", "RepoNotFound"),
        (Access::Private, Some(TOKEN_OF_STRANGER), _) => {
            return Reply::refusal("404 Not Found", "RepoNotFound");
        }
        (Access::Gated, None, Some(_)) => return Reply::refusal("401 Unauthorized", "GatedRepo"),
        (Access::Gated, Some(TOKEN_OF_STRANGER), Some(_)) => {
            return Reply::refusal("403 Forbidden", "GatedRepo");
        }
        _ => {}
    }
    let earlier = || {
        let of_this = state.earlier.iter().filter(|(id, _)| *id == repo_id);
        of_this.map(|(_, repository)| repository).find(|there| there.commit == revision)
    };
    let repository = match revision == "main" || revision == repository.commit {
        true => repository,
        false => match earlier() {
            Some(repository) => repository,
            None => return Reply::refusal("404 Not Found", "RevisionNotFound"),
        },
    };
    let Some(name) = name else {
        let mut reply = Reply::new("200 OK", listing(state, repository, query == "blobs=true"))
            .with("Content-Type", "application/json");
        if state.manner == Some(Manner::DripsListing) {
            (reply.drips, reply.sent) = (true, 0);
        }
        return reply;
    };
    let Some((_, bytes)) = repository.files.iter().find(|(there, _)| *there == name) else {
        return Reply::refusal("404 Not Found", "EntryNotFound");
    };
    if bytes.len() < LARGE_BYTES {
        if !path.starts_with("/api/") {
            let location = format!("/api/resolve-cache/{repo_id}/{revision}/{name}");
            return Reply::new("307 Temporary Redirect", "").with("Location", location);
        }
        return ranged(bytes, seen.range.as_deref())
            .with("ETag", format!("\"{}\"", git_blob(bytes)))
            .with("X-Repo-Commit", &*repository.commit);
    }
    let digest = hex(&Sha256::digest(bytes));
    let location = match state.manner {
        Some(Manner::Circle) => seen.path.clone(),
        _ => format!("http://{elsewhere}/{digest}?signature=x"),
    };
    Reply::new("302 Found", "")
        .with("Location", location)
        .with("X-Linked-Etag", format!("\"{digest}\""))
        .with("X-Linked-Size", bytes.len().to_string())
        .with("X-Repo-Commit", &*repository.commit)
}

fn listing(state: &State, repository: &Repository, with_blobs: bool) -> String {
    let longer = if state.manner == Some(Manner::Longer) { 10 } else { 0 };
    let other = state.manner == Some(Manner::OtherDigests);
    let siblings = repository.files.iter().map(|(name, bytes)| {
        let mut file = serde_json::json!({ "rfilename": name });
        if with_blobs {
            file["size"] = (bytes.len() + longer).into();
            file["blobId"] = if other { "0".repeat(40) } else { git_blob(bytes) }.into();
            if bytes.len() >= LARGE_BYTES {
                let digest = hex(&Sha256::digest(bytes));
                let digest = if other { "0".repeat(64) } else { digest };
                let size = bytes.len() + longer;
                file["lfs"] =
                    serde_json::json!({"sha256": digest, "size": size, "pointerSize": 130});
            }
        }
        file
    });
    serde_json::json!({
        "id": "of/itself",
        "private": repository.access == Access::Private,
        "gated": match repository.access {
            Access::Gated => serde_json::json!("manual"),
            Access::Public | Access::Private => serde_json::json!(false),
        },
        "sha": match state.manner {
            Some(Manner::OtherCommit) => "b".repeat(40),
            _ => repository.commit.clone(),
        },
        "siblings": siblings.collect::<Vec<_>>(),
    })
    .to_string()
}

/// The other origin, which knows files by their digest.
fn of_file(state: &State, seen: &Seen) -> Reply {
    let digest = seen.path.trim_start_matches('/').split('?').next().unwrap_or_default();
    let all = state.repositories.values().chain(state.earlier.iter().map(|(_, there)| there));
    let files = all.flat_map(|repository| &repository.files);
    let found = files.map(|(_, bytes)| bytes).find(|bytes| hex(&Sha256::digest(bytes)) == digest);
    let Some(bytes) = found else { return Reply::new("404 Not Found", "") };
    match state.manner.unwrap_or(Manner::Good) {
        Manner::Good
        | Manner::Circle
        | Manner::DripsListing
        | Manner::Longer
        | Manner::OtherCommit
        | Manner::OtherDigests => ranged(bytes, seen.range.as_deref()),
        Manner::Drips => {
            let mut reply = ranged(bytes, seen.range.as_deref());
            (reply.drips, reply.sent) = (true, 0);
            reply
        }
        Manner::Turns => {
            let from_begin = state.turns % 2 == 1;
            let mut reply = match from_begin {
                true => Reply::new("200 OK", bytes.clone()),
                false => ranged(bytes, seen.range.as_deref()),
            };
            reply.sent = reply.sent.min(if from_begin { 10 } else { 70_000 });
            reply
        }
        Manner::Expired => Reply::new("403 Forbidden", ""),
        Manner::TooMany => Reply::new("429 Too Many Requests", ""),
        Manner::BreaksOff(count) => {
            let mut reply = ranged(bytes, seen.range.as_deref());
            reply.sent = reply.sent.min(count);
            reply
        }
        Manner::Stalls(count) => {
            let mut reply = ranged(bytes, seen.range.as_deref());
            let begins = bytes.len() - reply.body.len();
            reply.sent = reply.sent.min(count.saturating_sub(begins));
            reply.stalls = true;
            reply
        }
        Manner::WithoutRanges => Reply::new("200 OK", bytes.clone()),
        Manner::OtherBytes => {
            let other: Vec<u8> = bytes.iter().map(|byte| byte ^ 1).collect();
            ranged(&other, seen.range.as_deref())
        }
        Manner::Unavailable => Reply::new("503 Service Unavailable", ""),
    }
}

fn ranged(bytes: &[u8], range: Option<&str>) -> Reply {
    let from =
        range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    match from {
        None => Reply::new("200 OK", bytes),
        Some(from) if from < bytes.len() => {
            let value = format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
            Reply::new("206 Partial Content", &bytes[from..]).with("Content-Range", value)
        }
        Some(_) => Reply::new("416 Range Not Satisfiable", "")
            .with("Content-Range", format!("bytes */{}", bytes.len())),
    }
}
