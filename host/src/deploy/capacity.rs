//! What a nodepool has, and what replicas have reserved of it.
//!
//! Owns the sums: a reservation is taken in its nodepool and in the machine at
//! once, or not at all, and is given back by drop.

use crate::limits::{accelerators_text, limit};
use crate::package::config::Config;
use crate::yaml::bytes_text;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

/// How often the CPUs of a nodepool may be reserved. Replicas rarely compute all
/// at once; memory is held, so it is never promised twice.
pub const CPU_OVERCOMMIT: u64 = 4;

/// What a replica takes, or a nodepool has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Amount {
    /// Thousandths of a CPU.
    pub cpu_millis: u64,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Devices that graphs are computed on.
    pub accelerators: u32,
}

impl Amount {
    /// What a running replica reserves: its requests, or its limits where it has
    /// none.
    pub fn of(config: &Config) -> Self {
        let (limits, compute) = (&config.limits, &config.compute);
        Self {
            cpu_millis: compute.cpu_requests_millis.unwrap_or(limits.cpu_millis),
            memory_bytes: compute.memory_requests_bytes.unwrap_or(limits.memory_bytes_max),
            accelerators: limits.accelerators.count,
        }
    }

    /// That of several replicas.
    pub fn times(self, count: u32) -> Self {
        Self {
            cpu_millis: self.cpu_millis.saturating_mul(count.into()),
            memory_bytes: self.memory_bytes.saturating_mul(count.into()),
            accelerators: self.accelerators.saturating_mul(count),
        }
    }

    /// The sum of both.
    pub fn plus(self, other: Self) -> Self {
        Self {
            cpu_millis: self.cpu_millis.saturating_add(other.cpu_millis),
            memory_bytes: self.memory_bytes.saturating_add(other.memory_bytes),
            accelerators: self.accelerators.saturating_add(other.accelerators),
        }
    }

    /// What is left of this without that.
    pub fn minus(self, other: Self) -> Self {
        Self {
            cpu_millis: self.cpu_millis.saturating_sub(other.cpu_millis),
            memory_bytes: self.memory_bytes.saturating_sub(other.memory_bytes),
            accelerators: self.accelerators.saturating_sub(other.accelerators),
        }
    }

    /// Whether this is no more than that, of each kind.
    pub fn fits(self, other: Self) -> bool {
        self.cpu_millis <= other.cpu_millis
            && self.memory_bytes <= other.memory_bytes
            && self.accelerators <= other.accelerators
    }

    /// What may be reserved where there is so much.
    pub fn reservable(self) -> Self {
        let overcommit = limit("cpu_overcommit", CPU_OVERCOMMIT);
        Self {
            cpu_millis: self.cpu_millis.saturating_mul(overcommit),
            memory_bytes: limit("machine_memory", self.memory_bytes),
            accelerators: self.accelerators,
        }
    }

    /// The CPUs as a quantity: `2`, or `500m`.
    pub fn cpu_text(self) -> String {
        match self.cpu_millis.is_multiple_of(1000) {
            true => (self.cpu_millis / 1000).to_string(),
            false => format!("{}m", self.cpu_millis),
        }
    }

    /// The memory as a quantity: `13Gi`, or `1500Mi`.
    pub fn memory_text(self) -> String {
        bytes_text(self.memory_bytes)
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (cpus, memory) = (self.cpu_text(), self.memory_text());
        match self.accelerators {
            0 => write!(f, "{cpus} CPU and {memory}"),
            count => write!(f, "{cpus} CPU, {memory} and {}", accelerators_text(count)),
        }
    }
}

/// A nodepool's capacity.
#[derive(Debug)]
pub struct Pool {
    name: Arc<PoolName>,
    state: Mutex<State>,
    /// The machine, whose capacity all its nodepools share.
    machine: Option<Arc<Pool>>,
    freed: Arc<Notify>,
}

/// Where a nodepool is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PoolName {
    /// The owner. Empty for the machine, which is everybody's.
    pub user_id: String,
    /// The compute cluster.
    pub cluster_id: String,
    /// The nodepool.
    pub id: String,
}

impl fmt::Display for PoolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.cluster_id, self.id)
    }
}

#[derive(Debug, Clone, Copy)]
struct State {
    has: Amount,
    reserved: Amount,
}

