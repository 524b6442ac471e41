//! The host as a child process on a free port of loopback.

use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How to start a host.
#[derive(Debug, Default)]
pub struct HostOptions {
    /// Folders to serve.
    pub models: Vec<PathBuf>,
    /// Further arguments.
    pub args: Vec<String>,
    /// A data directory to use again.
    pub data_dir: Option<PathBuf>,
    /// Where its log goes, if not to a file that [`Host::log`] reads.
    pub stderr: Option<Stdio>,
    /// Further variables of its environment.
    pub variables: Vec<(String, String)>,
    /// A program that becomes the host, or watches it, and its arguments.
    pub under: Vec<String>,
    /// Another place of the binary.
    pub program: Option<PathBuf>,
}

/// A running host. Ends with this value, by its process id.
#[derive(Debug)]
pub struct Host {
    child: Child,
    base: String,
    greeting: Vec<String>,
    data_dir: PathBuf,
    _scratch: TempDir,
}

impl Host {
    /// Starts a host that serves these folders, and waits until it is ready.
    pub fn serve(models: &[&str]) -> Self {
        let models = models.iter().map(PathBuf::from).collect();
        Self::start(HostOptions { models, ..HostOptions::default() })
    }

    /// Starts a host and waits until it is ready.
    pub fn start(options: HostOptions) -> Self {
        let scratch = TempDir::new().unwrap();
        let data_dir = options.data_dir.unwrap_or_else(|| scratch.path().join("data"));
        let binary = options.program.unwrap_or_else(binary);
        let mut command = match options.under.split_first() {
            None => Command::new(binary),
            Some((program, args)) => {
                let mut command = Command::new(program);
                command.args(args).arg(binary);
                command
            }
        };
        command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(&data_dir);
        for model in &options.models {
            command.arg("--model").arg(model);
        }
        let log = std::fs::File::create(scratch.path().join("stderr")).unwrap();
        let mut child = command
            .args(&options.args)
            .envs(options.variables)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(options.stderr.unwrap_or_else(|| log.into()))
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut greeting = Vec::new();
        loop {
            match lines.next() {
                Some(Ok(line)) if line == "ready" => break,
                Some(Ok(line)) => greeting.push(line),
                ended => {
                    let status = child.wait().unwrap();
                    let log = std::fs::read_to_string(scratch.path().join("stderr")).unwrap();
                    panic!("the host did not start ({status}, {ended:?}): {greeting:?}\n{log}");
                }
            }
        }
        let base = greeting
            .iter()
            .find_map(|line| line.strip_prefix("ringfence listens on "))
            .unwrap()
            .to_owned();
        Self { child, base, greeting, data_dir, _scratch: scratch }
    }

