//! What comes of a process that says anything whatever, and of one that says nothing.

use super::super::launch::Launcher;
use super::super::message::{Head, Line, Loaded, Started, Tell};
use super::super::one_shot::tests::launcher_of;
use super::*;
use crate::call::{Event, GuestError, GuestErrorCode, Output, Part, Receipt, Value};
use crate::package::{AssetFile, AssetsFolder, Sheet};
use crate::sealed::Sealed;
use crate::telemetry::Level;
use std::io::Write;
use std::path::Path;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinHandle;

/// The host's side, and the process's.
struct Sides {
    process: Process,
    there: tokio::net::UnixStream,
    listening: JoinHandle<std::io::Result<()>>,
    ready: oneshot::Receiver<Result<Started, StartFailure>>,
}

fn limits() -> Limits {
    Limits { memory_bytes_max: 1 << 20, outputs_buffered_max: 2, ..Limits::default() }
}

impl Sides {
    fn new() -> Self {
        let (here, there) = tokio::net::UnixStream::pair().unwrap();
        let here = here.into_std().unwrap();
        let (shared, inbox) = Shared::of(here, "u/a/m".into(), limits(), None, 1).unwrap();
        let (ready, is_ready) = oneshot::channel();
        let mut incoming =
            Incoming { shared: shared.clone(), ready: Some(ready), written: Written::No };
        let listening = tokio::spawn(async move { incoming.listen(inbox).await });
        Self { process: Process { shared }, there, listening, ready: is_ready }
    }

    /// Begins a call; it is the first.
    fn call(&self) -> (Messages, Calling, Taking) {
        let never = CancellationToken::new();
        let deadline = Deadline::after(Duration::from_secs(60));
        self.process.call(&never, Function::Predict, Origin::from("c"), deadline, ())
    }

    async fn say(&mut self, frames: &[Vec<u8>]) {
        for frame in frames {
            self.there.write_all(frame).await.unwrap();
        }
    }

    /// What is wrong with all that was said.
    async fn wrong(self) -> String {
        let Self { there, listening, .. } = self;
        // It may be refused before it is read to its end.
        let ended = tokio::time::timeout(Duration::from_secs(20), listening);
        let ended = ended.await.expect("an end").unwrap();
        drop(there);
        ended.unwrap_err().to_string()
    }
}

fn output(text: &str) -> Output {
    let part = Part { name: "text".into(), value: Value::Text(text.into()) };
    Output { parts: vec![part], usage: None, info: String::new() }
}

/// Enough for one output.
const HELD: u64 = 16 << 10;

fn said(held: u64) -> Vec<u8> {
    carrying(Tell::Output, 1, held, output("x")).unwrap().concat()
}

fn end() -> Vec<u8> {
    frame(Tell::End, 1, 0, &Verdict::early(End::Done, Phase::Call)).unwrap()
}

fn over() -> Vec<u8> {
    frame(Tell::Over, 1, 0, &Receipt::default()).unwrap()
}

fn started() -> Vec<u8> {
    let loaded = Loaded { receipt: Receipt::default(), wall: Duration::ZERO };
    let started =
        Started { methods: Ok(String::new()), loaded: Ok(loaded), snapshot: None, unfit: None };
    frame(Tell::Ready, 0, 0, &started).unwrap()
}

#[tokio::test]
async fn what_a_process_says_of_a_call_reaches_its_caller() {
    let mut sides = Sides::new();
    let (_messages, mut calling, _taking) = sides.call();
    sides.say(&[started(), said(HELD), over(), end()]).await;
    assert!(sides.ready.await.unwrap().is_ok());
    let Some(Event::Output(came)) = calling.next().await else { panic!("an output") };
    assert_eq!(came, output("x"));
    assert_eq!(sides.process.shared.account.bytes(), HELD);
    let Some(Event::End(verdict)) = calling.next().await else { panic!("an end") };
    assert_eq!(verdict.end, End::Done);
    assert_eq!(sides.process.shared.account.bytes(), 0);
    assert!(sides.process.shared.calls().running.is_empty());
}

#[tokio::test]
async fn a_frame_that_is_too_long_is_not_read() {
    let mut sides = Sides::new();
    let line = Line { level: Level::Info, text: "x".repeat(2 << 20) };
    sides.say(&[frame(Tell::Line, 0, 0, &line).unwrap()[..64].to_vec()]).await;
    assert_eq!(sides.wrong().await, "a frame is too long");
}

