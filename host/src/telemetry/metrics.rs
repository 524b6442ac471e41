//! The host's numbers, in the form that Prometheus reads.
//!
//! Owns every metric and the bound on their number. A model has a label only if
//! there is such a one; what a client calls a model never becomes one.

use super::series::{Families, Model, Series};
use crate::call::{Function, Holder, Receipt};
use crate::deploy::Amount;
use crate::limits::limit;
use crate::worker::Kernel;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// Models with a label of their own; all further ones share one.
const MODELS_LABELLED_MAX: usize = 256;

/// The label of models beyond that number. No model is called so: a model's name
/// has slashes.
const OTHER: &str = "other";

/// The label of calls of nothing that is served.
const NONE: &str = "none";

/// How a call went, in numbers.
#[derive(Debug, Clone)]
pub struct CallFigures<'a> {
    /// The model that was called, if it is served.
    pub model: Option<&'a str>,
    /// The function.
    pub function: Function,
    /// The reason of its outcome, or `OK`.
    pub verdict: &'static str,
    /// From its first message to its end.
    pub wall: Duration,
    /// In the queue; nothing if it never came so far.
    pub queue: Option<Duration>,
    /// To its first output, if there was one.
    pub first_output: Option<Duration>,
    /// What it took.
    pub receipt: Receipt,
}

/// A model that there is, at the moment of a scrape.
#[derive(Debug, Clone)]
pub struct Serving {
    /// Its name.
    pub model: String,
    /// Replicas that run. Without one, all that follows is nothing.
    pub replicas: usize,
    /// Calls that run.
    pub running: usize,
    /// Calls that wait for a place.
    pub waiting: usize,
    /// Bytes held, by what holds them.
    pub memory_bytes: [(Holder, u64); Holder::ALL.len()],
    /// Sandboxes made by the replicas that run.
    pub sandboxes_made: u64,
    /// CPU time that was charged to their `cpu_limit`.
    pub cpu_charged: Duration,
    /// What the kernel says of their processes.
    pub kernel: Kernel,
}

impl Serving {
    /// One of which no replica runs.
    pub fn stopped(model: String) -> Self {
        Self {
            model,
            replicas: 0,
            running: 0,
            waiting: 0,
            memory_bytes: Holder::ALL.map(|holder| (holder, 0)),
            sandboxes_made: 0,
            cpu_charged: Duration::ZERO,
            kernel: Kernel::default(),
        }
    }
}

/// Every number. Built once for each host.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    families: Families,
    /// The models that have a label.
    models: Mutex<BTreeMap<String, Arc<Series>>>,
    connections: Counter,
    connections_refused: Counter,
    connections_open: Gauge,
    config_reloads: Counter,
    config_reloads_failed: Counter,
    machine: Machine,
    versions_to_compile: Gauge,
    at_scrape: Mutex<AtScrape>,
}

/// What the machine has for replicas, and what they have of it.
#[derive(Debug, Default)]
struct Machine {
    cpus: Gauge<f64, AtomicU64>,
    cpus_reserved: Gauge<f64, AtomicU64>,
    memory_bytes: Gauge,
    memory_bytes_reserved: Gauge,
    accelerators: Gauge,
    accelerators_taken: Gauge,
}

impl Machine {
    fn register(registry: &mut Registry) -> Self {
        let machine = Self::default();
        registry.register("machine_cpus", "CPUs that there are for replicas", machine.cpus.clone());
        registry.register(
            "reserved_cpus",
            "CPUs that replicas have reserved; they can be reserved several times",
            machine.cpus_reserved.clone(),
        );
        registry.register(
            "machine_memory_bytes",
            "Memory that there is for replicas",
            machine.memory_bytes.clone(),
        );
        registry.register(
            "reserved_memory_bytes",
            "Memory that replicas have reserved",
            machine.memory_bytes_reserved.clone(),
        );
        registry.register(
            "machine_accelerators",
            "Accelerators that there are for replicas",
            machine.accelerators.clone(),
        );
        registry.register(
            "taken_accelerators",
            "Accelerators that replicas and uploads have, each for itself alone",
            machine.accelerators_taken.clone(),
        );
        machine
    }
}

