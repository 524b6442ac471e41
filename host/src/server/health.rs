//! `grpc.health.v1`: whether the host, and each model, can be called.
//!
//! Owns what is told to whom. The host's own health needs no token. A model's is
//! told only to a caller who may see the model; to all others it is as unknown
//! as one that does not exist. A model that is stopped, or has no version, is
//! not serving; one whose replica has yet to be started is.

use super::App;
use super::gate::caller_of;
use crate::auth::Caller;
use crate::limits::limit;
use crate::package::config::ModelName;
use futures_util::Stream;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

/// Watches at a time, of all clients together.
const WATCHES_MAX: usize = 64;

/// How often a watch looks again.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Looks of one watch: after an hour its client has to ask anew.
const WATCH_LOOKS_MAX: u32 = 3600;

/// The services of the host that are always there.
const OWN: [&str; 2] = ["", "clarifai.api.V2"];

/// The service.
#[derive(Debug)]
pub(crate) struct HealthService {
    app: Arc<App>,
    watches: Arc<Semaphore>,
    draining: CancellationToken,
}

impl HealthService {
    pub(crate) fn new(app: Arc<App>, draining: CancellationToken) -> Self {
        let watches = Arc::new(Semaphore::new(limit("health_watches", WATCHES_MAX)));
        Self { app, watches, draining }
    }
}

/// One who asks, and what about.
struct Asked {
    app: Arc<App>,
    draining: CancellationToken,
    caller: Option<Caller>,
    service: String,
}

impl Asked {
    /// The health; nothing where there is no such service for this caller.
    fn health(&self) -> Option<ServingStatus> {
        let is_callable = OWN.contains(&self.service.as_str()) || self.is_model_callable()?;
        Some(match is_callable && !self.draining.is_cancelled() {
            true => ServingStatus::Serving,
            false => ServingStatus::NotServing,
        })
    }

    /// Nothing where the caller sees no such model.
    fn is_model_callable(&self) -> Option<bool> {
        let caller = self.caller.as_ref()?;
        let mut parts = self.service.split('/');
        let (Some(user), Some(app), Some(model), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return None;
        };
        let name = ModelName::new(user, app, model).ok()?;
        let seen = self.app.deployments.see(caller, &name)?;
        Some(seen.called(None).is_ok())
    }

    /// Resolves when the token counts no more that the caller was proved by.
    async fn is_over(&self) {
        match &self.caller {
            Some(caller) => caller.is_over().await,
            None => std::future::pending().await,
        }
    }
}

/// A watch in progress.
struct Watching {
    asked: Asked,
    told: Option<ServingStatus>,
    looks_left: u32,
    _place: OwnedSemaphorePermit,
}

impl Watching {
    /// Waits for the next change. Nothing follows the end of the host, or of the
    /// caller's token.
    async fn next(mut self) -> Option<(Result<HealthCheckResponse, Status>, Self)> {
        while self.looks_left > 0 {
            self.looks_left -= 1;
            let is_last = self.asked.draining.is_cancelled();
            // A watch of what is not there goes on: it may come.
            let health = self.asked.health().unwrap_or(ServingStatus::ServiceUnknown);
            if self.told != Some(health) {
                self.told = Some(health);
                return Some((Ok(HealthCheckResponse { status: health.into() }), self));
            }
            if is_last {
                return None;
            }
            tokio::select! {
                () = self.asked.draining.cancelled() => {}
                () = self.asked.is_over() => return None,
                () = tokio::time::sleep(WATCH_INTERVAL) => {}
            }
        }
        None
    }
}

#[tonic::async_trait]
impl Health for HealthService {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let health = self.asked(request).health();
        let health = health.ok_or_else(|| Status::not_found("there is no such service"))?;
        Ok(Response::new(HealthCheckResponse { status: health.into() }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    /// Ends with the host, and after an hour.
    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let Ok(place) = self.watches.clone().try_acquire_owned() else {
            return Err(Status::resource_exhausted("too many watch; ask with Check instead"));
        };
        let watching = Watching {
            asked: self.asked(request),
            told: None,
            looks_left: WATCH_LOOKS_MAX,
            _place: place,
        };
        Ok(Response::new(Box::pin(futures_util::stream::unfold(watching, Watching::next))))
    }
}

impl HealthService {
    fn asked(&self, request: Request<HealthCheckRequest>) -> Asked {
        Asked {
            app: self.app.clone(),
            draining: self.draining.clone(),
            caller: caller_of(&request).ok(),
            service: request.into_inner().service,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::StreamExt;

    fn service() -> HealthService {
        let folder = tempfile::TempDir::new().unwrap();
        let app = App::of_nothing(folder.path());
        HealthService::new(Arc::new(app), CancellationToken::new())
    }

    fn request(service: &str) -> Request<HealthCheckRequest> {
        Request::new(HealthCheckRequest { service: service.to_owned() })
    }

    #[tokio::test]
    async fn watches_have_a_number_and_end_with_the_host() {
        let service = service();
        let mut watches = Vec::new();
        for _ in 0..WATCHES_MAX {
            watches.push(service.watch(request("")).await.unwrap().into_inner());
        }
        let refused = service.watch(request("")).await.map(|_| ()).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        let mut watch = watches.swap_remove(0);
        drop(watches);
        let first = watch.next().await.unwrap().unwrap();
        assert_eq!(first.status(), ServingStatus::Serving);
        service.draining.cancel();
        let last = watch.next().await.unwrap().unwrap();
        assert_eq!(last.status(), ServingStatus::NotServing);
        assert!(watch.next().await.is_none());
        assert!(service.watch(request("")).await.is_ok());
    }

    /// An hour is so many looks; this one has two.
    #[tokio::test]
    async fn a_watch_ends_after_its_last_look() {
        assert_eq!(WATCH_LOOKS_MAX * WATCH_INTERVAL, Duration::from_secs(3600));
        let service = service();
        let place = service.watches.clone().try_acquire_owned().unwrap();
        let asked = service.asked(request(""));
        let watching = Watching { asked, told: None, looks_left: 2, _place: place };
        let (_, watching) = watching.next().await.unwrap();
        assert!(watching.next().await.is_none());
    }

    #[tokio::test]
    async fn what_is_not_there_is_not_found_and_watched_as_unknown() {
        let service = service();
        for name in ["u/a/m", "u/a", "../../x", "u/a/m/v"] {
            let code = service.check(request(name)).await.unwrap_err().code();
            assert_eq!(code, tonic::Code::NotFound, "{name}");
            let mut watch = service.watch(request(name)).await.unwrap().into_inner();
            let first = watch.next().await.unwrap().unwrap();
            assert_eq!(first.status(), ServingStatus::ServiceUnknown);
        }
    }
}
