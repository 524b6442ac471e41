//! `ringfence stream`: a conversation, a line of standard input a message.

use super::client::{self, Client};
use super::generate::print_all;
use super::render::{Between, Printer};
use super::{GlobalArgs, StreamArgs, request};
use crate::proto::clarifai::api::PostModelOutputsRequest;
use std::io::BufRead;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Lines that were read and not yet sent. One, so that standard input is read
/// no faster than the host takes it.
const LINES_WAITING_MAX: usize = 1;

pub(super) fn run(args: &StreamArgs, global: &GlobalArgs) -> anyhow::Result<()> {
    let what = format!("stream {}", args.model.label());
    client::block_on(async {
        let mut client = Client::connect(global).await?;
        let (sender, receiver) = mpsc::channel(LINES_WAITING_MAX);
        let (model, params) = (args.model.clone(), args.params.param.clone());
        let runner_selector = args.place.selector();
        // A thread of its own, never joined: nothing wakes it from a read that
        // waits for a line when the call has long ended.
        std::thread::spawn(move || {
            let mut input = std::io::stdin().lock();
            let mut line = Vec::new();
            while matches!(input.read_until(b'\n', &mut line), Ok(1..)) {
                let text = String::from_utf8_lossy(&line);
                let text = text.strip_suffix('\n').unwrap_or(&text);
                let text = text.strip_suffix('\r').unwrap_or(text).to_owned();
                let request = PostModelOutputsRequest {
                    runner_selector: runner_selector.clone(),
                    ..request::of_text(&model, text, &params)
                };
                if sender.blocking_send(request).is_err() {
                    break;
                }
                line.clear();
            }
        });
        let request = client.request(ReceiverStream::new(receiver));
        let responses = client.rpc.stream_model_outputs(request).await;
        let responses = responses.map_err(|status| client.failed(&what, &status))?.into_inner();
        print_all(&client, &what, responses, Printer::new(global, Between::Line)).await
    })
}