/// A process that was taken over by its guest says what it likes.
#[tokio::test]
async fn whatever_makes_no_sense_is_the_end_of_its_process() {
    let mut unknown = bare(Tell::Taken, 1, 0);
    *unknown.last_mut().unwrap() = 99;
    let garbage = [&bare(Tell::Output, 1, 64)[..4], &[0xff; 64]].concat();
    let none = |kind| bare(kind, 7, 0);
    let mut long = said(0);
    let head = Head { kind: Tell::Output, call: 1, value: 0, length: u32::MAX };
    long[..4].copy_from_slice(&head.length.to_le_bytes());
    for (frames, wrong) in [
        (vec![unknown], "a frame is of no known kind"),
        (vec![garbage], "a frame is of no known kind"),
        (vec![none(Tell::Taken)], "it is about no call"),
        (vec![frame(Tell::Over, 9, 0, &Receipt::default()).unwrap()], "it is about no call"),
        (vec![long], "an output is longer than it says"),
        (vec![said(2 << 20)], "its outputs exceed cpu_memory"),
        (vec![said(600 << 10), said(600 << 10)], "its outputs exceed cpu_memory"),
        (vec![said(HELD); 4], "it sends more outputs than were asked for"),
        (vec![said(64)], "an output holds more than it says"),
        (vec![end(), said(HELD)], "an output comes after the end"),
        (vec![end(), end()], "a call ends twice"),
        (vec![over(), over()], "a call is over twice"),
        (vec![end(), over(), over()], "it is about no call"),
        (vec![bare(Tell::Taken, 1, 0)], "it takes messages that were not sent"),
        (vec![bare(Tell::Snapshot, 0, 1)], "nothing was to be written"),
        (vec![started(), started()], "it is ready once more"),
        (vec![frame(Tell::Ready, 0, 0, &7_u8).unwrap()], "a frame makes no sense"),
        (
            vec![
                frame(Tell::Figures, 0, 0, &Figures::default()).unwrap(),
                bare(Tell::Figures, 0, 0),
            ],
            "a frame makes no sense",
        ),
    ] {
        let mut sides = Sides::new();
        let (_messages, calling, _taking) = sides.call();
        sides.say(&frames).await;
        assert_eq!(sides.wrong().await, wrong);
        drop(calling);
    }
}

/// Texts are shown to people, and callers pay by the figures.
#[tokio::test]
async fn texts_and_figures_of_a_process_are_bounded() {
    let mut sides = Sides::new();
    let (_messages, mut calling, _taking) = sides.call();
    let words = GuestError {
        code: GuestErrorCode::Failed,
        message: format!("\u{1b}[2J{}", "x".repeat(1 << 16)),
        info: String::new(),
    };
    let long = Duration::from_secs(1 << 40);
    let receipt = Receipt {
        fuel: u64::MAX,
        memory_bytes_peak: u64::MAX,
        guest_cpu: long,
        engine_cpu: long,
        cpu_wait: long,
        load: Duration::MAX,
        computes: u64::MAX,
        bytes_in: u64::MAX,
        bytes_out: u64::MAX,
        ..Receipt::default()
    };
    let verdict = Verdict { receipt, ..Verdict::early(End::GuestError(words), Phase::Call) };
    sides.say(&[frame(Tell::End, 1, 0, &verdict).unwrap()]).await;
    let Some(Event::End(verdict)) = calling.next().await else { panic!("an end") };
    let End::GuestError(error) = verdict.end else { panic!("its words") };
    assert!(error.message.starts_with("\\u{1b}[2J"), "{}", error.message);
    assert!(error.message.len() <= limits().error_text_bytes_max);
    assert!(verdict.receipt.fuel <= limits().fuel_per_call());
    let Receipt { guest_cpu, engine_cpu, cpu_wait, load, .. } = verdict.receipt;
    for time in [guest_cpu, engine_cpu, cpu_wait, load] {
        assert!(time < Duration::from_secs(600), "{:?}", verdict.receipt);
    }
    let Receipt { computes, bytes_in, bytes_out, memory_bytes_peak, .. } = verdict.receipt;
    for count in [computes, bytes_in, bytes_out, memory_bytes_peak] {
        assert!(count < 1 << 50, "{:?}", verdict.receipt);
    }
}

/// However large it is: the process was given room for one small one.
#[tokio::test]
async fn a_failed_input_gives_back_the_place_that_it_took() {
    let mut sides = Sides::new();
    let (_messages, mut calling, mut taking) = sides.call();
    taking.places = 64;
    let message = "x".repeat(limits().error_text_bytes_max);
    let error = GuestError { code: GuestErrorCode::Failed, info: message.clone(), message };
    sides.say(&[frame(Tell::InputFailed, 1, 0, &error).unwrap()]).await;
    let event = calling.next().await.unwrap();
    assert!(matches!(event, Event::InputFailed(_)), "{event:?}");
    let held = calling.held_bytes();
    assert!(places_of(held, taking.places) > 1, "{held} bytes would take one place anyway");
    taking.one(&event, held);
    assert_eq!(taking.taken, 1);
    // As it does for an output that holds so much.
    taking.one(&Event::Output(output("x")), held);
    assert_eq!(taking.taken, 1 + places_of(held, taking.places));
}

