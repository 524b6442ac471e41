//! The log of a version, for those who may read it.
//!
//! Owns who that is: the model's owner and the operator. A guest's output may
//! repeat what its caller sent, so an owner sees only that of the owner's own
//! calls.

use super::App;
use super::catalog::page;
use super::names::model_name;
use super::status::Outcome;
use crate::auth::{Caller, Scope};
use crate::deploy::LeaseError;
use crate::limits::limit;
use crate::package::config::ModelName;
use crate::proto::clarifai::api;
use crate::telemetry::{Entry, Kind, ReadError, VersionLog};
use crate::upload::Line;

/// Entries of a page if the client does not say, as clients expect it.
const PER_PAGE_DEFAULT: u32 = 50;

/// Entries of a page at most.
const PER_PAGE_MAX: u32 = 1000;

/// What guests wrote and how calls ended.
const RUNNER: &str = "runner";

/// What became of an upload.
const BUILDER: &str = "builder";

/// Digits of a version's id.
const VERSION_DIGITS: usize = 32;

/// Whether a caller runs this host.
fn is_operator(caller: &Caller) -> bool {
    caller.may(Scope::Admin)
}

/// Whether a caller may read an entry of a model of `owner`.
fn may_read(caller: &Caller, owner: &str, entry: &Entry) -> bool {
    if is_operator(caller) {
        return true;
    }
    let is_owner = caller.user_id() == owner;
    match entry.kind {
        Kind::Kill => is_owner,
        // What a model says while it loads repeats nobody's input.
        Kind::Output => is_owner && (entry.call.is_empty() || entry.user == caller.user_id()),
    }
}

/// A page of the log that is asked for, the oldest entries first.
pub(crate) async fn entries(
    app: &App,
    caller: &Caller,
    request: &api::ListLogEntriesRequest,
) -> Result<api::MultiLogEntryResponse, Outcome> {
    let name = model_name(&request.user_app_id, &request.model_id, caller.user_id())?;
    // Not allowed to know reads as not found.
    if name.user_id() != caller.user_id() && !is_operator(caller) {
        return Err(LeaseError::NoSuchModel.into());
    }
    let version = request.model_version_id.as_str();
    let number = request.page.max(1);
    let per_page = match request.per_page {
        0 => PER_PAGE_DEFAULT,
        asked => asked.min(limit("log_page", PER_PAGE_MAX)),
    };
    let log_entries = match request.log_type.as_str() {
        RUNNER => {
            let kept = kept(app, &name, caller, version).await?;
            page(kept.iter(), number, per_page).map(|entry| message_of(&name, entry)).collect()
        }
        BUILDER => {
            let told = app.uploads.lines(&name, version).into_iter();
            page(told, number, per_page).map(|line| build_line(&name, version, line)).collect()
        }
        _ => return Err(Outcome::bad_request("log_type is `runner` or `builder`")),
    };
    Ok(api::MultiLogEntryResponse { status: None, log_entries, page: number, per_page })
}

/// What is kept of a version and the caller may read, whether or not the model
/// can be called. A version of a folder that is not served any more may still
/// have a log.
async fn kept(
    app: &App,
    name: &ModelName,
    caller: &Caller,
    version: &str,
) -> Result<Vec<Entry>, Outcome> {
    let seen = app.deployments.find(name).ok_or(LeaseError::NoSuchModel)?;
    let known = match version {
        "" => match seen.current() {
            Some(current) => Some(current),
            // Nothing has run.
            None => return Ok(Vec::new()),
        },
        version => seen.version(version),
    };
    let log = match known {
        Some(version) => version.log().cloned(),
        None => earlier(app, name, version),
    };
    let Some(log) = log else { return Ok(Vec::new()) };
    match log.entries().await {
        Ok(mut entries) => {
            entries.retain(|entry| may_read(caller, name.user_id(), entry));
            Ok(entries)
        }
        Err(ReadError::Missing) if known.is_some() => Ok(Vec::new()),
        Err(ReadError::Missing) => Err(LeaseError::NoSuchVersion.into()),
        Err(ReadError::Disk(error)) => {
            tracing::error!(%error, model = %name, "cannot read the log of a version");
            Err(Outcome::host_bug())
        }
    }
}

