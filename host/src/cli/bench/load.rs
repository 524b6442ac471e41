//! Callers: so many that each call again at once, or calls at so many a second, whoever
//! waits.
//!
//! Owns when a call is to be made. In an open loop its time counts from then on, even if all
//! callers are busy: a server that is slow for a while is not asked less.

use super::figures::Figures;
use super::target::Target;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Calls that are due and have no caller yet.
const DUE_MAX: usize = 1 << 16;

/// What a caller waits whose call failed: one that is refused at once is asked again soon
/// enough.
const AFTER_FAILURE: Duration = Duration::from_millis(1);

/// Callers that write down what they see in one place.
const CALLERS_TOGETHER: usize = 16;

/// Whether a call waits for the one before it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Pace {
    /// Each caller calls again when it has its answer.
    Closed,
    /// Calls are due at even distances.
    Open {
        /// Calls a second.
        rate: f64,
    },
}

/// What a target is put under.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    pub(super) pace: Pace,
    /// Callers.
    pub(super) concurrency: usize,
}

/// What callers have seen, several in one.
type Shared = Arc<Mutex<Figures>>;

/// When calls are due, for whichever caller is free.
type Due = Arc<tokio::sync::Mutex<mpsc::Receiver<Instant>>>;

impl Load {
    /// Calls for a while, and waits for the last answers.
    pub(super) async fn run(self, target: &Arc<Target>, time: Duration) -> anyhow::Result<Figures> {
        let places = self.concurrency.div_ceil(CALLERS_TOGETHER);
        let shared = (0..places).map(|_| Ok(Arc::new(Mutex::new(Figures::new()?))));
        let shared: Vec<Shared> = shared.collect::<anyhow::Result<_>>()?;
        let began = Instant::now();
        let until = began + time;
        let due = match self.pace {
            Pace::Closed => None,
            Pace::Open { rate } => Some(due(rate, began, until)?),
        };
        let mut callers = JoinSet::new();
        for caller in 0..self.concurrency {
            let Some(shared) = shared.get(caller / CALLERS_TOGETHER).cloned() else { continue };
            let target = target.clone();
            match &due {
                None => callers.spawn(call_again(target, caller, until, shared)),
                Some((due, _)) => {
                    callers.spawn(call_when_due(target, caller, due.clone(), until, shared))
                }
            };
        }
        while let Some(called) = callers.join_next().await {
            called??;
        }
        let took = began.elapsed();
        let mut all = Figures::new()?;
        for figures in &shared {
            all.add(&figures.lock().unwrap_or_else(PoisonError::into_inner))?;
        }
        // What nobody has come to.
        let unsent = due.map_or(0, |(_, unsent)| unsent.load(Ordering::Relaxed));
        all.over(took, unsent);
        Ok(all)
    }
}

async fn call_again(
    target: Arc<Target>,
    caller: usize,
    until: Instant,
    shared: Shared,
) -> anyhow::Result<()> {
    let mut connection = target.connection(caller);
    while Instant::now() < until {
        let seen = target.call(&mut connection, Instant::now()).await;
        let has_failed = seen.error.is_some();
        lock(&shared).call(&seen, None)?;
        if has_failed {
            tokio::time::sleep(AFTER_FAILURE).await;
        }
    }
    Ok(())
}

async fn call_when_due(
    target: Arc<Target>,
    caller: usize,
    due: Due,
    until: Instant,
    shared: Shared,
) -> anyhow::Result<()> {
    let mut connection = target.connection(caller);
    loop {
        let Some(at) = due.lock().await.recv().await else { return Ok(()) };
        if Instant::now() >= until {
            lock(&shared).unsent();
            continue;
        }
        let late = at.elapsed();
        let seen = target.call(&mut connection, at).await;
        lock(&shared).call(&seen, Some(late))?;
    }
}

/// Says when calls are due, from a thread that keeps the time: a runtime does so by the
/// millisecond. Counts those that find no room.
fn due(rate: f64, began: Instant, until: Instant) -> anyhow::Result<(Due, Arc<AtomicU64>)> {
    let (sender, due) = mpsc::channel(DUE_MAX);
    let unsent = Arc::new(AtomicU64::new(0));
    let counted = unsent.clone();
    std::thread::Builder::new().name("pace".into()).spawn(move || {
        for number in 0_u64.. {
            let after = Duration::try_from_secs_f64(number as f64 / rate).unwrap_or(Duration::MAX);
            let Some(at) = began.checked_add(after).filter(|at| *at < until) else { return };
            std::thread::sleep(at.saturating_duration_since(Instant::now()));
            match sender.try_send(at) {
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Full(_)) => {
                    counted.fetch_add(1, Ordering::Relaxed);
                }
                Err(mpsc::error::TrySendError::Closed(_)) => return,
            }
        }
    })?;
    Ok((Arc::new(tokio::sync::Mutex::new(due)), unsent))
}

fn lock(shared: &Shared) -> std::sync::MutexGuard<'_, Figures> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
