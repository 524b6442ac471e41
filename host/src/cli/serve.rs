//! `ringfence serve`: the host.

mod check;
mod reload;
mod resolve;
mod supervisor;
mod upkeep;

use super::{ServeArgs, usage};
use crate::auth::{Auth, FIRST_TOKEN_FILE};
use crate::deploy::{Amount, Deployments, Loader};
use crate::devices::{Cuda, Devices};
use crate::fetch::Fetcher;
use crate::limits::lifted;
use crate::package::config::ModelName;
use crate::package::folder::{self, Taking};
use crate::sandbox::{Diagnostics, FUEL_VERSION, Runtime, calibrate, calibration_id, compiler_id};
use crate::sched::{be_prompt, cpus};
use crate::server::{self, App};
use crate::settings::{Current, Settings};
use crate::store::{Store, StoreError};
use crate::telemetry::{self, Dropped, Telemetry, VersionLogs};
use crate::text::with_causes;
use crate::upload::Uploads;
use crate::worker::{
    JailMode, Launcher, OneShot, Processes, Proven, Starter, Workers, control_groups, prove,
    prove_for,
};
use anyhow::Context;
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, geteuid, getrlimit, setrlimit};
use std::future::Future;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::time::Duration;
use supervisor::Supervisor;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

/// Time in which guests that nobody waits for any more have to end.
const SANDBOXES_DRAIN: Duration = Duration::from_secs(5);

/// Time in which builds have to end that have begun.
const BUILDS_DRAIN: Duration = Duration::from_secs(10);

/// Where processes begin, below the folder of running versions.
const EMPTY_FOLDER: &str = "empty";

/// Versions that are listed at the start.
const MODELS_SHOWN: usize = 20;

/// Files of running versions, below the data directory. Emptied at every start.
const RUN_FOLDER: &str = "run";

/// What guests wrote, below the data directory.
const LOGS_FOLDER: &str = "logs";

pub(super) fn run(args: &ServeArgs) -> anyhow::Result<()> {
    if args.check {
        return check::run(args);
    }
    let settings = resolve::settings(args).map_err(usage)?;
    leave_no_core().context("cannot switch core dumps off")?;
    let logging =
        telemetry::start(settings.log_filter.as_deref(), settings.log_format).map_err(usage)?;
    let fetcher = fetcher(args, &settings)?;
    raise_file_limit();
    let current = Arc::new(Current::new(settings).map_err(usage)?);
    let settings = current.settings().borrow().clone();
    // What cannot be served is told before anything is made that stays.
    for path in &settings.models {
        folder::look(path).with_context(|| format!("cannot serve {}", path.display()))?;
    }
    crate::heap::keep_freed();
    // This thread accepts connections.
    be_prompt();
    runtime()?.block_on(async {
        let hangups = signal(SignalKind::hangup())?;
        let listener = bind_to(settings.listen, &listen_setter(args)).await?;
        let address = listener.local_addr()?;
        let monitoring = match settings.metrics_listen {
            Some(listen) => Some(bind_to(listen, &metrics_setter(args)).await?),
            None => None,
        };
        let store = Arc::new(Store::open(&settings.data_dir).map_err(refused_data_dir)?);
        let (auth, first_token) = Auth::open(store.clone())?;
        // A start that is refused says that alone.
        warn_of(&settings);
        if let Some(first) = first_token {
            tracing::info!(path = %first.path.display(), "made the first token");
        }
        let auth = if args.no_auth { Auth::none() } else { auth };
        let socket = super::socket::listen(store.data_dir());
        let dropped = logging.dropped();
        let mode = settings.jail();
        let (app, workers) = start(auth, store, &settings, fetcher, dropped, Some(mode)).await?;

        // Whoever is told that the host is ready may stop it at once.
        let stop = told_to_stop()?;
        let supervisor = Supervisor::of_environment();
        let metrics_at = monitoring.as_ref().map(TcpListener::local_addr).transpose()?;
        if let Err(error) = greet(args, &settings, address, metrics_at, &app) {
            tracing::warn!(%error, "cannot print the greeting; the host goes on without");
        }
        // It ends with this function, after the drain.
        let mut watched = JoinSet::new();
        if let Some(monitoring) = monitoring {
            watched.spawn(server::serve_monitoring(monitoring, app.clone()));
        }
        supervisor.ready();
        let stop = async {
            stop.await;
            supervisor.stopping();
        };
        let reloading = reload::at_each(hangups, args, &current, &logging, &supervisor, &app);
        tokio::select! {
            served = server::run(listener, socket, app.clone(), current.options(), stop) => served?,
            never = reloading => match never {},
            never = supervisor.reassure() => match never {},
            never = upkeep::run(&app) => match never {},
        }
        if tokio::time::timeout(BUILDS_DRAIN, app.uploads.drain()).await.is_err() {
            tracing::warn!("a build was cut off at the end of the drain; nothing of it is kept");
        }
        upkeep::note_calls(&app).await;
        app.deployments.let_go();
        if tokio::time::timeout(SANDBOXES_DRAIN, workers.drain()).await.is_err() {
            tracing::warn!("a guest still ran at the end of the drain");
        }
        if let Some(logs) = &app.telemetry.logs {
            logs.flush();
        }
        Ok(())
    })
}

