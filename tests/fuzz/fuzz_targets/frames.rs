//! Any bytes as what a client sends once it has said HTTP/2: answered or closed, and
//! no panic on the way.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringfence::auth::Auth;
use ringfence::deploy::{Amount, Deployments, Loader};
use ringfence::fetch::Fetcher;
use ringfence::sandbox::{Diagnostics, Runtime, compiler_id};
use ringfence::server::{App, Options, serve_operator};
use ringfence::store::Store;
use ringfence::telemetry::Telemetry;
use ringfence::upload::{Example, Uploads};
use ringfence::worker::{JailMode, Launcher, OneShot, Starter, Workers};
use std::sync::{Arc, LazyLock, RwLock};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// RFC 9113, section 3.4: the preface, and a frame of settings without any.
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

struct House {
    app: Arc<App>,
    runtime: tokio::runtime::Runtime,
    _folder: tempfile::TempDir,
}

static HOUSE: LazyLock<House> = LazyLock::new(|| {
    let folder = tempfile::TempDir::new().unwrap();
    let store = Arc::new(Store::open(folder.path()).unwrap());
    let workers = Workers::Here(Runtime::start(Diagnostics::Off).unwrap());
    let starter = Starter::start().unwrap();
    let launcher = Launcher::of_this_program(starter, folder.path(), JailMode::BestEffort).unwrap();
    let (one_shot, compiler) = (OneShot::of(launcher), compiler_id().unwrap());
    let run = folder.path().to_owned();
    let loader = Loader::new(workers, one_shot, compiler, store.clone(), run, None);
    let machine = Amount { cpu_millis: 1000, memory_bytes: 1 << 30, accelerators: 0 };
    let deployments = Arc::new(Deployments::open(loader, machine).unwrap());
    let app = App {
        auth: Auth::none(),
        uploads: Uploads::open(deployments.clone(), |_, _, _| Ok(Example::None)).unwrap(),
        store,
        deployments,
        running: Arc::default(),
        default_model: None,
        fetcher: RwLock::new(Arc::new(Fetcher::off())),
        telemetry: Telemetry::default(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    House { app: Arc::new(app), runtime, _folder: folder }
});

/// Whoever sends no more is not waited for; the rest is what a timeout is for.
fn options() -> Options {
    let moment = Duration::from_millis(20);
    Options {
        preface_timeout: moment,
        first_message_timeout: moment,
        message_timeout: moment,
        keep_alive: moment,
        ..Options::default()
    }
}

fuzz_target!(|bytes: &[u8]| {
    let House { app, runtime, .. } = &*HOUSE;
    runtime.block_on(async {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let (mut reader, mut writer) = tokio::io::split(ours);
        let serving = serve_operator(theirs, app.clone(), options());
        let client = async {
            // The host may close before it has read all.
            let _ = writer.write_all(HELLO).await;
            let _ = writer.write_all(bytes).await;
            let _ = writer.shutdown().await;
        };
        let answers = async {
            let mut answer = vec![0; 4 << 10];
            while reader.read(&mut answer).await.is_ok_and(|length| length > 0) {}
        };
        let (served, (), ()) = tokio::join!(serving, client, answers);
        served.unwrap();
    });
});
