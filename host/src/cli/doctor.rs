//! `ringfence doctor`: what this machine offers to a host, and what it lacks.

use super::{DoctorArgs, GlobalArgs, usage};
use crate::doctor::{self, Finding, Surroundings, Verdict};
use crate::settings::{self, Settings};
use crate::text::escape_controls;
use crate::worker::{JailMode, Launcher, Proven, Starter, prove};
use anyhow::{Context, bail};
use std::io::Write;

pub(super) fn run(args: &DoctorArgs, global: &GlobalArgs) -> anyhow::Result<()> {
    let settings = match &args.host_config {
        Some(path) => settings::open(path).map_err(usage)?,
        None => Settings::default(),
    };
    let is_required = args.host_config.is_some() && settings.jail() == JailMode::Required;
    let mut findings = doctor::examine(&Surroundings {
        root: "/".into(),
        data_dir: args.data_dir.clone().unwrap_or(settings.data_dir),
        path: std::env::var_os("PATH").unwrap_or_default(),
        ld_library_path: std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default(),
        onnxruntime: args.engines.onnxruntime.clone().or(settings.onnxruntime),
    });
    let proven = super::serve::runtime()?.block_on(proven())?;
    findings.extend(doctor::of_jail(&proven.layers, &proven.failures, is_required));
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

/// How the jail of a host would hold.
async fn proven() -> anyhow::Result<Proven> {
    let empty = tempfile::tempdir().context("cannot make a folder for the jail")?;
    let starter = Starter::start().context("cannot start a thread")?;
    let launcher = Launcher::of_this_program(starter, empty.path(), JailMode::BestEffort)
        .context("cannot find the file of this program")?;
    Ok(prove(&launcher).await)
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Ok => "ok",
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
