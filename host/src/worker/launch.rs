//! How this program starts processes of itself, and what they are left with.
//!
//! Owns the one place where the limits of a process are computed, and how they travel:
//! as arguments, which the process goes by before it reads anything.

use super::Purpose;
use super::cgroup::Quota;
use super::driver::{self, Driver};
use super::jail::{
    Code, Jail, JailError, JailMode, LOADER_PATH, Layer, Report, Root, enter_without,
};
use super::spawn::Starter;
use crate::devices::{Cuda, Device};
use crate::limits::{EngineName, Limits, POOLED_TABLES_MAX, lifted, limit};
use crate::package::Parts;
use crate::sandbox::{self, Beginning, Compiled, SNAPSHOT_BYTES_MAX};
use crate::sched::cpus;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::process::{Child, Command};

/// Memory that the program itself takes, beside what it is given to hold: its heap, the
/// tables of wasmtime and of the engine.
const PROGRAM_BYTES: u64 = 256 << 20;

/// Memory that ONNX Runtime takes beside its arena: graphs as it has read them, and what
/// its library writes to.
const ONNXRUNTIME_BYTES: u64 = 128 << 20;

/// What a thread may have of its stack; the system maps as much.
const THREAD_STACK_BYTES: u64 = 8 << 20;

/// Threads of a process that do not depend on the machine: main, the epoch, and those
/// that wait for files.
const THREADS: u64 = 16;

/// How many times its size a graph takes while it is read and made ready.
const GRAPH_COPIES: u64 = 4;

/// How many times its size machine code takes: as it is read, and as it is mapped.
const CODE_COPIES: u64 = 2;

/// How many times its size what is written takes: as segments of data, as a module, as a
/// component, and on its way to the host.
const WRITTEN_COPIES: u64 = 5;

/// Calls that a package has to answer before it is kept: `methods`, `load-model`, once more
/// to be written, the example; and CPU time for loading its graphs.
const CALLS_TO_TRY: u32 = 4;
const CPU_SECONDS_TO_LOAD: u64 = 60;

/// How many times `cpu_memory` is mapped: a memory's place stays as large as the last
/// sandbox there had it until the next one begins there.
const MEMORY_COPIES: u64 = 2;

/// What places for a sandbox's tables are mapped with, each of the largest table.
const TABLES_BYTES: u64 = POOLED_TABLES_MAX as u64 * 800_000;

/// What a sandbox's stack is mapped with.
const FIBRE_STACK_BYTES: u64 = sandbox::FIBRE_STACK_BYTES as u64;

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
    /// ONNX Runtime's library, where there is one.
    onnxruntime: Option<Arc<Path>>,
    /// What drivers of devices are used by.
    cuda: Arc<Cuda>,
}

/// What a process is left with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confinement {
    /// What it means where a layer of the jail is missing.
    pub mode: JailMode,
    /// CPU time of all threads together, where it is limited; then it is ended.
    pub cpu_seconds: Option<u64>,
    /// Memory that is private and writable. It counts what is mapped, and is there for
    /// what no account sees: where there is one, that is the limit. What is to use a driver
    /// has it by its control group alone.
    pub data_bytes: u64,
    /// Descriptors.
    pub files_max: u64,
    /// CPUs that there are, which a process in the jail cannot see.
    pub cpus: usize,
    /// A layer of the jail that a test leaves out.
    pub without: Option<Layer>,
    /// What it has for a driver, if it is to use one.
    pub driver: Option<Driver>,
}

impl Confinement {
    /// Of a process that only computes something.
    pub(super) fn of_one_shot(mode: JailMode, cpu_seconds: u64, data_bytes: u64) -> Self {
        let cpu_seconds = Some(cpu_seconds);
        let without = left_out();
        let (files_max, cpus, driver) = (FILES, cpus(), None);
        Self { mode, cpu_seconds, data_bytes, files_max, cpus, without, driver }
    }

    /// The same of a process that uses a driver besides.
    pub(super) fn with_driver(self, driver: Option<Driver>) -> Self {
        let files_max = match driver {
            Some(_) => self.files_max.saturating_add(driver::FILES),
            None => self.files_max,
        };
        Self { files_max, driver, ..self }
    }

