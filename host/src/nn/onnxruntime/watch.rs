//! Runs that are to end although nobody waits for them.
//!
//! Owns the thread that asks: the library looks between two nodes whether it was told to
//! stop, and asks nobody.

use crate::nn::engine::Cancel;
use crate::nn::lock;
use ort::session::{NoSelectedOutputs, RunOptions};
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::time::Duration;

/// How often it asks while something runs.
pub(super) const PERIOD: Duration = Duration::from_millis(5);

/// The runs that there are. Clones share them.
#[derive(Clone)]
pub(super) struct Watch(Arc<Shared>);

struct Shared {
    runs: Mutex<Vec<Arc<Watched>>>,
    begun: Condvar,
}

struct Watched {
    cancel: Cancel,
    options: Arc<RunOptions<NoSelectedOutputs>>,
}

/// A run is watched as long as this lives.
pub(super) struct Over {
    watch: Watch,
    watched: Arc<Watched>,
}

impl Watch {
    pub(super) fn start() -> std::io::Result<Self> {
        let shared = Arc::new(Shared { runs: Mutex::default(), begun: Condvar::new() });
        let watched = Arc::downgrade(&shared);
        std::thread::Builder::new()
            .name("onnxruntime".to_owned())
            .spawn(move || watch(&watched))?;
        Ok(Self(shared))
    }

    /// Stops the run of these options when it is cancelled.
    pub(super) fn over(&self, cancel: Cancel, options: Arc<RunOptions<NoSelectedOutputs>>) -> Over {
        let watched = Arc::new(Watched { cancel, options });
        lock(&self.0.runs).push(watched.clone());
        self.0.begun.notify_one();
        Over { watch: self.clone(), watched }
    }
}

impl Drop for Over {
    fn drop(&mut self) {
        lock(&self.watch.0.runs).retain(|run| !Arc::ptr_eq(run, &self.watched));
    }
}

/// Ends when nobody has any graph any more.
fn watch(shared: &Weak<Shared>) {
    while let Some(shared) = shared.upgrade() {
        let runs = lock(&shared.runs);
        for run in runs.iter().filter(|run| run.cancel.is_cancelled()) {
            // One that cannot be told goes on, and its process has an end.
            let _ = run.options.terminate();
        }
        match runs.is_empty() {
            // Now and then it looks whether there is anybody left.
            true => drop(shared.begun.wait_timeout(runs, Duration::from_secs(1))),
            false => {
                drop(runs);
                std::thread::sleep(PERIOD);
            }
        }
    }
}
