//! Small things about texts that several modules need.

/// The text with everything escaped that could forge a line or colour a
/// terminal: control characters, and marks that turn the direction of writing.
pub fn escape_controls(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                escaped.extend(character.escape_unicode());
            }
            control if control.is_control() => escaped.extend(control.escape_default()),
            other => escaped.push(other),
        }
    }
    escaped
}

/// Cuts a text to at most `bytes_max` bytes, at a character's border.
pub fn cut(text: &mut String, bytes_max: usize) {
    text.truncate(text.floor_char_boundary(bytes_max));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_moves_a_cursor_stays() {
        assert_eq!(escape_controls("a\u{1b}[31m\r\nb\u{202e}ä"), "a\\u{1b}[31m\\r\\nb\\u{202e}ä");
    }

    #[test]
    fn a_text_is_cut_at_a_characters_border() {
        let mut text = "aä".to_owned();
        cut(&mut text, 2);
        assert_eq!(text, "a");
    }
}
