//! `ringfence generate`: one request, outputs as they come.

use super::client::{self, Client};
use super::render::{Between, Printer};
use super::{CallArgs, GlobalArgs, request};
use crate::proto::clarifai::api::MultiOutputResponse;
use anyhow::bail;
use tonic::Streaming;

pub(super) fn run(args: &CallArgs, global: &GlobalArgs) -> anyhow::Result<()> {
    let message = request::of_call(args)?;
    let what = format!("generate {}", args.model.label());
    client::block_on(async {
        let mut client = Client::connect(global).await?;
        let request = client.request(message);
        let responses = client.rpc.generate_model_outputs(request).await;
        let responses = responses.map_err(|status| client.failed(&what, &status))?.into_inner();
        print_all(&client, &what, responses, Printer::new(global, Between::Nothing)).await
    })
}

/// Prints the outputs of a stream until it ends or one of its messages says
/// that the call failed.
pub(super) async fn print_all(
    client: &Client,
    what: &str,
    mut responses: Streaming<MultiOutputResponse>,
    mut printer: Printer,
) -> anyhow::Result<()> {
    loop {
        match responses.message().await {
            Ok(Some(response)) => {
                for output in &response.outputs {
                    printer.print(output)?;
                }
                if let Err(error) = client.check(what, response.status.as_ref()) {
                    printer.end()?;
                    return Err(error);
                }
            }
            Ok(None) => break,
            Err(status) => {
                printer.end()?;
                return Err(client.failed(what, &status));
            }
        }
    }
    printer.end()?;
    if printer.failed() > 0 {
        bail!("{what}: {} outputs are failures; see above", printer.failed());
    }
    Ok(())
}
