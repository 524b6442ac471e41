//! The listener of monitoring: `/metrics` and `/healthz` over HTTP/1.1.
//!
//! Apart from the callers' listener, because metrics tell of all models. Owns its
//! few connections and their time. There is no token: whoever reaches the
//! address may read.

use super::App;
use crate::deploy::Load;
use crate::limits::limit;
use crate::telemetry::Serving;
use crate::worker::Figures;
use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Connections at a time; more wait in the kernel's backlog.
const CONNECTIONS_MAX: usize = 16;

/// Time of a connection, which serves one request.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// How long to wait after a failed `accept`.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

/// Bytes of a request's line and headers.
const HEAD_BYTES_MAX: usize = 8 << 10;

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

/// Serves until it is dropped: it is looked on while the host drains.
pub async fn serve(listener: TcpListener, app: Arc<App>) {
    serve_within(listener, app, CONNECTION_TIMEOUT).await;
}

async fn serve_within(listener: TcpListener, app: Arc<App>, timeout: Duration) {
    let places = Arc::new(Semaphore::new(limit("monitoring_connections", CONNECTIONS_MAX)));
    let mut connections = JoinSet::new();
    loop {
        // It is never closed.
        let place = places.clone().acquire_owned().await;
        match listener.accept().await {
            Ok((stream, _)) => {
                let app = app.clone();
                connections.spawn(async move {
                    connection(stream, app, timeout).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection of monitoring");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn connection(stream: TcpStream, app: Arc<App>, timeout: Duration) {
    let timeout = limit("monitoring_time", timeout);
    let service = service_fn(move |request| {
        let answer = answer(&app, &request);
        async move { Ok::<_, Infallible>(answer) }
    });
    let serving = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(timeout)
        .max_buf_size(limit("monitoring_head", HEAD_BYTES_MAX))
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(timeout, serving).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection of monitoring ended"),
        Err(_) => tracing::debug!("a connection of monitoring took too long"),
    }
}

fn answer<B>(app: &App, request: &Request<B>) -> Response<Full<Bytes>> {
    let (status, kind, text) = match (request.uri().path(), request.method()) {
        ("/metrics", &Method::GET) => (StatusCode::OK, OPENMETRICS, metrics(app)),
        ("/healthz", &Method::GET) => match app.telemetry.draining.is_cancelled() {
            false => (StatusCode::OK, TEXT, "ok\n".to_owned()),
            true => (StatusCode::SERVICE_UNAVAILABLE, TEXT, "draining\n".to_owned()),
        },
        ("/metrics" | "/healthz", _) => {
            (StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET is answered\n".to_owned())
        }
        _ => (StatusCode::NOT_FOUND, TEXT, "there are /metrics and /healthz\n".to_owned()),
    };
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
    }
    response
}

fn metrics(app: &App) -> String {
    let mut serving: Vec<Serving> = Vec::new();
    // The versions of a model are side by side, and most do not run.
    for versions in app.deployments.all().chunk_by(|a, b| a.name == b.name) {
        let Some(first) = versions.first() else { continue };
        let stopped = Serving::stopped(first.name.to_string());
        let loads = versions.iter().filter_map(|version| version.load());
        serving.push(match loads.reduce(|sum, load| sum.plus(&load)) {
            Some(load) => running(stopped, load),
            None => stopped,
        });
    }
    let machine = app.deployments.pools().machine();
    let accelerators_taken = app.deployments.loader().devices().taken();
    app.telemetry.metrics.machine(machine.has(), machine.reserved(), accelerators_taken);
    app.telemetry.exposition(&serving)
}

fn running(stopped: Serving, load: Load) -> Serving {
    let Load { replicas, running, waiting, figures, kernel } = load;
    let Figures { memory_bytes, sandboxes_made, cpu: cpu_charged, .. } = figures;
    let model = stopped.model;
    Serving { model, replicas, running, waiting, memory_bytes, sandboxes_made, cpu_charged, kernel }
}

#[cfg(test)]
#[path = "monitoring_tests.rs"]
mod tests;
