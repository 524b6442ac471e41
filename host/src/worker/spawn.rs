//! The one thread that starts processes.
//!
//! A process that is to end with this one is told by the kernel when the *thread*
//! ends that has started it, so that has to be one that lasts as long as the host.

use std::io;
use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

/// Starts that may wait. Whoever asks beyond that waits to ask.
const WAITING_MAX: usize = 64;

struct Request {
    command: Command,
    /// Whose tasks wait for the process.
    runtime: Handle,
    started: oneshot::Sender<io::Result<Child>>,
}

/// The way to it. It ends with the last of these.
#[derive(Debug, Clone)]
pub struct Starter(mpsc::Sender<Request>);

impl Starter {
    /// Starts the thread.
    pub fn start() -> io::Result<Self> {
        let (sender, mut requests) = mpsc::channel::<Request>(WAITING_MAX);
        std::thread::Builder::new().name("processes".into()).spawn(move || {
            while let Some(Request { mut command, runtime, started }) = requests.blocking_recv() {
                let _entered = runtime.enter();
                // Whoever asked may have gone; then the process goes, too.
                drop(started.send(command.spawn()));
            }
        })?;
        Ok(Self(sender))
    }

    /// Starts a process, which ends when what comes back is dropped.
    pub(super) async fn spawn(&self, mut command: Command) -> io::Result<Child> {
        command.kill_on_drop(true);
        let (started, child) = oneshot::channel();
        let request = Request { command, runtime: Handle::current(), started };
        let gone = || io::Error::other("the thread that starts processes has ended");
        self.0.send(request).await.map_err(|_| gone())?;
        child.await.map_err(|_| gone())?
    }
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Request")
    }
}
