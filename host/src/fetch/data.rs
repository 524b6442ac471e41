//! `data:` URLs: RFC 2397. They hold what they lead to, so nobody is asked.

use super::FetchError;
use super::media::{Media, Other};
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

const SCHEME: &str = "data:";

/// What a `data:` URL without a media type is.
const DEFAULT_TYPE: &str = "text/plain";

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What stands behind the scheme, if it is this one.
pub(super) fn content_of(url: &str) -> Option<&str> {
    let (scheme, content) = url.split_at_checked(SCHEME.len())?;
    scheme.eq_ignore_ascii_case(SCHEME).then_some(content)
}

/// The bytes in a `data:` URL, given what stands behind its scheme.
pub(super) fn decode(content: &str, media: Media, bytes_max: u64) -> Result<Vec<u8>, FetchError> {
    let (head, data) = content.split_once(',').ok_or(FetchError::Data("it has no comma"))?;
    // A fragment is no part of the data, and would be lost without a word.
    if data.contains('#') {
        return Err(FetchError::Data("write `#` as %23"));
    }
    let (media_type, is_base64) = match head.rsplit_once(';') {
        Some((media_type, last)) if last.trim().eq_ignore_ascii_case("base64") => {
            (media_type, true)
        }
        _ => (head, false),
    };
    let media_type = match media_type.trim() {
        "" => DEFAULT_TYPE.to_owned(),
        parameters if parameters.starts_with(';') => format!("{DEFAULT_TYPE}{parameters}"),
        given => given.to_owned(),
    };
    media
        .check(&media_type)
        .map_err(|Other(given)| FetchError::DataType { given, expected: media.accept() })?;
    let plain = percent_decoded(data)?;
    let bytes = match is_base64 {
        true => BASE64.decode(plain).map_err(|_| FetchError::Data("it is no base64"))?,
        false => plain,
    };
    match u64::try_from(bytes.len()) {
        Ok(length) if length <= bytes_max => Ok(bytes),
        _ => Err(FetchError::TooLarge { bytes_max }),
    }
}

/// RFC 3986, section 2.1.
fn percent_decoded(text: &str) -> Result<Vec<u8>, FetchError> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        let (high, low) = (digit(), digit());
        let value = high.zip(low).and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
        decoded.push(value.ok_or(FetchError::Data("two hexadecimal digits follow a `%`"))?);
    }
    Ok(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(url: &str, media: Media) -> Result<Vec<u8>, FetchError> {
        decode(content_of(url).unwrap(), media, 64)
    }

    #[test]
    fn both_forms_are_decoded() {
        for (url, media, bytes) in [
            ("data:,", Media::Text, &b""[..]),
            ("data:,A%20brief%20note", Media::Text, b"A brief note"),
            ("data:,a,b;base64", Media::Text, b"a,b;base64"),
            ("DATA:text/html;charset=UTF-8,%3Cp%3e%C3%A4", Media::Text, "<p>ä".as_bytes()),
            ("data:;charset=utf-8,x+y", Media::Text, b"x+y"),
            ("data:;base64,aGk=", Media::Text, b"hi"),
            ("data:application/json;base64,e30", Media::Text, b"{}"),
            ("data:image/png;base64,/+8A", Media::Image, b"\xff\xef\x00"),
            ("data:image/png;base64,%2F%2B8A", Media::Image, b"\xff\xef\x00"),
            ("data:image/png;name=x;BASE64,AQI%3D", Media::Image, b"\x01\x02"),
            ("data:audio/wav,%00%FF", Media::Audio, b"\x00\xff"),
            ("data:video/mp4;base64,AA==", Media::Video, b"\x00"),
        ] {
            assert_eq!(decoded(url, media).as_deref(), Ok(bytes), "{url}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_its_reason() {
        for (url, media, text) in [
            ("data:", Media::Text, "no comma"),
            ("data:text/plain", Media::Text, "no comma"),
            ("data:,%", Media::Text, "hexadecimal"),
            ("data:,%f", Media::Text, "hexadecimal"),
            ("data:,%+f", Media::Text, "hexadecimal"),
            ("data:,%ä", Media::Text, "hexadecimal"),
            ("data:,a#b", Media::Text, "%23"),
            ("data:;base64,a", Media::Text, "base64"),
            ("data:;base64,a b=", Media::Text, "base64"),
            ("data:;base64,_-8A", Media::Text, "base64"),
            ("data:,hi", Media::Image, "text/plain, and image/* is asked for"),
            ("data:image/png,x", Media::Text, "image/png, and text/*"),
            ("data:text/plain;charset=utf-16,x", Media::Text, "utf-16"),
            ("data:application/octet-stream;base64,AA==", Media::Image, "octet-stream"),
        ] {
            let refused = decoded(url, media).unwrap_err().to_string();
            assert!(refused.contains(text), "{url}: {refused}");
        }
    }

    #[test]
    fn data_over_its_limit_is_refused() {
        let url = |bytes: usize| format!("data:,{}", "x".repeat(bytes));
        assert_eq!(decoded(&url(64), Media::Text).unwrap().len(), 64);
        assert_eq!(decoded(&url(65), Media::Text), Err(FetchError::TooLarge { bytes_max: 64 }));
    }

    #[test]
    fn other_schemes_are_not_taken_for_this_one() {
        for url in ["", "data", "dat:,x", "https://h/data:,x", "datä:,x", " data:,x"] {
            assert_eq!(content_of(url), None, "{url}");
        }
    }
}
