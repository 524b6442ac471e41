//! Sandboxes that are copies of one that has loaded: that nothing can tell them from others,
//! and that a model which would is not given any.

use crate::author::text;
use ringfence::call::{
    Deadline, End, Event, Function, Input, Methods, Output, Part, Receipt, Request, Value, Verdict,
};
use ringfence::package::{Package, folder};
use ringfence::sandbox::{Code, Diagnostics, Program, Runtime, Surroundings, Unfit};
use ringfence_tests::{
    Client, Host, HostOptions, Variant, block_on, files_below, guests, request, text_input,
};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tempfile::TempDir;

const SEED: Surroundings = Surroundings::Seeded(7);

fn open(path: &str, scratch: &TempDir) -> Package {
    folder::open(path.as_ref(), scratch.path(), folder::Taking::Copy).unwrap()
}

pub(crate) async fn call(
    program: &Arc<Program>,
    function: Function,
    asked: Request,
) -> (Vec<Output>, Verdict) {
    let deadline = Deadline::after(Duration::from_secs(60));
    let (requests, mut calling) = program.call(function, "test", deadline, ());
    requests.send(asked).await.unwrap();
    drop(requests);
    let mut outputs = Vec::new();
    loop {
        match calling.next().await {
            Some(Event::Output(output)) => outputs.push(output),
            Some(Event::End(verdict)) => return (outputs, verdict),
            other => panic!("{other:?}"),
        }
    }
}

pub(crate) fn asked(value: Value, name: &str, params: &str) -> Request {
    let part = Part { name: name.to_owned(), value };
    let input = Input { id: String::new(), parts: vec![part] };
    Request { method: String::new(), inputs: vec![input], params: params.into() }
}

/// What a folder's `load-model` leaves, or why it is no snapshot.
async fn taken(path: &str, scratch: &TempDir) -> Result<(), Unfit> {
    if let Ok(name) = std::env::var("RINGFENCE_LIFT") {
        ringfence::limits::lift(&name);
    }
    let runtime = Runtime::start(Diagnostics::Off).unwrap();
    let package = open(path, scratch);
    let program = Program::admit(&runtime, &package, &Code::Component, Surroundings::Real);
    let taken = Arc::new(program.unwrap()).snapshot(package.component.clone()).await;
    runtime.drain().await;
    taken.map(drop)
}

/// The same outputs, and with the same seed and clock the same fuel: what `load-model`
/// burns is no part of a call's.
#[test]
fn a_call_of_a_copy_is_that_of_a_sandbox_that_has_loaded() {
    let scratch = TempDir::new().unwrap();
    let digit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../guests/digits/held-out/two.png");
    let digit = fs::read(digit).unwrap();
    let plain = || asked(Value::Text("It is a truth".to_owned()), "text", "{\"seed\":3}");
    let picture = || asked(Value::Image(digit.clone().into()), "image", "{\"seed\":3}");
    let models: [(&str, &dyn Fn() -> Request); 4] = [
        (guests::ECHO, &plain),
        (guests::DIGITS, &picture),
        (guests::SCRIBE, &plain),
        (guests::LOAD_LEAVES, &plain),
    ];
    block_on(async {
        let runtime = Runtime::start(Diagnostics::Off).unwrap();
        for (path, asked) in models {
            let package = open(path, &scratch);
            let loads = Program::admit(&runtime, &package, &Code::Component, SEED).unwrap();
            let loads = Arc::new(loads);
            let snapshot = loads.snapshot(package.component.clone()).await.unwrap();
            let code = Code::Copies(snapshot, Methods::default());
            let copies = Arc::new(Program::admit(&runtime, &package, &code, SEED).unwrap());
            let fuel = |receipt: Receipt| receipt.fuel;
            let to_load = fuel(loads.warm().await.unwrap());
            // What a component takes to be instantiated is next to nothing.
            let to_copy = fuel(copies.warm().await.unwrap());
            assert!(to_copy <= 1 && to_load > 1, "{path}: {to_copy} {to_load}");
            for function in [Function::Predict, Function::Generate] {
                let first = call(&loads, function, asked()).await;
                for round in 0..3 {
                    let again = call(&copies, function, asked()).await;
                    assert_eq!(again.1.end, End::Done, "{path} {round}");
                    assert_eq!(again.0, first.0, "{path} {round}");
                    assert_eq!(again.1.receipt.fuel, first.1.receipt.fuel, "{path} {round}");
                }
            }
        }
        runtime.drain().await;
    });
}

