//! How this program starts processes of itself, and what they are left with.
//!
//! Owns the one place where the limits of a process are computed, and how they travel:
//! as arguments, which the process goes by before it reads anything.

use super::cgroup::Quota;
use super::jail::{Code, Jail, JailError, JailMode, Report, Root, enter};
use super::spawn::Starter;
use crate::limits::{Limits, limit};
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::process::{Child, Command};

/// Memory that the program itself takes, beside what it is given to hold: its heap, the
/// tables of wasmtime and of the engine.
const PROGRAM_BYTES: u64 = 256 << 20;

/// What a thread may have of its stack; the system maps as much.
const THREAD_STACK_BYTES: u64 = 8 << 20;

/// Threads of a process that do not depend on the machine: main, the epoch, and those
/// that wait for files.
const THREADS: u64 = 16;

/// How many times its size a graph takes while it is read and made ready.
const GRAPH_COPIES: u64 = 4;

/// What a sandbox's stack is mapped with.
const FIBRE_STACK_BYTES: u64 = 2 << 20;

/// Descriptors that a process has beside those of its files.
const FILES: u64 = 128;

/// Thousandths of a CPU that a replica's process takes beside its guests.
const CPU_MILLIS_BESIDE: u64 = 100;

/// Largest file in memory: wasmtime keeps what a guest's memory begins with in one.
const FILE_BYTES: u64 = 1 << 30;

/// What processes are started from.
#[derive(Debug, Clone)]
pub struct Launcher {
    program: PathBuf,
    starter: Starter,
    /// A folder with nothing in it.
    empty: Arc<Path>,
    mode: JailMode,
}

/// What a process is left with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Confinement {
    /// What it means where a layer of the jail is missing.
    pub mode: JailMode,
    /// CPU time of all threads together, where it is limited; then it is ended.
    pub cpu_seconds: Option<u64>,
    /// Memory that is private and writable. It counts what is mapped, and is there for
    /// what no account sees: where there is one, that is the limit.
    pub data_bytes: u64,
    /// Descriptors.
    pub files_max: u64,
}

impl Confinement {
    /// Of a process that only computes something.
    pub(super) fn of_one_shot(mode: JailMode, cpu_seconds: u64, data_bytes: u64) -> Self {
        Self { mode, cpu_seconds: Some(cpu_seconds), data_bytes, files_max: FILES }
    }

    /// Of a replica whose graphs and assets are so large, and so many.
    pub(super) fn of_replica(
        mode: JailMode,
        limits: &Limits,
        graph_bytes: u64,
        files: usize,
    ) -> Self {
        let sandboxes = (limits.concurrency_max as u64).saturating_add(2);
        let data_bytes = [
            limits.memory_bytes_max,
            graph_bytes.saturating_mul(GRAPH_COPIES),
            sandboxes.saturating_mul(FIBRE_STACK_BYTES),
            threads().saturating_mul(THREAD_STACK_BYTES),
            PROGRAM_BYTES,
        ]
        .into_iter()
        .fold(0, u64::saturating_add);
        let of_sandboxes = sandboxes.saturating_mul(limits.wasi_handles_max as u64);
        let files_max = FILES.saturating_add(files as u64).saturating_add(of_sandboxes);
        Self { mode, cpu_seconds: None, data_bytes, files_max }
    }

    /// The same as a control group counts it. The CPU time is not that of its guests
    /// alone, whose limit is kept elsewhere.
    pub(super) fn quota(&self, cpu_millis: u64) -> Quota {
        Quota {
            cpu_millis: cpu_millis
                .saturating_add(cpu_millis / 10)
                .saturating_add(CPU_MILLIS_BESIDE),
            memory_bytes: self.data_bytes,
            pids_max: threads(),
        }
    }

    /// As arguments of the process, of which this one is the parent.
    fn arguments(&self) -> Vec<String> {
        let parent = std::process::id();
        let mut arguments = vec![
            format!("--jail={}", self.mode.as_str()),
            format!("--parent={parent}"),
            format!("--data-bytes={}", self.data_bytes),
            format!("--files-max={}", self.files_max),
        ];
        arguments.extend(self.cpu_seconds.map(|seconds| format!("--cpu-seconds={seconds}")));
        arguments
    }

    /// Enters the jail, in the process that `parent` has started. `reads` are what it may
    /// open files in.
    pub(super) fn enter(
        &self,
        parent: i32,
        root: Root,
        code: Code,
        reads: &[BorrowedFd<'_>],
    ) -> Result<Report, JailError> {
        enter(&Jail {
            mode: self.mode,
            parent,
            cpu_seconds: self.cpu_seconds.map(|seconds| limit("compile_cpu", seconds)),
            data_bytes: limit("process_memory", self.data_bytes),
            files_max: self.files_max,
            file_bytes_max: FILE_BYTES,
            kept: &[],
            reads,
            writes: &[],
            root,
            code,
        })
    }
}

/// Threads of a replica's process: those of guests and of engines, and others.
fn threads() -> u64 {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    cpus.saturating_mul(2).saturating_add(THREADS)
}

impl Launcher {
    /// Of this very program, also when its file has been replaced. `empty` is a folder
    /// with nothing in it, for as long as any process runs.
    pub fn of_this_program(starter: Starter, empty: &Path, mode: JailMode) -> Self {
        Self { program: "/proc/self/exe".into(), starter, empty: empty.into(), mode }
    }

    /// Of another program that takes the same arguments.
    #[cfg(test)]
    pub(crate) fn of(program: PathBuf) -> Self {
        let starter = Starter::start().unwrap();
        Self { program, starter, empty: Path::new("/").into(), mode: JailMode::BestEffort }
    }

    pub(super) fn mode(&self) -> JailMode {
        self.mode
    }

    /// A process that is about to be started: it has no variables, and begins where
    /// there is nothing.
    pub(super) fn command(&self, arguments: &[&str], confinement: &Confinement) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).args(confinement.arguments()).env_clear().current_dir(&self.empty);
        // Whoever stops the host by its terminal stops the host, which sees to these.
        command.process_group(0);
        command
    }

    /// Starts it. It ends when what comes back is dropped.
    pub(super) async fn spawn(&self, command: Command) -> io::Result<Child> {
        self.starter.spawn(command).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// MEM-12: the account is the limit, and what no account sees has room beside it.
    #[test]
    fn a_replica_has_room_for_all_that_it_may_hold() {
        let of = |limits: &Limits, graphs| {
            Confinement::of_replica(JailMode::Required, limits, graphs, 3).data_bytes
        };
        let small = Limits { memory_bytes_max: 64 << 20, concurrency_max: 1, ..Limits::default() };
        let more = Limits { concurrency_max: 11, ..small.clone() };
        let larger = Limits { memory_bytes_max: 128 << 20, ..small.clone() };
        assert!(of(&small, 0) >= (64 << 20) + PROGRAM_BYTES);
        assert_eq!(of(&more, 0) - of(&small, 0), 10 * FIBRE_STACK_BYTES);
        assert_eq!(of(&larger, 0) - of(&small, 0), 64 << 20);
        assert_eq!(of(&small, 1 << 20) - of(&small, 0), GRAPH_COPIES << 20);
        let absurd = Limits { memory_bytes_max: u64::MAX, ..small };
        assert_eq!(of(&absurd, u64::MAX), u64::MAX);
    }
}
