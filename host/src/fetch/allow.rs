//! The hosts that the operator has opened, and whether a URL is of one.
//!
//! Owns what `--allow-url-host` takes. A host is opened by its whole name or
//! address: no wildcards, no domains below it.

use super::FetchError;
use std::fmt;
use std::str::FromStr;
use url::{Host, Url};

const HTTP_PORT: u16 = 80;
const HTTPS_PORT: u16 = 443;

/// The one name that stands for the machine itself: RFC 6761, section 6.3.
const LOCALHOST: &str = "localhost";

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

/// Which addresses a host may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// Whatever the operator wrote.
    AsWritten,
    /// The machine itself, and nothing else.
    Loopback,
    /// The public internet.
    Public,
}

/// How a host is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    Http,
    Https,
}

/// Whom a URL leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) scheme: Scheme,
    pub(super) host: Host<String>,
    pub(super) port: u16,
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

impl Scheme {
    fn port(self) -> u16 {
        match self {
            Self::Http => HTTP_PORT,
            Self::Https => HTTPS_PORT,
        }
    }
}

impl Origin {
    /// The origin of a URL that may be fetched at all.
    pub(super) fn of(url: &Url) -> Result<Self, FetchError> {
        let scheme = match url.scheme() {
            "https" => Scheme::Https,
            "http" => Scheme::Http,
            _ => return Err(FetchError::Scheme),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(FetchError::Credentials);
        }
        let host = url.host().ok_or(FetchError::Malformed(url::ParseError::EmptyHost))?;
        Ok(Self { scheme, host: host.to_owned(), port: url.port().unwrap_or(scheme.port()) })
    }

    /// Host and port as they stand in a URL: without the port that is usual.
    pub(super) fn authority(&self) -> String {
        match self.port == self.scheme.port() {
            true => self.host.to_string(),
            false => format!("{}:{}", self.host, self.port),
        }
    }

    /// Which of its addresses may be asked, once it is known to be opened. A
    /// name leads into no network that the operator did not name itself.
    pub(super) fn reach(&self) -> Reach {
        match &self.host {
            Host::Ipv4(_) | Host::Ipv6(_) => Reach::AsWritten,
            Host::Domain(name) if name == LOCALHOST => Reach::Loopback,
            Host::Domain(_) => Reach::Public,
        }
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

    #[test]
    fn files_paths_other_schemes_and_credentials_are_never_fetched() {
        for url in ["file:///etc/passwd", "ftp://h.example/", "unix:/run/x", "data:,x"] {
            assert_eq!(opened(&["h.example"], url), Err(FetchError::Scheme), "{url}");
        }
        for url in ["https://u@h.example/", "https://:p@h.example/", "https://u:p@h.example/"] {
            assert_eq!(opened(&["h.example"], url), Err(FetchError::Credentials), "{url}");
        }
    }

    #[test]
    fn a_name_reaches_only_public_addresses_unless_it_is_this_machine() {
        for (url, reach) in [
            ("https://10.0.0.1/", Reach::AsWritten),
            ("https://[fd00::1]/", Reach::AsWritten),
            ("https://localhost/", Reach::Loopback),
            ("https://a.localhost/", Reach::Public),
            ("https://h.example/", Reach::Public),
        ] {
            assert_eq!(Origin::of(&Url::parse(url).unwrap()).unwrap().reach(), reach, "{url}");
        }
    }
}
