//! What the host proves itself with: a certificate and its private key.
//!
//! Owns reading and checking the two files. The key is in no error, no log and
//! no debug text.

use super::file::{content, open_regular};
use crate::limits::limit;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_rustls::rustls;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Longest file of certificates or of a key.
const PEM_BYTES_MAX: usize = 1 << 20;

/// All that is spoken over a connection: RFC 9113, section 3.2.
const ALPN: &[u8] = b"h2";

/// Permissions of anybody beside the owner.
const OPEN_TO_OTHERS: u32 = 0o077;
/// The same, but the group of a file of root's may read it: so are keys shared
/// with the services that need them.
const OPEN_TO_OTHERS_OF_ROOT: u32 = 0o037;

/// Where the two files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM: the certificate, then those between it and the CA.
    pub certificate: PathBuf,
    /// PEM: its private key, of PKCS #8, PKCS #1 or SEC 1.
    pub key: PathBuf,
}

/// Why the files cannot be used. Each text names the path and the fix.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// One of them cannot be read.
    #[error("cannot read {key} {path}; name a file that is there and that this user may read")]
    Read {
        /// Which setting names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others could read the key.
    #[error("the key {path} is open to other users (mode {mode:03o}); run `chmod 600 {path}`")]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// One of them has not what it should.
    #[error("{path} has no {what} in PEM form; {key} names the file")]
    Content {
        /// Which setting names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What it should have.
        what: &'static str,
    },
    /// They are not of one pair.
    #[error(
        "the key {key} is not that of the certificate {certificate}; name two that belong together"
    )]
    Pair {
        /// The certificate.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// The library takes them not.
    #[error("the certificate {certificate} and the key {key} cannot be used: {problem}")]
    Unusable {
        /// The certificate.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
        /// Why.
        problem: rustls::Error,
    },
}

impl TlsFiles {
    /// Reads both and makes of them what connections are accepted with.
    pub fn load(&self) -> Result<Arc<rustls::ServerConfig>, TlsError> {
        let certificates = self.certificates()?;
        let key = self.private_key()?;
        config(certificates, key).map_err(|problem| match problem {
            rustls::Error::InconsistentKeys(_) => {
                TlsError::Pair { certificate: self.certificate.clone(), key: self.key.clone() }
            }
            problem => TlsError::Unusable {
                certificate: self.certificate.clone(),
                key: self.key.clone(),
                problem,
            },
        })
    }

    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let key = "tls.certificate";
        let pem = read(key, &self.certificate, |_| Ok(()))?;
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        match found {
            Ok(certificates) if !certificates.is_empty() => Ok(certificates),
            _ => {
                Err(TlsError::Content { key, path: self.certificate.clone(), what: "certificate" })
            }
        }
    }

    fn private_key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        let key = "tls.key";
        let pem = read(key, &self.key, |file| only_ours(&self.key, file))?;
        PrivateKeyDer::from_pem_slice(&pem).map_err(|_| TlsError::Content {
            key,
            path: self.key.clone(),
            what: "private key",
        })
    }
}

/// What connections are accepted with: TLS 1.2 and 1.3, and nothing but HTTP/2
/// over it.
pub(crate) fn config(
    certificates: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<rustls::ServerConfig>, rustls::Error> {
    let provider = Arc::new(ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_no_client_auth()
        .with_single_cert(certificates, key)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(Arc::new(config))
}

fn read(
    key: &'static str,
    path: &Path,
    check: impl FnOnce(&File) -> Result<(), TlsError>,
) -> Result<Vec<u8>, TlsError> {
    let error = |source| TlsError::Read { key, path: path.to_owned(), source };
    let file = open_regular(path).map_err(error)?;
    check(&file)?;
    let bytes_max = limit("pem_bytes", PEM_BYTES_MAX);
    let pem = content(file, bytes_max).map_err(error)?;
    match pem.len() > bytes_max {
        true => Err(error(io::Error::new(io::ErrorKind::FileTooLarge, "it is too long"))),
        false => Ok(pem),
    }
}

fn only_ours(path: &Path, file: &File) -> Result<(), TlsError> {
    let error = |source| TlsError::Read { key: "tls.key", path: path.to_owned(), source };
    let metadata = file.metadata().map_err(error)?;
    let open_to_others = match metadata.uid() {
        0 => OPEN_TO_OTHERS_OF_ROOT,
        _ => OPEN_TO_OTHERS,
    };
    let mode = metadata.mode() & 0o777;
    match mode & open_to_others {
        0 => Ok(()),
        _ => Err(TlsError::Permissions { path: path.to_owned(), mode }),
    }
}
