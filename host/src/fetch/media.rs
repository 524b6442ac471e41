//! What an input asks for, and which content types are that.

use super::FetchError;
use std::fmt;

/// Bytes of a content type that a caller is told.
const SHOWN_BYTES_MAX: usize = 64;

/// The kinds of input that may lie behind a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Media {
    /// A text in UTF-8.
    Text,
    /// An image file.
    Image,
    /// An audio file.
    Audio,
    /// A video file.
    Video,
}

/// A content type or a media type that does not fit; the text says what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Other(pub(super) String);

impl Media {
    /// What is asked for, as `accept` has it.
    pub(super) fn accept(self) -> &'static str {
        match self {
            Self::Text => "text/*, application/json",
            Self::Image => "image/*",
            Self::Audio => "audio/*",
            Self::Video => "video/*",
        }
    }

    /// Refuses a content type that is not asked for: RFC 9110, section 8.3.1.
    /// Bytes of no declared kind are none that is asked for.
    pub(super) fn check(self, content_type: &str) -> Result<(), Other> {
        let mut parts = content_type.split(';').map(str::trim);
        let essence = parts.next().unwrap_or_default().to_ascii_lowercase();
        let other = || Other(shown(content_type));
        let (kind, subtype) = essence.split_once('/').ok_or_else(other)?;
        if subtype.is_empty() {
            return Err(other());
        }
        let fits = match self {
            Self::Text => kind == "text" || essence == "application/json",
            Self::Image => kind == "image",
            Self::Audio => kind == "audio",
            Self::Video => kind == "video",
        };
        let utf8 = |charset: &str| {
            ["utf-8", "utf8", "us-ascii"].iter().any(|known| charset.eq_ignore_ascii_case(known))
        };
        let charset = |parameter: &str| -> Option<String> {
            let (name, value) = parameter.split_once('=')?;
            let value = value.trim().trim_matches('"').to_owned();
            name.trim().eq_ignore_ascii_case("charset").then_some(value)
        };
        let readable = self != Self::Text || parts.filter_map(charset).all(|name| utf8(&name));
        if fits && readable { Ok(()) } else { Err(other()) }
    }

    /// What an answer with this content type is told as.
    pub(super) fn refuse(self, host: String, given: String) -> FetchError {
        FetchError::ContentType { host, given, expected: self.accept() }
    }
}

impl fmt::Display for Media {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Image => "image",
            Self::Audio => "audio",
            Self::Video => "video",
        })
    }
}

/// A text of somebody else's, fit for an answer.
fn shown(text: &str) -> String {
    let mut shown = crate::text::escape_controls(text);
    crate::text::cut(&mut shown, SHOWN_BYTES_MAX);
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_type_fits_what_is_asked_for_or_is_named() {
        for (media, fitting) in [
            (Media::Text, "text/plain"),
            (Media::Text, "Text/HTML; Charset=\"UTF-8\""),
            (Media::Text, "text/plain;charset=us-ascii"),
            (Media::Text, "application/json"),
            (Media::Image, "image/png"),
            (Media::Image, "IMAGE/jpeg; q=1"),
            (Media::Audio, "audio/wav"),
            (Media::Video, "video/mp4"),
        ] {
            assert_eq!(media.check(fitting), Ok(()), "{fitting}");
        }
        for (media, other) in [
            (Media::Text, "image/png"),
            (Media::Text, "text/plain; charset=latin1"),
            (Media::Text, "text/plain; charset=utf-8; charset=utf-16"),
            (Media::Image, "application/octet-stream"),
            (Media::Image, "text/html"),
            (Media::Image, "image/"),
            (Media::Image, "image"),
            (Media::Image, ""),
            (Media::Audio, "video/mp4"),
            (Media::Video, "audio/wav"),
        ] {
            assert_eq!(media.check(other), Err(Other(other.to_owned())), "{other}");
        }
    }

    #[test]
    fn what_a_server_says_is_cut_and_moves_no_cursor() {
        let Err(Other(told)) = Media::Image.check(&format!("\u{1b}[2J{}", "x".repeat(1000))) else {
            panic!("it is no image");
        };
        assert!(told.len() <= SHOWN_BYTES_MAX && told.starts_with("\\u{1b}"), "{told}");
    }
}
