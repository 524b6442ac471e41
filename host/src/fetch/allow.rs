//! The hosts that the operator has opened, and whether a URL is of one.
//!
//! Owns what `--allow-url-host` takes. A host is opened by its whole name or
//! address: no wildcards, no domains below it.

use super::FetchError;
use super::origin::{Origin, Scheme};
use std::fmt;
use std::str::FromStr;
use url::Host;

/// A host that the operator has opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedHost {
    host: Host<String>,
    /// The only port, or nothing for the usual one of each scheme.
    port: Option<u16>,
    schemes: Schemes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Schemes {
    Https,
    HttpToo,
}

/// What is wrong with an argument of `--allow-url-host`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AllowError {
    /// It stands for more than one host.
    #[error("a wildcard opens too much; name each host by itself")]
    Wildcard,
    /// It is more or less than a host.
    #[error("write HOST, HOST:PORT or http://HOST[:PORT]")]
    Form,
    /// The host cannot be one.
    #[error("it is no host: {0}")]
    Host(url::ParseError),
}

impl FromStr for AllowedHost {
    type Err = AllowError;

    fn from_str(text: &str) -> Result<Self, AllowError> {
        if text.contains('*') {
            return Err(AllowError::Wildcard);
        }
        let (schemes, authority) = match (text.strip_prefix("http://"), text) {
            (Some(rest), _) => (Schemes::HttpToo, rest),
            (None, text) => (Schemes::Https, text.strip_prefix("https://").unwrap_or(text)),
        };
        let odd = |character: char| {
            character.is_whitespace() || character.is_control() || "/\\?#@%".contains(character)
        };
        if authority.is_empty() || authority.contains(odd) {
            return Err(AllowError::Form);
        }
        let (host, port) = match authority.rsplit_once(':') {
            // The colons of an address of IPv6 are within its brackets.
            Some((host, port)) if !port.contains(']') => {
                let is_number = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
                let port = port.parse::<u16>().ok().filter(|port| is_number && *port != 0);
                (host, Some(port.ok_or(AllowError::Form)?))
            }
            _ => (authority, None),
        };
        Ok(Self { host: Host::parse(host).map_err(AllowError::Host)?, port, schemes })
    }
}

impl fmt::Display for AllowedHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = match self.schemes {
            Schemes::Https => "",
            Schemes::HttpToo => "http://",
        };
        match self.port {
            Some(port) => write!(f, "{prefix}{}:{port}", self.host),
            None => write!(f, "{prefix}{}", self.host),
        }
    }
}

impl AllowedHost {
    fn opens(&self, origin: &Origin) -> bool {
        let scheme = match origin.scheme {
            Scheme::Https => true,
            Scheme::Http => self.schemes == Schemes::HttpToo,
        };
        let port = self.port.unwrap_or(origin.scheme.port());
        scheme && port == origin.port && self.host == origin.host
    }
}

/// Refuses an origin that the operator has not opened.
pub(super) fn admit(allowed: &[AllowedHost], origin: &Origin) -> Result<(), FetchError> {
    if allowed.iter().any(|allowed| allowed.opens(origin)) {
        return Ok(());
    }
    let wants_tls =
        |allowed: &AllowedHost| allowed.schemes == Schemes::Https && allowed.host == origin.host;
    match origin.scheme {
        Scheme::Http if allowed.iter().any(wants_tls) => {
            Err(FetchError::HttpOff { host: origin.authority() })
        }
        Scheme::Http | Scheme::Https => Err(off(origin)),
    }
}

/// How the refusal of an origin says what would open it.
pub(super) fn off(origin: &Origin) -> FetchError {
    let host = origin.authority();
    match origin.scheme {
        Scheme::Http => FetchError::Off { flag: format!("http://{host}"), host },
        Scheme::Https => FetchError::Off { flag: host.clone(), host },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use url::Url;

    fn opened(flags: &[&str], url: &str) -> Result<(), FetchError> {
        let allowed: Vec<_> = flags.iter().map(|flag| flag.parse().unwrap()).collect();
        admit(&allowed, &Origin::of(&Url::parse(url).unwrap())?)
    }

    #[test]
    fn a_host_is_opened_by_its_whole_name_and_its_port() {
        for (flag, url) in [
            ("h.example", "https://h.example/a?b#c"),
            ("h.example", "https://H.EXAMPLE:443/"),
            ("https://h.example", "https://h.example/"),
            ("H.Example", "https://h.example/"),
            ("bücher.example", "https://xn--bcher-kva.example/"),
            ("h.example:8443", "https://h.example:8443/"),
            ("http://h.example", "http://h.example/"),
            ("http://h.example", "https://h.example/"),
            ("http://h.example:81", "http://h.example:81/"),
            ("127.0.0.1", "https://0x7f.1/"),
            ("[::1]", "https://[::1]/"),
            ("http://[::1]:81", "http://[0::1]:81/"),
        ] {
            assert_eq!(opened(&[flag], url), Ok(()), "{flag} {url}");
        }
        for (flag, url) in [
            ("h.example", "https://h.example:8443/"),
            ("h.example:8443", "https://h.example/"),
            ("h.example", "https://a.h.example/"),
            ("h.example", "https://h.example.org/"),
            ("h.example", "https://h.example./"),
            ("http://h.example:81", "http://h.example/"),
            ("127.0.0.1", "https://[::ffff:127.0.0.1]/"),
            ("127.0.0.1", "https://localhost/"),
        ] {
            assert!(matches!(opened(&[flag], url), Err(FetchError::Off { .. })), "{flag} {url}");
        }
        let http = opened(&["h.example"], "http://h.example/");
        assert_eq!(http, Err(FetchError::HttpOff { host: "h.example".into() }));
    }

    #[test]
    fn what_is_off_names_what_opens_it() {
        for (url, host, flag) in [
            ("https://samples.clarifai.com/a.jpg", "samples.clarifai.com", "samples.clarifai.com"),
            ("https://h.example:8443/", "h.example:8443", "h.example:8443"),
            ("http://h.example/", "h.example", "http://h.example"),
            ("http://[fe80::1]:81/", "[fe80::1]:81", "http://[fe80::1]:81"),
        ] {
            let off = FetchError::Off { host: host.into(), flag: flag.into() };
            assert_eq!(opened(&[], url), Err(off));
            assert_eq!(opened(&[flag], url), Ok(()), "the flag that is named opens {url}");
        }
    }

    #[test]
    fn what_is_no_single_host_is_refused() {
        for wildcard in ["*", "*.example", "h.*", "http://*:80"] {
            assert_eq!(wildcard.parse::<AllowedHost>(), Err(AllowError::Wildcard), "{wildcard}");
        }
        for odd in [
            "",
            "http://",
            "h.example/",
            "https://h.example/path",
            "ftp://h.example",
            "user@h.example",
            "h.example:",
            "h.example:0",
            "h.example:+1",
            "h.example:65536",
            "h.example:http",
            " h.example",
            "h .example",
            "h.example?x",
            "fe80::1",
            "[::1",
            "1.2.3.4.5",
            "h%2eexample",
        ] {
            assert!(odd.parse::<AllowedHost>().is_err(), "{odd}");
        }
    }

    #[test]
    fn an_opened_host_is_shown_as_it_is_written() {
        for flag in ["h.example", "h.example:8443", "http://h.example", "http://[::1]:81"] {
            assert_eq!(flag.parse::<AllowedHost>().unwrap().to_string(), flag);
        }
    }
}
