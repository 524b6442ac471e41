//! `ringfence doctor`: what this machine offers to a host, and what it lacks.

use super::{DoctorArgs, GlobalArgs, usage};
use crate::devices::{Cuda, Devices};
use crate::doctor::{self, Finding, Surroundings, Verdict};
use crate::settings::{self, Settings};
use crate::text::escape_controls;
use crate::worker::{GIVEN_UP, JailMode, Launcher, Proven, Starter, prove, prove_for};
use anyhow::{Context, bail};
use std::io::Write;

pub(super) fn run(args: &DoctorArgs, global: &GlobalArgs) -> anyhow::Result<()> {
    let settings = match &args.host_config {
        Some(path) => settings::open(path).map_err(usage)?,
        None => Settings::default(),
    };
    let folders = if args.cuda.is_empty() { &settings.cuda } else { &args.cuda };
    let (devices, cuda) = (Devices::of_this_machine(), Cuda::of(folders));
    let is_required = args.host_config.is_some() && settings.jail() == JailMode::Required;
    let mut findings = doctor::examine(&Surroundings {
        root: "/".into(),
        data_dir: args.data_dir.clone().unwrap_or(settings.data_dir),
        path: std::env::var_os("PATH").unwrap_or_default(),
        ld_library_path: std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default(),
        onnxruntime: args.engines.onnxruntime.clone().or(settings.onnxruntime),
        devices: devices.clone(),
        cuda: cuda.clone(),
    });
    let (plain, with_devices) = super::serve::runtime()?.block_on(proven(cuda, &devices))?;
    let Proven { layers, failures, .. } = plain;
    findings.extend(doctor::of_jail("jail", &layers, &failures, is_required));
    if let Some(Proven { layers, failures, unmet }) = with_devices {
        // Where it does not hold, or has no room for a driver, models without are served.
        let (topic, failures) = ("jail with accelerators", [failures, unmet].concat());
        findings.extend(doctor::of_jail(topic, &layers, &failures, false));
        findings.extend(doctor::of_what_is_given_up(&GIVEN_UP));
    }
    let mut out = std::io::stdout().lock();
    for finding in &findings {
        let line = if global.json { object(finding) } else { line(finding) };
        writeln!(out, "{line}")?;
    }
    let failed = findings.iter().filter(|finding| finding.verdict == Verdict::Fail).count();
    match failed {
        0 => Ok(()),
        1 => bail!("one of these keeps a host from starting"),
        count => bail!("{count} of these keep a host from starting"),
    }
}

/// How the jail of a host would hold, and that of processes which have accelerators, if there
/// are any.
async fn proven(cuda: Cuda, devices: &Devices) -> anyhow::Result<(Proven, Option<Proven>)> {
    let empty = tempfile::tempdir().context("cannot make a folder for the jail")?;
    let starter = Starter::start().context("cannot start a thread")?;
    let launcher = Launcher::of_this_program(starter, empty.path(), JailMode::BestEffort)
        .context("cannot find the file of this program")?
        .with_cuda(cuda);
    let plain = prove(&launcher).await;
    let with_devices = match devices.all() {
        [] => None,
        _ => Some(prove_for(&launcher, devices).await),
    };
    Ok((plain, with_devices))
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Ok => "ok",
        Verdict::Note => "note",
        Verdict::Warn => "warn",
        Verdict::Fail => "fail",
    }
}

fn line(finding: &Finding) -> String {
    let Finding { topic, verdict, found, advice } = finding;
    let advice = if advice.is_empty() { String::new() } else { format!("; {advice}") };
    escape_controls(&format!("{:<5} {topic}: {found}{advice}", word(*verdict)))
}

fn object(finding: &Finding) -> String {
    let Finding { topic, verdict, found, advice } = finding;
    serde_json::json!({
        "topic": topic,
        "verdict": word(*verdict),
        "found": found,
        "advice": advice,
    })
    .to_string()
}
