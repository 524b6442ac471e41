//! One run of a graph, for one call or for several.
//!
//! Owns on which thread it computes: on one of the engines' threads, or in the guest's turn
//! where that is expected to be short; and what it is charged.

use super::engine::{Cancel, Engine, Graph, Run, RunError};
use super::tensor::Tensor;
use super::threads::Threads;
use super::{Compute, Outputs, lock};
use crate::call::Holder;
use crate::sandbox::{Account, Charge, ENGINE_SLOT, Meters, OverLimit, Share, is_guests_thread};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What a graph runs on.
pub(super) struct Runs {
    pub(super) graph: Arc<dyn Graph>,
    pub(super) engine: Arc<dyn Engine>,
    /// Of whom it is.
    pub(super) account: Account,
    pub(super) threads: Arc<Threads>,
    /// Time that the next run may keep its thread, in nanoseconds, and bytes of the inputs that
    /// this is known of.
    expected: Mutex<Expected>,
}

#[derive(Clone, Copy, Default)]
struct Expected {
    run_ns: u64,
    input_bytes: usize,
}

impl Runs {
    pub(super) fn new(
        graph: Arc<dyn Graph>,
        engine: Arc<dyn Engine>,
        account: Account,
        threads: Arc<Threads>,
    ) -> Self {
        Self { graph, engine, account, threads, expected: Mutex::default() }
    }

    /// Whether a run on so many bytes is expected to take no longer than a turn may keep
    /// others waiting. What is much more than was measured last is not known.
    fn is_short(&self, input_bytes: usize) -> bool {
        let expected = *lock(&self.expected);
        let is_known = expected.run_ns > 0 && input_bytes <= expected.input_bytes * 2;
        is_known && Duration::from_nanos(expected.run_ns) < ENGINE_SLOT
    }

    /// A run took so long, whatever came of it. One that was long is not soon forgotten.
    fn note(&self, input_bytes: usize, cpu_ns: u64) {
        let mut expected = lock(&self.expected);
        let run_ns = cpu_ns.max(expected.run_ns / 8 * 7).max(1);
        *expected = Expected { run_ns, input_bytes };
    }

    /// Computes on one of the threads; or here, in the guest's turn, where that is expected
    /// to take less than a turn may keep others waiting: to wake two threads takes as long
    /// as many a graph.
    pub(super) async fn alone(
        self: &Arc<Self>,
        job: Compute,
        share: &Arc<Share>,
    ) -> Result<Outputs, RunError> {
        let Compute { inputs, held, hold, meters, deadline, stopped } = job;
        let input_bytes = bytes_of(&inputs);
        let (runs, counted, shared) = (self.clone(), meters.clone(), share.clone());
        let work = move |cancel: &Cancel| {
            let account = &runs.account;
            let mut scratch = account.charge(Holder::Engine, 0)?;
            let outputs = runs.timed(inputs, cancel, &mut scratch, &counted, &shared)?;
            drop((held, scratch, hold));
            let charge = |tensor: Tensor| -> Result<_, OverLimit> {
                let charge = account.charge(Holder::Tensor, tensor.bytes() as u64)?;
                Ok((tensor, charge))
            };
            Ok(outputs.into_iter().map(charge).collect::<Result<_, _>>()?)
        };
        let cancel = Cancel::of(stopped, deadline);
        if is_guests_thread() && self.graph.is_free() && self.is_short(input_bytes) {
            let work = AssertUnwindSafe(|| work(&cancel));
            let outputs = meters.within_turn(|| catch_unwind(work));
            return outputs.unwrap_or(Err(RunError::Panicked));
        }
        self.threads.run(share, &meters, cancel, work).await
    }

    /// Runs the graph, and counts the CPU time of all threads.
    pub(super) fn timed(
        &self,
        inputs: Vec<Tensor>,
        cancel: &Cancel,
        scratch: &mut Charge,
        meters: &Meters,
        share: &Share,
    ) -> Result<Vec<Tensor>, RunError> {
        let input_bytes = bytes_of(&inputs);
        let mut run = Run::new(cancel, scratch);
        let (outputs, cpu_ns) = meters.time_engine(|| self.graph.run(inputs, &mut run));
        meters.add_device(run.device);
        if !run.cpu_beside.is_zero() {
            meters.add_engine(run.cpu_beside);
            share.charge(run.cpu_beside);
        }
        // Whoever waits for a device keeps others waiting as well.
        let device_ns = u64::try_from(run.device.as_nanos()).unwrap_or(u64::MAX);
        self.note(input_bytes, cpu_ns.max(device_ns));
        outputs
    }
}

pub(super) fn bytes_of(inputs: &[Tensor]) -> usize {
    inputs.iter().map(Tensor::bytes).fold(0, usize::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::engine::Ports;
    use crate::nn::tract::Tract;

    struct Nothing(Ports);

    impl Graph for Nothing {
        fn ports(&self) -> &Ports {
            &self.0
        }

        fn bytes(&self) -> u64 {
            0
        }

        fn run(&self, inputs: Vec<Tensor>, _: &mut Run<'_>) -> Result<Vec<Tensor>, RunError> {
            Ok(inputs)
        }
    }

    /// Short runs of much the same size are expected to be short again. One that was long, or
    /// is much larger, is not.
    #[test]
    fn what_is_expected_of_a_run_is_what_the_last_ones_took() {
        let short = u64::try_from(ENGINE_SLOT.as_nanos()).unwrap();
        let ports = Ports { inputs: Vec::new(), outputs: Vec::new() };
        let threads = Arc::new(Threads::start(1).unwrap());
        let runs = Runs::new(Arc::new(Nothing(ports)), Arc::new(Tract), Account::new(1), threads);
        assert!(!runs.is_short(10), "nothing is known");
        runs.note(10, short / 2);
        assert!(runs.is_short(10) && runs.is_short(20) && !runs.is_short(21));
        runs.note(10, short * 100);
        for _ in 0..10 {
            assert!(!runs.is_short(10), "it is forgotten too soon");
            runs.note(10, 1);
        }
        for _ in 0..60 {
            runs.note(10, 1);
        }
        assert!(runs.is_short(10));
    }
}
