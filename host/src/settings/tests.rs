//! What `host.yaml` is accepted, what is refused, and what changes while a host
//! runs.

use super::keys::{KEYS, SETTINGS};
use super::*;
use crate::telemetry::LogFormat;
use crate::worker::JailMode;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

fn parse(text: &str) -> Settings {
    Settings::parse(text, Path::new("/etc/ringfence")).unwrap()
}

fn refused(text: &str) -> String {
    Settings::parse(text, Path::new("")).unwrap_err().to_string()
}

/// Every key, each with another value than its default.
const ALL: &str = r#"
listen: 0.0.0.0:8443
data_dir: /var/lib/ringfence
tls: {certificate: tls/chain.pem, key: /secret/key.pem}
models: [models/echo, /srv/digits]
connections_max: 10
connections_per_address_max: 5
streams_per_connection_max: 20
message_bytes_max: 1Mi
keep_alive: 30s
preface_timeout: 500ms
first_message_timeout: 2m
message_timeout: 7s
stream_idle_timeout: 8s
drain_timeout: 1h
reflection: true
allow_url_hosts: [example.com, 192.0.2.1]
metrics: {listen: "127.0.0.1:9090"}
log: {format: json, filter: "warn,call=info"}
jail: required
onnxruntime: lib/libonnxruntime.so
cuda: [/usr/local/cuda-13.0, cudnn]
"#;

#[test]
fn every_key_is_understood() {
    let settings = parse(ALL);
    assert_eq!(settings.listen.to_string(), "0.0.0.0:8443");
    assert_eq!(settings.data_dir, Path::new("/var/lib/ringfence"));
    let tls = settings.tls.clone().unwrap();
    assert_eq!(tls.certificate, Path::new("/etc/ringfence/tls/chain.pem"));
    assert_eq!(tls.key, Path::new("/secret/key.pem"));
    assert_eq!(
        settings.models,
        [Path::new("/etc/ringfence/models/echo"), Path::new("/srv/digits")]
    );
    let front = &settings.front;
    assert_eq!((front.connections_max, front.streams_per_connection_max), (10, 20));
    assert_eq!(front.connections_per_address_max, 5);
    assert_eq!(front.message_bytes_max, 1 << 20);
    assert_eq!(front.keep_alive, Duration::from_secs(30));
    assert_eq!(front.preface_timeout, Duration::from_millis(500));
    assert_eq!(front.first_message_timeout, Duration::from_mins(2));
    assert_eq!(front.message_timeout, Duration::from_secs(7));
    assert_eq!(front.stream_idle_timeout, Duration::from_secs(8));
    assert_eq!(front.drain_timeout, Duration::from_hours(1));
    assert!(front.reflection && settings.jail == Some(JailMode::Required));
    let url_hosts: Vec<String> = settings.allow_url_hosts.iter().map(ToString::to_string).collect();
    assert_eq!(url_hosts, ["example.com", "192.0.2.1"]);
    assert_eq!(settings.metrics_listen.unwrap().port(), 9090);
    assert_eq!(settings.log_format, LogFormat::Json);
    assert_eq!(settings.log_filter.as_deref(), Some("warn,call=info"));
    let library = Path::new("/etc/ringfence/lib/libonnxruntime.so");
    assert_eq!(settings.onnxruntime.as_deref(), Some(library));
    assert_eq!(
        settings.cuda,
        [Path::new("/usr/local/cuda-13.0"), Path::new("/etc/ringfence/cudnn")]
    );
}

#[test]
fn an_empty_file_leaves_everything_at_its_default() {
    let shown = |settings: &Settings| -> Vec<String> {
        SETTINGS.iter().map(|setting| (setting.shown)(settings)).collect()
    };
    let defaults = shown(&Settings::default());
    for text in ["", "# nothing\n", "log:\nmetrics: {}\n"] {
        assert_eq!(shown(&parse(text)), defaults, "{text:?}");
    }
    for ((setting, all), default) in SETTINGS.iter().zip(shown(&parse(ALL))).zip(defaults) {
        assert_ne!(all, default, "{} is not read, or not shown", setting.path);
    }
}

