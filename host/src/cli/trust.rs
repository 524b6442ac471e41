//! How a client knows the host that it talks to over https.
//!
//! Owns which CA is believed: the one that the user names, and no other then;
//! else those that browsers believe. There is no way to believe everybody.

use super::{GlobalArgs, Usage};
use std::error::Error;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use tokio_rustls::rustls;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tonic::transport::{Certificate, ClientTlsConfig};

const CA_VARIABLE: &str = "RINGFENCE_CA_FILE";
const CA_BYTES_MAX: usize = 4 << 20;

/// What to check of a host at this address; nothing where it speaks no TLS.
pub(super) fn of(global: &GlobalArgs, base: &str) -> anyhow::Result<Option<ClientTlsConfig>> {
    let uri: http::Uri = base.parse()?;
    if uri.scheme_str() != Some("https") {
        return Ok(None);
    }
    let ca_file = global.ca_file.clone().or_else(|| {
        std::env::var_os(CA_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from)
    });
    let tls = match ca_file {
        Some(path) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca(&path)?)),
        None => ClientTlsConfig::new().with_webpki_roots(),
    };
    // An address of IPv6 is in brackets in a URL and in nothing else.
    let name = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    Ok(Some(tls.domain_name(name)))
}

fn ca(path: &Path) -> Result<Vec<u8>, Usage> {
    let refused = |problem: &dyn std::fmt::Display| {
        Usage(format!("cannot use the CA file {}: {problem}", path.display()))
    };
    let mut pem = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(CA_BYTES_MAX as u64 + 1).read_to_end(&mut pem))
        .map_err(|error| refused(&error))?;
    if pem.len() > CA_BYTES_MAX {
        return Err(refused(&"it is too long"));
    }
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match found {
        Ok(certificates) if !certificates.is_empty() => Ok(pem),
        _ => Err(refused(&"it has no certificate in PEM form")),
    }
}

/// Why a host was not believed, and what to do, where that is why there is no
/// connection.
pub(super) fn distrust(error: &(dyn Error + 'static)) -> Option<String> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let tls = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>());
        if let Some(problem) = tls.or_else(|| error.downcast_ref()) {
            return Some(match problem {
                rustls::Error::InvalidCertificate(_) => format!(
                    "its certificate is not believed ({problem}); name the CA that made it with \
                     --ca-file or RINGFENCE_CA_FILE"
                ),
                problem => format!("it does not speak TLS as it should ({problem})"),
            });
        }
        cause = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn global(ca_file: &Path) -> GlobalArgs {
        GlobalArgs { ca_file: Some(ca_file.to_owned()), ..GlobalArgs::default() }
    }

    #[test]
    fn a_file_without_a_ca_is_wrong_usage() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "no certificate").unwrap();
        for path in [file.path(), Path::new("/nowhere")] {
            let error = of(&global(path), "https://h").unwrap_err();
            assert!(error.is::<Usage>(), "{error}");
            assert!(of(&global(path), "http://h").unwrap().is_none());
        }
        file.as_file().set_len(CA_BYTES_MAX as u64 + 1).unwrap();
        let error = of(&global(file.path()), "https://h").unwrap_err();
        assert!(error.to_string().ends_with("it is too long"), "{error}");
    }
}