/// A nodepool has not enough left, or never had.
#[derive(Debug, Clone)]
pub struct Full {
    /// What was asked for.
    pub needed: Amount,
    /// Where.
    pub name: Arc<PoolName>,
    /// What is left.
    pub left: Amount,
    /// What there is.
    pub has: Amount,
    /// Whether it is devices of the machine that are not free, whatever is reserved.
    pub is_of_devices: bool,
}

impl std::error::Error for Full {}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { needed, name, left, has, .. } = self;
        if self.is_of_devices || needed.accelerators > left.accelerators {
            let advice = match needed.accelerators > has.accelerators {
                true => "choose another nodepool",
                false => "make room, or try again in a moment",
            };
            return write!(
                f,
                "{} wanted: nodepool {name} has {} left that would do, of {}; {advice}",
                accelerators_text(needed.accelerators),
                left.accelerators,
                has.accelerators
            );
        }
        write!(
            f,
            "{needed} do not fit: nodepool {name} has {left} left of {has} (its CPUs can be \
             reserved {CPU_OVERCOMMIT} times); lower cpu_requests and cpu_memory_requests, or \
             make room"
        )
    }
}

impl Full {
    /// Whether it would not fit if all else went.
    pub fn is_for_ever(&self) -> bool {
        !self.needed.fits(self.has.reservable())
    }
}

/// What is reserved, as long as this lives.
#[derive(Debug)]
pub struct Reservation {
    pool: Arc<Pool>,
    amount: Amount,
    /// The same of the machine, which is given back after this.
    machine: Option<Box<Reservation>>,
}

impl Reservation {
    /// How much it is.
    pub fn amount(&self) -> Amount {
        self.amount
    }
}

impl Pool {
    /// The machine itself.
    pub fn machine(name: PoolName, has: Amount) -> Self {
        Self::new(name, has, None)
    }

    /// A part of the machine.
    pub fn part(name: PoolName, has: Amount, machine: Arc<Pool>) -> Self {
        Self::new(name, has, Some(machine))
    }

    fn new(name: PoolName, has: Amount, machine: Option<Arc<Pool>>) -> Self {
        let state = Mutex::new(State { has, reserved: Amount::default() });
        Self { name: Arc::new(name), state, machine, freed: Arc::default() }
    }

    /// Where it is.
    pub fn name(&self) -> &PoolName {
        &self.name
    }

    /// What it has.
    pub fn has(&self) -> Amount {
        self.lock().has
    }

    /// What replicas have reserved of it.
    pub fn reserved(&self) -> Amount {
        self.lock().reserved
    }

    /// It has so much from now on. What is reserved stays.
    pub fn resize(&self, has: Amount) {
        self.lock().has = has;
        self.announce();
    }

    /// Whether so much is left, here and of the machine.
    pub fn fits(&self, needed: Amount) -> Result<(), Full> {
        let state = *self.lock();
        if !needed.plus(state.reserved).fits(state.has.reservable()) {
            return Err(self.full(state, needed));
        }
        self.machine.as_ref().map_or(Ok(()), |machine| machine.fits(needed))
    }

    /// Reserves so much, here and of the machine.
    pub fn reserve(self: &Arc<Self>, needed: Amount) -> Result<Reservation, Full> {
        let mut state = self.lock();
        let after = state.reserved.plus(needed);
        if !after.fits(state.has.reservable()) {
            return Err(self.full(*state, needed));
        }
        state.reserved = after;
        drop(state);
        // Given back if the machine has not enough.
        let mut reservation = Reservation { pool: self.clone(), amount: needed, machine: None };
        if let Some(machine) = &self.machine {
            reservation.machine = Some(Box::new(machine.reserve(needed)?));
        }
        Ok(reservation)
    }

    /// Why so much is not reserved where the devices that it needs are not free.
    pub(super) fn without_devices(&self, needed: Amount) -> Full {
        let full = self.full(*self.lock(), needed);
        let left = Amount { accelerators: 0, ..full.left };
        Full { left, is_of_devices: true, ..full }
    }

    fn full(&self, State { has, reserved }: State, needed: Amount) -> Full {
        let left = has.reservable().minus(reserved);
        Full { needed, name: self.name.clone(), left, has, is_of_devices: false }
    }

