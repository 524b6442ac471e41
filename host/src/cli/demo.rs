//! `ringfence demo`: everything once, on a free port of loopback.
//!
//! Builds the example models, serves them, and calls each of them as any client
//! would, over a socket and with a token.

use super::client::{Client, ModelRef};
use super::compute::PlaceArgs;
use super::embedded::{self, EXAMPLES, SDK};
use super::render::{Between, Printer};
use super::{CallArgs, DemoArgs, GlobalArgs, ParamArgs, build, generate, predict, request, serve};
use crate::auth::Auth;
use crate::fetch::Fetcher;
use crate::server::{self, Options};
use crate::settings::Settings;
use crate::store::Store;
use crate::telemetry::{self, LogFormat};
use crate::worker::JailMode;
use anyhow::{Context, bail};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;

const MODELS: [&str; 3] = ["echo", "digits", "scribe"];
const MANIFEST: &str = "Cargo.toml";
const SCAN: &str = "digits/held-out/seven.png";
const PROMPT: &str = "It was not in her power to ";
const MESSAGES: [&str; 3] = ["first message", "second message", "third message"];

pub(super) fn run(args: &DemoArgs) -> anyhow::Result<()> {
    let logging = telemetry::start(Some("warn"), LogFormat::Text)?;
    let scratch = tempfile::TempDir::new()?;
    let guests = match &args.guests {
        Some(guests) => guests.canonicalize().with_context(|| {
            let shown = guests.display();
            format!("the example models are not at {shown}; without --guests those of this program are taken")
        })?,
        None => {
            unpack(scratch.path()).context("cannot write the example models into a scratch folder")?;
            scratch.path().to_owned()
        }
    };
    let mut settings = Settings::default();
    for model in MODELS {
        say(&format!("\n# building {model}"))?;
        let folder = guests.join(model);
        build::build_model(&folder, None)?;
        settings.models.push(folder);
    }

    let data_dir = tempfile::TempDir::new()?;
    let runtime = serve::runtime()?;
    let (stop, stopped) = oneshot::channel::<()>();
    let started = runtime.block_on(async {
        let listener = serve::bind(([127, 0, 0, 1], 0).into()).await?;
        let base = format!("http://{}", listener.local_addr()?);
        let store = Arc::new(Store::open(data_dir.path())?);
        let (auth, _) = Auth::open(store.clone())?;
        let (fetcher, dropped) = (Fetcher::off(), logging.dropped());
        let (app, workers) =
            serve::start(auth, store, &settings, fetcher, dropped, Some(JailMode::BestEffort))
                .await?;
        let serving = tokio::spawn(async move {
            let stop = async {
                // A demo that fails drops its end, which stops the host as well.
                let _ = stopped.await;
            };
            let deployments = app.deployments.clone();
            let served = server::run(listener, None, app, Options::default().fixed(), stop).await;
            deployments.let_go();
            workers.drain().await;
            served
        });
        anyhow::Ok((base, serving))
    });
    let (base, serving): (String, tokio::task::JoinHandle<anyhow::Result<()>>) = started?;
    say(&format!("\n# serving on {base}"))?;
    let called = call_each(&base, data_dir.path(), &guests);
    drop(stop);
    runtime.block_on(serving)??;
    called
}

/// Writes the example models that are part of the program, and the guest crate
/// that they are written with, as a workspace of their own.
fn unpack(dir: &Path) -> io::Result<()> {
    for file in EXAMPLES {
        match file.path {
            MANIFEST => embedded::write_new(&dir.join(MANIFEST), manifest(file.bytes).as_bytes())?,
            path => embedded::write_new(&dir.join(path), file.bytes)?,
        }
    }
    for file in SDK {
        embedded::write_new(&dir.join("sdk").join(file.path), file.bytes)?;
    }
    Ok(())
}

/// The manifest of the repository's guests, with the examples as its members.
fn manifest(bytes: &[u8]) -> String {
    let members = format!("members = [\"sdk\", \"{}\"]", MODELS.join("\", \""));
    let text = String::from_utf8_lossy(bytes);
    let line = |line: &str| match line.starts_with("members = ") {
        true => format!("{members}\n"),
        false => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

fn call_each(base: &str, data_dir: &Path, guests: &Path) -> anyhow::Result<()> {
    let global = GlobalArgs {
        json: false,
        base: Some(base.to_owned()),
        pat_file: Some(data_dir.join("admin.pat")),
        ca_file: None,
    };
    say(&format!("\n# predict digits --file {SCAN}"))?;
    predict::run(&call("digits", None, Some(guests.join(SCAN)), &[])?, &global)?;

    say(&format!("\n# generate scribe --text {PROMPT:?} --param max_tokens=160"))?;
    let params = [("max_tokens", 160.into()), ("temperature", 0.7.into())];
    generate::run(&call("scribe", Some(PROMPT), None, &params)?, &global)?;

    say("\n# stream echo")?;
    super::client::block_on(converse(&global))?;
    say("\nEach of these ran in a sandbox of its own.")
}

/// Sends each message only when the one before it has been answered.
async fn converse(global: &GlobalArgs) -> anyhow::Result<()> {
    let mut client = Client::connect(global).await?;
    let model: ModelRef = "echo".parse()?;
    let (sender, receiver) = mpsc::channel(1);
    let [first, ..] = MESSAGES;
    say(&format!("> {first}"))?;
    sender.send(request::of_text(&model, first.to_owned(), &[])).await?;
    let request = client.request(ReceiverStream::new(receiver));
    let mut responses = client.rpc.stream_model_outputs(request).await?.into_inner();
    let mut printer = Printer::new(global, Between::Line);
    let mut unsent = MESSAGES.iter().skip(1);
    let mut sender = Some(sender);
    while let Some(response) = responses.message().await? {
        client.check("stream echo", response.status.as_ref())?;
        for output in &response.outputs {
            printer.print(output)?;
        }
        printer.end()?;
        match (unsent.next(), &sender) {
            (Some(text), Some(open)) => {
                say(&format!("> {text}"))?;
                open.send(request::of_text(&model, (*text).to_owned(), &[])).await?;
            }
            _ => sender = None,
        }
    }
    match unsent.next() {
        None => Ok(()),
        Some(text) => bail!("the stream ended before {text:?} was sent"),
    }
}

fn call(
    model: &str,
    text: Option<&str>,
    file: Option<PathBuf>,
    params: &[(&str, serde_json::Value)],
) -> anyhow::Result<CallArgs> {
    let param = params.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    Ok(CallArgs {
        model: model.parse()?,
        text: text.map(str::to_owned),
        file: file.into_iter().collect(),
        url: Vec::new(),
        params: ParamArgs { param },
        place: PlaceArgs::default(),
    })
}

fn say(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_program_are_a_workspace_of_their_own() {
        let scratch = tempfile::TempDir::new().unwrap();
        unpack(scratch.path()).unwrap();
        let manifest = std::fs::read_to_string(scratch.path().join(MANIFEST)).unwrap();
        let members = "members = [\"sdk\", \"echo\", \"digits\", \"scribe\"]\n";
        assert!(manifest.contains(members), "{manifest}");
        for model in MODELS {
            for file in ["Cargo.toml", "config.yaml", "1/model.rs"] {
                assert!(scratch.path().join(model).join(file).is_file(), "{model}/{file}");
            }
        }
        assert!(scratch.path().join(SCAN).is_file());
        assert!(scratch.path().join("sdk/Cargo.toml").is_file());
        assert!(!scratch.path().join("scribe/training").exists());
    }
}
