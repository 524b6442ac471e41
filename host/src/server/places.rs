//! How many connections there are: of everybody, of each address, and of the
//! operator, whom no flood keeps out.

use crate::limits::limit;
use crate::telemetry::Rate;
use rustix::process::{Resource, getrlimit};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Connections to the socket in the data directory.
const OF_OPERATOR_MAX: usize = 64;

/// Files of a host that are not connections of clients: the store's, those of
/// guests, the operator's socket.
const FILES_OF_OTHERS: u64 = 256;

/// Bits of an IPv6 address that tell sites apart: a home gets a network of so many
/// (RFC 6177, section 2), and chooses the rest itself.
const SITE_BITS: u32 = 56;

/// How often it is told that connections are closed: once a minute.
const WARNINGS_PER_SECOND: f64 = 1.0 / 60.0;

/// Every place.
#[derive(Debug)]
pub(super) struct Places {
    all: Arc<Semaphore>,
    of_operator: Arc<Semaphore>,
    addresses: Arc<Addresses>,
    per_address_max: usize,
    /// How often it is told that an address has too many.
    warnings: Rate,
}

/// Connections of each address that has any.
#[derive(Debug, Default)]
struct Addresses(Mutex<HashMap<IpAddr, usize>>);

/// One place of an address, given back when this is dropped.
#[derive(Debug)]
pub(super) struct OfAddress {
    all: Arc<Addresses>,
    address: IpAddr,
}

impl Places {
    /// Connections take no file that something else needs.
    pub(super) fn new(max: usize, per_address_max: usize) -> Self {
        let files_max = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let fitting = files_max.saturating_sub(FILES_OF_OTHERS).max(1);
        let fitting = usize::try_from(fitting).unwrap_or(usize::MAX);
        if max > fitting {
            tracing::warn!(
                files_max,
                connections_max = fitting,
                "this process may have too few files for its connections_max, which is lowered"
            );
        }
        let max = max.min(fitting).min(Semaphore::MAX_PERMITS);
        Self {
            all: Arc::new(Semaphore::new(max)),
            of_operator: Arc::new(Semaphore::new(limit("operator_connections", OF_OPERATOR_MAX))),
            addresses: Arc::default(),
            per_address_max,
            warnings: Rate::new(WARNINGS_PER_SECOND, 1.0),
        }
    }

    /// Waits for one.
    pub(super) async fn one(&self) -> OwnedSemaphorePermit {
        place(&self.all).await
    }

    /// Waits for one of the operator.
    pub(super) async fn one_of_operator(&self) -> OwnedSemaphorePermit {
        place(&self.of_operator).await
    }

    /// A place of an address, unless it has as many as it may.
    pub(super) fn of(&self, address: IpAddr) -> Option<OfAddress> {
        let site = site(address);
        match self.addresses.lock().entry(site) {
            Entry::Occupied(taken) if *taken.get() >= self.per_address_max => {
                self.warn(address);
                return None;
            }
            Entry::Occupied(mut taken) => *taken.get_mut() += 1,
            Entry::Vacant(none) => drop(none.insert(1)),
        }
        Some(OfAddress { all: self.addresses.clone(), address: site })
    }

    /// Tells the operator, who may have put a proxy before the host.
    fn warn(&self, address: IpAddr) {
        if self.warnings.take() {
            tracing::warn!(
                %address,
                connections_per_address_max = self.per_address_max,
                "an address has as many connections as it may, and further ones are closed; a \
                 proxy needs more"
            );
        }
    }
}

impl Addresses {
    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for OfAddress {
    fn drop(&mut self) {
        if let Entry::Occupied(mut taken) = self.all.lock().entry(self.address) {
            match taken.get() {
                0 | 1 => drop(taken.remove()),
                _ => *taken.get_mut() -= 1,
            }
        }
    }
}

async fn place(places: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    match places.clone().acquire_owned().await {
        Ok(place) => place,
        // Nobody closes them.
        Err(_) => std::future::pending().await,
    }
}

/// What of an address tells sites apart.
fn site(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let mask = u128::MAX << (u128::BITS - SITE_BITS);
            Ipv6Addr::from_bits(address.to_bits() & mask).into()
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_operator_has_so_many_connections_and_one_more_waits() {
        let places = Places::new(1, 1);
        let mut held = Vec::new();
        for _ in 0..OF_OPERATOR_MAX {
            held.push(places.one_of_operator().await);
        }
        let mut next = std::pin::pin!(places.one_of_operator());
        assert!(futures_util::poll!(next.as_mut()).is_pending());
        held.pop();
        drop(next.await);
    }

    #[test]
    fn an_address_has_so_many_connections_and_others_have_theirs() {
        let places = Places::new(9, 2);
        let of = |address: &str| places.of(address.parse().unwrap());
        let (first, second) = (of("192.0.2.1").unwrap(), of("::ffff:192.0.2.1").unwrap());
        assert!(of("192.0.2.1").is_none());
        let other = of("192.0.2.2").unwrap();
        let (near, far) = (of("2001:db8::1").unwrap(), of("2001:db8:0:ff::1").unwrap());
        assert!(of("2001:db8::3").is_none(), "a site has addresses without number");
        let next = of("2001:db8:0:100::1").unwrap();
        drop(first);
        let again = of("192.0.2.1").unwrap();
        drop((second, again, other, near, far, next));
        assert!(places.addresses.lock().is_empty());
    }
}