/// The runtime of sockets, health and timers. Guests have another one, which must not
/// keep this one from the CPUs. Replicas run beside it, and have more to do: with a thread
/// for each CPU these would wake one another more often than they work.
pub(super) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads((cpus() / 2).max(1))
        .thread_name("server")
        .on_thread_start(be_prompt)
        .enable_all()
        .build()
        .context("cannot start the server's threads")
}

/// Loads the folders and makes them and what is stored callable. Without a mode, nobody
/// calls anything, and how the jail holds is not looked at.
pub(super) async fn start(
    auth: Auth,
    store: Arc<Store>,
    settings: &Settings,
    fetcher: Fetcher,
    log_lines_dropped: Dropped,
    mode: Option<JailMode>,
) -> anyhow::Result<(Arc<App>, Workers)> {
    let scratch = store.emptied_folder(RUN_FOLDER)?;
    let logs = VersionLogs::open(&store.data_dir().join(LOGS_FOLDER))
        .with_context(|| format!("cannot keep logs in {}", store.data_dir().display()))?;
    let telemetry =
        Telemetry { logs: Some(logs.clone()), log_lines_dropped, ..Telemetry::default() };
    let fuel_per_cpu_second = fuel_per_cpu_second(&store)?;
    let empty = scratch.join(EMPTY_FOLDER);
    std::fs::create_dir(&empty).with_context(|| format!("cannot make {}", empty.display()))?;
    // Replicas begin in other folders.
    let onnxruntime = settings.onnxruntime.as_deref().map(std::path::absolute).transpose()?;
    let starter = Starter::start().context("cannot start a thread")?;
    let launching = mode.unwrap_or(JailMode::BestEffort);
    let launcher = Launcher::of_this_program(starter, &empty, launching)
        .context("cannot find the file of this program")?
        .with_onnxruntime(onnxruntime.as_deref())
        .with_cuda(Cuda::of(&settings.cuda));
    let devices = Devices::of_this_machine();
    let cgroups = match mode {
        Some(mode) => look_at_the_jail(&launcher, mode).await?,
        None => None,
    };
    let devices = match mode {
        Some(mode) => devices_in_a_jail(&launcher, devices, mode).await,
        None => devices,
    };
    if mode.is_some() && cgroups.is_none() && !devices.all().is_empty() {
        tracing::warn!(
            "the memory of a replica with an accelerator is limited by nothing but its own \
             account: there is no control group"
        );
    }
    let processes = Processes::new(launcher.clone(), fuel_per_cpu_second, cgroups);
    // What a process costs is measured against none.
    let workers = if lifted() == "processes" {
        Workers::Here(Runtime::start_with(Diagnostics::Off, fuel_per_cpu_second)?)
    } else {
        Workers::Processes(Arc::new(processes))
    };
    let compiler = compiler_id().map_err(|error| anyhow::anyhow!("{error}"))?;
    let one_shot = OneShot::of(launcher);
    let loader = Loader::new(
        workers.clone(),
        one_shot.clone(),
        compiler,
        store.clone(),
        scratch.clone(),
        Some(logs),
    );
    let machine = Amount { accelerators: devices.count(), ..crate::doctor::machine() };
    let deployments = Arc::new(Deployments::open(loader.with_devices(devices, one_shot), machine)?);
    for path in &settings.models {
        let package = folder::open(path, &scratch, Taking::Copy)
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
        deployments.add_folder(package).await.map_err(usage)?;
    }
    let uploads = Uploads::open(deployments.clone(), super::test::example)?;
    let default_model = match (auth.is_none(), deployments.all().as_slice()) {
        (true, [only]) => Some(only.name.clone()),
        _ => None,
    };
    let running = Arc::default();
    let fetcher = RwLock::new(Arc::new(fetcher));
    let app = App { store, auth, deployments, uploads, running, default_model, fetcher, telemetry };
    Ok((Arc::new(app), workers))
}

