//! The command line: arguments in, text out.
//!
//! Owns every argument and the exit codes: 0 done, 1 it failed, 2 wrong usage
//! or configuration. One file per subcommand. Never touches wasmtime or the
//! gRPC services; it is a client of them.

pub mod build;
pub mod checkpoints;

mod client;
mod demo;
mod embedded;
mod generate;
mod inspect;
mod new;
mod predict;
mod render;
mod request;
mod schema;
mod serve;
mod stream;
mod test;
mod watch;
mod wit;

use crate::fetch::AllowedHost;
use crate::package::config::ConfigError;
use crate::package::folder::FolderError;
use clap::{Args, Parser, Subcommand};
use client::ModelRef;
use std::ffi::OsString;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const FAILED: u8 = 1;
const WRONG_USAGE: u8 = 2;

/// The command line was understood but asks for something that cannot be; the
/// text says what to write instead.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

/// Marks an error as one of usage or configuration: exit code 2.
pub(crate) fn usage(error: impl Into<anyhow::Error>) -> anyhow::Error {
    Usage(format!("{:#}", error.into())).into()
}

#[derive(Debug, Parser)]
#[command(
    name = "ringfence",
    version,
    about = "Runs machine-learning models whose code nobody has to trust"
)]
struct Cli {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    command: Command,
}

/// What every subcommand takes.
#[derive(Debug, Args)]
pub(crate) struct GlobalArgs {
    /// Print JSON, one object a line
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Address of the host [default: RINGFENCE_BASE, CLARIFAI_API_BASE, else http://127.0.0.1:8080]
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) base: Option<String>,
    /// File with the PAT [default: the PAT in RINGFENCE_PAT, else in CLARIFAI_PAT]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) pat_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a model folder from a template, ready to build
    New(NewArgs),
    /// Write the world that a model implements, for projects without the guest crate
    Wit(WitArgs),
    /// Print the JSON Schema of config.yaml
    Schema,
    /// Compile a model folder's 1/model.rs to 1/model.wasm
    Build(BuildArgs),
    /// Show what a model can do, its limits, graphs and assets; or how two models differ
    Inspect(InspectArgs),
    /// Call a model in this process, under its folder's own limits
    Test(TestArgs),
    /// Serve models
    Serve(ServeArgs),
    /// Send inputs, get one answer for each
    Predict(CallArgs),
    /// Send one input, print the outputs as they come
    Generate(CallArgs),
    /// Send each line of standard input as it is read, print the outputs as they come
    Stream(StreamArgs),
    /// Build the example models, serve them and call each of them
    Demo(DemoArgs),
}

/// `new`
#[derive(Debug, Args)]
pub(crate) struct NewArgs {
    /// The folder to make; its name becomes the model's id
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// What goes in and what comes out
    #[arg(long = "type", value_enum, default_value_t, value_name = "TYPE")]
    pub(crate) kind: new::Template,
}

/// `wit`
#[derive(Debug, Args)]
pub(crate) struct WitArgs {
    /// The folder to write to, such as `wit` in a project
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,
}

/// `inspect`
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// A model folder, a component, or a model on a host: USER/APP/MODEL[@VERSION]
    #[arg(default_value = ".", value_name = "PATH")]
    pub(crate) path: PathBuf,
    /// Another one: print only how it differs
    #[arg(value_name = "NEWER")]
    pub(crate) newer: Option<PathBuf>,
}

