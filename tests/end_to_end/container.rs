//! A host in a container, as far as that is what its processes may ask of the kernel: the
//! filter of system calls that containers have by default (`src/contained/filter.rs`), and
//! the capabilities. The jail is required there, and holds but for its namespaces.
//!
//! What a container has besides is not here: namespaces, files of its own, what is masked
//! in `/proc`, control groups, AppArmor or SELinux. Namespaces of its own give a process
//! no rights, and what is masked, a worker does not need; the rest could refuse more.

use super::workers::{Home, is_jailed, status};
use ringfence::proto::clarifai::api::status::StatusCode;
use ringfence_tests::{Client, Host, HostOptions, binary, block_on, guests, skip, text_input};
use std::path::PathBuf;
use std::process::{Command, Output};

/// What root of a container may by default.
const CAPABILITIES: &str = "--bounding-set=-all,+audit_write,+chown,+dac_override,+fowner,+fsetid,\
    +kill,+mknod,+net_bind_service,+net_raw,+setfcap,+setgid,+setpcap,+setuid,+sys_chroot";

/// The same as the kernel tells it.
const CAPABILITIES_TOLD: &str = "00000000a80425fb";

const NONE: &str = "0000000000000000";

/// Without these there is no jail.
const REQUIRED: [&str; 5] =
    ["limits of a process", "environment", "privileges", "files", "system calls"];

/// Models of which one reads its assets by itself.
fn models() -> Vec<PathBuf> {
    [guests::ECHO, guests::FS_PROBE].map(PathBuf::from).into()
}

/// A program that becomes the one that its further arguments name.
fn contained(then: &[&str]) -> Vec<String> {
    let program = binary().with_file_name("ringfence-contained");
    let then = then.iter().map(|word| (*word).to_owned());
    [program.to_str().unwrap().to_owned()].into_iter().chain(then).collect()
}

fn run(words: &[String], more: &[&str]) -> Output {
    Command::new(&words[0]).args(&words[1..]).args(more).output().unwrap()
}

fn options(under: &[String]) -> HostOptions {
    HostOptions {
        models: models(),
        args: ["--jail", "required", "--no-auth"].map(str::to_owned).into(),
        under: under.to_vec(),
        ..HostOptions::default()
    }
}

/// The host says how each layer holds, as `doctor` does there, and its models answer.
fn holds(host: &Host, doctor: &Output, others: &[&str]) {
    let (log, found) = (host.log(), String::from_utf8_lossy(&doctor.stdout));
    let required = REQUIRED.map(|layer| format!("jail: {layer}: held\n"));
    for line in required.iter().map(String::as_str).chain(others.iter().copied()) {
        assert!(log.contains(line), "{line} in {log}");
        assert!(found.contains(line), "{line} in {found}");
    }
    block_on(async {
        let client = Client::connect(host.base(), &host.pat_or_none()).await;
        for model in ["echo", "fs-probe"] {
            let answer = client.predict(model, vec![text_input("x")]).await;
            assert_eq!(answer.code(), StatusCode::Success, "{model}: {answer:?}");
        }
    });
    assert_eq!(status(host.pid())("Seccomp"), "2");
}

/// Whoever is root of the machine can be less.
fn is_root_of_the_machine(test: &str) -> bool {
    const SYS_ADMIN: u64 = 1 << 21;
    let capabilities = status(std::process::id())("CapEff");
    let is_root = u64::from_str_radix(&capabilities, 16).unwrap() & SYS_ADMIN != 0;
    if !is_root {
        skip(test, "this is not root, or is that of a container");
    }
    is_root
}

/// As Docker starts it, where nobody says anything else.
#[test]
fn a_required_jail_holds_for_root_of_a_container() {
    if !is_root_of_the_machine("a_required_jail_holds_for_root_of_a_container") {
        return;
    }
    let under = contained(&["setpriv", CAPABILITIES, "--inh-caps=-all"]);
    let host = Host::start(options(&under));
    let told = status(host.pid());
    assert_eq!(told("CapEff"), CAPABILITIES_TOLD);
    // The jail has to say so itself, before filters and Landlock.
    assert_eq!(told("NoNewPrivs"), "0");
    let doctor = run(&under, &[binary().to_str().unwrap(), "doctor"]);
    let namespaces = "jail: namespaces: held in part: root directory alone; others: Operation \
                      not permitted";
    holds(&host, &doctor, &["jail: user: held\n", namespaces]);
    host.workers().into_iter().for_each(|pid| is_jailed(pid, 65534));
}

/// As Kubernetes starts it where pods are restricted: an ordinary user with no capability,
/// and no way to gain one.
#[test]
fn a_required_jail_holds_for_an_ordinary_user_of_a_container() {
    const USER: u32 = 1000;
    let own = rustix::process::geteuid();
    let others = [
        "jail: user: held in part: it keeps the user of the host\n",
        "jail: namespaces: missing: Operation not permitted",
    ];
    if !own.is_root() {
        let under = contained(&["setpriv", "--no-new-privs", "--inh-caps=-all"]);
        let host = Host::start(options(&under));
        holds(&host, &run(&under, &[binary().to_str().unwrap(), "doctor"]), &others);
        host.workers().into_iter().for_each(|pid| is_jailed(pid, own.as_raw()));
        return;
    }
    // Another user is not let into every folder of root's.
    let home = Home::of(USER, &models());
    let user = format!("--reuid={USER}");
    let user = ["setpriv", &user, "--regid=1000", "--clear-groups"];
    let rights = ["--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"];
    let under = contained(&[&user[..], &rights].concat());
    let host = Host::start(HostOptions {
        models: home.folders.clone(),
        data_dir: Some(home.data_dir.clone()),
        program: Some(home.program.clone()),
        ..options(&under)
    });
    let told = status(host.pid());
    for field in ["CapEff", "CapBnd"] {
        assert_eq!(told(field), NONE, "{field}");
    }
    holds(&host, &run(&under, &[home.program.to_str().unwrap(), "doctor"]), &others);
    host.workers().into_iter().for_each(|pid| is_jailed(pid, USER));
}

/// The tests above are of something: what root may do elsewhere, it may not do there.
#[test]
fn a_container_refuses_what_it_is_said_to_refuse() {
    if !is_root_of_the_machine("a_container_refuses_what_it_is_said_to_refuse") {
        return;
    }
    let unshared = ["unshare", "--net", "true"];
    assert!(run(&unshared.map(str::to_owned), &[]).status.success());
    let refused = run(&contained(&unshared), &[]);
    let told = String::from_utf8_lossy(&refused.stderr);
    assert!(told.contains("Operation not permitted"), "{refused:?}");
    assert!(run(&contained(&["true"]), &[]).status.success());
}