#[test]
fn every_key_that_takes_a_value_is_a_setting() {
    let leaves: Vec<String> = yaml::leaves(&KEYS).into_iter().map(|leaf| leaf.path).collect();
    let settings: Vec<&str> = SETTINGS.iter().map(|setting| setting.path).collect();
    assert_eq!(leaves, settings);
    for path in settings {
        assert!(markdown().contains(&format!("| `{path}` |")), "{path}");
    }
}

#[test]
fn the_example_of_the_page_is_accepted() {
    let page = markdown();
    let (_, example) = page.split_once("```yaml\n").unwrap();
    let settings = parse(example.split("```").next().unwrap());
    assert!(settings.tls.is_some() && settings.log_format == LogFormat::Json);
}

#[test]
fn a_filter_without_a_level_is_refused() {
    for filter in ["info", "OFF", "warn,call=info", "info,ringfence[{id=\\\"a\\\"}]=debug"] {
        let settings = parse(&format!("log: {{filter: \"{filter}\"}}\n"));
        assert!(settings.log_filter.is_some(), "{filter}");
    }
    let text = refused("log: {filter: \"info,verbose\"}\n");
    let expected =
        "has \"verbose\", which is no level; write such as \"info\", or \"verbose=info\"";
    assert!(text.contains(expected), "{text}");
}

#[test]
fn all_problems_are_told_at_once_each_with_its_line_and_the_fix() {
    let text = refused(
        "listn: 127.0.0.1:1\nlisten: localhost\ntls: {key: k}\nkeep_alive: 5\n\
         message_bytes_max: 1Gi\nconnections_max: 0\nlog:\n  format: xml\n  filter: \"a=b=c\"\n\
         nothing_we_know: 1\nmetrics: {listen: 8080, port: 1}\nreflection: perhaps\n\
         drain_timeout: 2h\nmodels: [\"\"]\n",
    );
    for expected in [
        "host.yaml has 14 problems",
        "host.yaml:1:1: `listn`: is not a key; did you mean `listen`?",
        "host.yaml:2:9: `listen`: \"localhost\" is no address to listen on; write an IP address and a port, such as \"127.0.0.1:8080\"",
        "     2 | listen: localhost\n       |         ^^^^^^^^^",
        "`tls.certificate`: is missing; write the path of a PEM file",
        "`keep_alive`: \"5\" is not a time; write a number and ms, s, m or h, such as \"30s\"",
        "`message_bytes_max`: \"1Gi\" is outside what is allowed; write from \"64Ki\" to \"128Mi\"",
        "`connections_max`: \"0\" is not a whole number from 1 to 65536",
        "`log.format`: \"xml\" is no format of a log; write \"text\" or \"json\"",
        "`log.filter`: \"a=b=c\" is no filter",
        "`nothing_we_know`: is not a key; the keys here are listen, data_dir, tls,",
        "`metrics.listen`: \"8080\" is no address",
        "`metrics.port`: is not a key; the keys here are listen",
        "`reflection`: \"perhaps\" is neither true nor false",
        "`drain_timeout`: \"2h\" is outside what is allowed; write from \"0s\" to \"1h\"",
        "`models[0]`: \"\" is empty or has control characters",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
    assert!(refused("listen: [").starts_with("host.yaml:"));
    assert!(refused(&"#".repeat((64 << 10) + 1)).contains("host.yaml has 65537 bytes"));
    let many: String = (0..1001).map(|_| "- a.example\n").collect();
    assert!(refused(&format!("allow_url_hosts:\n{many}")).contains("one more than the 1000"));
}

#[test]
fn the_schema_accepts_and_refuses_what_the_host_does() {
    let fits = |text: &str| crate::yaml::fits(schema(), text);
    assert!(fits(ALL) && fits("{}") && fits("tls:\n"));
    for bad in [
        "connections_max: 0",
        "keep_alive: 5",
        "log: {format: xml}",
        "listn: a",
        "tls: {certificates: a}",
        "models: a",
        "reflection: perhaps",
    ] {
        assert!(!fits(bad), "{bad}");
        refused(bad);
    }
}

#[test]
fn a_file_that_is_not_as_it_should_be_is_refused_by_its_path() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("host.yaml");
    let refused = || open(&path).unwrap_err().to_string();
    assert!(refused().starts_with(&format!("cannot read {}", path.display())));
    std::fs::write(&path, b"listen: \xff").unwrap();
    assert_eq!(refused(), format!("{} is not UTF-8; save it as UTF-8", path.display()));
    std::fs::write(&path, "listen: 1\n").unwrap();
    assert!(refused().starts_with(&format!("cannot use {}: host.yaml:1:9:", path.display())));
    std::fs::write(&path, "data_dir: data\n").unwrap();
    assert_eq!(open(&path).unwrap().data_dir, folder.path().join("data"));
    std::fs::set_permissions(&path, Permissions::from_mode(0o602)).unwrap();
    assert!(refused().ends_with(&format!("run `chmod o-w {}`", path.display())));
    assert!(matches!(open(folder.path()), Err(SettingsError::Read { .. })));
}

