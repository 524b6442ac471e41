//! One-shot processes of this very program, which compile what an author sends, so that
//! none of it is looked at where tokens are.
//!
//! Owns starting them, their limits, and ending them: a process that is not
//! waited for any more is killed.

use super::frames::Frame;
use super::launch::{Confinement, Launcher};
use crate::limits::limit;
use crate::sandbox::Instrumented;
use crate::text::cut;
use rustix::process::{Pid, setpriority_process};
use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Child;

/// What is kept of what a process writes about its own end.
const STDERR_BYTES_MAX: u64 = 4 << 10;

/// What compiling one component may take, in each of two tries.
#[derive(Debug, Clone, Copy)]
struct CompileLimits {
    /// CPU time, and some more for each MiB of it, whatever that is, up to a bound: twice
    /// what large honest components at hand take.
    cpu_seconds: u64,
    cpu_seconds_of_mib: u64,
    cpu_seconds_max: u64,
    /// Memory, and the threads that take it.
    data_bytes: u64,
    threads_max: usize,
    /// Time, waiting for a CPU included.
    timeout: Duration,
}

impl CompileLimits {
    const DEFAULT: Self = Self {
        cpu_seconds: 20,
        cpu_seconds_of_mib: 2,
        cpu_seconds_max: 60,
        data_bytes: 2 << 30,
        threads_max: 4,
        timeout: Duration::from_secs(180),
    };

    /// CPU time for a component of so many bytes.
    fn cpu_seconds_for(&self, component_bytes: usize) -> u64 {
        let mib = (component_bytes >> 20) as u64;
        let more = mib.saturating_mul(self.cpu_seconds_of_mib);
        self.cpu_seconds.saturating_add(more).min(self.cpu_seconds_max)
    }
}

/// How much nicer than calls a process is that nobody waits for.
const AHEAD_NICE: i32 = 15;

/// Whether somebody waits for what a process gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// A call or an upload.
    Waited,
    /// Nobody yet.
    Ahead,
}

/// Why a one-shot process gave no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OneShotError {
    /// It says why.
    #[error("{0}")]
    Refused(String),
    /// It reached one of its limits.
    #[error("it took more than {0}; make it smaller")]
    Limit(String),
    /// It ended in a way that it should not.
    #[error("the process that looked at it ended: {0}")]
    Died(String),
    /// It cannot be started, or not be spoken to.
    #[error("cannot start a process: {0}")]
    Start(String),
}

/// Machine code that a process has made.
#[derive(Debug)]
pub struct MachineCode {
    /// All of it.
    pub bytes: Vec<u8>,
    /// Where it was made in one pass: the limit that the better way has reached.
    pub slow_because: Option<String>,
}

/// What one-shot processes are started from.
#[derive(Debug, Clone)]
pub struct OneShot {
    launcher: Launcher,
    urgency: Urgency,
    compiling: CompileLimits,
}

impl OneShot {
    /// From these.
    pub fn of(launcher: Launcher) -> Self {
        Self { launcher, urgency: Urgency::Waited, compiling: CompileLimits::DEFAULT }
    }

    /// From this program, for what compiles nothing.
    #[cfg(test)]
    pub(crate) fn of_this_program() -> Self {
        Self::of(Launcher::of("/proc/self/exe".into()))
    }

    /// What they are started from.
    pub(super) fn launcher(&self) -> &Launcher {
        &self.launcher
    }

    /// The same for what nobody waits for yet.
    pub(super) fn ahead(&self) -> Self {
        Self { urgency: Urgency::Ahead, ..self.clone() }
    }

    /// The same with another deadline of compiling.
    #[cfg(test)]
    pub(crate) fn compiling_within(self, timeout: Duration) -> Self {
        Self { compiling: CompileLimits { timeout, ..self.compiling }, ..self }
    }

    /// Compiles a component that may start with so much memory. What takes too much is
    /// tried once more in a way that takes less, and gives slower code.
    pub async fn compile(
        &self,
        component: &[u8],
        instrumented: Instrumented,
        memory_bytes_max: u64,
        urgency: Urgency,
    ) -> Result<MachineCode, OneShotError> {
        let one_shot = Self { urgency, ..self.clone() };
        let how = match instrumented {
            Instrumented::ForSnapshot => [].as_slice(),
            Instrumented::No => &["--as-it-is"],
        };
        let tried = one_shot.compile_with(component, memory_bytes_max, how).await;
        match tried {
            Ok(bytes) => Ok(MachineCode { bytes, slow_because: None }),
            Err(OneShotError::Limit(limit)) => {
                let how = [how, &["--single-pass"]].concat();
                let tried = one_shot.compile_with(component, memory_bytes_max, &how).await;
                Ok(MachineCode { bytes: tried?, slow_because: Some(limit) })
            }
            Err(error) => Err(error),
        }
    }

