//! Computes of several calls on one graph, run as one.
//!
//! Owns who waits for whom, and how rows are put together and taken apart. Calls know
//! nothing of each other: each is charged for its own rows, and where the whole fails each
//! computes alone.

use super::engine::{Cancel, Port, RunError};
use super::runs::Runs;
use super::tensor::{ElementType, Tensor};
use super::{Compute, Outputs, lock};
use crate::call::Holder;
use crate::limits::Batching;
use crate::sandbox::{Charge, Meters, Share};
use futures_util::future::join_all;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;
use tokio::sync::{Notify, oneshot};

/// The computes of one graph that wait for others.
pub(super) struct Batches {
    limits: Batching,
    runs: Arc<Runs>,
    /// What others may still join.
    open: Mutex<Option<Arc<Gathering>>>,
    /// The graph has made of many rows what is not of as many: each computes alone.
    is_misfit: Arc<AtomicBool>,
}

/// What is the same of all inputs: types, and shapes but for their first axis.
type Form = Vec<(ElementType, Vec<u32>)>;

/// What comes of a compute that waited.
enum Answer {
    Outputs(Result<Outputs, RunError>),
    /// It has to compute by itself.
    Alone(Compute),
}

/// Computes that are to be one.
struct Gathering {
    form: Form,
    members: Mutex<Members>,
    is_full: Notify,
}

#[derive(Default)]
struct Members {
    rows: u32,
    all: Vec<Member>,
    /// Nobody joins any more.
    is_closed: bool,
}

struct Member {
    rows: u32,
    job: Compute,
    answer: oneshot::Sender<Answer>,
}

impl Batches {
    /// Those of a graph whose inputs and outputs all have a first axis of any length;
    /// nothing for another one.
    pub(super) fn of(limits: Option<Batching>, runs: &Arc<Runs>) -> Option<Self> {
        let is_free = |port: &Port| port.shape.first() == Some(&None);
        let (inputs, outputs) = (runs.graph.inputs(), runs.graph.outputs());
        let fits = !inputs.is_empty() && inputs.iter().chain(outputs).all(is_free);
        let limits = limits.filter(|_| fits)?;
        Some(Self { limits, runs: runs.clone(), open: Mutex::default(), is_misfit: Arc::default() })
    }

    /// Computes with others that come in time. What cannot be computed with others comes
    /// back.
    pub(super) async fn compute(
        &self,
        job: Compute,
        share: &Arc<Share>,
    ) -> Result<Result<Outputs, RunError>, Compute> {
        let rows = rows_of(&job.inputs).filter(|rows| *rows < self.limits.rows_max);
        let Some(rows) = rows.filter(|_| !self.is_misfit.load(Ordering::Relaxed)) else {
            return Err(job);
        };
        let (answer, answered) = oneshot::channel();
        // It ends with this member, and not with those that are computed with it.
        let (hold, job) = (job.hold.clone(), Compute { hold: None, ..job });
        self.join(Member { rows, job, answer }, share);
        match answered.await {
            Ok(Answer::Outputs(outputs)) => Ok(outputs),
            Ok(Answer::Alone(job)) => Err(Compute { hold, ..job }),
            Err(_) => Ok(Err(RunError::Engine("the graph's batch has gone".to_owned()))),
        }
    }

    fn join(&self, member: Member, share: &Arc<Share>) {
        let form = form_of(&member.job.inputs);
        let mut open = lock(&self.open);
        let member = match &*open {
            Some(gathering) => match gathering.take(&form, member, self.limits.rows_max) {
                None => return,
                Some(member) => member,
            },
            None => member,
        };
        let rows = member.rows;
        let members = Members { rows, all: vec![member], is_closed: false };
        let gathering =
            Arc::new(Gathering { form, members: Mutex::new(members), is_full: Notify::new() });
        *open = Some(gathering.clone());
        drop(open);
        let (runs, share, wait_max) = (self.runs.clone(), share.clone(), self.limits.wait_max);
        let is_misfit = self.is_misfit.clone();
        // It ends soon after the last of its members, whoever of them is still there.
        tokio::spawn(async move {
            tokio::select! {
                () = gathering.is_full.notified() => {}
                () = tokio::time::sleep(wait_max) => {}
            }
            let members = gathering.close();
            run(&runs, members, &share, &is_misfit).await;
        });
    }
}

