//! What reading a `config.yaml`, or what a worker process says, may cost at most,
//! whoever wrote it: 32 MiB, and a second of CPU time, which the kernel enforces.
//!
//! The largest file or frame that is read, in the forms that are dearest to readers.
//! Each is read in a process of its own, this program again.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test says what is wrong by panicking, and which of them it is"
)]

use peak_alloc::PeakAlloc;
use ringfence::package::config::{CONFIG_BYTES_MAX, Config};
use ringfence::worker::hear_anything;
use rustix::process::{Resource, Rlimit, setrlimit};
use std::process::{Command, ExitCode};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

const MEMORY_BYTES_MAX: usize = 32 << 20;
const CPU_SECONDS_MAX: u64 = 1;
/// Tells this program which form to read.
const FORM: &str = "RINGFENCE_TEST_FORM";

/// A name, what it begins with, what is repeated to fill the file, and its end.
const FORMS: [(&str, &str, &str, &str); 21] = [
    ("a long text", "model: {id: ", "a", "}"),
    ("a long comment", "model: {id: m} # ", "#", ""),
    ("blank lines", "model: {id: m}", "\n", ""),
    ("a list of nothing", "model: {id: m}\ntoolkit: [", "a,", "]"),
    ("a list of lists", "model: {id: m}\ntoolkit: [", "[],", "]"),
    ("a list of maps", "model: {id: m}\ntoolkit: [", "{},", "]"),
    ("a list of pairs", "model: {id: m}\ntoolkit: [", "a: b,", "]"),
    ("a list in lines", "model: {id: m}\ntoolkit:\n", "- a\n", ""),
    ("lists in one line", "model: {id: m}\ntoolkit:\n", "- ", ""),
    ("open lists", "", "[", ""),
    ("open maps", "", "{a: ", ""),
    ("maps in maps", "model: {id: m}\ntoolkit: ", "{a: ", ""),
    ("concepts", "model: {id: m}\nconcepts:\n", "- {id: 1, name: a}\n", ""),
    ("wrong concepts", "model: {id: m}\nconcepts:\n", "- 1\n", ""),
    ("misspelt concepts", "model: {id: m}\nconcepts: [", "{idd: 1, nam: a},", "]"),
    ("secrets without anything", "model: {id: m}\nsecrets: [", "{},", "]"),
    (
        "patterns",
        "model: {id: m}\ncheckpoints: {repo_id: a, allowed_file_patterns: [",
        "'*',",
        "]}",
    ),
    ("anchors", "model: {id: m}\ntoolkit: [", "&a a,", "]"),
    ("aliases", "model: &m {id: m}\ntoolkit: [", "*m,", "]"),
    ("escapes", "model: {id: \"", "\\x41", "\"}"),
    ("documents", "model: {id: m}\n", "---\n", ""),
];

/// A name, what an output begins with, and what is repeated beyond all bounds: a number in
/// postcard is seven bits in each byte, and the number of an enum's case is one.
const OUTPUTS: [(&str, &[u8], &[u8]); 5] = [
    ("an output of parts", &MANY, &[0; 3]),
    ("an output of concepts", &[1, 0, 9, MANY[0], MANY[1], MANY[2], MANY[3]], &[0; 6]),
    ("an output of regions", &[1, 0, 10, MANY[0], MANY[1], MANY[2], MANY[3]], &[0; 11]),
    ("an output of frames", &[1, 0, 11, MANY[0], MANY[1], MANY[2], MANY[3]], &[0; 4]),
    ("an output of numbers", &[1, 0, 12, MANY[0], MANY[1], MANY[2], MANY[3]], &[0; 4]),
];
const MANY: [u8; 4] = [0xff, 0xff, 0xff, 0x7f];

/// What an output of a worker says that it holds, which is all that its version may, and
/// what its frame may have beside that.
const HELD_BYTES: u64 = 1 << 20;
const BESIDE_BYTES: usize = 1 << 20;

/// An output of the first call: a head of length, call, value and kind, and the body.
fn output_of(begin: &[u8], repeated: &[u8]) -> Vec<u8> {
    let length = HELD_BYTES as usize + BESIDE_BYTES;
    let body = begin.iter().chain(repeated.iter().cycle()).take(length).copied();
    let head =
        [&(length as u32).to_le_bytes()[..], &1_u32.to_le_bytes(), &HELD_BYTES.to_le_bytes()];
    head.concat().into_iter().chain([2]).chain(body).collect()
}

fn text_of(form: &str) -> String {
    if form == "keys of ours alone" {
        let keys: String = (0..6000).map(|index| format!("k{index}: 1\n  ")).collect();
        return format!("model: {{id: m}}\nringfence:\n  {keys}");
    }
    if form == "keys of no section" {
        return (0..6000).map(|index| format!("k{index}: 1\n")).collect();
    }
    let (_, begin, repeated, end) = FORMS.iter().find(|(name, ..)| *name == form).unwrap();
    let times = (CONFIG_BYTES_MAX - begin.len() - end.len()) / repeated.len();
    format!("{begin}{}{end}", repeated.repeat(times))
}

fn read(form: &str) {
    let output = OUTPUTS.iter().find(|(name, ..)| *name == form);
    let limit = Rlimit { current: Some(CPU_SECONDS_MAX), maximum: Some(CPU_SECONDS_MAX) };
    setrlimit(Resource::Cpu, limit).unwrap();
    match output {
        Some((_, begin, repeated)) => read_output(form, &output_of(begin, repeated)),
        None => read_config(form),
    }
}

fn read_output(form: &str, said: &[u8]) {
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    let heard = hear_anything(said).unwrap();
    let used = ALLOCATOR.peak_usage() - before;
    assert!(used <= MEMORY_BYTES_MAX, "{form}: {used} bytes");
    // It was read, and given up.
    assert_eq!(heard.wrong.as_deref(), Some("a frame makes no sense"));
    assert_eq!(heard.charged_bytes_peak, HELD_BYTES);
    println!("{form}: {} KiB, refused", used >> 10);
}

fn read_config(form: &str) {
    let text = text_of(form);
    assert!(text.len() <= CONFIG_BYTES_MAX && text.len() > CONFIG_BYTES_MAX / 2, "{}", text.len());
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    let answer = Config::parse(&text).map(|_| ()).map_err(|refused| refused.to_string());
    let stripped = Config::without_secrets(&text).is_ok();
    let used = ALLOCATOR.peak_usage() - before;
    assert!(used <= MEMORY_BYTES_MAX, "{form}: {used} bytes");
    assert_eq!(stripped, answer.is_ok(), "{form}: {answer:?}");
    println!("{form}: {} KiB, {}", used >> 10, if stripped { "accepted" } else { "refused" });
}

fn main() -> ExitCode {
    if let Ok(form) = std::env::var(FORM) {
        read(&form);
        return ExitCode::SUCCESS;
    }
    let of_others = ["keys of ours alone", "keys of no section"];
    let of_workers = OUTPUTS.iter().map(|(name, ..)| *name);
    let forms = FORMS.iter().map(|(name, ..)| *name).chain(of_others).chain(of_workers);
    let mut failed = 0;
    for form in forms {
        let program = std::env::current_exe().unwrap();
        let status = Command::new(program).env(FORM, form).status().unwrap();
        if !status.success() {
            println!("{form}: {status}");
            failed += 1;
        }
    }
    println!("{failed} failed");
    ExitCode::from(u8::from(failed > 0))
}
