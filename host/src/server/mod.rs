//! The host's front: sockets and gRPC.
//!
//! Owns the listener, connection limits, drain, the services, and `status`,
//! the one table from errors to the wire. Never touches wasmtime or files.

mod listener;
mod rewound;

mod content_type;
mod gate;
mod policy;

mod untaken;
mod v2;

mod answering;
mod bill;
mod calls;
mod catalog;
mod compute;
mod context;
mod health;
mod inbound;
mod listing;
mod logs;
mod operations;
mod pace;
mod places;
mod receipt;
mod running;
mod uploading;

mod names;
pub(crate) mod request;
pub(crate) mod response;
pub(crate) mod sent;
pub(crate) mod status;
mod timeout;
mod typed;

mod remap;

mod monitoring;

pub use policy::{Rule, rule};

pub use monitoring::serve as serve_monitoring;
pub use running::RunningCalls;

pub use listener::{Options, run, serve_operator};
pub use timeout::grpc_timeout;
pub(crate) use uploading::DIGEST_METADATA;

use crate::auth::Auth;
use crate::deploy::Deployments;
use crate::fetch::Fetcher;
use crate::package::config::ModelName;
use crate::store::Store;
use crate::telemetry::Telemetry;
use crate::upload::Uploads;
use std::sync::{Arc, PoisonError, RwLock};

/// What every request needs; built once.
#[derive(Debug)]
pub struct App {
    /// What is kept on disk.
    pub store: Arc<Store>,
    /// Who may call.
    pub auth: Auth,
    /// What can be called.
    pub deployments: Arc<Deployments>,
    /// What comes.
    pub uploads: Arc<Uploads>,
    /// Calls that run.
    pub running: Arc<RunningCalls>,
    /// The model that a request means which names none. Only a host without
    /// authentication and with one model has one.
    pub default_model: Option<ModelName>,
    /// What the URLs of inputs are asked of.
    pub fetcher: RwLock<Arc<Fetcher>>,
    /// What the host tells about itself.
    pub telemetry: Telemetry,
}

impl App {
    /// What fetches URLs now.
    pub fn fetcher(&self) -> Arc<Fetcher> {
        self.fetcher.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What fetches them from now on.
    pub fn set_fetcher(&self, fetcher: Fetcher) {
        *self.fetcher.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(fetcher);
    }
}

#[cfg(test)]
impl App {
    /// A host without models and authentication, with its files in a folder.
    pub(crate) fn of_nothing(folder: &std::path::Path) -> Self {
        let store = Arc::new(Store::open(folder).unwrap());
        let one_shot = crate::worker::OneShot::of_this_program();
        let folder = folder.to_owned();
        let loader = crate::deploy::Loader::compiling_with(one_shot, store.clone(), folder);
        let deployments = Arc::new(
            Deployments::open(
                loader,
                crate::deploy::Amount { cpu_millis: 1000, memory_bytes: 1 << 30, accelerators: 0 },
            )
            .unwrap(),
        );
        Self {
            store,
            auth: Auth::none(),
            uploads: Uploads::open(deployments.clone(), |_, _, _| Ok(crate::upload::Example::None))
                .unwrap(),
            deployments,
            running: Arc::default(),
            default_model: None,
            fetcher: RwLock::new(Arc::new(Fetcher::off())),
            telemetry: Telemetry::default(),
        }
    }
}
