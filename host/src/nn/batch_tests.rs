//! Computes of `digits` that wait for each other, on tract.

use super::*;
use crate::nn::engine::{Beside, Engine, Graph, LoadError, Means, Ports, Run};
use crate::nn::tensor::Elements;
use crate::nn::threads::Threads;
use crate::nn::tract::Tract;
use crate::sandbox::{Account, Cpus};
use futures_util::future::join_all;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Longer than any of these takes.
const LONG: Duration = Duration::from_secs(60);

/// A graph whose runs are counted, and that fails of a number that is none.
struct Counted {
    graph: Arc<dyn Graph>,
    runs: Arc<AtomicUsize>,
}

impl Graph for Counted {
    fn ports(&self) -> &Ports {
        self.graph.ports()
    }

    fn bytes(&self) -> u64 {
        self.graph.bytes()
    }

    fn run(&self, inputs: Vec<Tensor>, run: &mut Run<'_>) -> Result<Vec<Tensor>, RunError> {
        self.runs.fetch_add(1, Ordering::Relaxed);
        let is_bad = inputs.iter().any(|input| floats(input).iter().any(|number| number.is_nan()));
        match is_bad {
            true => Err(RunError::Engine("there is a number that is none".to_owned())),
            false => self.graph.run(inputs, run),
        }
    }
}

/// One that puts tensors together and takes them apart where it has them, and how often; or
/// that cannot.
#[derive(Default)]
struct OnDevice {
    together: AtomicUsize,
    apart: AtomicUsize,
    is_full: bool,
}

impl OnDevice {
    fn full(&self) -> Option<RunError> {
        let over = Account::new(0).charge(Holder::Device, 1).unwrap_err();
        self.is_full.then_some(over.into())
    }
}

impl Engine for OnDevice {
    fn name(&self) -> &'static str {
        "there"
    }

    fn has(&self, domain: &str, operator: &str) -> bool {
        Tract.has(domain, operator)
    }

    fn load(
        &self,
        name: &str,
        onnx: &[u8],
        beside: &dyn Beside,
        means: Means,
    ) -> Result<Arc<dyn Graph>, LoadError> {
        Tract.load(name, onnx, beside, means)
    }

    fn elements(&self, element: ElementType, shape: &[u32], data: &[u8]) -> Box<dyn Elements> {
        Tract.elements(element, shape, data)
    }

    fn together(&self, tensors: &[&Tensor]) -> Option<Result<Tensor, RunError>> {
        self.together.fetch_add(1, Ordering::Relaxed);
        if let Some(full) = self.full() {
            return Some(Err(full));
        }
        let data: Vec<u8> = tensors.iter().flat_map(|tensor| tensor.read().unwrap()).collect();
        let mut shape = tensors[0].shape().to_vec();
        shape[0] = tensors.iter().map(|tensor| tensor.shape()[0]).sum();
        Some(Ok(Tensor::new(tensors[0].element(), shape, data).unwrap()))
    }

    fn apart(&self, tensor: &Tensor, rows: &[u32]) -> Option<Result<Vec<Tensor>, RunError>> {
        self.apart.fetch_add(1, Ordering::Relaxed);
        if let Some(full) = self.full() {
            return Some(Err(full));
        }
        let mut data = tensor.read().unwrap();
        let row_bytes = data.len() / tensor.shape()[0] as usize;
        let part = |rows: &u32| {
            let mut shape = tensor.shape().to_vec();
            shape[0] = *rows;
            Tensor::new(tensor.element(), shape, data.split_to(*rows as usize * row_bytes)).unwrap()
        };
        Some(Ok(rows.iter().map(part).collect()))
    }
}

struct Under {
    batches: Batches,
    runs: Arc<Runs>,
    share: Arc<Share>,
    count: Arc<AtomicUsize>,
}

fn under(rows_max: u32, wait_max: Duration) -> Under {
    under_on(Arc::new(Tract), rows_max, wait_max)
}

fn under_on(engine: Arc<dyn Engine>, rows_max: u32, wait_max: Duration) -> Under {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../guests/digits/1/digits.onnx");
    let onnx = std::fs::read(path).unwrap();
    let means = Means { threads: 1, memory_bytes_max: 1 << 30 };
    let graph = Tract.load("digits", &onnx, &(), means).unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let graph = Arc::new(Counted { graph, runs: count.clone() });
    let threads = Arc::new(Threads::start(2).unwrap());
    let runs = Arc::new(Runs::new(graph, engine, Account::new(1 << 30), threads));
    let batches = Batches::of(Some(Batching { rows_max, wait_max }), &runs).unwrap();
    Under { batches, runs, share: Share::new(&Cpus::new(2), 64_000), count }
}

