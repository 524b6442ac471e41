//! As many replicas as there should be, looked at now and then.

use super::Deployments;
use super::capacity::{Amount, Full, Pool, Reservation};
use super::group::{Group, MakeRoom};
use super::placement::Placement;
use super::table::Model;
use super::version::Version;
use std::collections::BTreeMap;
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
        self.entitle(&models);
        for model in models {
            for placement in model.placements() {
                if placement.scale().replicas_min > 0
                    && !model.stopped
                    && let Some(version) = model.served_by(placement)
                {
                    self.ensure(version, placement);
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

    /// A version that came later may take more than its deployment was checked
    /// for. Who exceeds the share that way has no replicas that always run.
    fn entitle(&self, models: &[Arc<Model>]) {
        let mut taken: BTreeMap<&str, Amount> = BTreeMap::new();
        let always_on = || {
            let of_users = |placement: &&Arc<Placement>| {
                !placement.by_operator && placement.said().replicas_min > 0
            };
            models.iter().flat_map(move |model| {
                model.placements().iter().filter(of_users).map(move |placement| (model, placement))
            })
        };
        for (model, placement) in always_on() {
            // It is known once a replica has started.
            let needs = model.served_by(placement).and_then(|version| version.needs());
            let needs = needs.unwrap_or_default().times(placement.said().replicas_min);
            let sum = taken.entry(model.name.user_id()).or_default();
            *sum = sum.plus(needs);
        }
        let share = self.always_on_share();
        for (model, placement) in always_on() {
            let sum = taken.get(model.name.user_id()).copied().unwrap_or_default();
            let entitled = sum.fits(share);
            if placement.entitle(entitled) {
                tracing::warn!(
                    user = model.name.user_id(), entitled, taken = %sum, %share,
                    "replicas that always run are within their owner's share, or not any more"
                );
            }
        }
    }

    fn ensure(&self, version: &Arc<Version>, placement: &Arc<Placement>) {
        let group = version.group(placement);
        if !group.is_running()
            && let Some(needs) = version.needs()
            && let Err(full) = placement.pool.fits(needs)
        {
            self.make_room(&placement.pool, &full);
        }
        group.ensure(version, self.loader());
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