/// What is read off when somebody asks.
#[derive(Debug)]
struct AtScrape {
    models: Gauge,
    replicas: Family<Model, Gauge>,
    running: Family<Model, Gauge>,
    waiting: Family<Model, Gauge>,
    memory_bytes: Family<Memory, Gauge>,
    sandboxes: Family<Model, Counter>,
    worker_cpu: Family<Model, Gauge<f64, AtomicU64>>,
    worker_cpu_uncharged: Family<Model, Gauge<f64, AtomicU64>>,
    worker_resident_bytes: Family<Model, Gauge>,
    worker_uncharged_bytes: Family<Model, Gauge>,
    log_lines_dropped: Counter,
    guest_entries_lost: Counter,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Memory {
    model: String,
    kind: &'static str,
}

/// A connection that counts as open until this is dropped.
#[derive(Debug)]
pub struct Open(Gauge);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("ringfence");
        let families = Families::register(&mut registry);
        let (connections, connections_open) = (Counter::default(), Gauge::default());
        registry.register("connections", "Connections accepted", connections.clone());
        let connections_refused = Counter::default();
        registry.register(
            "connections_refused",
            "Connections closed at once: their address has as many as it may",
            connections_refused.clone(),
        );
        registry.register("connections_open", "Connections open now", connections_open.clone());
        let (config_reloads, config_reloads_failed) = (Counter::default(), Counter::default());
        registry.register(
            "config_reloads",
            "Times that the configuration was read again and put in force",
            config_reloads.clone(),
        );
        registry.register(
            "config_reloads_failed",
            "Times that it was wrong, so that the old one stayed",
            config_reloads_failed.clone(),
        );
        let machine = Machine::register(&mut registry);
        let versions_to_compile = Gauge::default();
        registry.register(
            "versions_to_compile",
            "Versions that are still to be compiled anew, as after an upgrade",
            versions_to_compile.clone(),
        );
        let at_scrape = Mutex::new(AtScrape::register(&mut registry));
        Self {
            registry,
            families,
            models: Mutex::default(),
            connections,
            connections_refused,
            connections_open,
            config_reloads,
            config_reloads_failed,
            machine,
            versions_to_compile,
            at_scrape,
        }
    }
}

impl AtScrape {
    fn register(registry: &mut Registry) -> Self {
        let at_scrape = Self {
            models: Gauge::default(),
            replicas: Family::default(),
            running: Family::default(),
            waiting: Family::default(),
            memory_bytes: Family::default(),
            sandboxes: Family::default(),
            worker_cpu: Family::default(),
            worker_cpu_uncharged: Family::default(),
            worker_resident_bytes: Family::default(),
            worker_uncharged_bytes: Family::default(),
            log_lines_dropped: Counter::default(),
            guest_entries_lost: Counter::default(),
        };
        let Self { models, replicas, running, waiting, memory_bytes, sandboxes, .. } = &at_scrape;
        registry.register("models", "Models that have a version", models.clone());
        registry.register("replicas", "Replicas that run now", replicas.clone());
        registry.register("calls_running", "Calls that run now", running.clone());
        registry.register("calls_waiting", "Calls that wait for a place now", waiting.clone());
        registry.register(
            "memory_bytes",
            "Bytes that a model makes the host hold now, by what holds them",
            memory_bytes.clone(),
        );
        registry.register(
            "sandboxes_made",
            "Sandboxes made by the replicas that run now",
            sandboxes.clone(),
        );
        let Self { worker_cpu, worker_cpu_uncharged, .. } = &at_scrape;
        registry.register(
            "worker_cpu_seconds",
            "CPU time that the processes of the replicas that run have had, by the kernel",
            worker_cpu.clone(),
        );
        registry.register(
            "worker_cpu_uncharged_seconds",
            "The part of it that was not charged to cpu_limit",
            worker_cpu_uncharged.clone(),
        );
        let Self { worker_resident_bytes, worker_uncharged_bytes, .. } = &at_scrape;
        registry.register(
            "worker_resident_bytes",
            "Memory that these processes have now, by the kernel; they share the program",
            worker_resident_bytes.clone(),
        );
        registry.register(
            "worker_uncharged_bytes",
            "Their own memory beyond what was charged to cpu_memory, or less than nothing where that was not touched",
            worker_uncharged_bytes.clone(),
        );
        let Self { log_lines_dropped, guest_entries_lost, .. } = &at_scrape;
        registry.register(
            "log_lines_dropped",
            "Lines of the host's log that could not be written",
            log_lines_dropped.clone(),
        );
        registry.register(
            "guest_log_entries_lost",
            "Entries of versions' logs that could not be written",
            guest_entries_lost.clone(),
        );
        at_scrape
    }
}