impl Under {
    fn job(&self, rows: u32, value: f32) -> (Compute, Arc<Meters>) {
        let data: Vec<u8> =
            (0..rows * 64).flat_map(|place| (value + place as f32 / 64.0).to_le_bytes()).collect();
        let held = vec![self.runs.account.charge(Holder::Tensor, data.len() as u64).unwrap()];
        let input = Tensor::new(ElementType::F32, vec![rows, 1, 8, 8], data).unwrap();
        let (meters, deadline) = (Arc::new(Meters::default()), Instant::now() + LONG);
        let (inputs, stopped) = (vec![input], CancellationToken::new());
        let job = Compute { inputs, held, hold: None, meters: meters.clone(), deadline, stopped };
        (job, meters)
    }

    /// As a graph computes it for a call.
    async fn compute(&self, job: Compute) -> Result<Outputs, RunError> {
        match self.batches.compute(job, &self.share).await {
            Ok(outputs) => outputs,
            Err(job) => self.runs.alone(job, &self.share).await,
        }
    }

    async fn alone(&self, rows: u32, value: f32) -> Vec<f32> {
        let outputs = self.runs.alone(self.job(rows, value).0, &self.share).await.unwrap();
        floats(&outputs[0].0)
    }

    fn counted(&self) -> usize {
        self.count.swap(0, Ordering::Relaxed)
    }
}

fn floats(tensor: &Tensor) -> Vec<f32> {
    let data = tensor.read().unwrap();
    let (words, _) = data.as_chunks();
    words.iter().map(|word| f32::from_le_bytes(*word)).collect()
}

fn assert_near(told: &[f32], expected: &[f32]) {
    assert_eq!(told.len(), expected.len());
    for (told, expected) in told.iter().zip(expected) {
        assert!((told - expected).abs() <= 1e-6, "{told} {expected}");
    }
}

#[tokio::test]
async fn computes_that_come_together_are_one_and_each_has_its_own_rows() {
    let under = under(6, LONG);
    let members = [(1, 0.5), (2, -1.0), (1, 3.0), (2, 0.25)];
    let mut expected = Vec::new();
    for (rows, value) in members {
        expected.push(under.alone(rows, value).await);
    }
    assert_eq!(under.counted(), members.len());
    let jobs: Vec<_> = members.iter().map(|(rows, value)| under.job(*rows, *value)).collect();
    let meters: Vec<_> = jobs.iter().map(|(_, meters)| meters.clone()).collect();
    let all = join_all(jobs.into_iter().map(|(job, _)| under.compute(job))).await;
    assert_eq!(under.counted(), 1);
    for ((outputs, expected), (rows, _)) in all.iter().zip(&expected).zip(members) {
        let [(output, charge)] = outputs.as_ref().unwrap().as_slice() else { panic!() };
        assert_eq!(output.shape(), [rows, 10]);
        assert_eq!(charge.bytes(), u64::from(rows) * 40);
        assert_near(&floats(output), expected);
    }
    // Each is charged for its own rows, and computes once.
    let spent: Vec<_> = meters.iter().map(|meters| meters.receipt()).collect();
    assert!(spent.iter().all(|spent| spent.computes == 1 && !spent.engine_cpu.is_zero()));
    assert_eq!(spent[0].engine_cpu, spent[2].engine_cpu);
    assert!(spent[1].engine_cpu > spent[0].engine_cpu);
    drop(all);
    assert_eq!(under.runs.account.bytes(), 0);
}

/// Nothing is brought that an engine has on a device, and the device's time is the calls'.
#[tokio::test]
async fn what_is_on_a_device_is_put_together_and_taken_apart_there() {
    // Where there is no room for that, the host does it, and nothing is computed again.
    for is_full in [false, true] {
        let engine = Arc::new(OnDevice { is_full, ..OnDevice::default() });
        let under = under_on(engine.clone(), 3, LONG);
        let expected = [under.alone(1, 1.0).await, under.alone(2, 2.0).await];
        let jobs = [(1, 1.0), (2, 2.0)].map(|(rows, value)| under.job(rows, value));
        let meters = jobs.each_ref().map(|(_, meters)| meters.clone());
        let all = join_all(jobs.into_iter().map(|(job, _)| under.compute(job))).await;
        for (outputs, expected) in all.iter().zip(&expected) {
            let [(output, charge)] = outputs.as_ref().unwrap().as_slice() else { panic!() };
            assert_eq!(charge.bytes(), output.bytes() as u64);
            assert_near(&floats(output), expected);
        }
        let counts = [&engine.together, &engine.apart].map(|count| count.load(Ordering::Relaxed));
        assert_eq!((counts, under.counted()), ([1, 1], 3));
        assert!(meters.iter().all(|meters| !meters.receipt().device.is_zero()));
    }
}

#[tokio::test]
async fn who_is_alone_waits_no_longer_than_is_said() {
    let wait_max = Duration::from_millis(50);
    let under = under(8, wait_max);
    let began = Instant::now();
    let outputs = under.compute(under.job(1, 0.5).0).await.unwrap();
    assert!(began.elapsed() >= wait_max);
    assert_eq!((outputs.len(), under.counted()), (1, 1));
}