fn earlier(app: &App, name: &ModelName, version: &str) -> Option<VersionLog> {
    let is_id = version.len() == VERSION_DIGITS
        && version.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    // No other text can be the name of a file.
    let version = if is_id { version } else { "" };
    app.telemetry.logs.as_ref().map(|logs| logs.of(name, version))
}

fn build_line(name: &ModelName, version: &str, line: Line) -> api::LogEntry {
    let url = format!("{BUILDER}/{name}/{version}/{}", line.number);
    api::LogEntry { message: line.text, log_type: BUILDER.to_owned(), url }
}

fn message_of(name: &ModelName, entry: &Entry) -> api::LogEntry {
    let Entry { id, at_ms, kind, level, call, user: _, text } = entry;
    let (kind, level) = (kind.as_str(), level.as_str());
    let seconds = i64::try_from(at_ms / 1000).unwrap_or(i64::MAX);
    let nanos = i32::try_from(at_ms % 1000 * 1_000_000).unwrap_or(0);
    let at = prost_types::Timestamp { seconds, nanos };
    let of_call = if call.is_empty() { String::new() } else { format!("[{call}] ") };
    api::LogEntry {
        message: format!("{at} {level} {of_call}{text}"),
        log_type: RUNNER.to_owned(),
        url: format!("ringfence:{name}/logs/{id}?call={call}&kind={kind}&level={level}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Level;

    fn entry(kind: Kind, call: &str, user: &str) -> Entry {
        Entry {
            id: "r-1".into(),
            at_ms: 1_700_000_000_123,
            kind,
            level: Level::Info,
            call: call.into(),
            user: user.into(),
            text: "hello".into(),
        }
    }

    /// Who reads which entries of a model of alice.
    #[test]
    fn an_owner_never_reads_what_a_guest_said_in_anothers_call() {
        let of_bob = entry(Kind::Output, "c", "bob");
        let of_alice = entry(Kind::Output, "c", "alice");
        let of_nobody = entry(Kind::Output, "c", "");
        let in_load = entry(Kind::Output, "", "");
        let kill = entry(Kind::Kill, "c", "bob");
        let entries = [of_bob, of_alice, of_nobody, in_load, kill];
        for (user, may) in [
            ("alice", [false, true, false, true, true]),
            ("bob", [false; 5]),
            ("carol", [false; 5]),
        ] {
            let caller = Caller::of_user(user);
            for (entry, may) in entries.iter().zip(may) {
                assert_eq!(may_read(&caller, "alice", entry), may, "{user} {entry:?}");
            }
        }
        let operator = Caller::operator();
        assert!(entries.iter().all(|entry| may_read(&operator, "alice", entry)));
    }

    /// A client that has got a full page asks for the next one.
    #[tokio::test]
    async fn a_client_is_told_how_many_entries_its_page_may_have() {
        let folder = tempfile::TempDir::new().unwrap();
        let app = App::of_nothing(folder.path());
        for (asked, told) in [(0, 50), (1000, 1000), (1001, 1000)] {
            let request = api::ListLogEntriesRequest {
                per_page: asked,
                log_type: BUILDER.into(),
                model_id: "m".into(),
                ..Default::default()
            };
            let page = entries(&app, &Caller::of_user("alice"), &request).await.unwrap();
            assert_eq!(page.per_page, told);
        }
    }

    #[test]
    fn an_entry_is_one_line_and_says_which_call_it_is_of() {
        let name = ModelName::new("u", "a", "m").unwrap();
        let message = message_of(&name, &entry(Kind::Output, "c", "u"));
        assert_eq!(message.message, "2023-11-14T22:13:20.123Z info [c] hello");
        assert_eq!(message.url, "ringfence:u/a/m/logs/r-1?call=c&kind=output&level=info");
    }
}