impl Metrics {
    /// Counts a call that has ended.
    pub fn call(&self, figures: &CallFigures<'_>) {
        let series = self.series(figures.model);
        series.calls(&self.families, figures.function, figures.verdict).inc();
        let (duration, first_output) = series.times(&self.families, figures.function);
        duration.observe(figures.wall.as_secs_f64());
        if let Some(first) = figures.first_output {
            first_output.observe(first.as_secs_f64());
        }
        if let Some(queue) = figures.queue {
            series.queue.observe(queue.as_secs_f64());
        }
        let receipt = &figures.receipt;
        if !receipt.load.is_zero() {
            series.load.observe(receipt.load.as_secs_f64());
        }
        series.guest_cpu.inc_by(receipt.guest_cpu.as_secs_f64());
        series.cpu_wait.inc_by(receipt.cpu_wait.as_secs_f64());
        series.fuel.inc_by(receipt.fuel);
        series.tensor_cpu.inc_by(receipt.engine_cpu.as_secs_f64());
        series.device.inc_by(receipt.device.as_secs_f64());
        series.computes.inc_by(receipt.computes);
        series.input_bytes.inc_by(receipt.bytes_in);
        series.output_bytes.inc_by(receipt.bytes_out);
    }

    /// Counts a connection that was closed at once.
    pub(crate) fn connection_refused(&self) {
        self.connections_refused.inc();
    }

    /// Counts a connection, which is open until what is returned is dropped.
    pub fn connection(&self) -> Open {
        self.connections.inc();
        self.connections_open.inc();
        Open(self.connections_open.clone())
    }

    /// Tells how often the configuration was read again, since the start.
    pub fn config_reloads(&self, reloads: u64, failed: u64) {
        raise(&self.config_reloads, reloads);
        raise(&self.config_reloads_failed, failed);
    }

    /// Tells what the machine has for replicas, what they have reserved, and how many of its
    /// accelerators somebody has, who may have reserved none.
    pub fn machine(&self, has: Amount, reserved: Amount, accelerators_taken: u32) {
        let cpus = |amount: Amount| Duration::from_millis(amount.cpu_millis).as_secs_f64();
        self.machine.cpus.set(cpus(has));
        self.machine.cpus_reserved.set(cpus(reserved));
        self.machine.memory_bytes.set(gauge(has.memory_bytes));
        self.machine.memory_bytes_reserved.set(gauge(reserved.memory_bytes));
        self.machine.accelerators.set(has.accelerators.into());
        self.machine.accelerators_taken.set(accelerators_taken.into());
    }

    /// Tells how many versions are still to be compiled anew.
    pub fn versions_to_compile(&self, versions: usize) {
        self.versions_to_compile.set(gauge(versions as u64));
    }