/// Tells how the jail holds. One that has to hold and does not is no start. Gives the
/// directory of control groups, if there is one.
async fn look_at_the_jail(launcher: &Launcher, mode: JailMode) -> anyhow::Result<Option<PathBuf>> {
    let Proven { layers, failures, .. } = prove(launcher).await;
    for layer in &layers {
        tracing::info!("jail: {layer}");
    }
    for failure in &failures {
        match mode {
            JailMode::Required => {
                return Err(usage(anyhow::anyhow!("{failure}; see `ringfence doctor`")));
            }
            JailMode::BestEffort => tracing::warn!("the jail does not hold: {failure}"),
        }
    }
    let cgroups = control_groups();
    match &cgroups {
        Ok(_) => tracing::info!("jail: control group: held"),
        Err(error) => tracing::info!("jail: control group: missing: {error}"),
    }
    Ok(cgroups.ok())
}

/// Tells how the jail of processes with these devices holds. Where it has to and does not, or
/// has no room for their driver, nobody is given one: models that ask for none are served.
async fn devices_in_a_jail(launcher: &Launcher, devices: Devices, mode: JailMode) -> Devices {
    for problem in devices.unreached() {
        tracing::warn!("an accelerator is left out: {problem}");
    }
    if devices.all().is_empty() {
        return devices;
    }
    tracing::info!("accelerators: {devices}");
    let Proven { layers, failures, unmet } = prove_for(launcher, &devices).await;
    for layer in &layers {
        tracing::info!("jail with accelerators: {layer}");
    }
    for failure in &failures {
        tracing::warn!("the jail with accelerators does not hold: {failure}");
    }
    let of_jail = failures.into_iter().filter(|_| mode == JailMode::Required);
    match unmet.into_iter().chain(of_jail).next() {
        None => devices,
        Some(why) => {
            tracing::warn!("no accelerator is used: {why}");
            Devices::withheld(format!("{why}; see `ringfence doctor`"))
        }
    }
}

/// What this machine was measured to burn, or is now, where it was not yet.
fn fuel_per_cpu_second(store: &Store) -> anyhow::Result<u64> {
    let failed = |error: String| anyhow::anyhow!("cannot measure this machine: {error}");
    let id = calibration_id().map_err(failed)?;
    if let Some(measured) = store.calibration(&id) {
        return Ok(measured);
    }
    let measured = calibrate().map_err(failed)?;
    tracing::info!(fuel_per_cpu_second = measured, fuel_version = FUEL_VERSION, "measured the CPU");
    if let Err(error) = store.keep_calibration(&id, measured) {
        tracing::warn!(%error, "the next start measures the CPU again");
    }
    Ok(measured)
}

/// What to say where the source has changed since it was built. No answer is
/// no change.
pub(super) fn staleness(folder: &Path) -> Option<&'static str> {
    let changed_at = |file: &str| folder.join(file).metadata().ok()?.modified().ok();
    (changed_at("1/model.rs")? > changed_at("1/model.wasm")?)
        .then_some("1/model.rs is newer than 1/model.wasm; `ringfence build` brings it up to date")
}

/// What sets the address of callers.
fn listen_setter(args: &ServeArgs) -> String {
    resolve::setter(args, args.listen.as_deref(), "listen", "--listen")
}

/// What sets that of metrics.
fn metrics_setter(args: &ServeArgs) -> String {
    resolve::setter(args, args.metrics_listen.as_deref(), "metrics.listen", "--metrics-listen")
}

/// Takes the address before anything that lasts is done.
pub(super) async fn bind(listen: SocketAddr) -> anyhow::Result<TcpListener> {
    bind_to(listen, "--listen").await
}

async fn bind_to(listen: SocketAddr, argument: &str) -> anyhow::Result<TcpListener> {
    let bound = TcpListener::bind(listen).await;
    bound.map_err(|error| usage(anyhow::anyhow!(refused_address(listen, argument, &error))))
}

/// Why an address cannot be listened on, and which argument sets another.
fn refused_address(listen: SocketAddr, argument: &str, error: &io::Error) -> String {
    let why = match Errno::from_io_error(error) {
        Some(Errno::ADDRINUSE) => "another program listens there".to_owned(),
        Some(Errno::ACCESS) => {
            format!("port {} needs privileges that this user lacks", listen.port())
        }
        Some(Errno::ADDRNOTAVAIL) => "this machine has no such address".to_owned(),
        _ => error.to_string(),
    };
    format!("cannot listen on {listen}: {why}; choose another with {argument}")
}

/// What an operator can put right is wrong configuration, and one line.
fn refused_data_dir(error: StoreError) -> anyhow::Error {
    match error {
        StoreError::Directory { .. }
        | StoreError::InUse { .. }
        | StoreError::Permissions { .. } => usage(anyhow::anyhow!(with_causes(&error))),
        error if error.is_of_disk() => usage(anyhow::anyhow!(with_causes(&error))),
        error => error.into(),
    }
}

/// A core dump would have tokens and what callers sent. LEAK-10.
fn leave_no_core() -> rustix::io::Result<()> {
    // A process that uses a driver is left with this one byte, which is none, too.
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(1) })?;
    not_dumpable()
}

