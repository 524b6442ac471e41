//! Whether the jail of this machine holds: processes that are thrown away each try one
//! act that it has to refuse, and one says what it is made of.

use super::jail::{Act, Code, HAS_WALLS, JailMode, Root, attempt, judge, no_more_code};
use super::launch::{Confinement, Launcher};
use crate::text::escape_controls;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::process::{ExitCode, Stdio};
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
}

/// Tries it all, one process beside the other.
///
/// Where there are no walls there is nothing to try, and one failure says so.
pub async fn prove(launcher: &Launcher) -> Proven {
    if !HAS_WALLS {
        let why = "there is none on this system; it is there on Linux on x86-64 only".to_owned();
        return Proven { failures: vec![why], ..Proven::default() };
    }
    let acts = Act::ALL.map(|act| prove_one(launcher, act));
    let (layers, acts) = tokio::join!(layers(launcher), futures_util::future::join_all(acts));
    let mut proven = Proven::default();
    match layers {
        Ok(text) => proven.layers = text.lines().map(escape_controls).collect(),
        Err(why) => proven.failures.push(why),
    }
    proven.failures.extend(acts.into_iter().filter_map(Result::err));
    proven
}

fn confinement(launcher: &Launcher) -> Confinement {
    Confinement::of_one_shot(launcher.mode(), CPU_SECONDS, DATA_BYTES)
}

async fn prove_one(launcher: &Launcher, act: Act) -> Result<(), String> {
    let mut command =
        launcher.command(&["jail-proof", "--act", act.as_str()], &confinement(launcher));
    let failed = |why: String| format!("the attempt to {} says nothing: {why}", act.as_str());
    // As a replica has, it has a folder that it may read; and a way out of its root.
    let root = std::fs::File::open("/").map_err(|error| failed(error.to_string()))?;
    let folder = launcher.folder().map_err(|error| failed(error.to_string()))?;
    command.stdin(root).stdout(folder).stderr(Stdio::null());
    let mut child = launcher.spawn(command).await.map_err(|error| failed(error.to_string()))?;
    match tokio::time::timeout(TIMEOUT, child.wait()).await {
        Ok(Ok(status)) => judge(act, status),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(_) => Err(failed("it does not end".to_owned())),
    }
}

async fn layers(launcher: &Launcher) -> Result<String, String> {
    let mut command = launcher.command(&["jail-proof"], &confinement(launcher));
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
    let (code, reads) = match act {
        Some(_) => (Code::Maps, vec![folder.as_fd()]),
        None => (Code::Never, vec![]),
    };
    let report = confinement.enter(parent, Root::Here, code, &reads)?;
    let Some(act) = act else {
        let mut out = io::stdout().lock();
        write!(out, "{report}")?;
        return Ok(ExitCode::SUCCESS);
    };
    let act = Act::ALL.into_iter().find(|known| known.as_str() == act);
    let act = act.ok_or_else(|| anyhow::anyhow!("there is no such act"))?;
    if let Err(error) = no_more_code()
        && confinement.mode == JailMode::Required
    {
        return Err(error.into());
    }
    let root = io::stdin();
    Ok(ExitCode::from(attempt(act, root.as_fd()).exit_code()))
}
