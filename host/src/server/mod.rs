//! The host's front: sockets and gRPC.
//!
//! Owns the listener, connection limits, drain, the services, and `status`,
//! the one table from errors to the wire. Never touches wasmtime or files.

mod listener;

mod gate;

mod v2;

mod answering;
mod calls;
mod catalog;
mod context;

mod names;
pub(crate) mod request;
pub(crate) mod response;
pub(crate) mod sent;
pub(crate) mod status;
mod timeout;
mod typed;

mod remap;

pub use listener::{Options, run};

use crate::auth::Auth;
use crate::deploy::Deployments;
use crate::fetch::Fetcher;
use crate::package::config::ModelName;
use std::sync::Arc;

/// What every request needs; built once.
#[derive(Debug)]
pub struct App {
    /// Who may call.
    pub auth: Auth,
    /// What can be called.
    pub deployments: Deployments,
    /// The model that a request means which names none. Only a host without
    /// authentication and with one model has one.
    pub default_model: Option<ModelName>,
    /// What the URLs of inputs are asked of.
    pub fetcher: Arc<Fetcher>,
}
