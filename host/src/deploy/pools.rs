//! The nodepools that there are: the machine's own, and parts of it.

use super::capacity::{Amount, Pool, PoolName};
use super::placement::Placement;
use crate::limits::{UPLOAD_MESSAGE_BYTES_MAX, UPLOADS_MAX};
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

/// The compute cluster that is there from the start.
pub const CLUSTER_LOCAL: &str = "local";

/// Its nodepool: the machine.
pub const NODEPOOL_DEFAULT: &str = "default";

/// The part of the machine's memory for uploads, one in so many: at least for
/// one message, at most for one of each that may be under way.
const UPLOADS_SHARE: u64 = 8;

fn uploads_bytes(machine_bytes: u64) -> u64 {
    let one = UPLOAD_MESSAGE_BYTES_MAX as u64;
    (machine_bytes / UPLOADS_SHARE).clamp(one, one * UPLOADS_MAX as u64)
}

/// Every nodepool.
#[derive(Debug)]
pub struct Pools {
    machine: Arc<Pool>,
    /// What is set aside for messages of uploads, so that full nodepools keep
    /// nobody from uploading.
    uploads: Arc<Pool>,
    /// Where models run that nobody has deployed.
    of_all: Arc<Placement>,
    parts: RwLock<BTreeMap<PoolName, Arc<Pool>>>,
}

impl Pools {
    /// A machine with so much.
    pub(super) fn of(machine: Amount) -> Self {
        let name = PoolName {
            user_id: String::new(),
            cluster_id: CLUSTER_LOCAL.to_owned(),
            id: NODEPOOL_DEFAULT.to_owned(),
        };
        let of_uploads = uploads_bytes(machine.memory_bytes);
        let has = Amount { cpu_millis: 0, memory_bytes: of_uploads, accelerators: 0 };
        let uploads = PoolName { id: "uploads".to_owned(), ..name.clone() };
        let uploads = Arc::new(Pool::machine(uploads, has));
        let memory_bytes = machine.memory_bytes.saturating_sub(of_uploads);
        let machine = Arc::new(Pool::machine(name, Amount { memory_bytes, ..machine }));
        let of_all = Arc::new(Placement::of_all(machine.clone()));
        Self { machine, uploads, of_all, parts: RwLock::default() }
    }

    /// The machine.
    pub fn machine(&self) -> &Arc<Pool> {
        &self.machine
    }

    pub(super) fn uploads(&self) -> &Arc<Pool> {
        &self.uploads
    }

    pub(super) fn of_all(&self) -> &Arc<Placement> {
        &self.of_all
    }

    /// The nodepool of a name. That of the machine is every user's.
    pub fn find(&self, user_id: &str, cluster_id: &str, id: &str) -> Option<Arc<Pool>> {
        if (cluster_id, id) == (CLUSTER_LOCAL, NODEPOOL_DEFAULT) {
            return Some(self.machine.clone());
        }
        let name = PoolName {
            user_id: user_id.to_owned(),
            cluster_id: cluster_id.to_owned(),
            id: id.to_owned(),
        };
        self.parts.read().unwrap_or_else(PoisonError::into_inner).get(&name).cloned()
    }

    /// Adds a part of the machine, or changes how much it is.
    pub(super) fn put(&self, name: PoolName, has: Amount) {
        let mut parts = self.parts.write().unwrap_or_else(PoisonError::into_inner);
        match parts.get(&name) {
            Some(there) => there.resize(has),
            None => {
                let part = Pool::part(name.clone(), has, self.machine.clone());
                parts.insert(name, Arc::new(part));
            }
        }
    }

    pub(super) fn remove(&self, name: &PoolName) {
        self.parts.write().unwrap_or_else(PoisonError::into_inner).remove(name);
    }
}
