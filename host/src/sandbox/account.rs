//! What a version makes the host hold, in one account.
//!
//! Owns the sums and the ceiling. A charge is released by drop, so no path can
//! forget to give memory back.

use crate::call::Holder;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The memory account of one version. Clones share it.
#[derive(Debug, Clone)]
pub struct Account(Arc<Inner>);

struct Inner {
    memory_bytes_max: u64,
    total: AtomicU64,
    by_holder: [AtomicU64; Holder::ALL.len()],
    peaks: [AtomicU64; Holder::ALL.len()],
    /// Whoever wants to know what is given back.
    given_back: Option<Box<dyn Fn(u64) + Send + Sync>>,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner")
            .field("memory_bytes_max", &self.memory_bytes_max)
            .field("total", &self.total)
            .field("by_holder", &self.by_holder)
            .finish_non_exhaustive()
    }
}

/// The account's ceiling would be exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{} would exceed {}: {memory_bytes_max} bytes", holder.as_str(), holder.limit_name())]
pub struct OverLimit {
    /// What asked for more.
    pub holder: Holder,
    /// The ceiling.
    pub memory_bytes_max: u64,
}

impl Account {
    /// An empty account with a ceiling in bytes.
    pub fn new(memory_bytes_max: u64) -> Self {
        Self::with(memory_bytes_max, None)
    }

    /// The same, which tells how many bytes are given back. That must not wait, nor
    /// charge anything.
    pub(crate) fn telling(
        memory_bytes_max: u64,
        given_back: impl Fn(u64) + Send + Sync + 'static,
    ) -> Self {
        Self::with(memory_bytes_max, Some(Box::new(given_back)))
    }

    fn with(memory_bytes_max: u64, given_back: Option<Box<dyn Fn(u64) + Send + Sync>>) -> Self {
        Self(Arc::new(Inner {
            memory_bytes_max,
            total: AtomicU64::new(0),
            by_holder: Default::default(),
            peaks: Default::default(),
            given_back,
        }))
    }

    /// Charges `bytes`, or nothing if that exceeds the ceiling.
    pub fn charge(&self, holder: Holder, bytes: u64) -> Result<Charge, OverLimit> {
        let mut charge = Charge { account: self.clone(), holder, bytes: 0 };
        charge.grow(bytes)?;
        Ok(charge)
    }

    /// Bytes held now, of all kinds.
    pub fn bytes(&self) -> u64 {
        self.0.total.load(Ordering::Relaxed)
    }

    /// Bytes held now by one kind of holder.
    pub fn bytes_of(&self, holder: Holder) -> u64 {
        self.of(holder).load(Ordering::Relaxed)
    }

    /// Most bytes held at once by one kind of holder since the last restart of
    /// the peaks, or ever.
    pub fn peak_of(&self, holder: Holder) -> u64 {
        of(&self.0.peaks, holder).load(Ordering::Relaxed)
    }

    /// Begins the peaks anew, from what is held now.
    pub fn restart_peaks(&self) {
        for holder in Holder::ALL {
            of(&self.0.peaks, holder).store(self.bytes_of(holder), Ordering::Relaxed);
        }
    }

    /// Whether half of the ceiling is left for calls, if so many bytes more are held.
    pub(super) fn leaves_half_beside(&self, bytes: u64) -> bool {
        self.bytes().saturating_add(bytes) <= self.bytes_max() / 2
    }

    /// The ceiling in bytes.
    pub fn bytes_max(&self) -> u64 {
        self.0.memory_bytes_max
    }

    fn of(&self, holder: Holder) -> &AtomicU64 {
        of(&self.0.by_holder, holder)
    }
}

fn of(sums: &[AtomicU64; Holder::ALL.len()], holder: Holder) -> &AtomicU64 {
    let [memory, table, stack, tensor, message, graph, engine, device] = sums;
    match holder {
        Holder::Memory => memory,
        Holder::Table => table,
        Holder::Stack => stack,
        Holder::Tensor => tensor,
        Holder::Message => message,
        Holder::Graph => graph,
        Holder::Engine => engine,
        Holder::Device => device,
    }
}

/// A part of an account that is held as long as this value lives.
#[derive(Debug)]
pub struct Charge {
    account: Account,
    holder: Holder,
    bytes: u64,
}

impl Charge {
    /// Holds `bytes` more, or leaves the charge as it was.
    pub fn grow(&mut self, bytes: u64) -> Result<(), OverLimit> {
        let max = self.account.0.memory_bytes_max;
        self.account
            .0
            .total
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |total| {
                total.checked_add(bytes).filter(|sum| *sum <= max)
            })
            .map_err(|_| OverLimit { holder: self.holder, memory_bytes_max: max })?;
        let held = self.account.of(self.holder).fetch_add(bytes, Ordering::Relaxed) + bytes;
        of(&self.account.0.peaks, self.holder).fetch_max(held, Ordering::Relaxed);
        self.bytes += bytes;
        Ok(())
    }

    /// Gives back `bytes`, at most all of it.
    pub fn shrink(&mut self, bytes: u64) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.account.0.total.fetch_sub(bytes, Ordering::Relaxed);
        self.account.of(self.holder).fetch_sub(bytes, Ordering::Relaxed);
        if let Some(given_back) = self.account.0.given_back.as_ref().filter(|_| bytes > 0) {
            given_back(bytes);
        }
    }

    /// Holds what another charge of the same account and holder holds, in its place.
    pub(crate) fn absorb(&mut self, mut other: Self) {
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Holds this many from now on, or leaves the charge as it was.
    pub fn resize(&mut self, bytes: u64) -> Result<(), OverLimit> {
        match bytes.checked_sub(self.bytes) {
            Some(more) => self.grow(more),
            None => {
                self.shrink(self.bytes - bytes);
                Ok(())
            }
        }
    }

    /// Bytes held.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.shrink(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charges_of_all_holders_share_one_ceiling() {
        let account = Account::new(100);
        let memory = account.charge(Holder::Memory, 60).unwrap();
        let refused = account.charge(Holder::Tensor, 41).unwrap_err();
        assert_eq!(refused, OverLimit { holder: Holder::Tensor, memory_bytes_max: 100 });
        drop(memory);
        assert!(account.charge(Holder::Tensor, 41).is_ok());
    }

    #[test]
    fn the_most_that_was_held_is_remembered_by_its_holder() {
        let account = Account::new(100);
        let graph = account.charge(Holder::Graph, 10).unwrap();
        drop(account.charge(Holder::Tensor, 60).unwrap());
        drop(account.charge(Holder::Tensor, 30).unwrap());
        assert_eq!((account.peak_of(Holder::Tensor), account.peak_of(Holder::Graph)), (60, 10));
        account.restart_peaks();
        assert_eq!((account.peak_of(Holder::Tensor), account.peak_of(Holder::Graph)), (0, 10));
        drop(graph);
    }

    #[test]
    fn a_dropped_charge_leaves_nothing_behind() {
        let account = Account::new(100);
        {
            let mut charge = account.charge(Holder::Graph, 10).unwrap();
            charge.grow(20).unwrap();
            assert!(charge.grow(u64::MAX).is_err());
            charge.shrink(5);
            assert_eq!((account.bytes(), account.bytes_of(Holder::Graph)), (25, 25));
            assert!(charge.resize(101).is_err());
            charge.resize(30).unwrap();
            charge.resize(20).unwrap();
            assert_eq!((account.bytes(), charge.bytes()), (20, 20));
        }
        assert_eq!((account.bytes(), account.bytes_of(Holder::Graph)), (0, 0));
    }
}