    /// Where it listens: `http://127.0.0.1:PORT`.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The answer of the operator's listener to a GET: the status and the body.
    pub fn operator_get(&self, path: &str) -> (u16, String) {
        let address = self
            .greeting
            .iter()
            .find_map(|line| line.strip_prefix("metrics on http://")?.strip_suffix("/metrics"))
            .expect("a host with --metrics-listen");
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, body.to_owned())
    }

    /// The value of one series of /metrics, or 0 where there is none.
    pub fn metric(&self, series: &str) -> f64 {
        let (status, text) = self.operator_get("/metrics");
        assert_eq!(status, 200, "{text}");
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().unwrap())
    }

    /// Runs a client command against it, with the token that it made.
    pub fn ringfence(&self, args: &[&str]) -> Output {
        self.ringfence_as(&self.pat(), args)
    }

    /// The same, with another token.
    pub fn ringfence_as(&self, pat: &str, args: &[&str]) -> Output {
        Command::new(binary())
            .args(args)
            .env_clear()
            .env("RINGFENCE_BASE", self.base())
            .env("RINGFENCE_PAT", pat)
            .output()
            .unwrap()
    }

    /// Runs a command by the socket in its data directory.
    pub fn by_socket(&self, args: &[&str]) -> Output {
        let data_dir = self.data_dir.to_str().unwrap();
        Self::command(&[args, &["--data-dir", data_dir]].concat())
    }

    /// What such a command prints; it has to succeed.
    pub fn operate(&self, args: &[&str]) -> String {
        let output = self.by_socket(args);
        let printed = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (told, failed) = (printed(&output.stdout), printed(&output.stderr));
        assert!(output.status.success(), "{told}{failed}");
        told
    }

    /// A token of a new user, for these scopes.
    pub fn user(&self, name: &str, scopes: &str) -> String {
        self.operate(&["users", "create", name]);
        self.token(name, scopes)
    }

    /// A further token of a user.
    pub fn token(&self, user: &str, scopes: &str) -> String {
        let made = self.operate(&["pat", "create", "--user", user, "--scope", scopes]);
        made.trim().to_owned()
    }

    /// Runs a command that needs no host.
    pub fn command(args: &[&str]) -> Output {
        Command::new(binary()).args(args).env_clear().output().unwrap()
    }

    /// What it printed before it was ready, line by line.
    pub fn greeting(&self) -> &[String] {
        &self.greeting
    }

    /// Its data directory.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The token that it made at its first start.
    pub fn pat(&self) -> String {
        let path = self.data_dir.join("admin.pat");
        std::fs::read_to_string(path).unwrap().trim().to_owned()
    }

    /// That token, or nothing where the host asks for none.
    pub fn pat_or_none(&self) -> String {
        let path = self.data_dir.join("admin.pat");
        std::fs::read_to_string(path).unwrap_or_default().trim().to_owned()
    }

    /// Everything it has logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self._scratch.path().join("stderr")).unwrap()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether the process that was started still runs.
    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Asks it to stop, and waits for that.
    pub fn terminate(self) -> ExitStatus {
        self.ask_to_stop();
        self.wait()
    }

    /// Kills it, and waits until it is gone.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to stop.
    pub fn ask_to_stop(&self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
    }

    /// Waits until it has ended by itself, within a generous bound.
    pub fn wait(mut self) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(started.elapsed() < Duration::from_secs(60), "it did not end: {}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The processes of its replicas.
    pub fn workers(&self) -> Vec<u32> {
        let is_worker = |pid: &u32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0).any(|word| word == b"call-worker")
        };
        children(self.pid()).into_iter().filter(is_worker).collect()
    }

    /// Resident memory in bytes, of it and of its processes together.
    pub fn resident_bytes(&self) -> u64 {
        self.sum(|pid| {
            let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
            let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
            Some(pages * 4096)
        })
    }

    /// The same without pages of files, such as its program's, which processes share and
    /// which come and go.
    pub fn own_bytes(&self) -> u64 {
        self.sum(|pid| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let kib = |field: &str| -> Option<u64> {
                let line = status.lines().find_map(|line| line.strip_prefix(field))?;
                line.trim().trim_end_matches(" kB").parse().ok()
            };
            Some((kib("RssAnon:")? + kib("RssShmem:")?) << 10)
        })
    }

    /// The most resident memory that it and each of its processes have had, in bytes.
    pub fn resident_bytes_peak(&self) -> u64 {
        self.sum(|pid| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
            let kib: u64 = line.trim().trim_end_matches(" kB").parse().ok()?;
            Some(kib << 10)
        })
    }

    /// Of it and its processes, those left out that end meanwhile.
    fn sum(&self, of: impl Fn(u32) -> Option<u64>) -> u64 {
        [vec![self.pid()], children(self.pid())].concat().into_iter().filter_map(of).sum()
    }

    /// Waits until `condition` holds, within a generous bound.
    pub fn wait_until(&self, what: &str, mut condition: impl FnMut(&Self) -> bool) {
        let started = Instant::now();
        while !condition(self) {
            assert!(started.elapsed() < Duration::from_secs(60), "{what} did not happen");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // It may have ended by itself, which is what was wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The processes that a process has begun and that are still there.
pub fn children(pid: u32) -> Vec<u32> {
    let of = |thread: &str| {
        let pids = std::fs::read_to_string(format!("/proc/{pid}/task/{thread}/children")).ok()?;
        Some(pids.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<u32>>())
    };
    assert!(of(&pid.to_string()).is_some(), "the system does not tell children");
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().filter_map(Result::ok);
    // Others may end meanwhile.
    threads.filter_map(|thread| of(thread.file_name().to_str()?)).flatten().collect()
}

/// Starts a host that has to refuse, and waits for that within a bound.
/// Returns its exit code and what it wrote to standard error.
pub fn refused_start(args: &[&str]) -> (Option<i32>, String) {
    refused_start_with(args, &[])
}

/// The same with these variables in its environment.
pub fn refused_start_with(args: &[&str], variables: &[(&str, String)]) -> (Option<i32>, String) {
    let scratch = TempDir::new().unwrap();
    let log = scratch.path().join("stderr");
    let mut child = Command::new(binary())
        .arg("serve")
        .args(args)
        .env_clear()
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .current_dir(scratch.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let started = Instant::now();
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None if started.elapsed() > Duration::from_secs(60) => {
                child.kill().unwrap();
                break child.wait().unwrap();
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    (status.code(), std::fs::read_to_string(log).unwrap())
}

/// The binary under test, which cargo puts beside the tests' own folder.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("RINGFENCE_TEST_PROGRAM") {
        return path.into();
    }
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    if path.ends_with("deps") {
        path.pop();
    }
    path.join("ringfence-under-test")
}

/// A guest's model folder with another `config.yaml`.
#[derive(Debug)]
pub struct Variant {
    folder: TempDir,
}

impl Variant {
    /// The folder of a guest in which each text of `config.yaml` is replaced
    /// by the other. Every text has to be there.
    pub fn of(guest: &str, changes: &[(&str, &str)]) -> Self {
        let folder = TempDir::new().unwrap();
        copy(Path::new(guest), folder.path());
        let path = folder.path().join("config.yaml");
        let mut config = std::fs::read_to_string(&path).unwrap();
        for (from, to) in changes {
            assert!(config.contains(from), "{from} in {config}");
            config = config.replace(from, to);
        }
        std::fs::write(path, config).unwrap();
        Self { folder }
    }

    /// Its path, as an argument.
    pub fn path(&self) -> &str {
        self.folder.path().to_str().unwrap()
    }

    /// Its path.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// Every file below a folder.
pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files_below(&path)) } else { found.push(path) }
    }
    found
}

/// Copies a folder with everything in it but what cargo has built there.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}
