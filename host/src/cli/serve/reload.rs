//! What SIGHUP does: everything is read again, and what is good takes effect.

use super::super::ServeArgs;
use super::resolve;
use super::supervisor::Supervisor;
use crate::server::App;
use crate::settings::{Change, Current};
use crate::telemetry::Logging;
use crate::text::with_causes;
use std::convert::Infallible;
use std::sync::Arc;
use tokio::signal::unix::Signal;

/// Reads again at each SIGHUP. Signals that come meanwhile are one.
pub(super) async fn at_each(
    mut hangups: Signal,
    args: &ServeArgs,
    current: &Arc<Current>,
    logging: &Logging,
    supervisor: &Supervisor,
    app: &App,
) -> Infallible {
    loop {
        if hangups.recv().await.is_none() {
            // There are no more signals, which is no reason to end.
            return std::future::pending().await;
        }
        supervisor.reloading();
        let (arguments, reloading) = (args.clone(), current.clone());
        let settings = current.settings();
        // The disk may be slow.
        let reading =
            tokio::task::spawn_blocking(move || reloading.reload(|| resolve::settings(&arguments)));
        let read = reading.await;
        app.telemetry.metrics.config_reloads(current.reloads(), current.reloads_failed());
        match read {
            Ok(Ok(change)) => {
                let filter = settings.borrow().log_filter.clone();
                if let Err(error) = logging.set_filter(filter.as_deref()) {
                    tracing::error!(%error, "the filter of the log stays as it was");
                }
                let fetcher = super::fetcher(args, &settings.borrow());
                match fetcher {
                    Ok(fetcher) => app.set_fetcher(fetcher),
                    Err(error) => {
                        tracing::error!(error = format!("{error:#}"), "URLs are fetched as before");
                    }
                }
                tell(&change);
            }
            Ok(Err(error)) => tracing::error!(
                error = one_line(&with_causes(&error)),
                "the configuration is wrong; the old one stays"
            ),
            Err(error) => tracing::error!(%error, "reading the configuration failed"),
        }
        supervisor.ready();
    }
}

fn tell(change: &Change) {
    let Change { took_effect, needs_restart } = change;
    tracing::info!(changed = took_effect.join(", "), "read the configuration again");
    if !needs_restart.is_empty() {
        let settings = needs_restart.join(", ");
        tracing::warn!(settings, "these have changed and wait for the next start");
    }
}

/// Diagnostics without the lines of the file that they show.
fn one_line(text: &str) -> String {
    let told = text.lines().filter(|line| !line.starts_with(' '));
    told.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_line_is_one_line() {
        let shown = "host.yaml has 2 problems\nhost.yaml:1:1: a\n     1 | x\n       | ^\nb";
        assert_eq!(one_line(shown), "host.yaml has 2 problems; host.yaml:1:1: a; b");
    }
}
