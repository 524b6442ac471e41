//! `ringfence test`: a model's functions, called in this process under the
//! limits of its own folder.
//!
//! Owns what is called, and with what. Random numbers and clocks are made of a
//! seed, so the same call burns the same fuel. Nothing is reserved: a limit that
//! is larger than the machine is a limit all the same.

mod arguments;
mod baseline;
mod drawing;
mod report;
mod suggest;

use super::client::ModelRef;
use super::{GlobalArgs, TestArgs, Usage, request, usage};
use crate::call::{
    Deadline, Event, Function, GuestError, Holder, Method, Methods, Receipt, Request, Value,
    Verdict,
};
use crate::devices::{Devices, Given, NoDevice};
use crate::limits::Accelerators;
use crate::nn::Engines;
use crate::package::folder::{self, Taking};
use crate::package::{Package, config::Config};
use crate::proto::clarifai::api;
use crate::sandbox::{
    Code, Diagnostics, Program, Runtime, Snapshot, Surroundings, Unfit, calibrate,
};
use crate::server::request::{InputError, Turn, parse, plain_input, typed_input};
use crate::server::response::{self, CallerKind, Form};
use crate::server::sent::Sent;
use crate::upload::Example;
use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use report::Report;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes of an example that a host tries a package with: what a message of a call may
/// have.
const EXAMPLE_BYTES_MAX: u64 = 16 << 20;

/// How the files begin that a folder is tested with.
const EXAMPLE: &str = "example.";

/// One of the functions, and how it went.
struct Ran {
    function: String,
    /// What is left of `load-model` for calls to begin with.
    snapshot: Option<Result<Snapshot, Unfit>>,
    /// Nothing for `load-model`, which succeeded.
    verdict: Option<Verdict>,
    receipt: Receipt,
    /// The image that it was asked about, if any.
    image: Option<Bytes>,
    outputs: Vec<api::Output>,
    failures: Vec<GuestError>,
    wall: Duration,
    /// Most bytes held at once, by what held them.
    held: [(Holder, u64); Holder::ALL.len()],
}

impl Ran {
    fn is_ok(&self) -> bool {
        use crate::call::End;
        self.failures.is_empty()
            && self.verdict.as_ref().is_none_or(|verdict| verdict.end == End::Done)
    }
}

pub(super) fn run(args: &TestArgs, global: &GlobalArgs) -> anyhow::Result<()> {
    let scratch = tempfile::tempdir().context("cannot make a scratch folder")?;
    let package = folder::open(&args.dir, scratch.path(), Taking::Copy)?;
    let mut report = Report::new(global.json);
    let given = notes(args, &package.config, &mut report)?;
    let asked = asked(args, &package)?;
    let earlier = args.baseline.as_deref().map(baseline::read).transpose()?;

    let asked_for = &package.limits().accelerators;
    let devices = given.as_ref().map(|given| super::on_devices(asked_for, given)).transpose()?;
    let engines = super::engines(&args.engines, devices.as_ref())?;
    let runtime = super::serve::runtime()?;
    // Each is told as it ends: the next may take as long as `call_timeout`.
    let mut seen = |ran: &Ran| -> anyhow::Result<()> {
        report.function(ran)?;
        draw(&args.dir, ran, &mut report)
    };
    let all = Seeded { seed: args.seed, engines, on_cpu: args.cpu };
    let (ran, notes) = runtime.block_on(call_all(&all, package, &asked, &mut seen))?;
    for note in &notes {
        report.note(note)?;
    }
    if ran.len() == 1 && ran.iter().all(Ran::is_ok) {
        bail!("no function was called: the input fits no method; see the notes above for why");
    }
    let failed = ran.iter().filter(|ran| !ran.is_ok()).count();
    if failed > 0 {
        bail!("{failed} of {} functions failed; see above", ran.len());
    }
    if args.limits {
        let suggestion = runtime.block_on(suggest::suggest(args, &all, &asked, &ran))?;
        report.suggestion(&suggestion)?;
        if args.write {
            let path = args.dir.join("config.yaml");
            suggest::write(&path, &suggestion)?;
            report.note(&format!("they are in {} now", path.display()))?;
        }
    }
    match earlier {
        Some(earlier) => baseline::compare(&earlier, &ran, args.tolerance),
        None => Ok(()),
    }
}

