//! The command line: arguments in, text out.
//!
//! Owns every argument and the exit codes: 0 done, 1 it failed, 2 wrong usage
//! or configuration. One file per subcommand. Never touches wasmtime or the
//! gRPC services; it is a client of them.

pub mod build;
pub mod checkpoints;

mod apps;
mod bench;
mod calls;
mod client;
mod compute;
mod demo;
mod doctor;
mod embedded;
mod generate;
mod inspect;
mod logs;
mod models;
mod new;
mod one_shot;
mod operations;
mod pat;
mod predict;
mod render;
mod request;
mod schema;
mod serve;
mod socket;
mod store;
mod stream;
mod test;
mod trust;
mod upload;
mod users;
mod watch;
mod wit;

use crate::devices::{Given, see_only};
use crate::fetch::AllowedHost;
use crate::limits::Accelerators;
use crate::nn::{Engines, OnDevices, OnnxRuntimeLibrary};
use crate::package::config::ConfigError;
use crate::package::folder::FolderError;
use crate::telemetry::LogFormat;
use crate::worker::{JailMode, Layer};
use clap::{Args, Parser, Subcommand, ValueEnum};
use client::ModelRef;
use std::ffi::OsString;
use std::io::{self, Write};
use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

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
#[derive(Debug, Default, Clone, Args)]
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
    /// PEM file of the CA that a host on https has to be of [default: RINGFENCE_CA_FILE, else the public ones]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a model folder from a template, ready to build
    New(NewArgs),
    /// Write the world that a model implements, for projects without the guest crate
    Wit(WitArgs),
    /// Print the JSON Schema of config.yaml, or of host.yaml
    Schema(SchemaArgs),
    /// Compile a model folder's 1/model.rs to 1/model.wasm
    Build(BuildArgs),
    /// Show what a model can do, its limits, graphs and assets; or how two models differ
    Inspect(InspectArgs),
    /// Call a model in this process, under its folder's own limits
    Test(TestArgs),
    /// Serve models
    Serve(ServeArgs),
    /// Bring a model folder to a host, and wait until it can be called
    Upload(UploadArgs),
    /// List models and versions; promote, roll back, stop, delete, share them
    Models(ModelsArgs),
    /// List, make and delete apps, in which models stand
    Apps(AppsArgs),
    /// List, make and delete compute clusters, which have nodepools
    Clusters(compute::clusters::ClustersArgs),
    /// List, make and delete nodepools, the parts of the machine that models run on
    Nodepools(compute::nodepools::NodepoolsArgs),
    /// List, make, change and delete deployments: where a model runs, and in how many replicas
    Deployments(compute::deployments::DeploymentsArgs),
    /// List and end calls that run
    Calls(CallsArgs),
    /// List, make and disable users, and say what each may take
    Users(UsersArgs),
    /// List, make and revoke tokens
    Pat(PatArgs),
    /// Check, back up, restore and clean up what a host keeps on disk
    Store(StoreArgs),
    /// Send inputs, get one answer for each
    Predict(CallArgs),
    /// Send one input, print the outputs as they come
    Generate(CallArgs),
    /// Send each line of standard input as it is read, print the outputs as they come
    Stream(StreamArgs),
    /// Put load on a running host, and say what its callers see
    Bench(BenchArgs),
    /// Print what a model's guests wrote, and how its calls were stopped
    Logs(LogsArgs),
    /// Say what this machine offers to a host and what it lacks
    Doctor(DoctorArgs),
    /// Build the example models, serve them and call each of them
    Demo(DemoArgs),
    /// Compile a component for the host that started this
    #[command(hide = true)]
    CompileWorker(CompileWorkerArgs),
    /// Compile kernels for a device, for the host that started this
    #[command(hide = true)]
    KernelWorker(KernelWorkerArgs),
    /// Be a replica of a model, for the host that started this
    #[command(hide = true)]
    CallWorker(CallWorkerArgs),
    /// Try what the jail has to refuse, for the host that started this
    #[command(hide = true)]
    JailProof(JailProofArgs),
}