    async fn compile_with(
        &self,
        component: &[u8],
        memory_bytes_max: u64,
        how: &[&str],
    ) -> Result<Vec<u8>, OneShotError> {
        let CompileLimits { data_bytes, threads_max, timeout, .. } = self.compiling;
        let cpu_seconds = self.compiling.cpu_seconds_for(component.len());
        let timeout = limit("compile_time", timeout);
        let memory = memory_bytes_max.to_string();
        let arguments = [&["compile-worker", "--memory-bytes-max", &memory], how].concat();
        let confinement = Confinement::of_one_shot(self.launcher.mode(), cpu_seconds, data_bytes);
        let cpus = confinement.cpus.min(threads_max);
        let confinement = Confinement { cpus, ..confinement };
        let given = self.run(&arguments, confinement, component, timeout).await?;
        given.ok_or_else(|| OneShotError::Died("it gave no code".to_owned()))
    }

    /// Runs one to its end, with bytes on its standard input.
    pub async fn run(
        &self,
        arguments: &[&str],
        confinement: Confinement,
        input: &[u8],
        timeout: Duration,
    ) -> Result<Option<Vec<u8>>, OneShotError> {
        let start = |error: io::Error| OneShotError::Start(error.to_string());
        let mut command = self.launcher.command(arguments, &confinement);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.launcher.spawn(command).await.map_err(start)?;
        if self.urgency == Urgency::Ahead {
            be_nice(&child);
        }
        let missing = || OneShotError::Start("it has no pipes".to_owned());
        let mut stdin = child.stdin.take().ok_or_else(missing)?;
        let mut stdout = child.stdout.take().ok_or_else(missing)?;
        let stderr = child.stderr.take().ok_or_else(missing)?;
        let feed = async {
            // One that ends early says why by itself.
            let _ = stdin.write_all(input).await;
            drop(stdin);
        };
        let mut said = String::new();
        let listen = async {
            let mut bytes = Vec::new();
            let mut limited = stderr.take(STDERR_BYTES_MAX);
            let _ = limited.read_to_end(&mut bytes).await;
            said = String::from_utf8_lossy(&bytes).into_owned();
            // The rest is read so that it does not wait for us.
            let _ = tokio::io::copy(&mut limited.into_inner(), &mut tokio::io::sink()).await;
        };
        let mut refused = None;
        let mut given = None;
        let read = async {
            while let Some(frame) = Frame::read(&mut stdout).await? {
                match frame {
                    Frame::Compiled(bytes) => given = Some(bytes),
                    Frame::Refused(text) => refused = Some(text),
                }
            }
            io::Result::Ok(())
        };
        let all = async {
            let ((), (), read) = tokio::join!(feed, listen, read);
            (read, child.wait().await)
        };
        let Ok((read, status)) = tokio::time::timeout(timeout, all).await else {
            return Err(OneShotError::Limit(format!("{} s", timeout.as_secs())));
        };
        if let Some(text) = refused {
            return Err(OneShotError::Refused(text));
        }
        read.map_err(|error| OneShotError::Died(error.to_string()))?;
        let status = status.map_err(|error| OneShotError::Died(error.to_string()))?;
        match status.success() {
            true => Ok(given),
            false => Err(ended(status, &said, &confinement)),
        }
    }
}

/// Lowers the priority of a process before it is given anything to do; the
/// threads that it starts then have the same.
fn be_nice(child: &Child) {
    let pid = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
    if let Some(pid) = pid
        && let Err(error) = setpriority_process(Some(pid), AHEAD_NICE)
    {
        tracing::warn!(%error, "cannot lower the priority of a process");
    }
}

