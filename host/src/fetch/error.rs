//! Why a URL brings nothing.
//!
//! Owns what a caller is told. One text stands for everything that may be
//! behind an address, so that nobody can look around with it.

/// Why a URL brings nothing. Texts that others have sent are cut.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// The operator has not opened the host.
    #[error(
        "url inputs are off for {host}; the operator can start the host with \
         --allow-url-host {flag}, or send bytes"
    )]
    Off {
        /// The host, with its port if that is not the usual one.
        host: String,
        /// What opens it.
        flag: String,
    },
    /// The operator has opened the host, but not without TLS.
    #[error(
        "url inputs of {host} are off over http; use https, or the operator can start the host \
         with --allow-url-host http://{host}, or send bytes"
    )]
    HttpOff {
        /// The host, with its port if that is not the usual one.
        host: String,
    },
    /// A file, a path, or another scheme.
    #[error(
        "only https and data URLs are taken, and http where the operator allows it; send bytes"
    )]
    Scheme,
    /// It is no URL.
    #[error("it is no URL ({0}); write it whole, or send bytes")]
    Malformed(url::ParseError),
    /// The URL names a user or a password.
    #[error("a URL with a user name or a password is not fetched; leave them out")]
    Credentials,
    /// The URL is too long.
    #[error("the URL is longer than {url_bytes_max} bytes; send bytes")]
    TooLong {
        /// How long it may be.
        url_bytes_max: usize,
    },
    /// Its host has a name that none can have.
    #[error("the URL's host is longer than {host_bytes_max} bytes, which no name is")]
    LongHost {
        /// How long it may be.
        host_bytes_max: usize,
    },
    /// It is a `data:` URL that cannot be read.
    #[error("the data URL cannot be read: {0}")]
    Data(&'static str),
    /// A `data:` URL of another type.
    #[error("the data URL is {given}, and {expected} is asked for")]
    DataType {
        /// Its media type.
        given: String,
        /// What is asked for.
        expected: &'static str,
    },
    /// The name leads to no address that may be asked.
    #[error("{host} does not lead to a public address; send bytes")]
    Address {
        /// The host.
        host: String,
    },
    /// No address, no connection.
    #[error("{host} cannot be reached; try again, or send bytes")]
    Unreachable {
        /// The host.
        host: String,
    },
    /// It does not prove to be who it is.
    #[error("{host} has no certificate that this host trusts; send bytes")]
    Certificate {
        /// The host.
        host: String,
    },
    /// It speaks no HTTP, or stopped in the middle.
    #[error("{host} did not answer as HTTP has it, or not to the end; try again, or send bytes")]
    Broken {
        /// The host.
        host: String,
    },
    /// It answered with another status than 200.
    #[error("{host} answered with the status {status}; correct the URL, or send bytes")]
    Status {
        /// The host.
        host: String,
        /// The status.
        status: u16,
    },
    /// It leads on and on.
    #[error("the URL leads on more than {redirects_max} times; send the last one")]
    Redirects {
        /// How often it may.
        redirects_max: usize,
    },
    /// The content is compressed though it was asked for as it is.
    #[error("{host} sends its content encoded, which is not taken; send bytes")]
    Encoding {
        /// The host.
        host: String,
    },
    /// The content is of another type, or of none.
    #[error("{host} says that it sends {given}, and {expected} is asked for; send bytes")]
    ContentType {
        /// The host.
        host: String,
        /// Its content type.
        given: String,
        /// What is asked for.
        expected: &'static str,
    },
    /// A text that is no UTF-8.
    #[error("what the URL leads to is no UTF-8; send bytes of a text that is")]
    NotUtf8,
    /// It took longer than a fetch may.
    #[error("what the URL leads to did not come in time; try again, or send bytes")]
    TooSlow,
    /// There is more of it than there may be.
    #[error(
        "what the URL leads to is more than the {bytes_max} bytes that are left for it; send less \
         at a time"
    )]
    TooLarge {
        /// How much there may be, in bytes.
        bytes_max: u64,
    },
}