impl Gathering {
    /// Takes a compute in, or gives it back; then nobody is waited for any more.
    fn take(&self, form: &Form, member: Member, rows_max: u32) -> Option<Member> {
        let mut members = lock(&self.members);
        if members.is_closed {
            return Some(member);
        }
        let rows = members.rows.saturating_add(member.rows);
        let fits = self.form == *form && rows <= rows_max;
        let left = match fits {
            true => {
                members.rows = rows;
                members.all.push(member);
                None
            }
            false => Some(member),
        };
        if !fits || rows == rows_max {
            members.is_closed = true;
            self.is_full.notify_one();
        }
        left
    }

    fn close(&self) -> Vec<Member> {
        let mut members = lock(&self.members);
        members.is_closed = true;
        std::mem::take(&mut members.all)
    }
}

/// Computes them as one, or lets each do so alone.
async fn run(
    runs: &Arc<Runs>,
    members: Vec<Member>,
    share: &Arc<Share>,
    is_misfit: &Arc<AtomicBool>,
) {
    let there = members.into_iter().filter(|member| !member.answer.is_closed());
    let (mut answers, mut jobs, mut rows) = (Vec::new(), Vec::new(), Vec::new());
    for Member { rows: of_member, job, answer } in there {
        answers.push(answer);
        jobs.push(job);
        rows.push(of_member);
    }
    if jobs.len() < 2 {
        return alone(answers, jobs);
    }
    let Some(deadline) = jobs.iter().map(|job| job.deadline).max() else { return };
    // Who goes takes nothing away from the others.
    let (jobs, rows) = (Arc::new(jobs), Arc::new(rows));
    let meters = Arc::new(Meters::default());
    let work = {
        let (runs, jobs, rows, meters, share) =
            (runs.clone(), jobs.clone(), rows.clone(), meters.clone(), share.clone());
        let is_misfit = is_misfit.clone();
        move |cancel: &Cancel| {
            let outputs = whole(&runs, &jobs, cancel, &meters, &share)?;
            parted(&runs, &outputs, &rows, &meters).inspect_err(|error| {
                if let RunError::Engine(why) = error
                    && !is_misfit.swap(true, Ordering::Relaxed)
                {
                    tracing::warn!("a graph computes no batches: {why}");
                }
            })
        }
    };
    let outputs = {
        let running = runs.threads.run(share, &meters, Cancel::at(deadline), work);
        let all_gone = join_all(answers.iter_mut().map(oneshot::Sender::closed));
        tokio::select! {
            biased;
            outputs = running => outputs,
            _ = all_gone => return,
        }
    };
    // Nobody else has them: what ran has ended.
    let Ok(jobs) = Arc::try_unwrap(jobs) else { return };
    let spent = meters.receipt();
    let total: u32 = rows.iter().sum();
    for (job, rows) in jobs.iter().zip(&*rows) {
        let part = f64::from(*rows) / f64::from(total);
        let (engine, device) = (spent.engine_cpu.mul_f64(part), spent.device.mul_f64(part));
        job.meters.add_part(engine, device, spent.cpu_wait, outputs.is_ok());
    }
    let Ok(outputs) = outputs else { return alone(answers, jobs) };
    let mut outputs = outputs.into_iter();
    let each = runs.graph.outputs().len();
    for answer in answers {
        // Whoever asked may have gone meanwhile.
        let _ = answer.send(Answer::Outputs(Ok(outputs.by_ref().take(each).collect())));
    }
}

fn alone(answers: Vec<oneshot::Sender<Answer>>, jobs: Vec<Compute>) {
    for (answer, job) in answers.into_iter().zip(jobs) {
        // Whoever asked may have gone meanwhile.
        let _ = answer.send(Answer::Alone(job));
    }
}

/// Runs it on the rows of all, on an engine's thread.
fn whole(
    runs: &Runs,
    jobs: &[Compute],
    cancel: &Cancel,
    meters: &Meters,
    share: &Share,
) -> Result<Vec<Tensor>, RunError> {
    let mut scratch = runs.account.charge(Holder::Engine, 0)?;
    let ports = runs.graph.inputs().len();
    let inputs = (0..ports).map(|port| together(runs, jobs, port, &mut scratch, meters));
    let inputs = inputs.collect::<Result<Vec<_>, _>>()?;
    runs.timed(inputs, cancel, &mut scratch, meters, share)
}

/// The outputs of each member, one after the other.
fn parted(
    runs: &Runs,
    outputs: &[Tensor],
    rows: &[u32],
    meters: &Meters,
) -> Result<Outputs, RunError> {
    let of_output = |output| Ok(parts(runs, output, rows, meters)?.into_iter());
    let mut all = outputs.iter().map(of_output).collect::<Result<Vec<_>, RunError>>()?;
    let mut parted = Vec::with_capacity(rows.len() * outputs.len());
    for _ in rows {
        parted.extend(all.iter_mut().filter_map(Iterator::next));
    }
    Ok(parted)
}

