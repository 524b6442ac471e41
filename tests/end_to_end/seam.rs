//! The seam between the server and a sandbox, in this process: what waits on
//! either side, and what a panic of the host does.

use ringfence::call::{
    Deadline, End, Event, Function, Holder, Input, Part, Request, Value, Verdict,
};
use ringfence::limits::Limits;
use ringfence::package::folder;
use ringfence::sandbox::{Calling, Code, Diagnostics, Program, Runtime, SendError, Surroundings};
use ringfence_tests::{Variant, block_on, guests};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tracing::field::Field;
use tracing::span;

/// The bound of a channel in `Limits::default`.
const BUFFERED: usize = 8;

const BOUND: Duration = Duration::from_secs(30);

fn admit(runtime: &Arc<Runtime>, path: &str, scratch: &TempDir) -> Arc<Program> {
    admit_with(runtime, path, scratch, |_| {})
}

fn admit_with(
    runtime: &Arc<Runtime>,
    path: &str,
    scratch: &TempDir,
    change: impl FnOnce(&mut Limits),
) -> Arc<Program> {
    let mut package = folder::open(path.as_ref(), scratch.path(), folder::Taking::Copy).unwrap();
    change(&mut package.config.limits);
    if let Ok(name) = std::env::var("RINGFENCE_LIFT") {
        ringfence::limits::lift(&name);
    }
    Arc::new(Program::admit(runtime, &package, &Code::Component, Surroundings::Real).unwrap())
}

fn an_hour() -> Deadline {
    Deadline::after(Duration::from_secs(3600))
}

fn text(text: &str) -> Request {
    let part = Part { name: "text".into(), value: Value::Text(text.into()) };
    let input = Input { id: String::new(), parts: vec![part] };
    Request { method: String::new(), inputs: vec![input], params: "{}".into() }
}

async fn verdict(calling: &mut Calling) -> Verdict {
    loop {
        match tokio::time::timeout(BOUND, calling.next()).await.expect("an event") {
            Some(Event::End(verdict)) => return verdict,
            Some(_) => {}
            None => panic!("no verdict"),
        }
    }
}

/// Bytes of a message.
const LONG: usize = 64 << 10;

/// What waits is charged to the version.
#[test]
fn messages_for_a_guest_that_does_not_read_wait_outside() {
    let scratch = TempDir::new().unwrap();
    block_on(async {
        let runtime = Runtime::start(Diagnostics::Off).unwrap();
        let program = admit(&runtime, guests::MESSAGE_REFUSER, &scratch);
        let (requests, calling) = program.call(Function::Stream, "test", an_hour(), ());
        let long = "x".repeat(LONG);
        for number in 0..BUFFERED {
            let sent = tokio::time::timeout(BOUND, requests.send(text(&long))).await;
            assert!(matches!(sent, Ok(Ok(()))), "message {number}: {sent:?}");
        }
        let held = program.account().bytes_of(Holder::Message);
        assert!(held >= (BUFFERED * LONG) as u64, "{held} bytes are charged");
        let beyond = tokio::time::timeout(Duration::from_millis(200), requests.send(text("x")));
        assert!(beyond.await.is_err(), "message {BUFFERED} was taken");
        drop(calling);
        runtime.drain().await;
    });
}

