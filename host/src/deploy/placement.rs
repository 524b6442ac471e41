//! Where a model's replicas run and how many: a deployment as calls see it.

use super::autoscale::Autoscale;
use super::capacity::{Amount, Full, Pool, Reservation};
use super::details::DeploymentDetail;
use crate::store::DeploymentRow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

/// A deployment of a model, or the place of models that have none.
#[derive(Debug)]
pub(super) struct Placement {
    /// The deployment; nothing for models without.
    pub(super) id: Option<String>,
    /// The version that it pins; nothing to follow the model.
    pub(super) version: Option<String>,
    /// What its replicas reserve of.
    pub(super) pool: Arc<Pool>,
    /// Whether the operator made it so, whose replicas have no share.
    pub(super) by_operator: bool,
    scale: RwLock<Autoscale>,
    /// Whether replicas may run without calls: its owner's share is not exceeded.
    entitled: AtomicBool,
    retired: AtomicBool,
    /// For replicas that always run and do not yet.
    ahead: Mutex<Vec<Reservation>>,
}

impl Placement {
    /// The place of models that nobody has deployed.
    pub(super) fn of_all(machine: Arc<Pool>) -> Self {
        Self::new(None, None, machine, false, Autoscale::DEFAULT)
    }

    /// A deployment.
    pub(super) fn of(row: &DeploymentRow, said: &DeploymentDetail, pool: Arc<Pool>) -> Self {
        let (id, version) = (Some(row.id.clone()), row.version_id.clone());
        Self::new(id, version, pool, said.by_operator, said.scale())
    }

    fn new(
        id: Option<String>,
        version: Option<String>,
        pool: Arc<Pool>,
        by_operator: bool,
        scale: Autoscale,
    ) -> Self {
        let (entitled, retired) = (AtomicBool::new(true), AtomicBool::new(false));
        let (scale, ahead) = (RwLock::new(scale), Mutex::default());
        Self { id, version, pool, by_operator, scale, entitled, retired, ahead }
    }

    /// How many replicas there are: as was said, but none without calls where its
    /// owner's share is exceeded.
    pub(super) fn scale(&self) -> Autoscale {
        let said = self.said();
        match self.entitled.load(Ordering::Acquire) {
            true => said,
            false => Autoscale { replicas_min: 0, ..said },
        }
    }

    /// The same as its owner said it.
    pub(super) fn said(&self) -> Autoscale {
        *self.scale.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// So many from now on.
    pub(super) fn set_scale(&self, scale: Autoscale) {
        *self.scale.write().unwrap_or_else(PoisonError::into_inner) = scale;
    }

    /// Replicas may run without calls, or not; whether that has changed.
    pub(super) fn entitle(&self, entitled: bool) -> bool {
        self.entitled.swap(entitled, Ordering::AcqRel) != entitled
    }

    /// Reserves so much for each of so many replicas that are to start, and no
    /// more; as many as there is room for.
    pub(super) fn reserve_ahead(&self, needs: Amount, count: u32) -> Result<(), Full> {
        let mut ahead = self.ahead();
        if self.is_retired() {
            return Ok(());
        }
        ahead.retain(|reservation| reservation.amount() == needs);
        ahead.truncate(count as usize);
        while ahead.len() < count as usize {
            ahead.push(self.pool.reserve(needs)?);
        }
        Ok(())
    }

    pub(super) fn reserve_nothing_ahead(&self) {
        self.ahead().clear();
    }

    /// What is reserved for replicas that are to start.
    pub(super) fn reserved_ahead(&self) -> Amount {
        let ahead = self.ahead();
        ahead.iter().fold(Amount::default(), |sum, reservation| sum.plus(reservation.amount()))
    }

    /// A replica's reservation: one that was made ahead, else a new one.
    pub(super) fn reserve(&self, needs: Amount) -> Result<Reservation, Full> {
        let ahead = self.ahead().pop();
        match ahead.filter(|reservation| reservation.amount() == needs) {
            Some(reservation) => Ok(reservation),
            None => self.pool.reserve(needs),
        }
    }

    /// Whether a replica would find room.
    pub(super) fn has_room(&self, needs: Amount) -> Result<(), Full> {
        let is_ahead = self.ahead().iter().any(|reservation| reservation.amount() == needs);
        if is_ahead { Ok(()) } else { self.pool.fits(needs) }
    }

    fn ahead(&self) -> MutexGuard<'_, Vec<Reservation>> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It is deleted, or another took its place.
    pub(super) fn retire(&self) {
        let mut ahead = self.ahead();
        self.retired.store(true, Ordering::Release);
        ahead.clear();
    }

    /// Whether it is no more.
    pub(super) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }
}
