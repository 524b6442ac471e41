//! Why a hub does not give what was asked of it.

use ureq::http::StatusCode;

/// Why a hub does not give what was asked of it. Each text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// The address is none; it is not repeated, as it may hold a password.
    #[error(
        "HF_ENDPOINT is no address such as https://HOST, without a user and a query; correct it"
    )]
    Endpoint,
    /// A token would travel in the open.
    #[error("a token is not sent over http to {host}; use https, or ask without a token")]
    TokenInTheOpen {
        /// The hub.
        host: String,
    },
    /// The token cannot be one.
    #[error("the token has characters that no token has; copy it again, into HF_TOKEN")]
    TokenForm,
    /// The hub does not tell strangers which of the two it is.
    #[error(
        "{repo_id} does not exist, or is private: check its name, and if it is private, set HF_TOKEN \
         to a token that may read it"
    )]
    MissingOrPrivate {
        /// The repository.
        repo_id: String,
    },
    /// There is none that this token may read.
    #[error(
        "{repo_id} does not exist, or the token belongs to somebody who may not read it; check its name"
    )]
    Missing {
        /// The repository.
        repo_id: String,
    },
    /// Its terms have to be accepted by somebody.
    #[error("{repo_id} is gated: accept its terms at {url}, then set HF_TOKEN to your token")]
    GatedForStrangers {
        /// The repository.
        repo_id: String,
        /// Its page.
        url: String,
    },
    /// Its terms have to be accepted by whose token it is.
    #[error("{repo_id} is gated, and the token has no access to it yet; ask for it at {url}")]
    Gated {
        /// The repository.
        repo_id: String,
        /// Its page.
        url: String,
    },
    /// The token is no good.
    #[error("the hub does not accept the token; correct HF_TOKEN or `checkpoints.hf_token`")]
    Token,
    /// The token is good, but not for this.
    #[error("the token may not read {repo_id}; give it that right, or use another")]
    TokenRights {
        /// The repository.
        repo_id: String,
    },
    /// The pinned commit, or the branch, is gone.
    #[error(
        "{repo_id} has no revision {revision}; `ringfence build --update` takes the newest of main"
    )]
    Revision {
        /// The repository.
        repo_id: String,
        /// What was asked for.
        revision: String,
    },
    /// A file that was listed is gone.
    #[error(
        "{repo_id} lists {name}, but does not have it; try again, or leave it out by `ignore_file_patterns`"
    )]
    File {
        /// The repository.
        repo_id: String,
        /// The file.
        name: String,
    },
    /// Who has the files does not give them: what the hub signed may be too old.
    #[error("{host} answers {status} to what the hub sent us on to; try again")]
    Elsewhere {
        /// Who answers.
        host: String,
        /// With what.
        status: StatusCode,
    },
    /// Some other answer.
    #[error("{host} answers {status}; try again later")]
    Status {
        /// Who answers.
        host: String,
        /// With what.
        status: StatusCode,
    },
    /// An answer that makes no sense.
    #[error("{host} sends {what}; is it a hub of models?")]
    Protocol {
        /// Who sends it.
        host: String,
        /// What it sends.
        what: String,
    },
    /// The bytes stop coming.
    #[error("{name} stays at {there} of {size} bytes; try again, and it goes on from there")]
    Stalled {
        /// The file.
        name: String,
        /// How much is there.
        there: u64,
        /// How much it should be.
        size: u64,
        /// What the last attempt met.
        source: Box<Self>,
    },
    /// No answer.
    #[error("cannot reach the hub at {host}; HF_ENDPOINT chooses another")]
    Network {
        /// Who was asked.
        host: String,
        /// Why.
        source: Box<ureq::Error>,
    },
    /// An answer that breaks off.
    #[error("the answer of {host} breaks off")]
    Broken {
        /// Who answered.
        host: String,
        /// Why.
        source: std::io::Error,
    },
    /// The file on this machine cannot be written.
    #[error("cannot write the download")]
    Write(#[source] std::io::Error),
}

impl HubError {
    /// Whether asking again may help.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Network { .. } | Self::Broken { .. } | Self::Elsewhere { .. } => true,
            Self::Status { status, .. } => {
                status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS
            }
            Self::Endpoint
            | Self::TokenInTheOpen { .. }
            | Self::TokenForm
            | Self::MissingOrPrivate { .. }
            | Self::Missing { .. }
            | Self::GatedForStrangers { .. }
            | Self::Gated { .. }
            | Self::Token
            | Self::TokenRights { .. }
            | Self::Revision { .. }
            | Self::File { .. }
            | Self::Protocol { .. }
            | Self::Stalled { .. }
            | Self::Write(_) => false,
        }
    }
}