/// Where a command that is the operator's finds its host.
macro_rules! operator_args {
    ($(#[$doc:meta])* $name:ident, $command:ident) => {
        $(#[$doc])*
        #[derive(Debug, Args)]
        pub(crate) struct $name {
            /// Data directory: of a host that runs on this machine, or of none [default: ask the host at --base]
            #[arg(long, global = true, value_name = "DIR")]
            pub(crate) data_dir: Option<PathBuf>,
            #[command(subcommand)]
            pub(crate) command: $command,
        }
    };
}

operator_args!(
    /// `models`
    ModelsArgs,
    ModelsCommand
);
operator_args!(
    /// `apps`
    AppsArgs,
    AppsCommand
);
operator_args!(
    /// `calls`
    CallsArgs,
    CallsCommand
);
operator_args!(
    /// `users`
    UsersArgs,
    UsersCommand
);
operator_args!(
    /// `pat`
    PatArgs,
    PatCommand
);
operator_args!(
    /// `store`
    StoreArgs,
    StoreCommand
);

/// `models`
#[derive(Debug, Subcommand)]
pub(crate) enum ModelsCommand {
    /// The models that you may call, or the versions of one and which of them is called
    List {
        /// USER/APP/MODEL, or MODEL for one in your app `main`
        #[arg(value_parser = ModelRef::of_model)]
        model: Option<ModelRef>,
        /// Only those of this user, of which others see what is shared with them
        #[arg(long, conflicts_with_all = ["all", "model"])]
        user: Option<String>,
        /// Those of every user, for the operator; with --data-dir always so
        #[arg(long, conflicts_with = "model")]
        all: bool,
    },
    /// Call this version where none is named; without @VERSION, the newest again
    Promote {
        /// USER/APP/MODEL[@VERSION]
        model: ModelRef,
    },
    /// Call the version before the one that is called now
    Rollback {
        /// USER/APP/MODEL
        #[arg(value_parser = ModelRef::of_model)]
        model: ModelRef,
    },
    /// End the calls of a model and refuse further ones
    Stop {
        /// USER/APP/MODEL
        #[arg(value_parser = ModelRef::of_model)]
        model: ModelRef,
    },
    /// Let a stopped model be called again
    Start {
        /// USER/APP/MODEL
        #[arg(value_parser = ModelRef::of_model)]
        model: ModelRef,
    },
    /// Delete a version, or without @VERSION the model
    Delete {
        /// USER/APP/MODEL[@VERSION]
        model: ModelRef,
    },
    /// Let others call a model; they cannot download it
    Share {
        /// USER/APP/MODEL
        #[arg(value_parser = ModelRef::of_model)]
        model: ModelRef,
        /// A user, or everyone
        #[arg(long, value_name = "USER|everyone")]
        with: String,
        /// No longer
        #[arg(long)]
        end: bool,
    },
}

/// `apps`
#[derive(Debug, Subcommand)]
pub(crate) enum AppsCommand {
    /// Your apps
    List,
    /// Make an app
    Create {
        /// Its name
        app: String,
    },
    /// Delete an app without models
    Delete {
        /// Its name
        app: String,
    },
}

/// `calls`
#[derive(Debug, Subcommand)]
pub(crate) enum CallsCommand {
    /// Your calls and those of your models; with an admin token all
    List,
    /// End a call
    Cancel {
        /// As `calls list` shows it
        id: String,
    },
}

/// `users`
#[derive(Debug, Subcommand)]
pub(crate) enum UsersCommand {
    /// Make a user
    Create {
        /// The name
        user: String,
    },
    /// Every user, and what each has
    List,
    /// Let the tokens of a user count for nothing, and end their calls
    Disable {
        /// The name
        user: String,
    },
    /// Let them count again
    Enable {
        /// The name
        user: String,
    },
    /// Say what a user may take
    Quota(QuotaArgs),
}

/// `users quota`
#[derive(Debug, Args)]
pub(crate) struct QuotaArgs {
    /// The name
    pub(crate) user: String,
    /// Give every limit that is not named here back to the host's default
    #[arg(long)]
    pub(crate) reset: bool,
    /// Calls at a time
    #[arg(long)]
    pub(crate) calls: Option<u64>,
    /// Fuel of all calls of a minute
    #[arg(long)]
    pub(crate) fuel_per_minute: Option<u64>,
    /// Bytes of all versions
    #[arg(long)]
    pub(crate) stored_bytes: Option<u64>,
    /// Models
    #[arg(long)]
    pub(crate) models: Option<u64>,
    /// Uploads that are compiled in an hour
    #[arg(long)]
    pub(crate) compilations_per_hour: Option<u64>,
}

/// `pat`
#[derive(Debug, Subcommand)]
pub(crate) enum PatCommand {
    /// Make a token, and print it; it is shown only then
    Create {
        /// Whose it is [default: yours]
        #[arg(long)]
        user: Option<String>,
        /// For people
        #[arg(long, default_value = "")]
        name: String,
        /// What it is for: predict, upload, admin; may be given several times
        #[arg(long, value_delimiter = ',', default_value = "predict")]
        scope: Vec<String>,
        /// When it ends by itself, such as 30d, 12h or 15m
        #[arg(long, value_parser = lifetime)]
        expires_in: Option<Duration>,
    },
    /// Tokens, without what proves them
    List {
        /// Only those of this user
        #[arg(long)]
        user: Option<String>,
    },
    /// Let a token count for nothing, and end its calls
    Revoke {
        /// As `pat list` shows it
        id: String,
    },
}

/// `store`
#[derive(Debug, Subcommand)]
pub(crate) enum StoreCommand {
    /// Read everything and name what is not as it should be
    Check,
    /// Free what nothing refers to
    Gc,
    /// Write a copy to a new file, while the host runs
    Backup {
        /// The file
        file: PathBuf,
    },
    /// Make a data directory of a copy
    Restore {
        /// The file
        file: PathBuf,
    },
}

/// The engines for a model of whoever runs this command, in this process, which has one
/// thread yet.
fn engines(args: &EngineArgs, devices: Option<&OnDevices>) -> anyhow::Result<Engines> {
    let library = args.onnxruntime.as_deref().map(OnnxRuntimeLibrary::load);
    let onnxruntime = library.transpose().map_err(usage)?.map(OnnxRuntimeLibrary::engine);
    Ok(Engines::of_process(onnxruntime, devices))
}

/// Has this process compute on these devices, of which there was asked for some.
fn on_devices(asked: &Accelerators, given: &Given) -> anyhow::Result<OnDevices> {
    // What the driver was asked may have left a thread.
    if crate::sched::threads() != Some(1) {
        anyhow::bail!("this process has threads already, and cannot choose its devices any more");
    }
    see_only(given.devices());
    Ok(OnDevices::of(asked, given.devices()))
}

/// What it means where a layer of the jail is missing.
fn jail_mode(word: &str) -> Result<JailMode, String> {
    JailMode::of(word).ok_or_else(|| "write required, or best-effort".to_owned())
}

/// A layer of the jail.
fn layer(name: &str) -> Result<Layer, String> {
    Layer::of(name).ok_or_else(|| "that is no layer".to_owned())
}

/// A time such as `30d`.
fn lifetime(text: &str) -> Result<Duration, String> {
    let wrong = || {
        format!("{text:?} is no time to come; write a number and one of d, h, m, s, such as 30d")
    };
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let seconds = match unit {
        "d" => 86_400,
        "h" => 3600,
        "m" => 60,
        "s" => 1,
        _ => return Err(wrong()),
    };
    let number: NonZeroU64 = number.parse().map_err(|_| wrong())?;
    number.get().checked_mul(seconds).map(Duration::from_secs).ok_or_else(wrong)
}

/// Says something beside what a program reads.
pub(super) fn note(text: &str) {
    // Nothing can be said where even this cannot be printed.
    let _ = writeln!(io::stderr().lock(), "{}", crate::text::printable(text));
}

/// What a process is left with that the host has started of its own program.
#[derive(Debug, Args)]
pub(crate) struct ConfinementArgs {
    /// What it means where a layer of the jail is missing
    #[arg(long, value_parser = jail_mode)]
    pub(crate) jail: JailMode,
    /// CPU time of all threads together
    #[arg(long)]
    pub(crate) cpu_seconds: Option<u64>,
    /// Memory, in bytes
    #[arg(long)]
    pub(crate) data_bytes: u64,
    /// Descriptors
    #[arg(long)]
    pub(crate) files_max: u64,
    /// CPUs that there are
    #[arg(long)]
    pub(crate) cpus: usize,
    /// A layer that is left out, in tests
    #[arg(long, value_parser = layer)]
    pub(crate) without: Option<Layer>,
    /// Who has started it
    #[arg(long)]
    pub(crate) parent: i32,
    /// Whether it is to use the driver of a device, or libraries of such a driver
    #[arg(long)]
    pub(crate) driver: bool,
    /// A file or folder that it reads for that
    #[arg(long)]
    pub(crate) driver_reads: Vec<PathBuf>,
    /// A node of the device
    #[arg(long)]
    pub(crate) driver_node: Vec<PathBuf>,
}

/// `compile-worker`
#[derive(Debug, Args)]
pub(crate) struct CompileWorkerArgs {
    /// What the component may start with
    #[arg(long)]
    pub(crate) memory_bytes_max: u64,
    /// Leave it as it is; else it can be asked for its state
    #[arg(long)]
    pub(crate) as_it_is: bool,
    /// Allocate registers in the way that takes least
    #[arg(long)]
    pub(crate) single_pass: bool,
    #[command(flatten)]
    pub(crate) confinement: ConfinementArgs,
}

/// `call-worker`
#[derive(Debug, Args)]
pub(crate) struct CallWorkerArgs {
    /// ONNX Runtime's library
    #[arg(long)]
    pub(crate) onnxruntime: Option<PathBuf>,
    /// What engines run on devices
    #[arg(long)]
    pub(crate) kernels: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) confinement: ConfinementArgs,
}

/// `kernel-worker`
#[derive(Debug, Args)]
pub(crate) struct KernelWorkerArgs {
    #[command(flatten)]
    pub(crate) confinement: ConfinementArgs,
}

/// `jail-proof`
#[derive(Debug, Args)]
pub(crate) struct JailProofArgs {
    /// What to try [default: say how each layer holds]
    #[arg(long)]
    pub(crate) act: Option<String>,
    #[command(flatten)]
    pub(crate) confinement: ConfinementArgs,
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

/// `schema`
#[derive(Debug, Args)]
pub(crate) struct SchemaArgs {
    /// Which file
    #[arg(value_enum, default_value_t)]
    pub(crate) file: schema::SchemaFile,
    /// Print the page about host.yaml instead
    #[arg(long)]
    pub(crate) markdown: bool,
}

/// Which engines there are for graphs, beside the one in the program.
#[derive(Debug, Clone, Args)]
pub(crate) struct EngineArgs {
    /// The library of ONNX Runtime (`libonnxruntime.so`), which runs what tract cannot
    #[arg(long, value_name = "FILE", env = "RINGFENCE_ONNXRUNTIME")]
    pub(crate) onnxruntime: Option<PathBuf>,
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
    /// Load its graphs on an accelerator of this machine, to say which of their nodes are there,
    /// and which would be refused
    #[arg(long, conflicts_with = "newer")]
    pub(crate) accelerator: bool,
    #[command(flatten)]
    pub(crate) engines: EngineArgs,
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
    #[command(flatten)]
    pub(crate) engines: EngineArgs,
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
            engines: EngineArgs { onnxruntime: None },
        }
    }
}

