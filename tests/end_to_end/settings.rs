//! `host.yaml` end to end: what it sets, what is refused at once, what a reload
//! changes, and TLS.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use ringfence::proto::clarifai::api::v2_client::V2Client;
use ringfence_tests::{
    Client, Host, HostOptions, binary, block_on, guests, refused_start, text_input,
};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::Permissions;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

/// A refusal takes a second at most; this is for a machine that does much else.
const REFUSAL_BOUND: Duration = Duration::from_secs(10);

/// A folder with a `host.yaml` and what that names.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new(host_yaml: &str) -> Self {
        let folder = Self(TempDir::new().unwrap());
        folder.put("host.yaml", host_yaml);
        folder
    }

    fn put(&self, name: &str, content: &str) {
        std::fs::write(self.path(name), content).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn argument(&self) -> String {
        self.path("host.yaml").display().to_string()
    }

    /// A host that goes by it and serves `echo`.
    pub(crate) fn serve(&self) -> Host {
        self.serve_with(&[])
    }

    fn serve_with(&self, args: &[&str]) -> Host {
        let file = ["--host-config".to_owned(), self.argument()];
        let args = file.into_iter().chain(args.iter().map(|arg| (*arg).to_owned())).collect();
        Host::start(HostOptions { models: vec![guests::ECHO.into()], args, ..Default::default() })
    }
}

/// A CA of the test's own.
struct Ca {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// Puts a certificate for this machine, and its key, into a folder.
    fn sign(&self, folder: &Folder) {
        let params = CertificateParams::new(vec!["127.0.0.1".into(), "localhost".into()]).unwrap();
        let key = KeyPair::generate().unwrap();
        folder.put("cert.pem", &params.signed_by(&key, &self.issuer).unwrap().pem());
        folder.put("key.pem", &key.serialize_pem());
        std::fs::set_permissions(folder.path("key.pem"), Permissions::from_mode(0o600)).unwrap();
        folder.put("ca.pem", &self.pem);
    }
}

const TLS: &str = "tls: {certificate: cert.pem, key: key.pem}\n";

/// Calls `echo` over a connection of its own, believing this CA.
fn call_over_tls(host: &Host, ca: &Ca) -> Result<String, tonic::transport::Error> {
    block_on(async {
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&ca.pem));
        let endpoint = Endpoint::from_shared(host.base().to_owned())?.tls_config(tls)?;
        let client = Client::of(V2Client::new(endpoint.connect().await?), &host.pat());
        Ok(client.predict("echo", vec![text_input("over tls")]).await.text().to_owned())
    })
}

/// Our own client, with nothing in its environment but what is given.
fn predict(host: &Host, args: &[&str], variables: &[(&str, &str)]) -> Output {
    Command::new(binary())
        .args(["predict", "echo", "--text", "hi", "--base", host.base(), "--pat-file"])
        .arg(host.data_dir().join("admin.pat"))
        .args(args)
        .env_clear()
        .envs(variables.iter().copied())
        .output()
        .unwrap()
}

fn hang_up(host: &Host) {
    kill_process(Pid::from_raw(i32::try_from(host.pid()).unwrap()).unwrap(), Signal::HUP).unwrap();
}