/// `test`
#[derive(Debug, Args)]
pub(crate) struct TestArgs {
    /// The model folder
    #[arg(default_value = ".", value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// A text [default, without --file: the files `example.*` of the folder]
    #[arg(long)]
    pub(crate) text: Option<String>,
    /// A file with an image, audio, a video or text; one of each kind
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Vec<PathBuf>,
    /// Arguments by name, where "@FILE" stands for the content of an image, audio, video or bytes; for a model without methods any object or list
    #[arg(long, value_name = "JSON", conflicts_with_all = ["text", "file"])]
    pub(crate) input: Option<String>,
    #[command(flatten)]
    pub(crate) params: ParamArgs,
    /// What random numbers are made of; the same seed burns the same fuel
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Run a model that asks for an accelerator on the CPU
    #[arg(long)]
    pub(crate) cpu: bool,
    /// Find `cpu_limit`, `cpu_memory` and `call_timeout` that fit these calls
    #[arg(long)]
    pub(crate) limits: bool,
    /// Put them into config.yaml, and change nothing else of it
    #[arg(long, requires = "limits")]
    pub(crate) write: bool,
    /// Fail where fuel or memory has grown against this earlier output of `test --json`
    #[arg(long, value_name = "FILE")]
    pub(crate) baseline: Option<PathBuf>,
    /// How much may have grown: 0.1 is a tenth
    #[arg(long, default_value_t = 0.1, value_name = "SHARE", requires = "baseline")]
    pub(crate) tolerance: f64,
}

impl TestArgs {
    /// The arguments that test a folder with its own example.
    pub(crate) fn of_example(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            text: None,
            file: Vec::new(),
            input: None,
            params: ParamArgs { param: Vec::new() },
            seed: 0,
            cpu: false,
            limits: false,
            write: false,
            baseline: None,
            tolerance: 0.0,
        }
    }
}

/// `serve`
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Model folder to serve without an upload; may be given several times
    #[arg(long, value_name = "DIR")]
    pub(crate) model: Vec<PathBuf>,
    /// Address to listen on; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    pub(crate) listen: SocketAddr,
    /// Where tokens are kept
    #[arg(long, default_value = "./ringfence-data", value_name = "DIR")]
    pub(crate) data_dir: PathBuf,
    /// Ask for no PAT: whoever reaches the host is the user `local`
    #[arg(long)]
    pub(crate) no_auth: bool,
    /// Run guests without the outer wall; only for models that you trust
    #[arg(long)]
    pub(crate) unsafe_no_jail: bool,
    /// Offer gRPC reflection
    #[arg(long)]
    pub(crate) reflection: bool,
    /// Fetch URLs of inputs from this host, over https; may be given several times. http://HOST opens http as well, HOST:PORT another port
    #[arg(long, value_name = "HOST")]
    pub(crate) allow_url_host: Vec<AllowedHost>,
    /// Certificates in PEM that URLs may be fetched with, beside the public authorities
    #[arg(long, value_name = "FILE", requires = "allow_url_host")]
    pub(crate) url_ca: Option<PathBuf>,
}

/// `demo`
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Folder with the example models
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../guests"), value_name = "DIR")]
    pub(crate) guests: PathBuf,
}

/// `build`
#[derive(Debug, Args)]
pub(crate) struct BuildArgs {
    /// The model folder
    #[arg(default_value = ".", value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// Where cargo keeps what it compiles [default: cargo's own choice]
    #[arg(long, value_name = "DIR")]
    pub(crate) target_dir: Option<PathBuf>,
    /// Take the newest commit of `checkpoints`, not that of checkpoints.lock
    #[arg(long, conflicts_with = "watch")]
    pub(crate) update: bool,
    /// Build and test again whenever a file of the folder changes
    #[arg(long)]
    pub(crate) watch: bool,
}

/// `predict` and `generate`
#[derive(Debug, Args)]
pub(crate) struct CallArgs {
    /// USER/APP/MODEL[@VERSION], or MODEL for local/main/MODEL
    pub(crate) model: ModelRef,
    /// A text
    #[arg(long)]
    pub(crate) text: Option<String>,
    /// A file with an image, audio, a video or text; one of each kind
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Vec<PathBuf>,
    /// A URL in place of bytes, which the host fetches if it is started with --allow-url-host; `data:` needs no opening. KIND is image, audio, video or text, needed where the path does not tell
    #[arg(long, value_name = "[KIND=]URL")]
    pub(crate) url: Vec<String>,
    #[command(flatten)]
    pub(crate) params: ParamArgs,
}

