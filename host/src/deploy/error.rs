//! Why something cannot be done, in words for whoever asked for it.

use super::capacity::{Full, PoolName};
use crate::auth::AllowanceError;
use crate::devices::NoDevice;
use crate::package::config::ModelName;
use crate::package::folder::FolderError;
use crate::store::StoreError;
use crate::worker::{OneShotError, StartFailure};
use std::sync::Arc;
use tokio::task::JoinError;

/// Why a folder cannot be made callable.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// Another folder has the same name.
    #[error("two model folders are named {name}; change `id` in one of their config.yaml")]
    Duplicate {
        /// The name.
        name: ModelName,
    },
    /// The host cannot run it.
    #[error("{name} cannot be served")]
    Start {
        /// The model.
        name: ModelName,
        /// Why.
        #[source]
        source: StartError,
    },
}

/// Why something cannot be done with a model.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// There is no such model, or it is not the caller's.
    #[error("there is no such model; check user, app and model id")]
    NoSuchModel,
    /// It has no such version.
    #[error("the model has no such version")]
    NoSuchVersion,
    /// There is no older version.
    #[error("the model has no version before the one that is called")]
    NoOlderVersion,
    /// It is a folder that the operator named.
    #[error("the model is served from a folder; it is changed there, and by a new start")]
    Folder,
    /// Its owner cannot start or delete what the operator has stopped.
    #[error("the operator has stopped the model, and alone starts or deletes it")]
    StoppedByOperator,
    /// The store fails.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a version does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The files are not what was stored.
    #[error("its stored files are damaged: {0}; upload it again, or restore a backup")]
    Corrupt(String),
    /// The store fails.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A folder is not a package any more.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The component cannot be compiled.
    #[error("1/model.wasm cannot be compiled: {0}")]
    Compile(OneShotError),
    /// No replica of it starts.
    #[error(transparent)]
    Replica(#[from] StartFailure),
    /// What its graphs are to be computed on is not there, or not free.
    #[error("it cannot have what it is to be computed on: {0}")]
    Accelerators(#[from] NoDevice),
    /// Its processes have ended one after the other.
    #[error(
        "its processes have crashed three times within a minute, so it is left alone for one; the last: {0}"
    )]
    Crashes(String),
    /// There is no memory for its machine code.
    #[error("its machine code cannot be kept in memory")]
    Memory(#[source] std::io::Error),
    /// The host is shutting down.
    #[error("the host is being stopped")]
    Stopping,
    /// A fault of the host's own.
    #[error("the host failed while it started a replica")]
    Panicked,
}

impl From<JoinError> for StartError {
    fn from(error: JoinError) -> Self {
        if error.is_panic() { Self::Panicked } else { Self::Stopping }
    }
}

/// Why a call is not admitted.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LeaseError {
    /// There is no such model, or it is not the caller's to see.
    #[error("there is no such model; check user, app and model id")]
    NoSuchModel,
    /// The model has no such version.
    #[error("the model has no such version; leave the version out for the newest")]
    NoSuchVersion,
    /// The model was made, and nothing was uploaded that could be called.
    #[error("the model has no version that can be called; upload one")]
    NoVersion,
    /// Its owner has stopped it.
    #[error("the model is stopped; `ringfence models start` starts it again")]
    Stopped,
    /// The operator has.
    #[error("the operator has stopped the model, and alone starts it again")]
    StoppedByOperator,
    /// Its replica does not start.
    #[error("the version does not start: {0}")]
    Start(Arc<StartError>),
    /// The caller takes as much as it may.
    #[error(transparent)]
    Quota(#[from] AllowanceError),
    /// No replica of it fits.
    #[error("{0}")]
    Full(Full),
    /// The same, for those who are not to know of the machine.
    #[error("there is no room for a replica of the model now; try again in a moment")]
    NoRoom,
    /// There is no such nodepool, or it is not the caller's to see.
    #[error("there is no nodepool {0}; check runner_selector")]
    NoSuchNodepool(PoolName),
    /// The model has no such deployment.
    #[error("the model has no deployment {0}; check runner_selector")]
    NoSuchDeployment(String),
    /// It runs elsewhere.
    #[error(
        "no deployment of the model is on nodepool {0}; deploy it there, or leave runner_selector out"
    )]
    NotDeployedThere(PoolName),
    /// The deployment serves another version than the one that is asked for.
    #[error("deployment {id} serves version {serves}; leave the version out")]
    OtherVersion {
        /// The deployment.
        id: String,
        /// The version that it serves.
        serves: String,
    },
    /// Every place is taken and the queue is full.
    #[error("the model is busy; try again in a moment")]
    Busy,
    /// The deadline passed in the queue.
    #[error("the deadline passed before it was this call's turn")]
    DeadlinePassed,
}

/// What something is that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// A compute cluster.
    Cluster,
    /// A nodepool.
    Nodepool,
    /// A deployment.
    Deployment,
}

/// Why something cannot be done with compute resources.
#[derive(Debug, thiserror::Error)]
pub enum ComputeError {
    /// It is not there, or not the caller's to see.
    #[error("there is no {} {id}", .kind.as_str())]
    Absent {
        /// What it is.
        kind: Resource,
        /// Its name.
        id: String,
    },
    /// It cannot be so.
    #[error("{problem}")]
    Invalid {
        /// What it is about.
        kind: Resource,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// It does not fit.
    #[error(transparent)]
    Full(#[from] Full),
    /// The version cannot be read back.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The store fails.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Resource {
    /// Its name in a sentence.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cluster => "compute cluster",
            Self::Nodepool => "nodepool",
            Self::Deployment => "deployment",
        }
    }

    /// It is not there.
    pub fn absent(self, id: impl Into<String>) -> ComputeError {
        ComputeError::Absent { kind: self, id: id.into() }
    }

    /// It cannot be so.
    pub fn invalid(self, problem: impl Into<String>) -> ComputeError {
        ComputeError::Invalid { kind: self, problem: problem.into() }
    }
}