/// A client that reads as fast as it can takes no more than the call can have.
#[tokio::test]
async fn a_call_has_no_more_outputs_than_inputs() {
    let mut sides = Sides::new();
    let (messages, mut calling, _taking) = sides.call();
    let input = crate::call::Input { id: String::new(), parts: vec![] };
    let request = Request { method: String::new(), inputs: vec![input], params: String::new() };
    let outbox = sides.process.shared.outbox.clone();
    let writing = tokio::spawn(async move { outbox.run().await });
    messages.send(request).await.unwrap();
    writing.abort();
    sides.say(&[said(HELD)]).await;
    let first = tokio::time::timeout(Duration::from_secs(10), calling.next()).await;
    assert!(matches!(first, Ok(Some(Event::Output(_)))), "{first:?}, {:?}", sides.listening);
    sides.say(&[said(HELD)]).await;
    assert_eq!(sides.wrong().await, "it sends more outputs than were asked for");
}

/// One that never stops to talk can be stopped.
#[tokio::test]
async fn a_process_that_floods_its_socket_can_be_ended() {
    let (here, mut there) = UnixStream::pair().unwrap();
    here.set_nonblocking(true).unwrap();
    let (shared, inbox) = Shared::of(here, "u/a/m".into(), limits(), None, 1).unwrap();
    let mut incoming = Incoming { shared: shared.clone(), ready: None, written: Written::No };
    let flood = frame(Tell::Figures, 0, 0, &Figures::default()).unwrap().repeat(1000);
    let flooding = std::thread::spawn(move || while there.write_all(&flood).is_ok() {});
    {
        let listening = async {
            tokio::select! {
                biased;
                () = shared.killed.cancelled() => {}
                _ = incoming.listen(inbox) => {}
            }
        };
        let killing = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            shared.kill("it floods");
        };
        let both = async { tokio::join!(listening, killing) };
        tokio::time::timeout(Duration::from_secs(20), both).await.expect("an end");
    }
    drop((shared, incoming));
    flooding.join().unwrap();
}

/// What a client has not taken waits in the process, and its end is told at once.
#[tokio::test]
async fn a_process_that_ends_ends_its_calls() {
    let sides = Sides::new();
    let (_messages, mut calling, _taking) = sides.call();
    sides.process.shared.end("it was the test");
    let Some(Event::End(verdict)) = calling.next().await else { panic!("an end") };
    assert_eq!(verdict.end, End::WorkerDied("it was the test".into()));
    let (messages, mut calling, _taking) = sides.call();
    let Some(Event::End(verdict)) = calling.next().await else { panic!("an end") };
    assert_eq!(verdict.end, End::WorkerDied("it was the test".into()));
    let request = Request { method: String::new(), inputs: vec![], params: String::new() };
    assert_eq!(messages.send(request).await, Err(SendError::Over));
}

/// Nobody writes any more then, and nobody would notice that nobody reads.
#[tokio::test]
async fn a_message_on_its_way_is_given_up_with_its_process() {
    let sides = Sides::new();
    let (messages, mut calling, _taking) = sides.call();
    let params = "x".repeat(4 << 20);
    let request = Request { method: String::new(), inputs: vec![], params };
    let sending = tokio::spawn(async move { messages.send(request).await });
    while sides.process.shared.outbox.bytes_waiting() < 1 << 20 {
        tokio::task::yield_now().await;
    }
    assert!(!sending.is_finished());
    sides.process.shared.end("it was the test");
    let sent = tokio::time::timeout(Duration::from_secs(20), sending).await;
    assert!(sent.expect("an end").unwrap().is_ok());
    let Some(Event::End(verdict)) = calling.next().await else { panic!("an end") };
    assert_eq!(verdict.end, End::WorkerDied("it was the test".into()));
}

/// A program that starts and says nothing.
#[tokio::test]
async fn a_process_that_is_never_ready_is_given_up() {
    let scratch = tempfile::TempDir::new().unwrap();
    for folder in ["model", "empty"] {
        std::fs::create_dir(scratch.path().join(folder)).unwrap();
    }
    let launcher = Launcher::of(Path::new("/bin/sleep").to_owned());
    let mut processes = Processes::new(launcher, 1, None);
    processes.load_timeout = Duration::from_millis(100);
    let sheet = Sheet::of_tests(Limits { call_timeout: Duration::from_millis(10), ..limits() });
    let folder = AssetsFolder::Passed(scratch.path().join("model"));
    let assets = Assets { folder, files: Vec::<AssetFile>::new() };
    let parts = Parts { sheet, graphs: vec![], assets };
    let code = Compiled::trusted(Sealed::of(&b"code"[..]).unwrap());
    // It takes the arguments for times, refuses them, and ends.
    let (of, none) = (Purpose::Serve, Given::default());
    let refused = Process::start(&processes, parts.clone(), code.clone(), None, of, &none, None)
        .await
        .unwrap_err();
    assert!(refused.to_string().starts_with("its process does not start: "), "{refused}");
    processes.launcher = launcher_of(scratch.path(), "#!/bin/sh\nexec sleep 60\n");
    let refused = Process::start(&processes, parts, code, None, of, &none, None).await.unwrap_err();
    assert!(refused.to_string().contains("was not ready within"), "{refused}");
}
