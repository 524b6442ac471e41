//! Whom a URL leads to.
//!
//! Owns what a URL must be to be fetched at all: https or http, nobody's name
//! or password in it. Whether its host is opened is asked elsewhere.

use super::FetchError;
use crate::limits::limit;
use url::{Host, Url};

const HTTP_PORT: u16 = 80;
const HTTPS_PORT: u16 = 443;

/// Bytes of a host's name: RFC 1035, section 2.3.4, without the last dot.
const HOST_BYTES_MAX: usize = 253;

/// The name that stands for the machine itself: RFC 6761, section 6.3.
const LOCALHOST: &str = "localhost";

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

impl Scheme {
    /// The port that is usual.
    pub(super) fn port(self) -> u16 {
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
        if host.to_string().len() > limit("url_host", HOST_BYTES_MAX) {
            return Err(FetchError::LongHost { host_bytes_max: HOST_BYTES_MAX });
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(url: &str) -> Result<Origin, FetchError> {
        Origin::of(&Url::parse(url).unwrap())
    }

    #[test]
    fn files_paths_other_schemes_and_credentials_are_never_fetched() {
        for url in ["file:///etc/passwd", "ftp://h.example/", "unix:/run/x", "data:,x"] {
            assert_eq!(origin(url), Err(FetchError::Scheme), "{url}");
        }
        for url in ["https://u@h.example/", "https://:p@h.example/", "https://u:p@h.example/"] {
            assert_eq!(origin(url), Err(FetchError::Credentials), "{url}");
        }
    }

    #[test]
    fn a_host_has_no_longer_name_than_there_can_be() {
        let url = |bytes: usize| format!("https://{}/", "a".repeat(bytes));
        assert!(origin(&url(HOST_BYTES_MAX)).is_ok());
        let long = FetchError::LongHost { host_bytes_max: HOST_BYTES_MAX };
        assert_eq!(origin(&url(HOST_BYTES_MAX + 1)), Err(long));
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
            assert_eq!(origin(url).unwrap().reach(), reach, "{url}");
        }
    }
}