/// A handler of dumps that is a program is called whatever the limit, but not for a process
/// of this kind; and nobody of the same user can attach to it.
#[cfg(target_os = "linux")]
fn not_dumpable() -> rustix::io::Result<()> {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
}

/// Elsewhere the limit is all.
#[cfg(not(target_os = "linux"))]
fn not_dumpable() -> rustix::io::Result<()> {
    Ok(())
}

/// What is allowed, and better otherwise.
fn warn_of(settings: &Settings) {
    if geteuid().is_root() {
        tracing::warn!("the host runs as root; give it a user of its own");
    }
    if settings.tls.is_none() && !settings.listen.ip().is_loopback() {
        tracing::warn!(
            "there is no TLS: tokens and inputs can be read on their way; see `tls` of host.yaml"
        );
    }
    if let Some(listen) = settings.metrics_listen
        && !listen.ip().is_loopback()
    {
        tracing::warn!(%listen, "whoever reaches the address of the metrics reads those of all models");
    }
}

/// What fetches the URLs of inputs: nothing, unless a host is opened for it.
fn fetcher(args: &ServeArgs, settings: &Settings) -> anyhow::Result<Fetcher> {
    if settings.allow_url_hosts.is_empty() {
        return match &args.url_ca {
            None => Ok(Fetcher::off()),
            Some(_) => Err(usage(anyhow::anyhow!(
                "--url-ca is of no use where no host is opened; add --allow-url-host"
            ))),
        };
    }
    let ca = args.url_ca.as_ref().map(|path| {
        let pem = std::fs::read(path);
        pem.with_context(|| format!("cannot read {}, given with --url-ca", path.display()))
    });
    let ca = ca.transpose().map_err(usage)?;
    Fetcher::new(settings.allow_url_hosts.clone(), ca.as_deref())
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
fn greet(
    args: &ServeArgs,
    settings: &Settings,
    address: SocketAddr,
    metrics_at: Option<SocketAddr>,
    app: &App,
) -> anyhow::Result<()> {
    let scheme = if settings.tls.is_some() { "https" } else { "http" };
    let mut out = std::io::stdout().lock();
    writeln!(out, "ringfence listens on {scheme}://{address}")?;
    if let Some(metrics_at) = metrics_at {
        writeln!(out, "metrics on http://{metrics_at}/metrics")?;
    }
    writeln!(out, "export CLARIFAI_API_BASE={}", base_of(scheme, address))?;
    if args.no_auth {
        writeln!(out, "note: every caller is the user `local`, whatever the token")?;
        writeln!(out, "export CLARIFAI_PAT=none")?;
    } else {
        let token = std::path::absolute(settings.data_dir.join(FIRST_TOKEN_FILE))?;
        let quoted = |path: &Path| path.display().to_string().replace('\'', r"'\''");
        // It is moved to where tokens are kept, and in no backup.
        match token.is_file() {
            true => writeln!(out, "export CLARIFAI_PAT=\"$(cat '{}')\"", quoted(&token))?,
            false => {
                let data_dir = quoted(&std::path::absolute(&settings.data_dir)?);
                writeln!(
                    out,
                    "note: tokens are those made before; `ringfence pat create --data-dir \
                     '{data_dir}'` makes another"
                )?;
            }
        }
    }
    for host in &settings.allow_url_hosts {
        writeln!(out, "note: URLs of inputs are fetched from {host}")?;
    }
    let all = app.deployments.all();
    if all.is_empty() {
        writeln!(out, "note: there is no model; `ringfence upload DIR` brings one")?;
    }
    for version in all.iter().take(MODELS_SHOWN) {
        writeln!(out, "model {} version {}", version.name, version.version)?;
    }
    if let Some(more) = all.len().checked_sub(MODELS_SHOWN).filter(|more| *more > 0) {
        writeln!(out, "and {more} versions more")?;
    }
    writeln!(out, "ready")?;
    Ok(out.flush()?)
}

/// Where a client on this machine finds the host. The Python SDK takes no
/// addresses of IPv6, and nobody can connect to "any address".
fn base_of(scheme: &str, address: SocketAddr) -> String {
    let port = address.port();
    match address.ip() {
        ip if ip.is_unspecified() => format!("{scheme}://127.0.0.1:{port}"),
        IpAddr::V4(ip) => format!("{scheme}://{ip}:{port}"),
        IpAddr::V6(ip) if ip.is_loopback() => format!("{scheme}://localhost:{port}"),
        IpAddr::V6(ip) => format!("{scheme}://[{ip}]:{port}"),
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
            assert!(base_of("https", address.parse().unwrap()).starts_with("https://"));
            assert_eq!(base_of("http", address.parse().unwrap()), base);
        }
    }
}