/// An input of all members, one after the other.
fn together(
    runs: &Runs,
    jobs: &[Compute],
    port: usize,
    scratch: &mut Charge,
    meters: &Meters,
) -> Result<Tensor, RunError> {
    let broken = || RunError::Engine("the inputs do not fit each other".to_owned());
    let members: Vec<&Tensor> = jobs.iter().filter_map(|job| job.inputs.get(port)).collect();
    if let Some(there) = on_device(meters, || runs.engine.together(&members))? {
        return Ok(there);
    }
    let first = members.first().ok_or_else(broken)?;
    let (element, mut shape) = (first.element(), first.shape().to_vec());
    let bytes = members.iter().map(|tensor| tensor.bytes()).sum::<usize>();
    // As they are put together, and as the engine takes them.
    scratch.grow((bytes as u64).saturating_mul(2))?;
    let mut data = Vec::with_capacity(bytes);
    for tensor in &members {
        data.extend_from_slice(&tensor.read()?);
    }
    let rows = members.iter().filter_map(|tensor| tensor.shape().first());
    *shape.first_mut().ok_or_else(broken)? = rows.sum();
    let elements = runs.engine.elements(element, &shape, &data);
    Ok(Tensor::of(element, shape, elements)?)
}

/// The rows of each member of an output, which are its own.
fn parts(runs: &Runs, output: &Tensor, rows: &[u32], meters: &Meters) -> Result<Outputs, RunError> {
    let unfit =
        || RunError::Engine(format!("an output of shape {:?} is not of all rows", output.shape()));
    let total = output.shape().first().copied();
    let total = total.filter(|total| *total == rows.iter().sum::<u32>()).ok_or_else(unfit)?;
    let charged = |tensor: Tensor| {
        let charge = runs.account.charge(Holder::Tensor, tensor.bytes() as u64)?;
        Ok((tensor, charge))
    };
    if let Some(there) = on_device(meters, || runs.engine.apart(output, rows))? {
        let of_rows = there.iter().map(|part| part.shape().first());
        if !of_rows.eq(rows.iter().map(Some)) {
            return Err(RunError::Engine("the device has given other rows than asked".to_owned()));
        }
        return there.into_iter().map(charged).collect();
    }
    let row_bytes = output.bytes() / total.max(1) as usize;
    let (data, mut at) = (output.read()?, 0);
    let part = |rows: &u32| {
        let bytes = *rows as usize * row_bytes;
        let data = data.get(at..at + bytes).ok_or_else(unfit)?;
        at += bytes;
        let charge = runs.account.charge(Holder::Tensor, data.len() as u64)?;
        let mut shape = output.shape().to_vec();
        *shape.first_mut().ok_or_else(unfit)? = *rows;
        let elements = runs.engine.elements(output.element(), &shape, data);
        Ok((Tensor::of(output.element(), shape, elements)?, charge))
    };
    rows.iter().map(part).collect()
}

/// What is made there, if it is, which takes time of the device. Where that fails of one that is
/// still there, it is made here: the batch has computed, or still can.
fn on_device<T>(
    meters: &Meters,
    make: impl FnOnce() -> Option<Result<T, RunError>>,
) -> Result<Option<T>, RunError> {
    let began = Instant::now();
    let Some(made) = make() else { return Ok(None) };
    meters.add_device(began.elapsed());
    match made {
        Err(lost @ RunError::DeviceLost(_)) => Err(lost),
        Err(error) => {
            tracing::debug!("a batch is put together or taken apart on the host: {error}");
            Ok(None)
        }
        Ok(made) => Ok(Some(made)),
    }
}

/// The length of the first axis, which all inputs have.
fn rows_of(inputs: &[Tensor]) -> Option<u32> {
    let mut rows = inputs.iter().map(|tensor| tensor.shape().first().copied());
    let first = rows.next()?.filter(|rows| *rows > 0)?;
    rows.all(|rows| rows == Some(first)).then_some(first)
}

fn form_of(inputs: &[Tensor]) -> Form {
    let axes = |tensor: &Tensor| tensor.shape().iter().skip(1).copied().collect();
    inputs.iter().map(|tensor| (tensor.element(), axes(tensor))).collect()
}

#[cfg(test)]
#[path = "batch_tests.rs"]
mod tests;