/// The flood's outputs are 64 KiB each, which are told twice. One more than fits into
/// the channel is held by the guest's own call of `send`.
#[test]
fn outputs_that_nobody_reads_stop_the_guest() {
    const OUTPUT_BYTES: u64 = 2 * (64 << 10);
    let held = (BUFFERED as u64 + 1) * OUTPUT_BYTES;
    let scratch = TempDir::new().unwrap();
    block_on(async {
        let runtime = Runtime::start(Diagnostics::Off).unwrap();
        let program = admit(&runtime, guests::OUTPUT_FLOOD, &scratch);
        let (requests, mut calling) = program.call(Function::Generate, "test", an_hour(), ());
        requests.send(text("x")).await.unwrap();
        let bytes = || program.account().bytes_of(Holder::Message);
        let filled = async {
            while bytes() < held {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(BOUND, filled).await.expect("full channels");
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(bytes() < held + OUTPUT_BYTES, "{} bytes wait", bytes());

        // Whoever reads again gets all there is up to the limit.
        let end = verdict(&mut calling).await.end;
        assert_eq!(end, End::OutputLimit { output_bytes_max: 16 << 20 });
        drop((requests, calling));
        runtime.drain().await;
        assert_eq!(bytes(), 0);
    });
}

/// A guest whose call is broken off gets no more than the rest of its time slice
/// and 10 ms, whatever it does, and then nothing of it is left. Counted in the time of
/// its thread: what else the machine does is no matter.
#[test]
fn a_call_that_is_broken_off_takes_a_slice_more_and_ten_milliseconds() {
    const TIMES: u32 = 10;
    const SLICE: Duration = Duration::from_millis(1);
    const MORE: Duration = Duration::from_millis(10);
    const WORK: [(&str, &str); 7] = [
        (guests::CPU_MIXES, "integer"),
        (guests::CPU_MIXES, "fill"),
        (guests::CPU_MIXES, "division"),
        (guests::CPU_MIXES, "calls"),
        (guests::COMPUTE_LOOP, ""),
        (guests::SLEEPER, ""),
        (guests::LOAD_LOOPS, ""),
    ];
    let scratch = TempDir::new().unwrap();
    let full = |limits: &mut Limits| limits.cpu_millis = 1_000_000;
    block_on(async {
        let runtime = Runtime::start(Diagnostics::Off).unwrap();
        for (guest, mix) in WORK {
            let program = admit_with(&runtime, guest, &scratch, full);
            let function = if mix.is_empty() { Function::Predict } else { Function::Generate };
            let mut more = Duration::ZERO;
            for turn in 0..TIMES {
                // What the guest holds is dropped with it, and so ends the channel.
                let (hold, gone) = tokio::sync::oneshot::channel::<()>();
                let (requests, calling) = program.call(function, "test", an_hour(), hold);
                let params = format!("{{\"mix\": \"{mix}\"}}");
                requests.send(Request { params, ..text("x") }).await.unwrap();
                let spent = calling.spent().clone();
                let taken = || spent.receipt().guest_cpu + spent.receipt().engine_cpu;
                // What `load-model` takes is told when it is over, which it never is here.
                let loads = guest == guests::LOAD_LOOPS;
                let began = async {
                    while !loads && taken().is_zero() {
                        tokio::time::sleep(SLICE / 3).await;
                    }
                };
                tokio::time::timeout(BOUND, began).await.expect("its beginning");
                tokio::time::sleep(turn * SLICE / 3).await;
                let before = taken();
                drop(calling);
                tokio::time::timeout(BOUND, gone).await.expect("its end").unwrap_err();
                more += taken() - before;
            }
            assert!(more <= TIMES * (SLICE + MORE), "{guest} {mix}: {more:?} in {TIMES} times");
        }
        runtime.drain().await;
    });
}

/// CLI-05: a reader that stalls does not hold a guest until the deadline.
#[test]
fn outputs_that_nobody_reads_for_too_long_end_the_call() {
    let within = Duration::from_millis(200);
    let scratch = TempDir::new().unwrap();
    block_on(async {
        let runtime = Runtime::start(Diagnostics::Off).unwrap();
        let change = |limits: &mut Limits| limits.unread_timeout = within;
        let program = admit_with(&runtime, guests::OUTPUT_FLOOD, &scratch, change);
        let (requests, mut calling) = program.call(Function::Generate, "test", an_hour(), ());
        requests.send(text("x")).await.unwrap();
        let bytes = || program.account().bytes_of(Holder::Message);
        let until = |is_there: bool| async move {
            while (bytes() > 0) != is_there {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(BOUND, until(true)).await.expect("outputs");
        tokio::time::timeout(BOUND, until(false)).await.expect("that they are thrown away");
        assert_eq!(verdict(&mut calling).await.end, End::Unread { within });
        assert!(calling.next().await.is_none());
        drop((requests, calling));
        runtime.drain().await;
    });
}

/// A message that does not fit into what is left of `cpu_memory`.
#[test]
fn a_message_that_would_exceed_the_memory_limit_is_refused() {
    let scratch = TempDir::new().unwrap();
    block_on(async {
        let runtime = Runtime::start(Diagnostics::Off).unwrap();
        let program = admit(&runtime, guests::MESSAGE_REFUSER, &scratch);
        let (requests, calling) = program.call(Function::Stream, "test", an_hour(), ());
        let huge = usize::try_from(program.account().bytes_max()).unwrap();
        let sent = requests.send(text(&"x".repeat(huge))).await;
        assert!(matches!(sent, Err(SendError::Memory(_))), "{sent:?}");
        drop(calling);
        runtime.drain().await;
    });
}

/// The sandbox for the next call is made beforehand only where it leaves room,
/// and a call never loads beside it: 40 of 64 MiB are kept by each.
#[test]
fn a_sandbox_made_beforehand_never_takes_the_memory_of_a_call() {
    let scratch = TempDir::new().unwrap();
    // 64 MiB have no room for two sandboxes of 40. 90 MiB have, but not for the
    // 10 that a call adds, if it loaded beside the one that is being made.
    let less = Variant::of(guests::LOAD_KEEPS, &[("\"64Mi\"", "\"90Mi\"")]);
    block_on(async {
        let runtime = Runtime::start(Diagnostics::Off).unwrap();
        for path in [guests::LOAD_KEEPS, less.path()] {
            let program = admit(&runtime, path, &scratch);
            program.warm().await.unwrap();
            for round in 0..20 {
                let (requests, mut calling) =
                    program.call(Function::Predict, "test", an_hour(), ());
                requests.send(text("x")).await.unwrap();
                assert_eq!(verdict(&mut calling).await.end, End::Done, "round {round}");
            }
        }
        runtime.drain().await;
    });
}

/// A log that panics when a guest writes to it: a fault in a function of the
/// host, met in the middle of a call.
struct Bursting;

impl tracing::Subscriber for Bursting {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target() == "guest"
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    /// Only on the lines of one model: other tests have guests that log, too.
    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut |field: &Field, value: &dyn Debug| {
            let is_loud = field.name() == "model" && format!("{value:?}").contains("main/panic");
            assert!(!is_loud, "the log bursts");
        });
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// HST-16.
#[test]
fn a_panic_of_the_host_ends_one_call_and_nothing_else() {
    tracing::subscriber::set_global_default(Bursting).unwrap();
    let scratch = TempDir::new().unwrap();
    // A guest that logs its last words, and one that logs nothing.
    let variant = Variant::of(guests::PANIC, &[("call_timeout: 2s", "call_timeout: 20s")]);
    block_on(async {
        let runtime = Runtime::start(Diagnostics::Off).unwrap();
        let loud = admit(&runtime, variant.path(), &scratch);
        let quiet = admit(&runtime, guests::ECHO, &scratch);
        for _ in 0..3 {
            let (requests, mut calling) = loud.call(Function::Predict, "test", an_hour(), ());
            requests.send(text("x")).await.unwrap();
            let ended = verdict(&mut calling).await;
            assert!(matches!(ended.end, End::HostBug(_)), "{ended:?}");

            let (requests, mut calling) = quiet.call(Function::Predict, "test", an_hour(), ());
            requests.send(text("x")).await.unwrap();
            assert_eq!(verdict(&mut calling).await.end, End::Done);
        }
        runtime.drain().await;
        assert_eq!(loud.account().bytes_of(Holder::Message), 0);
    });
}