/// `serve`
#[derive(Debug, Clone, Args)]
pub(crate) struct ServeArgs {
    /// Settings of the host; what is given here wins over them
    #[arg(long, value_name = "FILE")]
    pub(crate) host_config: Option<PathBuf>,
    /// Start nothing: say whether a host could start like this
    #[arg(long)]
    pub(crate) check: bool,
    /// Model folder to serve without an upload; may be given several times
    #[arg(long, value_name = "DIR")]
    pub(crate) model: Vec<PathBuf>,
    /// Address to listen on; port 0 takes a free one [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<String>,
    /// Where tokens are kept [default: ./ringfence-data]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Ask for no PAT: whoever reaches the host is the user `local`
    #[arg(long)]
    pub(crate) no_auth: bool,
    /// Whether the host starts where a layer of the jail is missing: `required` or `best-effort`, which is for loopback alone [default: best-effort on loopback, else required]
    #[arg(long, value_name = "MODE", value_parser = jail_mode)]
    pub(crate) jail: Option<JailMode>,
    /// A folder of CUDA's libraries and headers, for accelerators; may be given several times [default: /usr/local/cuda]
    #[arg(long, value_name = "DIR")]
    pub(crate) cuda: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) engines: EngineArgs,
    /// Offer gRPC reflection
    #[arg(long)]
    pub(crate) reflection: bool,
    /// Serve /metrics and /healthz at this address, for the operator alone [default address: 127.0.0.1:9464]
    #[arg(long, value_name = "ADDRESS", num_args = 0..=1, default_missing_value = "127.0.0.1:9464")]
    pub(crate) metrics_listen: Option<String>,
    /// The form of the log on standard error [default: text]
    #[arg(long, value_enum, value_name = "FORM")]
    pub(crate) log_format: Option<LogFormat>,
    /// Fetch URLs of inputs from this host, over https; may be given several times. http://HOST opens http as well, HOST:PORT another port
    #[arg(long, value_name = "HOST")]
    pub(crate) allow_url_host: Vec<AllowedHost>,
    /// Certificates in PEM that URLs may be fetched with, beside the public authorities
    #[arg(long, value_name = "FILE")]
    pub(crate) url_ca: Option<PathBuf>,
}