/// Regions say little as numbers.
fn draw(dir: &Path, ran: &Ran, report: &mut Report) -> anyhow::Result<()> {
    let Some(image) = &ran.image else { return Ok(()) };
    // What cannot be drawn is no failure of the model.
    match drawing::draw(dir, &ran.function, image, &ran.outputs) {
        Ok(None) => {}
        Ok(Some(path)) => report.note(&format!("its regions are drawn in {}", path.display()))?,
        Err(error) => report.note(&format!("its regions are not drawn: {error:#}"))?,
    }
    Ok(())
}

/// The first image of a request.
fn image_of(asked: &Request) -> Option<Bytes> {
    let mut parts = asked.inputs.iter().flat_map(|input| &input.parts);
    parts.find_map(|part| match &part.value {
        Value::Image(image) => Some(image.clone()),
        _ => None,
    })
}

/// What should be known before anything runs. Gives the devices that it runs on, if it asks
/// for any.
fn notes(args: &TestArgs, config: &Config, report: &mut Report) -> anyhow::Result<Option<Given>> {
    for line in config.notes.iter().chain(&config.warnings) {
        report.note(line)?;
    }
    if let Some(note) = super::serve::staleness(&args.dir) {
        report.note(note)?;
    }
    let given = match config.accelerators() {
        None => None,
        Some(asked) if args.cpu => {
            report.note(&format!("the model asks for {asked}; this is a run on the CPU"))?;
            report.on_cpu();
            None
        }
        Some(asked) => {
            let none = |none: NoDevice| {
                Usage(format!("the model cannot have what it asks for: {none}; try --cpu"))
            };
            let given = Devices::of_this_machine().give(asked).map_err(none)?;
            for device in given.devices() {
                report.note(&format!("it runs on {device}"))?;
            }
            Some(given)
        }
    };
    let wanted = config.limits.memory_bytes_max;
    if let Some(there) = machine_bytes()
        && wanted > there
    {
        report.note(&format!(
            "cpu_memory is {}, and this machine has {}; nothing is reserved, so it runs",
            report::bytes(wanted),
            report::bytes(there)
        ))?;
    }
    Ok(given)
}

/// Memory of this machine: proc(5), `MemTotal`.
fn machine_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib << 10)
}

/// What calls run on.
struct Seeded {
    /// What random numbers and clocks are made of.
    seed: u64,
    engines: Engines,
    /// Whatever the model asks for.
    on_cpu: bool,
}

/// What every function gets.
struct Asked {
    message: api::PostModelOutputsRequest,
    /// The arguments of a typed method, where they were given by name.
    arguments: Option<serde_json::Map<String, serde_json::Value>>,
}

/// What was given, else the example.
fn asked(args: &TestArgs, package: &Package) -> anyhow::Result<Asked> {
    let mut arguments = None;
    let data = match &args.input {
        Some(input) => {
            let value: serde_json::Value = serde_json::from_str(input)
                .map_err(|error| Usage(format!("--input is no JSON: {error}")))?;
            arguments = value.as_object().cloned();
            arguments::plain(value)?
        }
        None => {
            let files = match (&args.text, args.file.as_slice()) {
                (None, []) => examples(&args.dir)?,
                (_, files) => files.to_vec(),
            };
            if args.text.is_none() && files.is_empty() {
                let text = format!(
                    "{} has no example; put one there, such as example.txt or example.png, or give \
                     --text, --file or --input",
                    args.dir.display()
                );
                return Err(Usage(text).into());
            }
            request::of_files(args.text.as_deref(), &files)?
        }
    };
    let model = ModelRef { name: package.config.name.clone(), version: String::new() };
    let message = request::of_data(&model, data, &args.params.param);
    Ok(Asked { message, arguments })
}