#[tokio::test]
async fn one_that_fails_does_not_fail_the_others() {
    let under = under(3, LONG);
    let expected = [under.alone(1, 1.0).await, under.alone(1, 2.0).await];
    assert_eq!(under.counted(), 2);
    let jobs = [1.0, f32::NAN, 2.0].map(|value| under.job(1, value).0);
    let all = join_all(jobs.into_iter().map(|job| under.compute(job))).await;
    let [first, bad, last] = all.as_slice() else { panic!() };
    assert!(matches!(bad, Err(RunError::Engine(_))), "{:?}", bad.as_ref().map(Vec::len));
    assert_near(&floats(&first.as_ref().unwrap()[0].0), &expected[0]);
    assert_near(&floats(&last.as_ref().unwrap()[0].0), &expected[1]);
    // Once together, and each by itself.
    assert_eq!(under.counted(), 4);
}

#[tokio::test]
async fn who_goes_takes_nothing_away() {
    let under = Arc::new(under(3, LONG));
    let gone = {
        let under = under.clone();
        tokio::spawn(async move { under.compute(under.job(1, 1.0).0).await.map(drop) })
    };
    while lock(&under.batches.open).is_none() {
        tokio::task::yield_now().await;
    }
    gone.abort();
    assert!(gone.await.unwrap_err().is_cancelled());
    let jobs = [2.0, 3.0].map(|value| under.job(1, value).0);
    let all = join_all(jobs.into_iter().map(|job| under.compute(job))).await;
    assert!(all.iter().all(Result::is_ok));
    assert_eq!(under.counted(), 1);
}

#[tokio::test]
async fn what_does_not_fit_together_is_not_put_together() {
    let under = under(4, LONG);
    // Too many rows for the one that waits: that goes, and these wait for others.
    let jobs = [(2, 1.0), (3, 2.0), (1, 3.0)].map(|(rows, value)| under.job(rows, value).0);
    let all = join_all(jobs.into_iter().map(|job| under.compute(job))).await;
    assert!(all.iter().all(Result::is_ok));
    assert_eq!(under.counted(), 2);
    // As many as there may be at all wait for nobody.
    let whole = under.compute(under.job(4, 1.0).0).await.unwrap();
    assert_eq!((whole[0].0.shape()[0], under.counted()), (4, 1));
}

#[tokio::test]
async fn outputs_that_are_not_of_all_rows_end_the_batches_of_a_graph() {
    struct First(Arc<dyn Graph>);
    impl Graph for First {
        fn ports(&self) -> &Ports {
            self.0.ports()
        }
        fn bytes(&self) -> u64 {
            self.0.bytes()
        }
        /// Of the first row alone.
        fn run(&self, inputs: Vec<Tensor>, run: &mut Run<'_>) -> Result<Vec<Tensor>, RunError> {
            let first = inputs[0].read().unwrap().slice(..256);
            let shape = vec![1, 1, 8, 8];
            self.0.run(vec![Tensor::new(ElementType::F32, shape, first).unwrap()], run)
        }
    }
    let mut under = under(2, LONG);
    let Runs { graph, engine, account, threads, .. } = &*under.runs;
    let (engine, account, threads) = (engine.clone(), account.clone(), threads.clone());
    under.runs = Arc::new(Runs::new(Arc::new(First(graph.clone())), engine, account, threads));
    under.batches = Batches::of(Some(under.batches.limits), &under.runs).unwrap();
    let jobs = [1.0, 2.0].map(|value| under.job(1, value).0);
    let all = join_all(jobs.into_iter().map(|job| under.compute(job))).await;
    assert!(all.iter().all(Result::is_ok));
    assert_eq!(under.counted(), 3);
    // Nobody waits any more: the limit for that is long.
    under.compute(under.job(1, 3.0).0).await.unwrap();
    assert_eq!(under.counted(), 1);
}

#[tokio::test]
async fn a_graph_whose_first_axis_is_not_free_is_left_alone() {
    let under = under(4, LONG);
    struct Fixed(Arc<dyn Graph>, Ports);
    impl Graph for Fixed {
        fn ports(&self) -> &Ports {
            &self.1
        }
        fn bytes(&self) -> u64 {
            self.0.bytes()
        }
        fn run(&self, inputs: Vec<Tensor>, run: &mut Run<'_>) -> Result<Vec<Tensor>, RunError> {
            self.0.run(inputs, run)
        }
    }
    let mut ports = under.runs.graph.ports().clone();
    ports.inputs[0].shape[0] = Some(1);
    let graph = Arc::new(Fixed(under.runs.graph.clone(), ports));
    let Runs { engine, account, threads, .. } = &*under.runs;
    let (engine, account, threads) = (engine.clone(), account.clone(), threads.clone());
    let runs = Arc::new(Runs::new(graph, engine, account, threads));
    assert!(Batches::of(Some(under.batches.limits), &runs).is_none());
    assert!(Batches::of(None, &under.runs).is_none());
}
