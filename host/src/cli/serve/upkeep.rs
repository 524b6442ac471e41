//! What has to be done while a host runs, and by nobody who calls it.

use crate::deploy::KEEP_INTERVAL;
use crate::heap::Heap;
use crate::server::App;
use std::convert::Infallible;
use std::time::Duration;

/// How often it is kept which versions were called. A host that is killed
/// forgets as much of it.
const CALLS_KEPT_EVERY: Duration = Duration::from_secs(60);

/// How soon memory is given back that calls have freed.
const TRIMMED_EVERY: Duration = Duration::from_secs(2);

/// Goes on for as long as the host serves.
pub(super) async fn run(app: &App) -> Infallible {
    let all = (keep(app), keep_calls(app), trim(), tidy(app), compile_kernels(app));
    let (never, _, _, _, _) = tokio::join!(all.0, all.1, all.2, all.3, all.4);
    never
}

/// What engines run on devices is there before anybody asks for it.
async fn compile_kernels(app: &App) -> Infallible {
    app.deployments.loader().compile_kernels().await;
    std::future::pending().await
}

/// Keeps which versions were called since it last was.
pub(super) async fn note_calls(app: &App) {
    let deployments = app.deployments.clone();
    if let Err(error) = tokio::task::spawn_blocking(move || deployments.note_calls()).await {
        tracing::error!(%error, "cannot keep when versions were called");
    }
}

async fn keep(app: &App) -> Infallible {
    every(KEEP_INTERVAL, async || {
        let deployments = app.deployments.clone();
        if let Err(error) = tokio::task::spawn_blocking(move || deployments.keep()).await {
            tracing::error!(%error, "cannot keep as many replicas as there should be");
        }
    })
    .await
}

async fn keep_calls(app: &App) -> Infallible {
    every(CALLS_KEPT_EVERY, async || note_calls(app).await).await
}

/// Gives back what the allocator keeps.
async fn trim() -> Infallible {
    let trimming = async {
        let mut heap = Heap::new()?;
        loop {
            tokio::time::sleep(TRIMMED_EVERY).await;
            heap = tokio::task::spawn_blocking(move || heap.trim().map(|()| heap)).await??;
        }
    };
    let Err::<Infallible, std::io::Error>(error) = trimming.await;
    tracing::error!(%error, "cannot give memory back that is free, and tries no more");
    std::future::pending().await
}

async fn every(interval: Duration, work: impl AsyncFn()) -> Infallible {
    loop {
        tokio::time::sleep(interval).await;
        work().await;
    }
}

/// What an earlier host has left to do.
async fn tidy(app: &App) {
    free(app).await;
    tell_without_devices(app).await;
    let left = |versions| app.telemetry.metrics.versions_to_compile(versions);
    let draining = &app.telemetry.draining;
    draining.run_until_cancelled(app.deployments.compile_anew(left)).await;
}

/// An earlier host may have had accelerators that there are none of any more.
async fn tell_without_devices(app: &App) {
    let (deployments, over) = (app.deployments.clone(), app.telemetry.draining.clone());
    let told = tokio::task::spawn_blocking(move || deployments.tell_without_devices(&over)).await;
    if let Err(error) = told {
        tracing::error!(%error, "cannot find out which models can be served");
    }
}

/// Frees what an earlier host had begun to store, and did not.
async fn free(app: &App) {
    let store = app.store.clone();
    let freed = tokio::task::spawn_blocking(move || store.collect_garbage(None)).await;
    match freed {
        Ok(Ok(freed)) if freed.files > 0 => {
            tracing::info!(
                files = freed.files,
                bytes = freed.bytes,
                "freed what nothing refers to"
            );
        }
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::error!(%error, "cannot free what nothing refers to"),
        Err(error) => tracing::error!(%error, "cannot free what nothing refers to"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::time::Instant;

    /// What is kept of calls is kept again and again, and not in between; of a
    /// shorter while, for the test's sake.
    #[tokio::test]
    async fn what_is_done_now_and_then_is_done_again_and_again() {
        const WHILE: Duration = Duration::from_millis(20);
        assert_eq!(CALLS_KEPT_EVERY, Duration::from_secs(60));
        let (times, enough) = (Cell::new(0), tokio::sync::Notify::new());
        let began = Instant::now();
        let working = every(WHILE, async || {
            times.set(times.get() + 1);
            if times.get() == 5 {
                enough.notify_one();
            }
        });
        tokio::select! {
            never = working => match never {},
            () = enough.notified() => {}
        }
        assert!(began.elapsed() >= 5 * WHILE);
    }
}
