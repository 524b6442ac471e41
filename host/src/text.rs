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

/// Two lower-case hexadecimal digits for each byte.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
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
    fn a_text_is_cut_at_a_characters_border() {
        let mut text = "aä".to_owned();
        cut(&mut text, 2);
        assert_eq!(text, "a");
    }
}