/// `logs`
#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// USER/APP/MODEL[@VERSION], or MODEL for one in your app `main`
    pub(crate) model: ModelRef,
    /// Only what belongs to this call: the `req_id` of its answer
    #[arg(long, value_name = "ID")]
    pub(crate) call: Option<String>,
    /// Go on with what is added, until interrupted
    #[arg(long)]
    pub(crate) follow: bool,
}

/// `upload`
#[derive(Debug, Args)]
pub(crate) struct UploadArgs {
    /// The model folder, built
    #[arg(default_value = ".", value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// Send it though the host has this version: what is damaged of it is made whole
    #[arg(long)]
    pub(crate) again: bool,
}

/// `doctor`
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// The data directory that is meant [default: ./ringfence-data]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Settings of the host that is meant
    #[arg(long, value_name = "FILE")]
    pub(crate) host_config: Option<PathBuf>,
    /// A folder of CUDA's libraries and headers, for accelerators; may be given several times [default: that of the settings, or /usr/local/cuda]
    #[arg(long, value_name = "DIR")]
    pub(crate) cuda: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) engines: EngineArgs,
}

/// `demo`
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Folder with the example models [default: those of this program, built in a scratch folder]
    #[arg(long, value_name = "DIR")]
    pub(crate) guests: Option<PathBuf>,
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
    /// USER/APP/MODEL[@VERSION], or MODEL for one in your app `main`
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
    #[command(flatten)]
    pub(crate) place: compute::PlaceArgs,
}