    /// Of a replica of these, with machine code of so many bytes.
    pub(super) fn of_replica(
        mode: JailMode,
        parts: &Parts,
        compiled: &Compiled,
        purpose: Purpose,
        has_onnxruntime: bool,
    ) -> Self {
        let (limits, assets) = (&parts.sheet.limits, &parts.assets.files);
        let of_graphs = parts.graphs.iter().map(|graph| graph.content.len());
        let graphs = of_graphs.fold(0, u64::saturating_add);
        // A graph may keep its data beside it.
        let beside = assets.iter().map(|asset| asset.size).fold(0, u64::saturating_add);
        let graph_bytes = if graphs > 0 { graphs.saturating_add(beside) } else { 0 };
        let files = parts.graphs.len().saturating_add(assets.len());
        let code_bytes = compiled.sealed().len();
        // What sandboxes share of their memories, or what it takes to write that.
        let written_bytes = match compiled.beginning() {
            Beginning::Load => 0,
            Beginning::Copy(copied) => copied.bytes,
            Beginning::Write(component) => {
                let written = component.len().saturating_add(SNAPSHOT_BYTES_MAX);
                written.saturating_mul(WRITTEN_COPIES)
            }
        };
        let sandboxes = limits.sandboxes_max() as u64;
        let data_bytes = [
            limits.memory_bytes_max.saturating_mul(MEMORY_COPIES),
            graph_bytes.saturating_mul(GRAPH_COPIES),
            code_bytes.saturating_mul(CODE_COPIES),
            written_bytes,
            sandboxes.saturating_mul(FIBRE_STACK_BYTES + TABLES_BYTES),
            threads(cpus()).saturating_mul(THREAD_STACK_BYTES),
            PROGRAM_BYTES,
            // Its arena, and threads that help.
            if has_onnxruntime {
                let helpers = limits.engine_threads(cpus()) as u64;
                let helpers = helpers.saturating_mul(THREAD_STACK_BYTES);
                limits.memory_bytes_max.saturating_add(ONNXRUNTIME_BYTES).saturating_add(helpers)
            } else {
                0
            },
        ]
        .into_iter()
        .fold(0, u64::saturating_add);
        let of_sandboxes = sandboxes.saturating_mul(limits.wasi_handles_max as u64);
        let files_max = FILES.saturating_add(files as u64).saturating_add(of_sandboxes);
        let cpu_seconds = match purpose {
            Purpose::Serve => None,
            Purpose::TryOut => Some(cpu_seconds_to_try(limits)),
        };
        let (cpus, without, driver) = (cpus(), left_out(), None);
        Self { mode, cpu_seconds, data_bytes, files_max, cpus, without, driver }
    }

    /// The same as a control group counts it. The CPU time is not that of its guests
    /// alone, whose limit is kept elsewhere.
    pub(super) fn quota(&self, cpu_millis: u64) -> Quota {
        let (bytes, more) = match self.driver {
            Some(_) => (driver::BYTES, driver::THREADS),
            None => (0, 0),
        };
        Quota {
            cpu_millis: cpu_millis
                .saturating_add(cpu_millis / 10)
                .saturating_add(CPU_MILLIS_BESIDE),
            memory_bytes: self.data_bytes.saturating_add(bytes),
            pids_max: threads(self.cpus).saturating_add(more),
        }
    }