/// A start that has to be refused soon, with this in its one line.
fn refused_in_one_line(args: &[&str], expected: &[&str]) {
    let began = Instant::now();
    let (code, text) = refused_start(args);
    assert!(began.elapsed() < REFUSAL_BOUND, "{:?}: {text}", began.elapsed());
    assert_eq!(code, Some(2), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    for expected in expected {
        assert!(text.contains(expected), "{expected}: {text}");
    }
}

/// `serve --check` with these arguments: exit code, standard output and error.
fn check(args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(binary()).args(["serve", "--check"]).args(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_host_goes_by_its_file_and_flags_win() {
    let folder = Folder::new(&format!(
        "listen: 192.0.2.1:1\ndata_dir: data\nmodels: [{:?}]\nreflection: true\n\
         log: {{format: json, filter: \"info\"}}\nmetrics: {{listen: 192.0.2.1:2}}\n",
        guests::ECHO
    ));
    let mut child = Command::new(binary())
        .args(["serve", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"])
        .args(["--host-config", &folder.argument()])
        .stdout(Stdio::piped())
        .stderr(std::fs::File::create(folder.path("log")).unwrap())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut greeting = String::new();
    while !greeting.contains("ready\n") {
        let mut bytes = [0; 1024];
        let count = stdout.read(&mut bytes).unwrap();
        assert!(count > 0, "{greeting}");
        greeting += std::str::from_utf8(&bytes[..count]).unwrap();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(greeting.contains("listens on http://127.0.0.1:"), "{greeting}");
    assert!(greeting.contains("metrics on http://127.0.0.1:"), "{greeting}");
    assert!(greeting.contains("model local/main/echo version"), "{greeting}");
    assert!(folder.path("data/admin.pat").exists());
    let log = std::fs::read_to_string(folder.path("log")).unwrap();
    assert!(log.lines().all(|line| line.starts_with('{')), "{log}");
}

#[test]
fn a_faulty_file_is_told_with_every_problem_and_its_line() {
    let folder = Folder::new("listn: 127.0.0.1:0\ndrain_timeout: soon\n");
    let file = folder.argument();
    for args in [&["--host-config", &file][..], &["--check", "--host-config", &file]] {
        let (code, text) = refused_start(args);
        assert_eq!(code, Some(2), "{text}");
        for expected in [
            &format!("cannot use {file}: host.yaml has 2 problems"),
            "host.yaml:1:1: `listn`: is not a key; did you mean `listen`?",
            "host.yaml:2:16: `drain_timeout`: \"soon\" is not a time",
        ] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
    }
}

/// The file is called what it is called, and what it sets is changed there.
#[test]
fn problems_name_the_file_and_its_key_and_a_check_tells_all() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap();
    let folder = Folder::new("");
    let file = folder.path("front.yml").display().to_string();
    folder.put("front.yml", "listn: 127.0.0.1:0\n");
    let (_, _, text) = check(&["--host-config", &file]);
    assert!(text.contains("front.yml:1:1: `listn`") && !text.contains("host.yaml"), "{text}");

    folder.put("front.yml", &format!("listen: {taken}\ndata_dir: data\n"));
    let in_file = format!("choose another with `listen` of {file}");
    let (_, _, text) = check(&["--host-config", &file]);
    assert!(text.contains(&in_file), "{text}");
    refused_in_one_line(&["--host-config", &file], &[&in_file]);
    let (_, _, text) = check(&["--host-config", &file, "--listen", &taken.to_string()]);
    assert!(text.contains("choose another with --listen"), "{text}");

    folder.put(
        "front.yml",
        "listen: 192.0.2.1:1\ndata_dir: data\nmodels: [nowhere]\njail: best-effort\n",
    );
    let (code, _, text) = check(&["--host-config", &file, "--no-auth"]);
    assert_eq!(code, Some(2), "{text}");
    for expected in [
        "4 problems",
        "--no-auth works on loopback only",
        &format!("write required with `jail` of {file}"),
        "this machine has no such address",
        "nowhere",
    ] {
        assert!(text.contains(expected), "{expected} in {text}");
    }
}

/// OPS-07.
#[test]
fn an_address_that_cannot_be_had_is_refused_at_once_in_one_line() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    refused_in_one_line(&["--listen", &taken], &[&taken, "another program listens there"]);
    refused_in_one_line(&["--listen", "192.0.2.1:1"], &["no such address"]);
    refused_in_one_line(&["--listen", "localhost"], &["--listen \"localhost\" is no address"]);
    // Only where ports are kept for root, and this is not root.
    let first = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    let kept = first.is_ok_and(|first| first.trim().parse::<u16>().is_ok_and(|first| first > 1));
    if kept && !rustix::process::geteuid().is_root() {
        refused_in_one_line(&["--listen", "127.0.0.1:1"], &["needs privileges"]);
    }
}

/// OPS-08 and OPS-09.
#[test]
fn a_data_directory_that_is_not_ours_alone_is_refused_at_once_in_one_line() {
    let folder = Folder::new("");
    let data_dir = folder.path("data");
    std::fs::create_dir(&data_dir).unwrap();
    std::fs::set_permissions(&data_dir, Permissions::from_mode(0o777)).unwrap();
    let open = data_dir.to_str().unwrap();
    refused_in_one_line(
        &["--listen", "127.0.0.1:0", "--data-dir", open],
        &["open to other users (mode 777)", &format!("run `chmod 700 {open}`")],
    );
    let host = folder.serve();
    assert_eq!(host.log().contains("runs as root"), rustix::process::geteuid().is_root());
    let used = host.data_dir().to_str().unwrap();
    refused_in_one_line(&["--listen", "127.0.0.1:0", "--data-dir", used], &["in use by another"]);
}

/// OPS-08.
#[test]
fn tls_files_that_cannot_be_used_are_refused_at_once_in_one_line() {
    let folder = Folder::new(TLS);
    let file = folder.argument();
    let args = ["--listen", "127.0.0.1:0", "--host-config", &file];
    refused_in_one_line(&args, &["cannot read tls.certificate", "cert.pem"]);
    let ca = Ca::new();
    ca.sign(&folder);
    let key = folder.path("key.pem");
    std::fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
    refused_in_one_line(&args, &[&format!("run `chmod 600 {}`", key.display())]);
    folder.put("key.pem", &KeyPair::generate().unwrap().serialize_pem());
    std::fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
    refused_in_one_line(&args, &["is not that of the certificate"]);
    folder.put("key.pem", "no key");
    refused_in_one_line(&args, &["has no private key in PEM form"]);
    assert!(!folder.path("ringfence-data").exists(), "nothing was begun");
}

#[test]
fn a_check_reads_everything_and_leaves_nothing_behind() {
    let folder = Folder::new(&format!("data_dir: data\n{TLS}models: [{:?}]\n", guests::ECHO));
    Ca::new().sign(&folder);
    let file = folder.argument();
    let args = ["--listen", "127.0.0.1:0", "--host-config", &file];
    assert_eq!(check(&args), (Some(0), "ok\n".into(), String::new()));
    assert!(!folder.path("data").exists());

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    std::fs::create_dir(folder.path("data")).unwrap();
    std::fs::set_permissions(folder.path("data"), Permissions::from_mode(0o770)).unwrap();
    std::fs::remove_file(folder.path("key.pem")).unwrap();
    let (code, out, text) = check(&[
        "--listen",
        &taken,
        "--host-config",
        &file,
        "--model",
        "/nowhere",
        "--model",
        guests::IMPORTS_SOCKETS,
    ]);
    assert_eq!((code, out.as_str()), (Some(2), ""), "{text}");
    for expected in [
        "5 problems",
        "cannot read tls.key",
        "open to other users (mode 770)",
        "another program listens there",
        "cannot serve /nowhere",
        "wasi:sockets/",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
}

#[test]
fn a_check_beside_a_running_host_does_not_mind_it() {
    let folder = Folder::new("");
    let host = folder.serve();
    let address = host.base().strip_prefix("http://").unwrap();
    let data_dir = host.data_dir().to_str().unwrap();
    let (code, out, text) = check(&["--listen", address, "--data-dir", data_dir]);
    assert_eq!((code, out.ends_with("ok\n")), (Some(0), true), "{out}{text}");
    assert!(out.contains("a host runs on"), "{out}");
}

#[test]
fn calls_go_over_tls_from_our_client_and_from_another() {
    let (folder, ca) = (Folder::new(TLS), Ca::new());
    ca.sign(&folder);
    let host = folder.serve();
    assert!(host.base().starts_with("https://127.0.0.1:"), "{}", host.base());
    let export = format!("export CLARIFAI_API_BASE={}", host.base());
    assert!(host.greeting().contains(&export), "{:?}", host.greeting());
    assert_eq!(call_over_tls(&host, &ca).unwrap(), "over tls");
    assert!(call_over_tls(&host, &Ca::new()).is_err());

    let ca_file = folder.path("ca.pem").display().to_string();
    for (args, variables) in
        [(&["--ca-file", &ca_file][..], &[][..]), (&[], &[("RINGFENCE_CA_FILE", ca_file.as_str())])]
    {
        let output = predict(&host, args, variables);
        assert!(output.status.success(), "{output:?}");
        assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), "hi");
    }
    let output = predict(&host, &[], &[]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("not believed") && error.contains("--ca-file"), "{error}");
}

/// CLI-05.
#[test]
fn a_client_that_does_not_shake_hands_as_it_should_is_let_go() {
    let folder = Folder::new(&format!("{TLS}preface_timeout: 300ms\nconnections_max: 1\n"));
    let ca = Ca::new();
    ca.sign(&folder);
    let host = folder.serve();
    let address = host.base().strip_prefix("https://").unwrap();
    let half_a_hello = [22, 3, 1, 2, 0, 1, 0];
    for said in [&b""[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &half_a_hello] {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(said).unwrap();
        let mut rest = Vec::new();
        // It ends, with an alert or without; nobody waits for ever.
        match stream.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}"),
        }
    }
    assert_eq!(call_over_tls(&host, &ca).unwrap(), "over tls");
    assert!(!host.log().contains("did not begin"), "only with debug: {}", host.log());
}

/// OPS-13.
#[test]
fn sighup_takes_what_can_change_and_names_what_cannot() {
    let (folder, first, second) = (Folder::new(TLS), Ca::new(), Ca::new());
    first.sign(&folder);
    let host = folder.serve();
    assert_eq!(call_over_tls(&host, &first).unwrap(), "over tls");

    second.sign(&folder);
    folder.put(
        "host.yaml",
        &format!("{TLS}drain_timeout: 3s\nlisten: 127.0.0.1:1\nreflection: true\n"),
    );
    hang_up(&host);
    host.wait_until("the reload", |host| host.log().contains("wait for the next start"));
    let log = host.log();
    assert!(log.contains("drain_timeout"), "{log}");
    let waiting = log.lines().find(|line| line.contains("wait for the next start")).unwrap();
    assert!(waiting.contains("reflection") && !waiting.contains("drain"), "{waiting}");
    assert_eq!(call_over_tls(&host, &second).unwrap(), "over tls");
    assert!(call_over_tls(&host, &first).is_err());
    assert!(host.terminate().success());
}

/// OPS-14.
#[test]
fn sighup_keeps_the_old_configuration_where_the_new_one_is_wrong() {
    let good = format!("{TLS}metrics: {{listen: 127.0.0.1:0}}\n");
    let (folder, first, second) = (Folder::new(&good), Ca::new(), Ca::new());
    first.sign(&folder);
    let host = folder.serve();
    let failures = |host: &Host| host.log().matches("the old one stays").count();

    folder.put("host.yaml", &format!("{good}drain_timeout: soon\nkeep_alive: 5\n"));
    second.sign(&folder);
    hang_up(&host);
    host.wait_until("the refusal", |host| failures(host) == 1);
    let log = host.log();
    let line = log.lines().find(|line| line.contains("the old one stays")).unwrap();
    assert!(line.contains("ERROR") && line.contains("host.yaml has 2 problems"), "{line}");
    assert!(line.contains("`drain_timeout`") && line.contains("`keep_alive`"), "{line}");
    assert_eq!(call_over_tls(&host, &first).unwrap(), "over tls", "the old certificate");

    folder.put("host.yaml", &good);
    folder.put("key.pem", "broken");
    hang_up(&host);
    host.wait_until("the second refusal", |host| failures(host) == 2);
    assert_eq!(call_over_tls(&host, &first).unwrap(), "over tls");

    second.sign(&folder);
    hang_up(&host);
    host.wait_until("the reload", |host| host.log().contains("read the configuration again"));
    assert_eq!(call_over_tls(&host, &second).unwrap(), "over tls");
    assert_eq!(failures(&host), 2);
    assert_eq!(host.metric("ringfence_config_reloads_total"), 1.0);
    assert_eq!(host.metric("ringfence_config_reloads_failed_total"), 2.0);
}

#[test]
fn sighup_changes_what_is_logged() {
    let folder = Folder::new("log: {filter: warn}\n");
    let host = folder.serve();
    let call = |host: &Host| {
        block_on(async {
            let client = Client::connect(host.base(), &host.pat()).await;
            assert_eq!(client.predict("echo", vec![text_input("x")]).await.text(), "x");
        });
    };
    call(&host);
    folder.put("host.yaml", "log: {filter: \"warn,ringfence=info,call=info\"}\n");
    hang_up(&host);
    host.wait_until("the reload", |host| host.log().contains("log.filter"));
    assert!(!host.log().contains("echo"), "{}", host.log());
    call(&host);
    host.wait_until("the line of the call", |host| host.log().contains("echo"));
}

/// LEAK-10.
#[test]
fn a_host_leaves_no_core_dump() {
    let host = Host::serve(&[guests::ECHO]);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", host.pid())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    let words: Vec<&str> = core.split_whitespace().collect();
    // The second is what the process of an accelerator may have, and the kernel takes for none.
    assert_eq!(words[4..6], ["0", "1"], "{core}");
    // The kernel gives the files of a process that cannot be dumped to root.
    let owner = std::fs::metadata(format!("/proc/{}/environ", host.pid())).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&owner), 0);
}

