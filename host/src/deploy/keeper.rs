//! As many replicas as there should be, looked at now and then.

use super::Deployments;
use super::capacity::{Amount, Full, Pool};
use super::group::{Group, MakeRoom};
use super::placement::Placement;
use super::table::Model;
use super::version::Version;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

impl Deployments {
    /// Starts replicas that have to run, and stops those that nobody needs.
    pub fn keep(&self) {
        let models = self.read().kept();
        for model in &models {
            for version in model.placements().iter().filter_map(|there| model.served_by(there)) {
                if let Err(error) = self.needs_of(version) {
                    // Its calls are told so.
                    tracing::debug!(model = %model.name, "what it needs is not known: {error}");
                }
            }
        }
        self.entitle(&models);
        for model in models {
            let is_admitted = self.read().admits(&model);
            for placement in model.placements() {
                match model.served_by(placement).filter(|_| is_admitted) {
                    Some(version) if placement.scale().replicas_min > 0 => {
                        self.ensure(version, placement);
                    }
                    Some(_) | None => placement.reserve_nothing_ahead(),
                }
            }
            for version in &model.versions {
                for group in version.all_groups() {
                    match is_admitted && !group.placement.is_retired() {
                        true => self.keep_group(&model, version, &group),
                        false => group.stop(),
                    }
                }
                version.forget_retired();
            }
        }
    }

    /// A version that came later may take more than its deployment was checked
    /// for. Who exceeds the share that way has no replicas that always run, and
    /// neither has who is disabled.
    fn entitle(&self, models: &[Arc<Model>]) {
        let mut taken: BTreeMap<&str, Amount> = BTreeMap::new();
        let always_on = || {
            let is_it = |placement: &&Arc<Placement>| placement.said().replicas_min > 0;
            models.iter().flat_map(move |model| {
                model.placements().iter().filter(is_it).map(move |placement| (model, placement))
            })
        };
        for (model, placement) in always_on().filter(|(_, placement)| !placement.by_operator) {
            // What cannot be read does not start either.
            let needs = model.served_by(placement).and_then(|version| version.needs());
            let needs = needs.unwrap_or_default().times(placement.said().replicas_min);
            let sum = taken.entry(model.name.user_id()).or_default();
            *sum = sum.plus(needs);
        }
        let share = self.always_on_share();
        for (model, placement) in always_on() {
            let sum = taken.get(model.name.user_id()).copied().unwrap_or_default();
            let is_disabled = self.read().is_disabled(model.name.user_id());
            let entitled = !is_disabled && (placement.by_operator || sum.fits(share));
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
        if let Some(needs) = version.needs() {
            let missing = placement.scale().replicas_min.saturating_sub(group.count());
            if let Err(full) = placement.reserve_ahead(needs, missing) {
                self.make_room(&placement.pool, &full);
            }
        }
        group.ensure(version, self.loader());
    }

    fn keep_group(&self, model: &Model, version: &Arc<Version>, group: &Arc<Group>) {
        let placement = &group.placement;
        let scale = placement.scale();
        let served = model.served_by(placement);
        let is_served = served.is_some_and(|served| Arc::ptr_eq(served, version));
        // A version that another has replaced goes as soon as that one runs.
        let is_replaced = placement.id.is_some()
            && !is_served
            && served.is_some_and(|served| served.runs_in(placement));
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
        if is_served {
            group.grow(version, self.loader());
        }
    }
}

impl MakeRoom for Deployments {
    /// Stops replicas that nobody calls now and that need not run, those first
    /// that have not been called for longest; then further replicas of what is
    /// called. Stops nothing where that would not be enough.
    fn make_room(&self, pool: &Pool, full: &Full) -> bool {
        // Devices are the machine's, wherever they are reserved.
        let of_machine = full.is_of_devices || *full.name == *self.pools().machine().name();
        let (mut idle, mut busy) = (Vec::new(), Vec::new());
        let mut freed = full.left;
        for model in self.read().kept() {
            for version in &model.versions {
                for group in version.all_groups() {
                    let in_the_way = of_machine || *group.placement.pool.name() == *full.name;
                    let served = model.served_by(&group.placement);
                    let is_served = served.is_some_and(|served| Arc::ptr_eq(served, version));
                    let replicas_min = match is_served {
                        true => group.placement.scale().replicas_min,
                        false => 0,
                    };
                    let needs = version.needs().unwrap_or_default();
                    match group.idle() {
                        _ if !in_the_way => {}
                        Some(since) if replicas_min == 0 => {
                            let frees = needs.times(group.count());
                            freed = freed.plus(frees);
                            idle.push((since, frees, group));
                        }
                        Some(_) | None => {
                            let spare =
                                group.spare().min(group.count().saturating_sub(replicas_min));
                            freed = freed.plus(needs.times(spare));
                            busy.push((needs, group, spare));
                        }
                    }
                }
            }
        }
        if !full.needed.fits(freed) {
            return false;
        }
        idle.sort_by_key(|(since, ..)| std::cmp::Reverse(*since));
        // What is reserved says nothing of devices that are not free.
        let fits = || !full.is_of_devices && pool.fits(full.needed).is_ok();
        // Replicas that were stopped give back what they reserved once they have
        // ended, so it is counted ahead and not asked of others as well.
        let mut promised = full.left;
        for (_, frees, group) in idle {
            if full.needed.fits(promised) || fits() {
                break;
            }
            group.stop();
            promised = promised.plus(frees);
        }
        for (frees, group, spare) in busy {
            for _ in 0..spare {
                if full.needed.fits(promised) || fits() || !group.shrink_now() {
                    break;
                }
                promised = promised.plus(frees);
            }
        }
        fits()
    }
}
