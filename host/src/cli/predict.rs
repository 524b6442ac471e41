//! `ringfence predict`: one request, one answer for each input.

use super::client::{self, Client};
use super::render::{Between, Printer};
use super::{CallArgs, GlobalArgs, request};
use anyhow::bail;

pub(super) fn run(args: &CallArgs, global: &GlobalArgs) -> anyhow::Result<()> {
    let message = request::of_call(args)?;
    let what = format!("predict {}", args.model.label());
    client::block_on(async {
        let mut client = Client::connect(global).await?;
        let request = client.request(message);
        let response = client.rpc.post_model_outputs(request).await;
        let response = response.map_err(|status| client.failed(&what, &status))?.into_inner();
        if let [_] = response.outputs.as_slice() {
            // The only output says nothing that the whole does not.
            client.check(&what, response.status.as_ref())?;
        }
        let mut printer = Printer::new(global, Between::Line);
        for output in &response.outputs {
            printer.print(output)?;
        }
        client.check(&what, response.status.as_ref())?;
        if printer.failed() > 0 {
            bail!(
                "{what}: {} of {} inputs failed; see above",
                printer.failed(),
                response.outputs.len()
            );
        }
        Ok(())
    })
}