/// `sd_notify(3)`: a supervisor hears of the start, a reload and the end.
#[test]
fn a_supervisor_is_told_how_the_host_is() {
    let folder = Folder::new("");
    let socket = UnixDatagram::bind(folder.path("notify")).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut child = Command::new(binary())
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(folder.path("data"))
        .args(["--model", guests::ECHO])
        .env("NOTIFY_SOCKET", folder.path("notify"))
        .env("WATCHDOG_USEC", "20000")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let pid = Pid::from_child(&child);
    let wait_for = |wanted: &str| loop {
        let mut bytes = [0; 256];
        let count = socket.recv(&mut bytes).unwrap_or_else(|_| panic!("no {wanted}"));
        let state = std::str::from_utf8(&bytes[..count]).unwrap();
        if state.starts_with(wanted) {
            break;
        }
        assert_eq!(state, "WATCHDOG=1");
    };
    wait_for("READY=1");
    wait_for("WATCHDOG=1");
    kill_process(pid, Signal::HUP).unwrap();
    wait_for("RELOADING=1");
    wait_for("READY=1");
    kill_process(pid, Signal::TERM).unwrap();
    wait_for("STOPPING=1");
    assert!(child.wait().unwrap().success());
}

/// The schema and the page are those of the program.
#[test]
fn the_schema_and_the_page_of_host_yaml_are_printed() {
    let printed = |args: &[&str]| {
        let output = Command::new(binary()).arg("schema").args(args).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let schema: serde_json::Value = serde_json::from_str(&printed(&["host"])).unwrap();
    assert!(schema["properties"]["tls"]["properties"]["certificate"].is_object());
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/host-config.md");
    assert_eq!(printed(&["host", "--markdown"]), std::fs::read_to_string(page).unwrap());
    assert!(printed(&[]).contains("inference_compute_info"));
}
