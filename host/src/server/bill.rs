//! What a caller pays for one call.
//!
//! A call that is broken off is over before its guest has noticed. What that burns
//! until it ends is paid, too: else whoever breaks off every call would pay for none.

use crate::auth::Payer;
use crate::call::Receipt;
use crate::worker::Spent;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A call's, which the call and its guest have together. The last of them pays what
/// is left.
#[derive(Debug)]
pub(crate) struct Bill {
    payer: Payer,
    /// What the CPU time of a guest counts as.
    fuel_per_cpu_second: u64,
    spent: OnceLock<Spent>,
    paid: AtomicU64,
    is_settled: AtomicBool,
}

impl Bill {
    pub(super) fn new(payer: Payer, fuel_per_cpu_second: u64) -> Self {
        Self {
            payer,
            fuel_per_cpu_second,
            spent: OnceLock::new(),
            paid: AtomicU64::new(0),
            is_settled: AtomicBool::new(false),
        }
    }

    /// A guest runs, and counts what it takes.
    pub(super) fn begins(&self, spent: &Spent) {
        // A call has one guest.
        let _ = self.spent.set(spent.clone());
    }

    /// What the guest has taken so far, once there is one.
    pub(super) fn spent(&self) -> Option<&Spent> {
        self.spent.get()
    }

    /// Pays for what the call has taken so far.
    pub(super) fn pay(&self, receipt: &Receipt) {
        let fuel = self.burnt(receipt);
        let paid = self.paid.fetch_max(fuel, Ordering::Relaxed);
        self.payer.charge(fuel.saturating_sub(paid));
    }

    /// Pays for a guest that has ended.
    pub(super) fn settle(&self, verdict: &Receipt) {
        self.pay(verdict);
        self.is_settled.store(true, Ordering::Relaxed);
    }

    /// The fuel that a call counts as. Where it is known to be more than was counted,
    /// its CPU time says how much at most.
    fn burnt(&self, receipt: &Receipt) -> u64 {
        if !receipt.fuel_is_lower_bound {
            return receipt.fuel;
        }
        let cpu = receipt.guest_cpu.as_nanos() * u128::from(self.fuel_per_cpu_second);
        receipt.fuel.max(u64::try_from(cpu / 1_000_000_000).unwrap_or(u64::MAX))
    }
}

impl Drop for Bill {
    fn drop(&mut self) {
        if let Some(spent) = self.spent.get()
            && !self.is_settled.load(Ordering::Relaxed)
        {
            self.pay(&spent.receipt());
        }
    }
}