/// The same as a model without methods sees it.
fn plain(message: api::PostModelOutputsRequest) -> anyhow::Result<Request> {
    let refused = |text: String| usage(anyhow::anyhow!("the input is refused: {text}"));
    let parsed = parse(message).map_err(|outcome| refused(outcome.text))?;
    let inputs = parsed.inputs.into_iter().map(|input| input.and_then(Sent::whole));
    let inputs = inputs.collect::<Result<_, _>>().map_err(|error| refused(error.to_string()))?;
    Ok(Request { method: parsed.method, inputs, params: parsed.params })
}

fn examples(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let entries =
        std::fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(EXAMPLE) {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

/// Loads the model and calls its functions one after the other, its typed
/// methods if it has any, and hands on each that has ended. Tells also where its
/// graphs are, and which methods could not be called.
async fn call_all(
    on: &Seeded,
    mut package: Package,
    given: &Asked,
    seen: &mut dyn FnMut(&Ran) -> anyhow::Result<()>,
) -> anyhow::Result<(Vec<Ran>, Vec<String>)> {
    let asked = plain(given.message.clone())?;
    let measured = calibrate().map_err(|error| anyhow!("cannot measure this machine: {error}"))?;
    let runtime = Runtime::start_on(on.engines.clone(), Diagnostics::On, measured)?;
    let surroundings = Surroundings::Seeded(on.seed);
    if on.on_cpu {
        package.config.limits.accelerators = Accelerators::default();
    }
    let program = Program::admit(&runtime, &package, &Code::Component, surroundings);
    let mut program = Arc::new(program.map_err(usage)?);
    let methods = program.methods().await.map_err(usage)?;
    let mut loaded = load(&program).await;
    if loaded.is_ok() {
        let snapshot = program.snapshot(package.component.clone()).await;
        if let Ok(snapshot) = &snapshot {
            // Calls begin here as they do on a host.
            let code = Code::Copies(snapshot.clone(), methods.clone());
            let copies = Program::admit(&runtime, &package, &code, surroundings);
            program = Arc::new(copies.map_err(usage)?);
        }
        loaded.snapshot = Some(snapshot);
    }
    seen(&loaded)?;
    let mut all = vec![loaded];
    let mut notes: Vec<String> = program.placements().map(super::inspect::placed).collect();
    if all.iter().all(Ran::is_ok) {
        for method in methods.iter() {
            match of_method(method, given, &asked)? {
                Ok(asked) => {
                    let form = Form {
                        typed: Some((method.clone(), CallerKind::Plain)),
                        ..Form::default()
                    };
                    let ran = call(&program, &method.name, method.function, asked, &form).await?;
                    seen(&ran)?;
                    all.push(ran);
                }
                Err(error) => notes.push(format!("`{}` was not called: {error}", method.name)),
            }
        }
        if methods.is_empty() {
            for (name, function) in [
                ("predict", Function::Predict),
                ("generate", Function::Generate),
                ("stream", Function::Stream),
            ] {
                let form = Form::default();
                let ran = call(&program, name, function, asked.clone(), &form).await?;
                seen(&ran)?;
                all.push(ran);
            }
        }
    }
    runtime.drain().await;
    Ok((all, notes))
}

/// What a host tries a package with before it takes it: the first of its methods that
/// the example of the folder fits. The error is for whoever uploads.
pub(super) fn example(dir: &Path, package: &Package, methods: &Methods) -> Result<Example, String> {
    example_of(dir, package, methods).map_err(|error| format!("{error:#}"))
}

fn example_of(dir: &Path, package: &Package, methods: &Methods) -> anyhow::Result<Example> {
    let files = examples(dir)?;
    if files.is_empty() {
        return Ok(Example::None);
    }
    let lengths = files.iter().map(|file| Ok(file.metadata()?.len()));
    let bytes: u64 = lengths.sum::<std::io::Result<u64>>().context("cannot read the example")?;
    if bytes > EXAMPLE_BYTES_MAX {
        bail!("the files example.* have {bytes} bytes; {EXAMPLE_BYTES_MAX} are allowed");
    }
    let given = asked(&TestArgs::of_example(dir), package)?;
    let asked = plain(given.message.clone())?;
    let call = |name: String, function, request, form: Form| Example::Call {
        name,
        function,
        request,
        fits: Box::new(move |output| {
            response::output(output, &form).map(drop).map_err(|outcome| outcome.text)
        }),
    };
    for method in methods.iter() {
        if let Ok(request) = of_method(method, &given, &asked)? {
            let form = Form { typed: Some((method.clone(), CallerKind::Plain)), ..Form::default() };
            return Ok(call(method.name.clone(), method.function, request, form));
        }
    }
    Ok(match methods.is_empty() {
        true => call("predict".to_owned(), Function::Predict, asked, Form::default()),
        false => Example::Unfit,
    })
}

/// The same input as the arguments of a method, or why it does not fit.
fn of_method(
    method: &Method,
    given: &Asked,
    asked: &Request,
) -> anyhow::Result<Result<Request, InputError>> {
    let input = |input: &api::Input| match &given.arguments {
        Some(arguments) => {
            let data = Some(arguments::of_method(method, arguments)?);
            let input = api::Input { data, ..input.clone() };
            Ok(typed_input(method, input, Turn::First).and_then(Sent::whole))
        }
        None => Ok(plain_input(method, input.clone(), Turn::First).and_then(Sent::whole)),
    };
    let inputs = given.message.inputs.iter().map(input);
    let inputs = inputs.collect::<anyhow::Result<Result<Vec<_>, _>>>()?;
    Ok(inputs.map(|inputs| Request {
        method: method.name.clone(),
        inputs,
        params: asked.params.clone(),
    }))
}

async fn load(program: &Arc<Program>) -> Ran {
    program.account().restart_peaks();
    let began = Instant::now();
    let loaded = program.warm().await;
    let wall = began.elapsed();
    let (receipt, verdict) = match loaded {
        Ok(receipt) => (receipt, None),
        Err(verdict) => (verdict.receipt, Some(*verdict)),
    };
    Ran {
        function: "load-model".to_owned(),
        snapshot: None,
        verdict,
        receipt,
        image: None,
        outputs: Vec::new(),
        failures: Vec::new(),
        wall,
        held: held(program, &receipt),
    }
}

async fn call(
    program: &Arc<Program>,
    name: &str,
    function: Function,
    asked: Request,
    form: &Form,
) -> anyhow::Result<Ran> {
    program.account().restart_peaks();
    program.device().into_iter().for_each(|memory| memory.restart_peaks());
    let image = image_of(&asked);
    let began = Instant::now();
    let deadline = Deadline::after(program.limits().call_timeout);
    let (inputs, mut calling) = program.call(function, "test", deadline, ());
    inputs.send(asked).await.map_err(usage)?;
    drop(inputs);
    let (mut outputs, mut failures) = (Vec::new(), Vec::new());
    loop {
        match calling.next().await {
            Some(Event::Output(output)) => match response::output(output, form) {
                Ok(output) => outputs.push(output),
                Err(outcome) => bail!("{name}: {}", outcome.text),
            },
            Some(Event::InputFailed(error)) => failures.push(error),
            Some(Event::End(verdict)) => {
                let receipt = verdict.receipt;
                return Ok(Ran {
                    function: name.to_owned(),
                    snapshot: None,
                    verdict: Some(verdict),
                    receipt,
                    image,
                    outputs,
                    failures,
                    wall: began.elapsed(),
                    held: held(program, &receipt),
                });
            }
            None => bail!("{name} ended without a verdict"),
        }
    }
}

/// Linear memory is that of the call's own sandbox: the one for the next call is
/// made at the same time.
fn held(program: &Program, receipt: &Receipt) -> [(Holder, u64); Holder::ALL.len()] {
    Holder::ALL.map(|holder| match holder {
        Holder::Memory => (holder, receipt.memory_bytes_peak),
        Holder::Table
        | Holder::Stack
        | Holder::Tensor
        | Holder::Message
        | Holder::Graph
        | Holder::Engine => (holder, program.account().peak_of(holder)),
        Holder::Device => (holder, program.device().map_or(0, |account| account.peak_of(holder))),
    })
}
