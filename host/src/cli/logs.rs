//! `ringfence logs`: what a model's guests wrote, and how its calls were
//! stopped, as far as the caller may read it.

use super::client::{self, Client};
use super::{GlobalArgs, LogsArgs};
use crate::proto::clarifai::api::{ListLogEntriesRequest, LogEntry};
use crate::text::printable;
use std::collections::HashSet;
use std::io::{self, Write};
use std::time::Duration;

/// Entries that are asked for at once.
const PER_PAGE: u32 = 1000;

/// How often `--follow` asks.
const FOLLOW_INTERVAL: Duration = Duration::from_secs(1);

pub(super) fn run(args: &LogsArgs, global: &GlobalArgs) -> anyhow::Result<()> {
    client::block_on(async {
        let mut client = Client::connect(global).await?;
        let mut reading = Reading::default();
        loop {
            for entry in reading.unseen(&mut client, args).await? {
                print(&entry, args, global.json)?;
            }
            if !args.follow {
                return Ok(());
            }
            tokio::time::sleep(FOLLOW_INTERVAL).await;
        }
    })
}

/// How far a log has been read.
#[derive(Debug, Default)]
struct Reading {
    /// The last page, which was not full, and the entry that it began with.
    page: u32,
    begins: Option<String>,
    /// The entries that were there when it was last read from its beginning, and
    /// those that came since.
    seen: HashSet<String>,
}

impl Reading {
    /// What has been added since the last time.
    async fn unseen(
        &mut self,
        client: &mut Client,
        args: &LogsArgs,
    ) -> anyhow::Result<Vec<LogEntry>> {
        let mut page = self.page.max(1);
        let mut entries = fetch(client, args, page).await?;
        if self.begins.is_some() && begin_of(&entries) != self.begins {
            // The host has dropped the oldest, so that others stand here.
            page = 1;
            entries = fetch(client, args, page).await?;
        }
        let seen = if page == 1 { std::mem::take(&mut self.seen) } else { HashSet::new() };
        let mut unseen = Vec::new();
        loop {
            (self.page, self.begins) = (page, begin_of(&entries));
            let is_full = entries.len() >= PER_PAGE as usize;
            for entry in entries {
                if self.seen.insert(entry.url.clone()) && !seen.contains(&entry.url) {
                    unseen.push(entry);
                }
            }
            if !is_full {
                return Ok(unseen);
            }
            page += 1;
            entries = fetch(client, args, page).await?;
        }
    }
}

fn begin_of(entries: &[LogEntry]) -> Option<String> {
    entries.first().map(|entry| entry.url.clone())
}

async fn fetch(client: &mut Client, args: &LogsArgs, page: u32) -> anyhow::Result<Vec<LogEntry>> {
    let what = format!("logs {}", args.model.label());
    let request = client.request(ListLogEntriesRequest {
        page,
        per_page: PER_PAGE,
        log_type: "runner".to_owned(),
        user_app_id: Some(args.model.user_app_id()),
        model_id: args.model.name.id().to_owned(),
        model_version_id: args.model.version.clone(),
    });
    let answer = client.rpc.list_log_entries(request).await;
    let answer = answer.map_err(|status| client.failed(&what, &status))?.into_inner();
    client.check(&what, answer.status.as_ref())?;
    Ok(answer.log_entries)
}

fn print(entry: &LogEntry, args: &LogsArgs, json: bool) -> anyhow::Result<()> {
    let call = field(&entry.url, "call");
    if args.call.as_deref().is_some_and(|asked| Some(asked) != call) {
        return Ok(());
    }
    let mut out = io::stdout().lock();
    if json {
        let line = serde_json::json!({
            "call": call,
            "kind": field(&entry.url, "kind"),
            "level": field(&entry.url, "level"),
            "message": entry.message,
            "url": entry.url,
        });
        writeln!(out, "{line}")?;
    } else {
        writeln!(out, "{}", printable(&entry.message))?;
    }
    Ok(out.flush()?)
}

/// What an entry's URL says of it, if it does.
fn field<'a>(url: &'a str, name: &str) -> Option<&'a str> {
    let (_, query) = url.split_once('?')?;
    let mut fields = query.split('&').filter_map(|field| field.split_once('='));
    fields.find_map(|(key, value)| (key == name && !value.is_empty()).then_some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_says_by_its_url_which_call_it_is_of() {
        let url = "ringfence:u/a/m/logs/r-1?call=&kind=kill&level=error";
        assert_eq!((field(url, "kind"), field(url, "call")), (Some("kill"), None));
        assert_eq!(field("ringfence:u/a/m/logs/r-1?call=c", "call"), Some("c"));
        assert_eq!(field("https://elsewhere/x", "call"), None);
    }
}
