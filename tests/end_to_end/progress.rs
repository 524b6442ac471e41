//! What `ringfence upload` shows while it sends: a bar on a terminal, and no
//! control characters where a program reads along.

use crate::author::text;
use ringfence_tests::{Host, Variant, binary, guests};
use std::process::{Command, Output};

/// A folder that takes a moment to send: bytes that do not shrink.
fn folder(seed: u64) -> Variant {
    let folder = Variant::of(guests::ECHO, &[]);
    let mut state = seed;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 40) as u8
    });
    let noise: Vec<u8> = noise.take(8 << 20).collect();
    std::fs::write(folder.folder().join("1/noise.bin"), noise).unwrap();
    folder
}

/// Runs `ringfence upload` with a terminal of its own, whose bytes are the
/// output. Nothing where this machine has no `script`.
fn on_a_terminal(host: &Host, folder: &Variant) -> Option<Output> {
    let shown = format!("stty cols 100; exec '{}' upload '{}'", binary().display(), folder.path());
    let ran = Command::new("script")
        .args(["-qec", &shown, "/dev/null"])
        .env("RINGFENCE_BASE", host.base())
        .env("RINGFENCE_PAT", host.pat())
        .env("TERM", "xterm")
        .env_remove("CLICOLOR")
        .env_remove("NO_COLOR")
        .output();
    match ran {
        Ok(output) => Some(output),
        Err(error) if std::env::var_os("CI").is_none() => {
            println!("SKIPPED on_a_terminal: there is no `script` here: {error}");
            None
        }
        Err(error) => panic!("there is no `script` here: {error}"),
    }
}

#[test]
fn an_upload_shows_a_bar_on_a_terminal_and_plain_lines_in_a_pipe() {
    let host = Host::serve(&[]);
    let piped = host.ringfence(&["upload", folder(1).path()]);
    assert!(piped.status.success(), "{}", text(&piped));
    let said = text(&piped);
    let control = |byte: &u8| *byte < b' ' && *byte != b'\n';
    assert!(!said.as_bytes().iter().any(control), "{said:?}");
    assert!(said.contains("can be called"), "{said}");

    let Some(shown) = on_a_terminal(&host, &folder(2)) else { return };
    assert!(shown.status.success(), "{}", text(&shown));
    let said = text(&shown);
    // How much there is of how much, and the line is cleared for what follows.
    assert!(said.contains("MiB/8."), "{said:?}");
    assert!(said.contains("\r\u{1b}[2K"), "{said:?}");
    assert!(said.contains("can be called"), "{said}");
    let last = said.rsplit("MiB/8.").next().unwrap();
    assert!(last.contains("\u{1b}[2K"), "the bar is cleared: {said:?}");
}