#[test]
fn what_no_copy_can_have_is_no_snapshot() {
    let scratch = TempDir::new().unwrap();
    let of = |how: &str| {
        let variant = Variant::of(guests::LOAD_LEAVES, &[]);
        fs::write(variant.folder().join("1/how.txt"), how).unwrap();
        block_on(taken(variant.path(), &scratch))
    };
    for how in ["nothing", "log", "print", "read", "words"] {
        assert_eq!(of(how), Ok(()), "{how}");
    }
    assert_eq!(of("clock"), Err(Unfit::Clock));
    assert_eq!(of("random"), Err(Unfit::Random));
    assert!(matches!(of("file"), Err(Unfit::Handles(_))), "{:?}", of("file"));
    assert!(matches!(of("load-fails"), Err(Unfit::Load(_))), "{:?}", of("load-fails"));
    let large = of("large");
    assert!(matches!(large, Err(Unfit::TooLarge { .. })), "{large:?}");
}

/// A caller cannot tell which it was, whatever the model leaves.
#[test]
fn a_model_that_fits_no_copy_answers_all_the_same() {
    let variants: Vec<Variant> = ["print", "file", "clock", "random", "words"]
        .iter()
        .map(|how| {
            let id = format!("id: leaves-{how}");
            let variant = Variant::of(guests::LOAD_LEAVES, &[("id: load-leaves", &id)]);
            fs::write(variant.folder().join("1/how.txt"), how).unwrap();
            variant
        })
        .collect();
    let models = variants.iter().map(|variant| variant.path().to_owned().into()).collect();
    let host = Host::start(HostOptions { models, ..HostOptions::default() });
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        for _ in 0..3 {
            for (how, more) in
                [("print", ""), ("file", " file"), ("clock", " true"), ("words", " 3")]
            {
                let answer = client.predict(&format!("leaves-{how}"), vec![text_input("x")]).await;
                assert_eq!(answer.text(), format!("{how} {how}{more}"), "{answer:?}");
            }
        }
    });
}

fn machine_code(data_dir: &Path) -> BTreeMap<PathBuf, SystemTime> {
    let files = files_below(&data_dir.join("cache")).into_iter();
    files.map(|path| (path.clone(), path.metadata().unwrap().modified().unwrap())).collect()
}

/// What was taken when a model was uploaded lasts, and is taken anew where it is damaged.
#[test]
fn a_snapshot_is_taken_when_a_model_is_uploaded_and_lasts() {
    let scratch = TempDir::new().unwrap();
    let data_dir = scratch.path().join("data");
    let start =
        || Host::start(HostOptions { data_dir: Some(data_dir.clone()), ..HostOptions::default() });
    let answers = |host: &Host, model: &str, expected: &str| {
        block_on(async {
            let client = Client::connect(host.base(), &host.pat()).await;
            let answer = client.predict_request(request(model, vec![text_input("hello")])).await;
            assert_eq!(answer.text(), expected, "{answer:?}");
        });
    };
    let host = start();
    let upload = |folder: &str| {
        let uploaded = host.ringfence(&["upload", folder]);
        assert!(uploaded.status.success(), "{}", text(&uploaded));
        text(&uploaded)
    };
    let told = upload(guests::ECHO);
    assert!(told.contains("calls start from what load-model has left"), "{told}");
    // The component's own code, what is known of the version, and the code of its copies.
    assert_eq!(machine_code(&data_dir).len(), 3);
    let file = Variant::of(guests::LOAD_LEAVES, &[]);
    fs::write(file.folder().join("1/how.txt"), "file").unwrap();
    let told = upload(file.path());
    assert!(told.contains("load-model runs for each call"), "{told}");
    assert!(told.contains("a handle of WASI open"), "{told}");
    assert_eq!(machine_code(&data_dir).len(), 5);
    answers(&host, "echo", "hello");
    answers(&host, "load-leaves", "file file file");
    let before = machine_code(&data_dir);
    assert!(host.terminate().success());

    let host = start();
    answers(&host, "echo", "hello");
    answers(&host, "load-leaves", "file file file");
    assert_eq!(machine_code(&data_dir), before, "something was made anew");
    assert!(host.terminate().success());

    for path in before.keys() {
        let mut bytes = fs::read(path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(path, bytes).unwrap();
    }
    let host = start();
    answers(&host, "echo", "hello");
    answers(&host, "load-leaves", "file file file");
    let after = machine_code(&data_dir);
    assert_eq!(after.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
    assert!(after.iter().all(|(path, time)| before[path] != *time), "{before:?} {after:?}");
    assert!(host.terminate().success());
}
