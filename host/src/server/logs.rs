//! The log of a version, for those who may read it.
//!
//! Owns who that is. A guest's output may repeat what its caller sent, so a
//! model's owner sees only that of the owner's own calls.

use super::App;
use super::names::model_name;
use super::status::Outcome;
use crate::auth::Caller;
use crate::deploy::{Deployment, LeaseError};
use crate::package::config::ModelName;
use crate::proto::clarifai::api;
use crate::telemetry::{Entry, Kind, ReadError, VersionLog};
use std::sync::Arc;

/// Entries of a page if the client does not say, as clients expect it.
const PER_PAGE_DEFAULT: u32 = 50;

/// Entries of a page at most.
const PER_PAGE_MAX: u32 = 1000;

/// What guests wrote and how calls ended.
const RUNNER: &str = "runner";

/// What making a version callable said.
const BUILDER: &str = "builder";

/// The user who runs the host.
const OPERATOR: &str = "local";

/// Digits of a version's id.
const VERSION_DIGITS: usize = 32;

/// Whether a caller runs this host.
fn is_operator(caller: &Caller) -> bool {
    caller.user_id() == OPERATOR
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
    let deployment = find(app, caller, &name).ok_or(LeaseError::NoSuchModel)?;
    let log_type = request.log_type.as_str();
    let kept = match log_type {
        RUNNER => kept(app, &deployment, caller, &request.model_version_id).await?,
        // Nothing is made callable that says anything on the way yet.
        BUILDER => Vec::new(),
        _ => return Err(Outcome::bad_request("log_type is `runner` or `builder`")),
    };
    let page = request.page.max(1);
    let per_page = match request.per_page {
        0 => PER_PAGE_DEFAULT,
        asked => asked.min(PER_PAGE_MAX),
    };
    let skipped = (page as usize - 1).saturating_mul(per_page as usize);
    let log_entries = kept.iter().skip(skipped).take(per_page as usize);
    let log_entries = log_entries.map(|entry| message_of(&name, log_type, entry)).collect();
    Ok(api::MultiLogEntryResponse { status: None, log_entries, page, per_page })
}

/// What is kept of a version and the caller may read. A version that is not
/// called any more may still have a log.
async fn kept(
    app: &App,
    deployment: &Arc<Deployment>,
    caller: &Caller,
    version: &str,
) -> Result<Vec<Entry>, Outcome> {
    let is_current = version.is_empty() || version == deployment.version;
    let log = match is_current {
        true => deployment.log().cloned(),
        false => earlier(app, deployment, version),
    };
    let Some(log) = log else { return Ok(Vec::new()) };
    match log.entries().await {
        Ok(mut entries) => {
            entries.retain(|entry| may_read(caller, deployment.name.user_id(), entry));
            Ok(entries)
        }
        Err(ReadError::Missing) if is_current => Ok(Vec::new()),
        Err(ReadError::Missing) => Err(LeaseError::NoSuchVersion.into()),
        Err(ReadError::Disk(error)) => {
            tracing::error!(%error, model = %deployment.name, "cannot read the log of a version");
            Err(Outcome::host_bug())
        }
    }
}

fn earlier(app: &App, deployment: &Deployment, version: &str) -> Option<VersionLog> {
    let is_id = version.len() == VERSION_DIGITS
        && version.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    // No other text can be the name of a file.
    let version = if is_id { version } else { "" };
    app.telemetry.logs.as_ref().map(|logs| logs.of(&deployment.name, version))
}

/// The model, if the caller may see it or runs the host.
fn find(app: &App, caller: &Caller, name: &ModelName) -> Option<Arc<Deployment>> {
    match is_operator(caller) {
        true => app.deployments.all().into_iter().find(|deployment| deployment.name == *name),
        false => app.deployments.find(caller, name),
    }
}

fn message_of(name: &ModelName, log_type: &str, entry: &Entry) -> api::LogEntry {
    let Entry { id, at_ms, kind, level, call, user: _, text } = entry;
    let (kind, level) = (kind.as_str(), level.as_str());
    let seconds = i64::try_from(at_ms / 1000).unwrap_or(i64::MAX);
    let nanos = i32::try_from(at_ms % 1000 * 1_000_000).unwrap_or(0);
    let at = prost_types::Timestamp { seconds, nanos };
    let of_call = if call.is_empty() { String::new() } else { format!("[{call}] ") };
    api::LogEntry {
        message: format!("{at} {level} {of_call}{text}"),
        log_type: log_type.to_owned(),
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
            (OPERATOR, [true; 5]),
        ] {
            let caller = Caller::of_user(user);
            for (entry, may) in entries.iter().zip(may) {
                assert_eq!(may_read(&caller, "alice", entry), may, "{user} {entry:?}");
            }
        }
    }

    #[test]
    fn an_entry_is_one_line_and_says_which_call_it_is_of() {
        let name = ModelName::new("u", "a", "m").unwrap();
        let message = message_of(&name, RUNNER, &entry(Kind::Output, "c", "u"));
        assert_eq!(message.message, "2023-11-14T22:13:20.123Z info [c] hello");
        assert_eq!(message.url, "ringfence:u/a/m/logs/r-1?call=c&kind=output&level=info");
    }
}