    /// Resolves when something is given back after this was made.
    pub fn freed(&self) -> OwnedNotified {
        // What frees a part frees the machine as well.
        self.whole().freed.clone().notified_owned()
    }

    fn announce(&self) {
        self.whole().freed.notify_waiters();
    }

    fn whole(&self) -> &Self {
        self.machine.as_deref().unwrap_or(self)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut state = self.pool.lock();
        state.reserved = state.reserved.minus(self.amount);
        drop(state);
        self.pool.announce();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn amount(cpu_millis: u64, mebibytes: u64) -> Amount {
        Amount { cpu_millis, memory_bytes: mebibytes * MIB, accelerators: 0 }
    }

    fn name(id: &str) -> PoolName {
        PoolName { user_id: String::new(), cluster_id: "local".to_owned(), id: id.to_owned() }
    }

    #[test]
    fn what_does_not_fit_is_refused_with_the_numbers_and_takes_nothing() {
        let machine = Arc::new(Pool::machine(name("default"), amount(2000, 4096)));
        let part = Arc::new(Pool::part(name("part"), amount(1000, 3072), machine.clone()));
        let first = part.reserve(amount(500, 2048)).unwrap();
        let full = part.reserve(amount(500, 1025)).unwrap_err();
        assert_eq!(
            full.to_string(),
            "500m CPU and 1025Mi do not fit: nodepool local/part has 3500m CPU and 1Gi left of 1 \
             CPU and 3Gi (its CPUs can be reserved 4 times); lower cpu_requests and \
             cpu_memory_requests, or make room"
        );
        assert!(!full.is_for_ever());
        assert!(part.reserve(amount(1, 3073)).unwrap_err().is_for_ever());
        // The refused one took nothing of the machine either.
        assert_eq!(machine.reserved(), amount(500, 2048));
        drop(first);
        assert_eq!((part.reserved(), machine.reserved()), (amount(0, 0), amount(0, 0)));
    }

    #[test]
    fn parts_share_the_machine() {
        let machine = Arc::new(Pool::machine(name("default"), amount(2000, 4096)));
        let parts = ["a", "b"]
            .map(|id| Arc::new(Pool::part(name(id), amount(2000, 4096), machine.clone())));
        let _first = parts[0].reserve(amount(1000, 4096)).unwrap();
        let full = parts[1].reserve(amount(1000, 1)).unwrap_err();
        assert_eq!(*full.name, name("default"));
        assert!(parts[1].fits(amount(1000, 1)).is_err());
    }

    #[test]
    fn cpus_are_reserved_four_times_and_no_more() {
        let machine = Arc::new(Pool::machine(name("default"), amount(1000, 4096)));
        let _held: Vec<_> = (0..4).map(|_| machine.reserve(amount(1000, 1)).unwrap()).collect();
        assert!(machine.reserve(amount(1, 1)).is_err());
    }

    /// What is computed on one is on it alone.
    #[test]
    fn accelerators_are_reserved_once() {
        let has = Amount { accelerators: 2, ..amount(1000, 4096) };
        let machine = Arc::new(Pool::machine(name("default"), has));
        let one = Amount { accelerators: 1, ..amount(1, 1) };
        let _held = [machine.reserve(one).unwrap(), machine.reserve(one).unwrap()];
        let full = machine.reserve(one).unwrap_err();
        assert!(!full.is_for_ever());
        assert_eq!(
            full.to_string(),
            "1 accelerator wanted: nodepool local/default has 0 left that would do, of 2; make \
             room, or try again in a moment"
        );
        assert!(machine.fits(Amount { accelerators: 3, ..one }).unwrap_err().is_for_ever());
        machine.reserve(amount(1, 1)).unwrap();
    }

    #[tokio::test]
    async fn who_waits_is_told_when_something_is_given_back() {
        let machine = Arc::new(Pool::machine(name("default"), amount(1000, 1)));
        let part = Arc::new(Pool::part(name("part"), amount(1000, 1), machine.clone()));
        let held = machine.reserve(amount(1, 1)).unwrap();
        let mut freed = std::pin::pin!(part.freed());
        freed.as_mut().enable();
        assert!(part.reserve(amount(1, 1)).is_err());
        drop(held);
        freed.await;
        assert!(part.reserve(amount(1, 1)).is_ok());
    }
}
