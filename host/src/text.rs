//! Small things about texts that several modules need.

/// Cuts a text to at most `bytes_max` bytes, at a character's border.
pub fn cut(text: &mut String, bytes_max: usize) {
    text.truncate(text.floor_char_boundary(bytes_max));
}