/// What an end that is no success means.
fn ended(status: ExitStatus, said: &str, confinement: &Confinement) -> OneShotError {
    use std::os::unix::process::ExitStatusExt;
    let seconds = confinement.cpu_seconds.unwrap_or_default();
    let cpu = || OneShotError::Limit(format!("{seconds} s of CPU time"));
    let memory = || OneShotError::Limit(format!("{} bytes of memory", confinement.data_bytes));
    const SIGKILL: i32 = 9;
    const SIGXCPU: i32 = 24;
    match status.signal() {
        // The kernel's word for RLIMIT_CPU.
        Some(SIGXCPU) => cpu(),
        Some(SIGKILL) => OneShotError::Died(
            "it was killed, by the system for want of memory or by an operator; try again"
                .to_owned(),
        ),
        // The standard library's words for an allocation that fails.
        Some(_) if said.contains("memory allocation of") => memory(),
        _ => {
            let mut said = said.trim().to_owned();
            cut(&mut said, 200);
            OneShotError::Died(format!("{status} {}", crate::text::escape_controls(&said)))
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::jail::JailMode;
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::path::Path;
    use std::time::Instant;

    /// One-shot processes of a script in a folder, which it calls FOLDER.
    pub(crate) fn scripted(folder: &Path, script: &str) -> OneShot {
        OneShot::of(launcher_of(folder, script))
    }

    /// Processes of any kind of such a script. Another process writes it: what this one
    /// has open for writing, a process that another test starts meanwhile has too, and
    /// then the kernel runs it for nobody.
    pub(crate) fn launcher_of(folder: &Path, script: &str) -> Launcher {
        let (text, program) = (folder.join("compiler.sh"), folder.join("compiler"));
        std::fs::write(&text, script.replace("FOLDER", folder.to_str().unwrap())).unwrap();
        let copy = std::process::Command::new("install")
            .args(["-m", "700"])
            .args([&text, &program])
            .status();
        assert!(copy.unwrap().success());
        Launcher::of(program)
    }

    /// PKG-07, PKG-08.
    #[test]
    fn each_end_is_told_by_what_brought_it_about() {
        let confinement = Confinement::of_one_shot(JailMode::Required, 60, 1 << 31);
        let told = |signal: i32, said: &str| {
            ended(ExitStatus::from_raw(signal), said, &confinement).to_string()
        };
        assert!(told(24, "").contains("more than 60 s of CPU time"), "{}", told(24, ""));
        let memory = told(6, "memory allocation of 196608 bytes failed\n");
        assert!(memory.contains("more than 2147483648 bytes of memory"), "{memory}");
        assert!(told(9, "").contains("was killed"), "{}", told(9, ""));
        assert!(told(11, "odd\n\u{1b}words").contains("odd"), "{}", told(11, "odd"));
    }

    #[test]
    fn a_large_component_has_more_time_and_none_has_more_than_a_minute() {
        let seconds = |bytes| CompileLimits::DEFAULT.cpu_seconds_for(bytes);
        assert_eq!([0, 1 << 20, 18 << 20].map(seconds), [20, 22, 56]);
        assert_eq!([20 << 20, usize::MAX].map(seconds), [60, 60]);
    }

    #[tokio::test]
    async fn what_nobody_waits_for_is_compiled_with_a_lower_priority() {
        let scratch = tempfile::TempDir::new().unwrap();
        // It is given something to do when its priority is what it should be.
        let script = "#!/bin/sh\nread -r component; nice >> FOLDER/nice\n";
        let one_shot = scripted(scratch.path(), script);
        for urgency in [Urgency::Waited, Urgency::Ahead] {
            one_shot.compile(b"component\n", Instrumented::No, 1, urgency).await.unwrap_err();
        }
        let nice = std::fs::read_to_string(scratch.path().join("nice")).unwrap();
        let nice: Vec<i32> = nice.lines().map(|line| line.parse().unwrap()).collect();
        assert_eq!(nice[1], AHEAD_NICE);
        assert!(nice[0] < nice[1], "{nice:?}");
    }

    /// PKG-07: a compiler that takes too much is asked once more for less.
    #[tokio::test]
    async fn what_takes_too_much_to_compile_is_tried_once_more_in_one_pass() {
        let scratch = tempfile::TempDir::new().unwrap();
        let script = "#!/bin/sh\necho $* >> FOLDER/tries\ncase \"$*\" in\n\
            *single-pass*) printf 'C\\004\\000\\000\\000\\000\\000\\000\\000code';;\n\
            *) kill -XCPU $$;;\nesac\n";
        let one_shot = scripted(scratch.path(), script);
        let code = one_shot.compile(b"component", Instrumented::No, 1, Urgency::Waited).await;
        let code = code.unwrap();
        assert_eq!(code.bytes, b"code");
        assert!(code.slow_because.unwrap().contains("CPU time"));
        let tries = std::fs::read_to_string(scratch.path().join("tries")).unwrap();
        assert_eq!(tries.lines().count(), 2, "{tries}");
        let never = scripted(scratch.path(), "#!/bin/sh\nkill -XCPU $$\n");
        let refused =
            never.compile(b"component", Instrumented::No, 1, Urgency::Waited).await.unwrap_err();
        assert!(refused.to_string().contains("more than 20 s of CPU time"), "{refused}");
    }

    /// PKG-08: one that hangs, and says so much meanwhile that nobody could keep
    /// it, is ended at the deadline.
    #[tokio::test]
    async fn a_compiler_that_does_not_end_is_killed_at_its_deadline() {
        let scratch = tempfile::TempDir::new().unwrap();
        let pid = scratch.path().join("pid");
        let hangs = "#!/bin/sh\n\
            echo $$ > FOLDER/pid; while true; do echo noise >&2; sleep 0.01; done\n";
        let one_shot = scripted(scratch.path(), hangs).compiling_within(Duration::from_secs(2));
        let compiling = one_shot.compile(b"component", Instrumented::No, 1, Urgency::Waited);
        let ended = tokio::time::timeout(Duration::from_secs(12), compiling).await.expect("an end");
        assert_eq!(ended.unwrap_err(), OneShotError::Limit("2 s".to_owned()));
        let pid: u32 = std::fs::read_to_string(pid).unwrap().trim().parse().unwrap();
        let runs = || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            // It may wait for its parent to notice.
            !(stat.is_empty() || stat.contains(") Z "))
        };
        let began = Instant::now();
        while runs() {
            assert!(began.elapsed() < Duration::from_secs(60), "it goes on");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
