//! Whether the jail of this machine holds: processes that are thrown away each try one
//! act that it has to refuse, and one says what it is made of.

use super::driver::Driver;
use super::jail::{
    Act, Code, HAS_WALLS, JailMode, Need, Root, attempt, judge, no_more_code, try_need,
};
use super::launch::{Confinement, Launcher};
use crate::devices::Devices;
use crate::text::escape_controls;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::AsyncReadExt;

/// Time for each of them.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Memory, CPU time and text of each.
const DATA_BYTES: u64 = 256 << 20;
const CPU_SECONDS: u64 = 10;
const TEXT_BYTES_MAX: u64 = 16 << 10;

/// What was found.
#[derive(Debug, Default)]
pub struct Proven {
    /// A line for each layer, with how it holds.
    pub layers: Vec<String>,
    /// What the jail did not refuse, or why that is not known.
    pub failures: Vec<String>,
    /// What a driver needs and does not have.
    pub unmet: Vec<String>,
}

/// Tries it all, one process beside the other.
///
/// Where there are no walls there is nothing to try, and one failure says so.
pub async fn prove(launcher: &Launcher) -> Proven {
    prove_with(launcher, None).await
}

/// The same for processes that use the driver of these devices: also that what such a driver
/// needs is not refused.
pub async fn prove_for(launcher: &Launcher, devices: &Devices) -> Proven {
    let driver = launcher.driver_of(devices.all(), None);
    let needs = Need::ALL.map(|need| prove_need(launcher, &driver, need));
    let mut proven = prove_with(launcher, Some(&driver)).await;
    let needs = futures_util::future::join_all(needs).await;
    proven.unmet = needs.into_iter().filter_map(Result::err).collect();
    proven
}

async fn prove_with(launcher: &Launcher, driver: Option<&Driver>) -> Proven {
    if !HAS_WALLS {
        let why = "there is none on this system; it is there on Linux on x86-64 only".to_owned();
        return Proven { failures: vec![why], ..Proven::default() };
    }
    let acts = Act::ALL.map(|act| prove_one(launcher, driver, act));
    let layers = layers(launcher, driver);
    let (layers, acts) = tokio::join!(layers, futures_util::future::join_all(acts));
    let mut proven = Proven::default();
    match layers {
        Ok(text) => proven.layers = text.lines().map(escape_controls).collect(),
        Err(why) => proven.failures.push(why),
    }
    proven.failures.extend(acts.into_iter().filter_map(Result::err));
    proven
}

fn confinement(launcher: &Launcher, driver: Option<&Driver>) -> Confinement {
    let confinement = Confinement::of_one_shot(launcher.mode(), CPU_SECONDS, DATA_BYTES);
    confinement.with_driver(driver.cloned())
}

async fn prove_one(launcher: &Launcher, driver: Option<&Driver>, act: Act) -> Result<(), String> {
    judge(act, ended(launcher, driver, act.as_str()).await?)
}

async fn prove_need(launcher: &Launcher, driver: &Driver, need: Need) -> Result<(), String> {
    need.judge(ended(launcher, Some(driver), need.as_str()).await?)
}

/// How the process ended that tried something.
async fn ended(
    launcher: &Launcher,
    driver: Option<&Driver>,
    act: &str,
) -> Result<ExitStatus, String> {
    let confinement = confinement(launcher, driver);
    let mut command = launcher.command(&["jail-proof", "--act", act], &confinement);
    let failed = |why: String| format!("the attempt to {act} says nothing: {why}");
    // As a replica has, it has a folder that it may read; and a way out of its root.
    let root = std::fs::File::open("/").map_err(|error| failed(error.to_string()))?;
    let folder = launcher.folder().map_err(|error| failed(error.to_string()))?;
    command.stdin(root).stdout(folder).stderr(Stdio::null());
    let mut child = launcher.spawn(command).await.map_err(|error| failed(error.to_string()))?;
    match tokio::time::timeout(TIMEOUT, child.wait()).await {
        Ok(Ok(status)) => Ok(status),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(_) => Err(failed("it does not end".to_owned())),
    }
}

async fn layers(launcher: &Launcher, driver: Option<&Driver>) -> Result<String, String> {
    let mut command = launcher.command(&["jail-proof"], &confinement(launcher, driver));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let failed = |error: io::Error| format!("a process of the jail does not start: {error}");
    let mut child = launcher.spawn(command).await.map_err(failed)?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let read = async {
        let (mut said, mut complaint) = (String::new(), String::new());
        if let Some(stdout) = stdout {
            stdout.take(TEXT_BYTES_MAX).read_to_string(&mut said).await?;
        }
        if let Some(stderr) = stderr {
            stderr.take(TEXT_BYTES_MAX).read_to_string(&mut complaint).await?;
        }
        Ok((said, complaint, child.wait().await?))
    };
    match tokio::time::timeout(TIMEOUT, read).await {
        Ok(Ok((said, _, status))) if status.success() => Ok(said),
        Ok(Ok((_, complaint, _))) => {
            let first = complaint.lines().next().unwrap_or_default();
            Err(escape_controls(first.strip_prefix("error: ").unwrap_or(first)))
        }
        Ok(Err(error)) => Err(failed(error)),
        Err(_) => Err("a process of the jail does not end".to_owned()),
    }
}

/// What such a process does: it tries the act, or says how each layer holds.
pub fn serve_proof(
    confinement: &Confinement,
    parent: i32,
    act: Option<&str>,
) -> anyhow::Result<ExitCode> {
    let folder = io::stdout();
    let (root, left) = match confinement.driver {
        Some(_) => (Root::Kept, Code::Libraries),
        None => (Root::Here, Code::None),
    };
    let (code, reads) = match act {
        Some(_) => (Code::Made, vec![folder.as_fd()]),
        None => (left, vec![]),
    };
    let report = confinement.enter(parent, root, code, &reads)?;
    let Some(act) = act else {
        let mut out = io::stdout().lock();
        write!(out, "{report}")?;
        return Ok(ExitCode::SUCCESS);
    };
    if let Err(error) = no_more_code(left)
        && confinement.mode == JailMode::Required
    {
        return Err(error.into());
    }
    if let Some(need) = Need::ALL.into_iter().find(|known| known.as_str() == act) {
        let nodes = confinement.driver.iter().flat_map(|driver| driver.nodes.iter().cloned());
        return Ok(ExitCode::from(try_need(need, &nodes.collect::<Vec<_>>()).exit_code()));
    }
    let act = Act::ALL.into_iter().find(|known| known.as_str() == act);
    let act = act.ok_or_else(|| anyhow::anyhow!("there is no such act"))?;
    let root = io::stdin();
    Ok(ExitCode::from(attempt(act, root.as_fd()).exit_code()))
}
