//! `ringfence store`: whether the store is whole, copies of it, and what it can
//! do without.

use super::operations::{self, answered, tell};
use super::{GlobalArgs, StoreArgs, StoreCommand, Usage};
use crate::proto::ringfence::v1 as wire;
use crate::store::Store;
use crate::text::counted;
use anyhow::{Context, bail};
use serde_json::json;
use std::path::Path;

pub(super) fn run(args: &StoreArgs, global: &GlobalArgs) -> anyhow::Result<()> {
    let data_dir = args.data_dir.as_deref();
    match &args.command {
        StoreCommand::Restore { file } => restore(global, file, data_dir),
        StoreCommand::Check => operations::run(global, data_dir, async |host| {
            let request = host.request(wire::CheckStoreRequest {});
            let report = answered(host.rpc.check_store(request).await)?;
            told(global, report)
        }),
        StoreCommand::Gc => operations::run(global, data_dir, async |host| {
            let request = host.request(wire::CollectGarbageRequest {});
            let freed = host.rpc.collect_garbage(request).await;
            let wire::CollectGarbageResponse { files, bytes } = answered(freed)?;
            tell(
                global,
                || {
                    let (bytes, files) = (counted(bytes, "byte"), counted(files, "content"));
                    format!("freed {bytes} of {files} and of compiled components")
                },
                || json!({ "files": files, "bytes": bytes }),
            )
        }),
        StoreCommand::Backup { file } => {
            let path = std::path::absolute(file).context("cannot tell where that is")?;
            operations::run(global, data_dir, async |host| {
                let path = path.to_str().context("write a path that is text")?.to_owned();
                let request = host.request(wire::BackUpStoreRequest { path: path.clone() });
                let made = host.rpc.back_up_store(request).await;
                let wire::BackUpStoreResponse { bytes, left_out } = answered(made)?;
                tell(
                    global,
                    || {
                        format!(
                            "{path} has {}; the key of the tokens is in it",
                            counted(bytes, "byte")
                        )
                    },
                    || json!({ "path": path, "bytes": bytes, "left_out": left_out }),
                )?;
                damaged(
                    "it lacks what is damaged; `ringfence upload --again DIR` makes that whole",
                    &left_out,
                )
            })
        }
    }
}

fn told(global: &GlobalArgs, report: wire::CheckStoreResponse) -> anyhow::Result<()> {
    let wire::CheckStoreResponse { problems, versions, contents, unreferenced, unreferenced_bytes } =
        report;
    tell(
        global,
        || {
            let mut text = format!(
                "looked at {} of {}",
                counted(versions, "version"),
                counted(contents, "content")
            );
            if unreferenced > 0 {
                text.push_str(&format!(
                    "; {unreferenced} more, of {unreferenced_bytes} bytes, are of none \
                     (`ringfence store gc` frees them)"
                ));
            }
            text
        },
        || {
            json!({
                "problems": problems, "versions": versions, "contents": contents,
                "unreferenced": unreferenced, "unreferenced_bytes": unreferenced_bytes,
            })
        },
    )?;
    match problems.as_slice() {
        [] => Ok(()),
        [one] => bail!("{one}"),
        all => bail!("{} problems\n{}", all.len(), all.join("\n")),
    }
}

fn restore(global: &GlobalArgs, file: &Path, data_dir: Option<&Path>) -> anyhow::Result<()> {
    let Some(data_dir) = data_dir else {
        let text = "say into which new directory with --data-dir DIR";
        return Err(Usage(text.to_owned()).into());
    };
    let problems = Store::restore(file, data_dir)?;
    let label = data_dir.display().to_string();
    let object = || json!({ "data_dir": label, "problems": problems });
    tell(global, || format!("restored into {label}"), object)?;
    damaged(
        "the backup was not whole; `ringfence upload --again DIR`, or delete, what is named",
        &problems,
    )
}

/// It was done, and fails all the same where something of it is damaged.
fn damaged(what: &str, problems: &[String]) -> anyhow::Result<()> {
    match problems {
        [] => Ok(()),
        all => bail!("{what}\n{}", all.join("\n")),
    }
}