/// `stream`
#[derive(Debug, Args)]
pub(crate) struct StreamArgs {
    /// USER/APP/MODEL[@VERSION], or MODEL for one in your app `main`
    pub(crate) model: ModelRef,
    #[command(flatten)]
    pub(crate) params: ParamArgs,
    #[command(flatten)]
    pub(crate) place: compute::PlaceArgs,
}

/// `bench`
#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// USER/APP/MODEL[@VERSION], or MODEL for one in your app `main`; not where two models are
    /// compared
    #[arg(required_unless_present = "compare")]
    pub(crate) model: Option<ModelRef>,
    /// What each call is
    #[arg(long, value_enum, default_value_t = BenchFunction::Predict)]
    pub(crate) function: BenchFunction,
    /// A text
    #[arg(long)]
    pub(crate) text: Option<String>,
    /// A file with an image, audio, a video or text; one of each kind
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) params: ParamArgs,
    #[command(flatten)]
    pub(crate) place: compute::PlaceArgs,
    /// Callers that call again as soon as they have their answer; with --rate, the most calls at a time [default: 1; with --rate, 256]
    #[arg(long, value_name = "N")]
    pub(crate) concurrency: Option<NonZeroUsize>,
    /// Calls a second, whether or not earlier ones are answered; times count from when a call was due
    #[arg(long, value_name = "CALLS", value_parser = positive)]
    pub(crate) rate: Option<f64>,
    /// Connections that the callers share [default: one for each caller, at most 16]
    #[arg(long, value_name = "N")]
    pub(crate) connections: Option<NonZeroUsize>,
    /// Messages of each stream; one waits for the output of the one before
    #[arg(long, value_name = "N", default_value = "16")]
    pub(crate) messages: NonZeroUsize,
    /// How long to measure, such as 500ms, 10s or 1m; of each where two are compared
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = bench::time)]
    pub(crate) duration: Duration,
    /// How long to call before that
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = bench::time)]
    pub(crate) warm_up: Duration,
    /// Measure two in turns and compare them: each an address (http://HOST:PORT) of a server with the model, or another model of the host
    #[arg(long, num_args = 2, value_names = ["A", "B"])]
    pub(crate) compare: Vec<String>,
    /// Turns of each where two are compared
    #[arg(long, value_name = "N", default_value = "5")]
    pub(crate) rounds: NonZeroU32,
}