    /// As arguments of the process, of which this one is the parent.
    fn arguments(&self) -> Vec<OsString> {
        let parent = std::process::id();
        let mut arguments = vec![
            format!("--jail={}", self.mode.as_str()),
            format!("--parent={parent}"),
            format!("--data-bytes={}", self.data_bytes),
            format!("--files-max={}", self.files_max),
            format!("--cpus={}", self.cpus),
        ];
        arguments.extend(self.cpu_seconds.map(|seconds| format!("--cpu-seconds={seconds}")));
        arguments.extend(self.without.map(|layer| format!("--without={}", layer.as_str())));
        let mut arguments: Vec<OsString> = arguments.into_iter().map(OsString::from).collect();
        arguments.extend(self.driver.iter().flat_map(Driver::arguments));
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
        // What is left of the machine is taken from these before it is from the host.
        let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
        let opened = self.driver.as_ref().map(Driver::open).transpose()?;
        let opened = opened.unwrap_or_default();
        let of_driver = opened.reads.iter().map(AsFd::as_fd);
        let reads: Vec<BorrowedFd<'_>> = reads.iter().copied().chain(of_driver).collect();
        let nodes: Vec<BorrowedFd<'_>> = opened.nodes.iter().map(AsFd::as_fd).collect();
        let data_bytes = limit("process_memory", self.data_bytes);
        // It maps what a device has, and much of what it never uses.
        let has_device = !nodes.is_empty();
        let jail = Jail {
            mode: self.mode,
            parent,
            cpu_seconds: self.cpu_seconds.map(|seconds| limit("compile_cpu", seconds)),
            data_bytes: (!has_device).then_some(data_bytes),
            files_max: self.files_max,
            file_bytes_max: FILE_BYTES,
            reads: &reads,
            driver: has_device.then_some(nodes.as_slice()),
            root,
            code,
        };
        let report = enter_without(&jail, self.without.as_slice());
        // A rule about a file of /proc is forgotten with the last who knows that file.
        std::mem::forget(opened);
        report
    }
}

/// The layer whose absence a test looks at.
fn left_out() -> Option<Layer> {
    (lifted() == "jail_files").then_some(Layer::Files)
}

/// The file of this very program, also when another has taken its name.
fn this_program() -> io::Result<PathBuf> {
    match cfg!(target_os = "linux") {
        true => Ok("/proc/self/exe".into()),
        // Elsewhere it is found by its name alone.
        false => std::env::current_exe(),
    }
}

/// CPU time in which a package is loaded and answers the example.
fn cpu_seconds_to_try(limits: &Limits) -> u64 {
    let calls = limits.call_timeout.saturating_mul(CALLS_TO_TRY).as_secs();
    let of_calls = calls.saturating_mul(limits.cpu_millis.div_ceil(1000));
    of_calls.saturating_add(CPU_SECONDS_TO_LOAD)
}

/// Threads of a replica's process: those of guests and of engines, those that help, and
/// others.
fn threads(cpus: usize) -> u64 {
    (cpus as u64).saturating_mul(3).saturating_add(THREADS)
}

impl Launcher {
    /// Of this very program, also when its file has been replaced. `empty` is a folder
    /// with nothing in it, for as long as any process runs.
    pub fn of_this_program(starter: Starter, empty: &Path, mode: JailMode) -> io::Result<Self> {
        let program = this_program()?;
        let (empty, cuda) = (empty.into(), Arc::default());
        Ok(Self { program, starter, empty, mode, onnxruntime: None, cuda })
    }

    /// The same, whose replicas may run graphs by this library.
    #[must_use]
    pub fn with_onnxruntime(self, library: Option<&Path>) -> Self {
        Self { onnxruntime: library.map(Arc::from), ..self }
    }

    /// The same, whose processes find CUDA there.
    #[must_use]
    pub fn with_cuda(self, cuda: Cuda) -> Self {
        Self { cuda: Arc::new(cuda), ..self }
    }

    /// Where CUDA is.
    pub(super) fn cuda(&self) -> &Cuda {
        &self.cuda
    }

