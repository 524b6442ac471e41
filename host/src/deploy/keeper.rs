//! As many replicas as there should be, looked at now and then.

use super::Deployments;
use super::capacity::{Amount, Full, Pool, Reservation};
use super::group::{Group, MakeRoom};
use super::table::Model;
use super::version::Version;
use std::sync::Arc;
use std::time::Duration;

impl Deployments {
    /// Reserves memory of the machine for something else than a replica.
    /// Replicas that nobody calls make room for it.
    pub fn reserve_memory(&self, memory_bytes: u64) -> Result<Reservation, Full> {
        let (machine, needed) = (self.pools().machine(), Amount { cpu_millis: 0, memory_bytes });
        machine.reserve(needed).or_else(|full| {
            self.make_room(machine, &full);
            machine.reserve(needed)
        })
    }

    /// Starts replicas that have to run, and stops those that nobody needs.
    pub fn keep(&self) {
        let models = self.read().kept();
        for model in models {
            for placement in model.placements() {
                if placement.scale().replicas_min > 0
                    && !model.stopped
                    && let Some(version) = model.served_by(placement)
                {
                    version.group(placement).ensure(version, self.loader());
                }
            }
            for version in &model.versions {
                for group in version.all_groups() {
                    self.keep_group(&model, version, &group);
                }
                version.forget_retired();
            }
        }
    }

    fn keep_group(&self, model: &Model, version: &Arc<Version>, group: &Arc<Group>) {
        let placement = &group.placement;
        if placement.is_retired() {
            group.stop();
            return;
        }
        let scale = placement.scale();
        let served = model.served_by(placement);
        let is_served = served.is_some_and(|served| Arc::ptr_eq(served, version));
        // A version that another has replaced goes as soon as that one runs.
        let is_replaced = placement.id.is_some()
            && !is_served
            && served.is_some_and(|served| served.group(placement).is_running());
        let delay = if is_replaced { Duration::ZERO } else { scale.scale_to_zero_delay };
        let has_to_run = is_served && scale.replicas_min > 0;
        if !has_to_run && group.idle().is_some_and(|idle| idle >= delay) {
            tracing::info!(
                model = %version.name, version = version.version, "stopped, nobody calls it"
            );
            group.stop();
            return;
        }
        if group.shrink() {
            tracing::info!(model = %version.name, version = version.version, "one replica less");
        }
        group.grow(version, self.loader());
    }
}

impl MakeRoom for Deployments {
    /// Stops replicas that nobody calls now and that need not run, those first
    /// that have not been called for longest.
    fn make_room(&self, pool: &Pool, full: &Full) -> bool {
        let mut idle: Vec<(Duration, Arc<Group>)> = Vec::new();
        for model in self.read().kept() {
            for version in &model.versions {
                for other in version.all_groups() {
                    let in_the_way = full.name == *self.pools().machine().name()
                        || other.placement.pool.name() == &full.name;
                    let has_to_run = other.placement.scale().replicas_min > 0;
                    if in_the_way
                        && !has_to_run
                        && let Some(since) = other.idle()
                    {
                        idle.push((since, other));
                    }
                }
            }
        }
        idle.sort_by_key(|(since, _)| std::cmp::Reverse(*since));
        for (_, other) in idle {
            if pool.fits(full.needed).is_ok() {
                break;
            }
            other.stop();
        }
        pool.fits(full.needed).is_ok()
    }
}