/// What each call of `bench` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BenchFunction {
    /// A request and its answer.
    Predict,
    /// A request and outputs as they come.
    Generate,
    /// Messages and an output for each.
    Stream,
}

impl BenchFunction {
    fn as_str(self) -> &'static str {
        match self {
            Self::Predict => "predict",
            Self::Generate => "generate",
            Self::Stream => "stream",
        }
    }
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0. && number.is_finite() => Ok(number),
        _ => Err("write a number above 0".to_owned()),
    }
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
        Command::Schema(args) => schema::run(&args),
        Command::Inspect(args) => inspect::run(&args, &global),
        Command::Test(args) => test::run(&args, &global),
        Command::Serve(args) => serve::run(&args),
        Command::Upload(args) => upload::run(&args, &global),
        Command::Models(args) => models::run(&args, &global),
        Command::Apps(args) => apps::run(&args, &global),
        Command::Clusters(args) => compute::clusters::run(&args, &global),
        Command::Nodepools(args) => compute::nodepools::run(&args, &global),
        Command::Deployments(args) => compute::deployments::run(&args, &global),
        Command::Calls(args) => calls::run(&args, &global),
        Command::Users(args) => users::run(&args, &global),
        Command::Pat(args) => pat::run(&args, &global),
        Command::Store(args) => store::run(&args, &global),
        Command::Predict(args) => predict::run(&args, &global),
        Command::Generate(args) => generate::run(&args, &global),
        Command::Stream(args) => stream::run(&args, &global),
        Command::Bench(args) => bench::run(&args, &global),
        Command::Logs(args) => logs::run(&args, &global),
        Command::Build(args) => build::run(&args, &global),
        Command::Doctor(args) => doctor::run(&args, &global),
        Command::Demo(args) => demo::run(&args),
        Command::CompileWorker(args) => one_shot::run_compile(&args),
        Command::KernelWorker(args) => one_shot::run_kernel(&args),
        Command::CallWorker(args) => one_shot::run_calls(&args),
        Command::JailProof(args) => match one_shot::run_proof(&args) {
            Ok(code) => return code,
            Err(error) => Err(error),
        },
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
        assert_eq!(
            exit_code(&ConfigError::TooLong { file: "config.yaml".into(), bytes: 1 }.into()),
            WRONG_USAGE
        );
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
        assert_eq!((args.model.len(), args.listen), (2, None));
    }
}
