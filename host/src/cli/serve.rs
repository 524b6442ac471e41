//! `ringfence serve`: the host.

use super::{ServeArgs, usage};
use crate::auth::Auth;
use crate::deploy::Deployments;
use crate::fetch::Fetcher;
use crate::package::config::ModelName;
use crate::package::folder;
use crate::sandbox::{Diagnostics, Runtime};
use crate::server::{self, App, Options};
use anyhow::Context;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::future::Future;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// Time in which guests that nobody waits for any more have to end.
const SANDBOXES_DRAIN: Duration = Duration::from_secs(5);

/// Files of running versions, below the data directory. Emptied at every start.
const RUN_FOLDER: &str = "run";

pub(super) fn run(args: &ServeArgs) -> anyhow::Result<()> {
    check(args)?;
    let fetcher = fetcher(args)?;
    raise_file_limit();
    crate::telemetry::start(std::env::var("RINGFENCE_LOG").ok().as_deref())?;
    runtime()?.block_on(async {
        let listener = bind(args.listen).await?;
        let address = listener.local_addr()?;
        let (auth, first_token) = Auth::open(&args.data_dir)?;
        if let Some(first) = first_token {
            tracing::info!(path = %first.path.display(), "made the first token");
        }
        // The lock on the data directory is kept, whoever may call.
        let _locked;
        let auth = match args.no_auth {
            true => {
                _locked = auth;
                Auth::none()
            }
            false => auth,
        };
        let (app, sandboxes) = start(auth, &args.data_dir, &args.model, fetcher).await?;

        // Whoever is told that the host is ready may stop it at once.
        let stop = told_to_stop()?;
        greet(args, address, &app)?;
        let options = Options { reflection: args.reflection, ..Options::default() };
        server::run(listener, app, options, stop).await?;
        if tokio::time::timeout(SANDBOXES_DRAIN, sandboxes.drain()).await.is_err() {
            tracing::warn!("a guest still ran at the end of the drain");
        }
        Ok(())
    })
}

/// The runtime of sockets, health and timers. Guests have another one; here
/// both intervals are 1 so that neither I/O nor a timer waits for many tasks.
pub(super) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .event_interval(1)
        .global_queue_interval(1)
        .thread_name("server")
        .enable_all()
        .build()
        .context("cannot start the server's threads")
}

/// Loads the folders and makes them callable.
pub(super) async fn start(
    auth: Auth,
    data_dir: &Path,
    folders: &[PathBuf],
    fetcher: Fetcher,
) -> anyhow::Result<(Arc<App>, Arc<Runtime>)> {
    let scratch = data_dir.join(RUN_FOLDER);
    empty(&scratch)?;
    let sandboxes = Runtime::start(Diagnostics::Off)?;
    let deployments = Deployments::default();
    for path in folders {
        let package = folder::open(path, &scratch)
            .with_context(|| format!("cannot serve {}", path.display()))?;
        if let Some(note) = staleness(path) {
            tracing::warn!(folder = %path.display(), "{note}");
        }
        for note in &package.config.notes {
            tracing::info!(folder = %path.display(), "{note}");
        }
        for warning in &package.config.warnings {
            tracing::warn!(folder = %path.display(), "{warning}");
        }
        if package.config.name.user_id() != ModelName::USER_DEFAULT {
            tracing::warn!(
                model = %package.config.name,
                "only the user of `user_id` can call this model, and tokens of this host are of \
                 the user `local`"
            );
        }
        deployments.add(&sandboxes, package).await.map_err(usage)?;
    }
    let default_model = match (auth.is_none(), deployments.all().as_slice()) {
        (true, [only]) => Some(only.name.clone()),
        _ => None,
    };
    let app = App { auth, deployments, default_model, fetcher: Arc::new(fetcher) };
    Ok((Arc::new(app), sandboxes))
}

/// What to say where the source has changed since it was built. No answer is
/// no change.
pub(super) fn staleness(folder: &Path) -> Option<&'static str> {
    let changed_at = |file: &str| folder.join(file).metadata().ok()?.modified().ok();
    (changed_at("1/model.rs")? > changed_at("1/model.wasm")?)
        .then_some("1/model.rs is newer than 1/model.wasm; `ringfence build` brings it up to date")
}

