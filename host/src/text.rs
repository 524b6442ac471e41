//! Small things about texts that several modules need.

/// The text with everything escaped that could forge a line or colour a
/// terminal: control characters, and marks that turn the direction of writing.
pub fn escape_controls(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            control if control.is_control() => escaped.extend(control.escape_default()),
            mark if turns(mark) => escaped.extend(mark.escape_unicode()),
            other => escaped.push(other),
        }
    }
    escaped
}

/// The text for a terminal: lines and tabs stay, everything else that could
/// move the cursor or turn the direction of writing becomes U+FFFD.
pub fn printable(text: &str) -> String {
    let shown = |character: char| match character {
        '\n' | '\t' => character,
        odd if odd.is_control() || turns(odd) => '\u{fffd}',
        other => other,
    };
    text.chars().map(shown).collect()
}

/// Whether a character turns the direction of the text after it.
fn turns(character: char) -> bool {
    matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Cuts a text to at most `bytes_max` bytes, at a character's border.
pub fn cut(text: &mut String, bytes_max: usize) {
    text.truncate(text.floor_char_boundary(bytes_max));
}

/// An error and its causes, in one line.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// A number of things: `1 model`, `2 models`.
pub fn counted(number: u64, thing: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{number} {thing}{ending}")
}

/// Two lower-case hexadecimal digits for each byte.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The bytes that pairs of hexadecimal digits stand for, if a text is nothing
/// else.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).unwrap_or(0);
    let pair = |pair: &[u8]| pair.iter().fold(0, |byte, half| byte * 16 + digit(*half));
    text.as_bytes().chunks_exact(2).map(|two| u8::try_from(pair(two)).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_moves_a_cursor_stays() {
        assert_eq!(escape_controls("a\u{1b}[31m\r\nb\u{202e}ä"), "a\\u{1b}[31m\\r\\nb\\u{202e}ä");
    }

    #[test]
    fn a_terminal_gets_lines_and_tabs_and_nothing_that_deceives() {
        assert_eq!(printable("a\tb\n\u{1b}[31m\r\u{2066}ä"), "a\tb\n\u{fffd}[31m\u{fffd}\u{fffd}ä");
    }

    #[test]
    fn hexadecimal_digits_are_read_as_they_are_written() {
        assert_eq!(unhex(&hex(&[0, 10, 255])), Some(vec![0, 10, 255]));
        assert_eq!(unhex("0A"), Some(vec![10]));
        for bad in ["0", "0g", "+1", "é"] {
            assert_eq!(unhex(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_text_is_cut_at_a_characters_border() {
        let mut text = "aä".to_owned();
        cut(&mut text, 2);
        assert_eq!(text, "a");
    }
}