    /// Everything as a text of OpenMetrics 1.0. Series of models that there are
    /// not any more are dropped.
    pub fn encode(
        &self,
        serving: &[Serving],
        log_lines_dropped: u64,
        guest_entries_lost: u64,
    ) -> String {
        // One scrape at a time: it fills families that all share.
        let at_scrape = self.at_scrape.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        self.drop_all_but(serving);
        at_scrape.models.set(i64::try_from(serving.len()).unwrap_or(i64::MAX));
        at_scrape.replicas.clear();
        at_scrape.running.clear();
        at_scrape.waiting.clear();
        at_scrape.memory_bytes.clear();
        at_scrape.sandboxes.clear();
        at_scrape.worker_cpu.clear();
        at_scrape.worker_cpu_uncharged.clear();
        at_scrape.worker_resident_bytes.clear();
        at_scrape.worker_uncharged_bytes.clear();
        // Where not all fit, the places belong to those that are called.
        let running = || serving.iter().filter(|one| one.replicas > 0);
        let all_fit = running().count() <= limit("models_labelled", MODELS_LABELLED_MAX);
        for one in running() {
            let known = all_fit || self.lock().contains_key(&one.model);
            let model = if known { one.model.clone() } else { OTHER.to_owned() };
            let label = Model { model: model.clone() };
            at_scrape.replicas.get_or_create(&label).inc_by(gauge(one.replicas as u64));
            at_scrape.running.get_or_create(&label).inc_by(gauge(one.running as u64));
            at_scrape.waiting.get_or_create(&label).inc_by(gauge(one.waiting as u64));
            at_scrape.sandboxes.get_or_create(&label).inc_by(one.sandboxes_made);
            let Kernel { cpu, resident_bytes, private_bytes } = one.kernel;
            let (cpu, charged) = (cpu.as_secs_f64(), one.cpu_charged.as_secs_f64());
            at_scrape.worker_cpu.get_or_create(&label).inc_by(cpu);
            at_scrape.worker_cpu_uncharged.get_or_create(&label).inc_by(cpu - charged);
            at_scrape.worker_resident_bytes.get_or_create(&label).inc_by(gauge(resident_bytes));
            // What devices have is none of theirs.
            let here = one.memory_bytes.iter().filter(|(holder, _)| *holder != Holder::Device);
            let held: u64 = here.map(|(_, bytes)| bytes).sum();
            let uncharged = gauge(private_bytes).saturating_sub(gauge(held));
            at_scrape.worker_uncharged_bytes.get_or_create(&label).inc_by(uncharged);
            for (holder, bytes) in one.memory_bytes {
                let label = Memory { model: model.clone(), kind: holder.as_str() };
                at_scrape.memory_bytes.get_or_create(&label).inc_by(gauge(bytes));
            }
        }
        raise(&at_scrape.log_lines_dropped, log_lines_dropped);
        raise(&at_scrape.guest_entries_lost, guest_entries_lost);
        let mut exposition = String::new();
        // Writing to a string cannot fail.
        let _ = text::encode(&mut exposition, &self.registry);
        exposition
    }

    /// The numbers of a model, or those that all beyond the bound share.
    fn series(&self, model: Option<&str>) -> Arc<Series> {
        let labelled_max = limit("models_labelled", MODELS_LABELLED_MAX);
        let mut models = self.lock();
        let label = match model {
            None => NONE,
            Some(model) if models.contains_key(model) => model,
            Some(model) if models.len() < labelled_max => model,
            Some(_) => OTHER,
        };
        if let Some(series) = models.get(label) {
            return series.clone();
        }
        let series = Arc::new(Series::new(&self.families, label));
        models.insert(label.to_owned(), series.clone());
        series
    }

    fn drop_all_but(&self, serving: &[Serving]) {
        let replicas: BTreeMap<&str, usize> =
            serving.iter().map(|one| (one.model.as_str(), one.replicas)).collect();
        let mut models = self.lock();
        // Where places are short, a model that does not run gives its own up.
        let is_full = models.len() >= limit("models_labelled", MODELS_LABELLED_MAX);
        models.retain(|model, series| {
            let stays = [NONE, OTHER].contains(&model.as_str())
                || replicas.get(model.as_str()).is_some_and(|replicas| !is_full || *replicas > 0);
            if !stays {
                series.remove(&self.families);
            }
            stays
        });
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Series>>> {
        self.models.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Brings a counter to a count that is kept elsewhere.
fn raise(counter: &Counter, count: u64) {
    counter.inc_by(count.saturating_sub(counter.get()));
}

fn gauge(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