/// Takes the address before anything that lasts is done.
pub(super) async fn bind(listen: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(listen)
        .await
        .with_context(|| format!("cannot listen on {listen}; choose another with --listen"))
        .map_err(usage)
}

/// Two ways of serving are only for loopback as long as a guest has one wall.
fn check(args: &ServeArgs) -> anyhow::Result<()> {
    let loopback = args.listen.ip().is_loopback();
    if !loopback && args.no_auth {
        let text = "--no-auth works on loopback only; listen on 127.0.0.1 or drop it";
        return Err(usage(anyhow::anyhow!(text)));
    }
    if !loopback && !args.unsafe_no_jail {
        let text = "guests run in this process, inside one wall; to listen beyond loopback \
                    all the same, add --unsafe-no-jail";
        return Err(usage(anyhow::anyhow!(text)));
    }
    Ok(())
}

/// What fetches the URLs of inputs: nothing, unless a host is opened for it.
fn fetcher(args: &ServeArgs) -> anyhow::Result<Fetcher> {
    if args.allow_url_host.is_empty() {
        return Ok(Fetcher::off());
    }
    let ca = args.url_ca.as_ref().map(|path| {
        let pem = std::fs::read(path);
        pem.with_context(|| format!("cannot read {}, given with --url-ca", path.display()))
    });
    let ca = ca.transpose().map_err(usage)?;
    Fetcher::new(args.allow_url_host.clone(), ca.as_deref())
        .context("cannot fetch with the certificates of --url-ca")
        .map_err(usage)
}

/// Guests open files of their package, and connections are files as well.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}

/// What the operator needs next, on standard output. The `export` lines work in
/// any folder.
fn greet(args: &ServeArgs, address: SocketAddr, app: &App) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "ringfence listens on http://{address}")?;
    writeln!(out, "note: guests run inside the wasm sandbox only; there is no jail yet")?;
    writeln!(out, "export CLARIFAI_API_BASE={}", base_of(address))?;
    if args.no_auth {
        writeln!(out, "note: every caller is the user `local`, whatever the token")?;
        writeln!(out, "export CLARIFAI_PAT=none")?;
    } else {
        let token = std::path::absolute(args.data_dir.join("admin.pat"))?;
        let quoted = token.display().to_string().replace('\'', r"'\''");
        writeln!(out, "export CLARIFAI_PAT=\"$(cat '{quoted}')\"")?;
    }
    for host in &args.allow_url_host {
        writeln!(out, "note: URLs of inputs are fetched from {host}")?;
    }
    if app.deployments.all().is_empty() {
        writeln!(out, "note: there is no model; `--model DIR` serves one")?;
    }
    for deployment in app.deployments.all() {
        writeln!(out, "model {} version {}", deployment.name, deployment.version)?;
    }
    writeln!(out, "ready")?;
    Ok(out.flush()?)
}

/// Where a client on this machine finds the host. The Python SDK takes no
/// addresses of IPv6, and nobody can connect to "any address".
fn base_of(address: SocketAddr) -> String {
    let port = address.port();
    match address.ip() {
        ip if ip.is_unspecified() => format!("http://127.0.0.1:{port}"),
        IpAddr::V4(ip) => format!("http://{ip}:{port}"),
        IpAddr::V6(ip) if ip.is_loopback() => format!("http://localhost:{port}"),
        IpAddr::V6(ip) => format!("http://[{ip}]:{port}"),
    }
}

/// Resolves at the first SIGTERM or SIGINT; the second ends the process.
fn told_to_stop() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            std::process::exit(1);
        });
    })
}

fn empty(folder: &Path) -> anyhow::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => {
            return Err(error).with_context(|| format!("cannot empty {}", folder.display()));
        }
    }
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_is_one_that_clients_can_reach() {
        for (address, base) in [
            ("127.0.0.1:1", "http://127.0.0.1:1"),
            ("0.0.0.0:2", "http://127.0.0.1:2"),
            ("[::]:3", "http://127.0.0.1:3"),
            ("[::1]:4", "http://localhost:4"),
            ("192.0.2.1:5", "http://192.0.2.1:5"),
        ] {
            assert_eq!(base_of(address.parse().unwrap()), base);
        }
    }
}