    /// What a process has for the driver of these devices, which may load this library.
    pub(super) fn driver_of<'a>(
        &self,
        devices: impl IntoIterator<Item = &'a Device>,
        library: Option<&Path>,
    ) -> Driver {
        let driver = self.libraries().reaching(devices);
        let beside = library.map(driver::libraries_beside).unwrap_or_default();
        Driver { reads: [driver.reads, beside].concat(), ..driver }
    }

    /// What a process reads that loads libraries of CUDA's, of no device.
    pub(super) fn libraries(&self) -> Driver {
        Driver { reads: self.cuda.reads(), nodes: Vec::new() }
    }

    /// ONNX Runtime's library, if a replica of these may run a graph by it.
    pub(super) fn onnxruntime_for(&self, parts: &Parts) -> Option<&Path> {
        let is_allowed = match parts.sheet.limits.engine {
            None | Some(EngineName::OnnxRuntime) => true,
            Some(EngineName::Tract) => false,
        };
        self.onnxruntime.as_deref().filter(|_| is_allowed && !parts.graphs.is_empty())
    }

    /// Of another program that takes the same arguments.
    #[cfg(test)]
    pub(crate) fn of(program: PathBuf) -> Self {
        let starter = Starter::start().unwrap();
        let empty = Path::new("/").into();
        let (mode, cuda) = (JailMode::BestEffort, Arc::default());
        Self { program, starter, empty, mode, onnxruntime: None, cuda }
    }

    /// The folder with nothing in it, open.
    pub(super) fn folder(&self) -> io::Result<File> {
        File::open(&self.empty)
    }

    pub(super) fn mode(&self) -> JailMode {
        self.mode
    }

    /// A process that is about to be started: it has no variables but the one that a
    /// driver's libraries are found by, and begins where there is nothing.
    pub(super) fn command(&self, arguments: &[&str], confinement: &Confinement) -> Command {
        let mut command = Command::new(&self.program);
        command.arg0("ringfence");
        command.args(arguments).args(confinement.arguments()).env_clear().current_dir(&self.empty);
        if confinement.driver.is_some() {
            command.env(LOADER_PATH, self.cuda.loader_path());
        }
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
    use crate::limits::{Isolation, KEPT_CALLERS_MAX};
    use crate::package::{AssetFile, Assets, AssetsFolder, Content, GraphFile, Sheet};
    use crate::sealed::Sealed;

    /// MEM-12: the account is the limit, and what no account sees has room beside it.
    #[test]
    fn a_replica_has_room_for_all_that_it_may_hold() {
        let parts = |limits: &Limits, graph: usize, asset: u64| {
            let content = Content::Bytes(vec![0; graph].into());
            let sheet = Sheet::of_tests(limits.clone());
            let files = vec![AssetFile { name: "a".into(), size: asset }];
            let assets = Assets { folder: AssetsFolder::Passed("".into()), files };
            let graph = GraphFile { name: "g".into(), folder: String::new(), content };
            Parts { sheet, graphs: vec![graph], assets }
        };
        let of = |limits: &Limits, graph, asset, code| {
            let parts = parts(limits, graph, asset);
            let code = Sealed::of(vec![0; code].as_slice()).unwrap();
            let code = Compiled::trusted(code);
            Confinement::of_replica(JailMode::Required, &parts, &code, Purpose::Serve, false)
                .data_bytes
        };
        let small = Limits { memory_bytes_max: 64 << 20, concurrency_max: 1, ..Limits::default() };
        let more = Limits { concurrency_max: 11, ..small.clone() };
        let caller = Limits { isolation: Isolation::Caller, ..small.clone() };
        let larger = Limits { memory_bytes_max: 128 << 20, ..small.clone() };
        let least = of(&small, 0, 0, 0);
        assert!(least >= (64 << 20) + PROGRAM_BYTES);
        let each = FIBRE_STACK_BYTES + TABLES_BYTES;
        assert_eq!(of(&more, 0, 0, 0) - least, 2 * 10 * each);
        assert_eq!(of(&caller, 0, 0, 0) - least, KEPT_CALLERS_MAX as u64 * each);
        assert_eq!(of(&larger, 0, 0, 0) - least, MEMORY_COPIES * (64 << 20));
        assert_eq!(of(&small, 1 << 20, 1 << 21, 0) - least, GRAPH_COPIES * (3 << 20));
        assert_eq!(of(&small, 0, 1 << 21, 1 << 20) - least, CODE_COPIES << 20);
        let absurd = Limits { memory_bytes_max: u64::MAX, ..small };
        assert_eq!(of(&absurd, 1, u64::MAX, 1), u64::MAX);
    }
}