/// `stream`
#[derive(Debug, Args)]
pub(crate) struct StreamArgs {
    /// USER/APP/MODEL[@VERSION], or MODEL for local/main/MODEL
    pub(crate) model: ModelRef,
    #[command(flatten)]
    pub(crate) params: ParamArgs,
}

/// Inference parameters.
#[derive(Debug, Args)]
pub(crate) struct ParamArgs {
    /// An inference parameter; the value is read as JSON, else it is a text
    #[arg(long, value_name = "KEY=VALUE", value_parser = request::parse_param)]
    pub(crate) param: Vec<(String, serde_json::Value)>,
}

/// Does what the arguments say and reports how it went.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Nothing can be said where even this cannot be printed.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(WRONG_USAGE));
        }
    };
    let Cli { global, command } = cli;
    let result = match command {
        Command::New(args) => new::run(&args, &global),
        Command::Wit(args) => wit::run(&args, &global),
        Command::Schema => schema::run(),
        Command::Inspect(args) => inspect::run(&args, &global),
        Command::Test(args) => test::run(&args, &global),
        Command::Serve(args) => serve::run(&args),
        Command::Predict(args) => predict::run(&args, &global),
        Command::Generate(args) => generate::run(&args, &global),
        Command::Stream(args) => stream::run(&args, &global),
        Command::Build(args) => build::run(&args, &global),
        Command::Demo(args) => demo::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // Who reads our output may stop whenever it likes.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            ExitCode::from(exit_code(&error))
        }
    }
}

/// One line, then its causes.
fn report(error: &anyhow::Error) {
    let mut stderr = io::stderr().lock();
    let mut word = "error";
    for cause in error.chain() {
        let _ = writeln!(stderr, "{word}: {}", crate::text::printable(&cause.to_string()));
        word = "  because";
    }
}

fn exit_code(error: &anyhow::Error) -> u8 {
    let wrong = error
        .chain()
        .any(|cause| cause.is::<Usage>() || cause.is::<ConfigError>() || cause.is::<FolderError>());
    if wrong { WRONG_USAGE } else { FAILED }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let kind = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<io::Error>().map(io::Error::kind)
    };
    error.chain().any(|cause| kind(cause) == Some(io::ErrorKind::BrokenPipe))
        && error.is::<io::Error>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn wrong_usage_and_configuration_are_told_from_failures() {
        assert_eq!(exit_code(&anyhow::Error::new(Usage("x".into())).context("y")), WRONG_USAGE);
        assert_eq!(exit_code(&usage(anyhow::anyhow!("x"))), WRONG_USAGE);
        assert_eq!(exit_code(&ConfigError::TooLong { bytes: 1 }.into()), WRONG_USAGE);
        assert_eq!(exit_code(&FolderError::TooMany.into()), WRONG_USAGE);
        assert_eq!(exit_code(&anyhow::anyhow!("x")), FAILED);
    }

    #[test]
    fn arguments_are_read_as_they_are_documented() {
        let cli = Cli::try_parse_from([
            "ringfence",
            "predict",
            "alice/lab/m@v1",
            "--text",
            "hi",
            "--param",
            "top_k=3",
            "--param",
            "tone=dry",
            "--json",
            "--base",
            "http://h:1",
        ])
        .unwrap();
        assert!(cli.global.json);
        let Command::Predict(args) = cli.command else { panic!() };
        assert_eq!(args.params.param, [("top_k".into(), 3.into()), ("tone".into(), "dry".into())]);
        assert!(Cli::try_parse_from(["ringfence", "predict", "a/b"]).is_err());
        let cli =
            Cli::try_parse_from(["ringfence", "serve", "--model", "a", "--model", "b"]).unwrap();
        let Command::Serve(args) = cli.command else { panic!() };
        assert_eq!((args.model.len(), args.listen.to_string().as_str()), (2, "127.0.0.1:8080"));
    }
}
