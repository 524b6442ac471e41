//! Any text of a guest as a line of a log: one line, without anything that a
//! terminal would act on, and with all that was there.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringfence::text::{cut, escape_controls};

fuzz_target!(|input: (&str, u8)| {
    let (text, bytes_max) = input;
    let shown = escape_controls(text);
    assert!(!shown.chars().any(char::is_control), "{shown:?}");
    let plain: String = text.chars().filter(|letter| !letter.is_control()).collect();
    if plain == text {
        assert_eq!(shown, text);
    }
    let mut short = text.to_owned();
    cut(&mut short, bytes_max.into());
    assert!(short.len() <= bytes_max.into() && text.starts_with(&*short));
});
