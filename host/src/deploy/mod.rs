//! Which versions are callable, by whom, and how many calls at a time.
//!
//! Owns the table of deployments and a call's admission to a [`Lease`]. Never
//! touches guests.

use crate::auth::Caller;
use crate::call::{Deadline, Function, Methods};
use crate::package::Package;
use crate::package::config::{ConfigConcept, ModelName};
use crate::sandbox::Runtime;
use crate::worker::{AdmitError, Inputs, Outputs, Worker};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};
use std::time::SystemTime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A version that is callable, and what may be told about it.
#[derive(Debug)]
pub struct Deployment {
    /// The model's name.
    pub name: ModelName,
    /// The version's id.
    pub version: String,
    /// `model_type_id` of its configuration.
    pub model_type_id: String,
    /// `concepts` of its configuration.
    pub concepts: Vec<ConfigConcept>,
    /// The typed methods that it declares.
    pub methods: Arc<Methods>,
    /// When it became callable.
    pub created_at: SystemTime,
    worker: Worker,
    slots: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// All callable versions of this host.
#[derive(Debug, Default)]
pub struct Deployments {
    by_name: RwLock<BTreeMap<ModelName, Arc<Deployment>>>,
}

/// Why a version cannot be made callable.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// Another folder has the same name.
    #[error("two model folders are named {name}; change `id` in one of their config.yaml")]
    Duplicate {
        /// The name.
        name: ModelName,
    },
    /// It asks for accelerators.
    #[error(
        "{name} asks for {asked}, and this host computes on CPUs only; \
         set `num_accelerators: 0` to run it without"
    )]
    NoAccelerator {
        /// The model.
        name: ModelName,
        /// What it asks for.
        asked: String,
    },
    /// The host cannot run it.
    #[error("{name} cannot be served")]
    Admit {
        /// The model.
        name: ModelName,
        /// Why.
        #[source]
        source: AdmitError,
    },
}

/// Why a call is not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// There is no such model, or it is not the caller's to see.
    #[error("there is no such model; check user, app and model id")]
    NoSuchModel,
    /// The model has no such version.
    #[error("the model has no such version; leave the version out for the newest")]
    NoSuchVersion,
    /// Every place is taken and the queue is full.
    #[error("the model is busy; try again in a moment")]
    Busy,
    /// The deadline passed in the queue.
    #[error("the deadline passed before it was this call's turn")]
    DeadlinePassed,
}

/// The permission to make one call.
#[derive(Debug)]
pub struct Lease {
    deployment: Arc<Deployment>,
    permit: OwnedSemaphorePermit,
    deadline: Deadline,
}

impl Deployments {
    /// Makes a package callable.
    pub async fn add(&self, runtime: &Arc<Runtime>, package: Package) -> Result<(), DeployError> {
        let config = &package.config;
        let name = config.name.clone();
        if self.read().contains_key(&name) {
            return Err(DeployError::Duplicate { name });
        }
        if let Some(asked) = config.accelerators() {
            return Err(DeployError::NoAccelerator { name, asked: asked.to_string() });
        }
        let (model_type_id, concepts) = (config.model_type_id.clone(), config.concepts.clone());
        let version = package.version.clone();
        let worker = Worker::start(runtime, package)
            .await
            .map_err(|source| DeployError::Admit { name: name.clone(), source })?;
        let slots = Arc::new(Semaphore::new(worker.limits().concurrency_max));
        let deployment = Deployment {
            name: name.clone(),
            version,
            model_type_id,
            concepts,
            methods: Arc::new(worker.methods().clone()),
            created_at: SystemTime::now(),
            worker,
            slots,
            waiting: AtomicUsize::new(0),
        };
        let mut by_name = self.by_name.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        by_name.insert(name, Arc::new(deployment));
        Ok(())
    }

    /// The deployment of a model, if the caller may see it.
    pub fn find(&self, caller: &Caller, name: &ModelName) -> Option<Arc<Deployment>> {
        // Not allowed to know reads as not found.
        if caller.user_id() != name.user_id() {
            return None;
        }
        self.read().get(name).cloned()
    }

    /// Every deployment that the caller may see, in the order of names.
    pub fn list(&self, caller: &Caller) -> Vec<Arc<Deployment>> {
        let seen = |deployment: &&Arc<Deployment>| deployment.name.user_id() == caller.user_id();
        self.read().values().filter(seen).cloned().collect()
    }

    /// Every deployment, in the order of names. For the operator only.
    pub fn all(&self) -> Vec<Arc<Deployment>> {
        self.read().values().cloned().collect()
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<ModelName, Arc<Deployment>>> {
        self.by_name.read().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Deployment {
    /// Admits a call, after waiting for its turn if need be.
    ///
    /// The deadline is the model's `call_timeout` from now, or the caller's
    /// own if that is earlier; waiting counts.
    pub async fn lease(
        self: &Arc<Self>,
        version: Option<&str>,
        asked: Option<Deadline>,
    ) -> Result<Lease, LeaseError> {
        if version.is_some_and(|version| version != self.version) {
            return Err(LeaseError::NoSuchVersion);
        }
        let limits = self.worker.limits();
        let deadline = Deadline::after(limits.call_timeout);
        let deadline = asked.map_or(deadline, |asked| asked.min(deadline));

        let slots = self.slots.clone();
        let permit = match slots.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                let _waiting = Waiting::enter(&self.waiting, limits.queue_max)?;
                let turn =
                    tokio::time::timeout_at(deadline.instant().into(), slots.acquire_owned());
                match turn.await {
                    Ok(Ok(permit)) => permit,
                    Ok(Err(_)) => return Err(LeaseError::NoSuchModel),
                    Err(_) => return Err(LeaseError::DeadlinePassed),
                }
            }
        };
        Ok(Lease { deployment: self.clone(), permit, deadline })
    }
}

impl Lease {
    /// When the call must have ended.
    pub fn deadline(&self) -> Deadline {
        self.deadline
    }

    /// Starts the call. The permission goes with the guest: it is free again
    /// when the guest has ended, which dropping the outputs brings about.
    /// `id` is what the log calls it.
    pub fn call(self, function: Function, id: &str) -> (Inputs, Outputs) {
        self.deployment.worker.call(function, id, self.deadline, self.permit)
    }
}

/// A place in the queue.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn enter(waiting: &'a AtomicUsize, queue_max: usize) -> Result<Self, LeaseError> {
        waiting
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| {
                (count < queue_max).then_some(count + 1)
            })
            .map(|_| Self(waiting))
            .map_err(|_| LeaseError::Busy)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
