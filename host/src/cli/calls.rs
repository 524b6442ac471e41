//! `ringfence calls`: what runs, and ending it.

use super::operations::{self, answered, tell};
use super::{CallsArgs, CallsCommand, GlobalArgs};
use crate::proto::ringfence::v1 as wire;
use serde_json::json;

pub(super) fn run(args: &CallsArgs, global: &GlobalArgs) -> anyhow::Result<()> {
    operations::run(global, args.data_dir.as_deref(), async |host| match &args.command {
        CallsCommand::List => {
            let request = host.request(wire::ListCallsRequest {});
            let found = answered(host.rpc.list_calls(request).await)?;
            for call in found.calls {
                let wire::Call { id, user_id, model, version_id, function, running_ms } = call;
                tell(
                    global,
                    || {
                        format!(
                            "{id}  {function} of {model}@{version_id} by {user_id}, {running_ms} ms"
                        )
                    },
                    || {
                        json!({
                            "call": id, "function": function, "model": model,
                            "version": version_id, "user": user_id, "running_ms": running_ms,
                        })
                    },
                )?;
            }
            Ok(())
        }
        CallsCommand::Cancel { id } => {
            let request = host.request(wire::CancelCallRequest { id: id.clone() });
            answered(host.rpc.cancel_call(request).await)?;
            tell(global, || format!("ended {id}"), || json!({ "call": id }))
        }
    })
}