/// A certificate and its key in a folder of their own.
fn pair(name: &str) -> (TempDir, TlsFiles) {
    let folder = TempDir::new().unwrap();
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed([name.to_owned()]).unwrap();
    let files = TlsFiles {
        certificate: folder.path().join("cert.pem"),
        key: folder.path().join("key.pem"),
    };
    std::fs::write(&files.certificate, cert.pem()).unwrap();
    std::fs::write(&files.key, signing_key.serialize_pem()).unwrap();
    std::fs::set_permissions(&files.key, Permissions::from_mode(0o600)).unwrap();
    (folder, files)
}

#[test]
fn tls_files_are_read_checked_and_named() {
    let (folder, files) = pair("a.example");
    assert_eq!(files.load().unwrap().alpn_protocols, [b"h2".to_vec()]);
    let refused = |files: &TlsFiles| files.load().unwrap_err().to_string();
    let (_other_folder, other) = pair("a.example");
    let mixed = TlsFiles { key: other.key.clone(), ..files.clone() };
    assert!(refused(&mixed).contains("is not that of the certificate"), "{}", refused(&mixed));
    let missing = TlsFiles { certificate: folder.path().join("none"), ..files.clone() };
    assert!(refused(&missing).starts_with("cannot read tls.certificate"));
    let swapped = TlsFiles { certificate: files.key.clone(), key: files.certificate.clone() };
    assert!(refused(&swapped).contains("has no certificate in PEM form"));
    let no_key = folder.path().join("no-key.pem");
    std::fs::write(&no_key, "hello CANARY").unwrap();
    std::fs::set_permissions(&no_key, Permissions::from_mode(0o600)).unwrap();
    let no_key = refused(&TlsFiles { key: no_key, ..files.clone() });
    assert!(no_key.contains("has no private key in PEM form") && !no_key.contains("CANARY"));
    let large = folder.path().join("large.pem");
    std::fs::write(&large, vec![b'x'; (1 << 20) + 1]).unwrap();
    let large = TlsFiles { certificate: large, ..files.clone() }.load().unwrap_err();
    assert!(format!("{large:?}").contains("it is too long"), "{large:?}");
}

/// OPS-08.
#[test]
fn a_key_that_others_can_read_is_refused_with_the_command_that_helps() {
    let (_folder, files) = pair("a.example");
    let is_root = rustix::process::geteuid().is_root();
    for (mode, fine) in [(0o400, true), (0o640, is_root), (0o644, false), (0o660, false)] {
        std::fs::set_permissions(&files.key, Permissions::from_mode(mode)).unwrap();
        let loaded = files.load();
        assert_eq!(loaded.is_ok(), fine, "{mode:o}");
        if let Err(error) = loaded {
            let expected = format!(
                "the key {0} is open to other users (mode {mode:03o}); run `chmod 600 {0}`",
                files.key.display()
            );
            assert_eq!(error.to_string(), expected);
        }
    }
}

