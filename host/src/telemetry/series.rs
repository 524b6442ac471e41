//! The numbers of one model, and the families that they are series of.

use crate::call::Function;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;

/// Upper bounds of the buckets of all times, in seconds.
const SECONDS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0];

/// A counter of seconds.
type Seconds = Counter<f64, AtomicU64>;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Model {
    pub(super) model: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OfFunction {
    pub(super) model: String,
    pub(super) function: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Call {
    pub(super) model: String,
    pub(super) function: &'static str,
    pub(super) verdict: &'static str,
}

type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// What is counted as calls end.
#[derive(Debug)]
pub(super) struct Families {
    calls: Family<Call, Counter>,
    duration: Histograms<OfFunction>,
    first_output: Histograms<OfFunction>,
    queue: Histograms<Model>,
    load: Histograms<Model>,
    guest_cpu: Family<Model, Seconds>,
    cpu_wait: Family<Model, Seconds>,
    fuel: Family<Model, Counter>,
    tensor_cpu: Family<Model, Seconds>,
    device: Family<Model, Seconds>,
    computes: Family<Model, Counter>,
    input_bytes: Family<Model, Counter>,
    output_bytes: Family<Model, Counter>,
}

fn histogram() -> Histogram {
    Histogram::new(SECONDS)
}

fn histograms<L: Clone + Eq + std::hash::Hash>() -> Histograms<L> {
    Family::new_with_constructor(histogram)
}

impl Families {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let families = Self {
            calls: Family::default(),
            duration: histograms(),
            first_output: histograms(),
            queue: histograms(),
            load: histograms(),
            guest_cpu: Family::default(),
            cpu_wait: Family::default(),
            fuel: Family::default(),
            tensor_cpu: Family::default(),
            device: Family::default(),
            computes: Family::default(),
            input_bytes: Family::default(),
            output_bytes: Family::default(),
        };
        let Self { calls, duration, first_output, queue, load, .. } = &families;
        registry.register("calls", "Calls by how they ended", calls.clone());
        registry.register(
            "call_duration_seconds",
            "Time of a call, from its first message to its end",
            duration.clone(),
        );
        registry.register(
            "first_output_seconds",
            "Time of a call to its first output",
            first_output.clone(),
        );
        registry.register(
            "queue_duration_seconds",
            "Time that calls waited for a place",
            queue.clone(),
        );
        registry.register(
            "load_duration_seconds",
            "Time that calls waited for a replica to start and for load-model; those that found a sandbox \
             ready are not counted",
            load.clone(),
        );
        let Self { guest_cpu, cpu_wait, fuel, tensor_cpu, device, computes, .. } = &families;
        let Self { input_bytes, output_bytes, .. } = &families;
        registry.register("guest_cpu_seconds", "CPU time of guests", guest_cpu.clone());
        registry.register(
            "cpu_wait_seconds",
            "Time that guests waited for a CPU: for their limit, or for others",
            cpu_wait.clone(),
        );
        registry.register("guest_fuel", "Fuel that guests burnt", fuel.clone());
        registry.register(
            "tensor_cpu_seconds",
            "CPU time of engines that computed graphs",
            tensor_cpu.clone(),
        );
        registry.register(
            "device_seconds",
            "Time in which accelerators computed graphs",
            device.clone(),
        );
        registry.register("graph_computes", "Times that a graph was computed", computes.clone());
        registry.register("input_bytes", "Bytes that guests were given", input_bytes.clone());
        registry.register("output_bytes", "Bytes that guests gave", output_bytes.clone());
        families
    }
}

/// The numbers of one model.
#[derive(Debug)]
pub(super) struct Series {
    model: String,
    /// Which of the calls' series there are, so that they can be removed.
    seen: Mutex<HashSet<Call>>,
    pub(super) queue: Histogram,
    pub(super) load: Histogram,
    pub(super) guest_cpu: Seconds,
    pub(super) cpu_wait: Seconds,
    pub(super) fuel: Counter,
    pub(super) tensor_cpu: Seconds,
    pub(super) device: Seconds,
    pub(super) computes: Counter,
    pub(super) input_bytes: Counter,
    pub(super) output_bytes: Counter,
}

impl Series {
    pub(super) fn new(families: &Families, model: &str) -> Self {
        let label = Model { model: model.to_owned() };
        Self {
            model: model.to_owned(),
            seen: Mutex::default(),
            queue: families.queue.get_or_create_owned(&label),
            load: families.load.get_or_create_owned(&label),
            guest_cpu: families.guest_cpu.get_or_create_owned(&label),
            cpu_wait: families.cpu_wait.get_or_create_owned(&label),
            fuel: families.fuel.get_or_create_owned(&label),
            tensor_cpu: families.tensor_cpu.get_or_create_owned(&label),
            device: families.device.get_or_create_owned(&label),
            computes: families.computes.get_or_create_owned(&label),
            input_bytes: families.input_bytes.get_or_create_owned(&label),
            output_bytes: families.output_bytes.get_or_create_owned(&label),
        }
    }

    /// The counter of calls that ended in this way.
    pub(super) fn calls(
        &self,
        families: &Families,
        function: Function,
        verdict: &'static str,
    ) -> Counter {
        let call = Call { model: self.model.clone(), function: function.as_str(), verdict };
        let counter = families.calls.get_or_create_owned(&call);
        self.seen.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).insert(call);
        counter
    }

    /// How long calls of a function took, and how long to the first output.
    pub(super) fn times(&self, families: &Families, function: Function) -> (Histogram, Histogram) {
        let label = self.of(function);
        let duration = families.duration.get_or_create_owned(&label);
        (duration, families.first_output.get_or_create_owned(&label))
    }

    /// Removes all that there is of the model.
    pub(super) fn remove(&self, families: &Families) {
        for call in self.seen.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).drain() {
            families.calls.remove(&call);
        }
        for function in Function::ALL {
            let label = self.of(function);
            families.duration.remove(&label);
            families.first_output.remove(&label);
        }
        let label = Model { model: self.model.clone() };
        families.queue.remove(&label);
        families.load.remove(&label);
        families.guest_cpu.remove(&label);
        families.cpu_wait.remove(&label);
        families.fuel.remove(&label);
        families.tensor_cpu.remove(&label);
        families.device.remove(&label);
        families.computes.remove(&label);
        families.input_bytes.remove(&label);
        families.output_bytes.remove(&label);
    }

    fn of(&self, function: Function) -> OfFunction {
        OfFunction { model: self.model.clone(), function: function.as_str() }
    }
}