#[derive(Debug)]
struct Wrong;

impl From<tls::TlsError> for Wrong {
    fn from(_: tls::TlsError) -> Self {
        Self
    }
}

fn reload(current: &Current, settings: Settings) -> Result<Change, Wrong> {
    current.reload(|| Ok(settings))
}

#[test]
fn what_can_change_changes_and_the_rest_is_named() {
    let current = Current::new(Settings::default()).unwrap();
    let mut wanted = parse(ALL);
    wanted.tls = None;
    let change = reload(&current, wanted.clone()).unwrap();
    assert_eq!(
        change.took_effect,
        [
            "streams_per_connection_max",
            "keep_alive",
            "preface_timeout",
            "message_timeout",
            "drain_timeout",
            "allow_url_hosts",
            "log.filter"
        ]
    );
    assert_eq!(
        change.needs_restart,
        [
            "listen",
            "data_dir",
            "models",
            "connections_max",
            "connections_per_address_max",
            "message_bytes_max",
            "first_message_timeout",
            "stream_idle_timeout",
            "reflection",
            "metrics.listen",
            "log.format",
            "jail",
            "onnxruntime",
            "cuda"
        ]
    );
    let settings = current.settings().borrow().clone();
    assert_eq!(settings.allow_url_hosts, wanted.allow_url_hosts);
    assert_eq!(settings.listen, Settings::default().listen);
    let options = current.options().borrow().clone();
    assert_eq!(options.drain_timeout, Duration::from_hours(1));
    assert_eq!(options.message_bytes_max, Options::default().message_bytes_max);
    assert_eq!((current.reloads(), current.reloads_failed()), (1, 0));
}

/// OPS-14.
#[test]
fn a_reload_that_fails_changes_nothing_and_is_counted() {
    let (folder, files) = pair("a.example");
    let with = |tls| Settings { tls, ..Settings::default() };
    let current = Current::new(with(Some(files.clone()))).unwrap();
    let before = current.options().borrow().tls.clone().unwrap();
    std::fs::write(&files.key, "broken").unwrap();
    let mut wanted = with(Some(files.clone()));
    wanted.front.drain_timeout = Duration::ZERO;
    reload(&current, wanted.clone()).unwrap_err();
    current.reload(|| Err::<Settings, _>(Wrong)).unwrap_err();
    assert_eq!((current.reloads(), current.reloads_failed()), (0, 2));
    let kept = current.options().borrow().clone();
    assert!(Arc::ptr_eq(&before, &kept.tls.unwrap()));
    assert_eq!(kept.drain_timeout, Options::default().drain_timeout);

    let (_other_folder, other) = pair("b.example");
    std::fs::copy(&other.key, &files.key).unwrap();
    std::fs::copy(&other.certificate, &files.certificate).unwrap();
    let change = reload(&current, wanted).unwrap();
    assert_eq!(change.took_effect, ["drain_timeout"]);
    assert!(!Arc::ptr_eq(&before, &current.options().borrow().tls.clone().unwrap()));
    drop(folder);
}

#[test]
fn tls_is_switched_on_and_off_by_a_restart_alone() {
    let (_folder, files) = pair("a.example");
    let with = |tls| Settings { tls, ..Settings::default() };
    for (before, after) in [(None, Some(files.clone())), (Some(files), None)] {
        let current = Current::new(with(before.clone())).unwrap();
        let change = reload(&current, with(after)).unwrap();
        assert_eq!(change.needs_restart, ["tls.certificate", "tls.key"]);
        assert!(change.took_effect.is_empty());
        assert_eq!(current.options().borrow().tls.is_some(), before.is_some());
    }
}
