//! From an origin to a connection.
//!
//! Owns that the address which is connected to is the very one that was
//! checked: a name is looked up once, and what it led to is kept. No proxy is
//! asked, and no variable of the environment is read.

use super::address::is_public;
use super::origin::{Origin, Reach, Scheme};
use super::{FetchError, Open, TrustError};
use crate::limits::limit;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use url::Host;

/// A connection that speaks HTTP next.
pub(super) trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// Addresses that may be connected to.
#[derive(Debug)]
struct Checked(Vec<SocketAddr>);

/// The authorities that browsers trust.
pub(super) fn public_roots() -> RootCertStore {
    RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() }
}

/// Trusts the certificates of a PEM text as well.
pub(super) fn trust(roots: &mut RootCertStore, pem: &[u8]) -> Result<(), TrustError> {
    let before = roots.len();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| TrustError::Unreadable(error.into()))?;
        roots.add(certificate).map_err(|error| TrustError::Unreadable(error.into()))?;
    }
    if roots.len() == before {
        return Err(TrustError::NoCertificate);
    }
    Ok(())
}

/// What makes TLS connections. Nothing of ours is shown to anybody.
pub(super) fn tls(roots: RootCertStore) -> Result<TlsConnector, TrustError> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(TrustError::Tls)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

impl Open {
    /// A connection to an origin that the operator has opened.
    pub(super) async fn connect(&self, origin: &Origin) -> Result<Box<dyn Connection>, FetchError> {
        let stream = self.dial(origin, self.addresses(origin).await?).await?;
        match origin.scheme {
            Scheme::Http => Ok(Box::new(stream)),
            Scheme::Https => {
                let host = || origin.authority();
                let name = match &origin.host {
                    Host::Domain(name) => ServerName::try_from(name.clone())
                        .map_err(|_| FetchError::Certificate { host: host() })?,
                    Host::Ipv4(address) => ServerName::from(IpAddr::V4(*address)),
                    Host::Ipv6(address) => ServerName::from(IpAddr::V6(*address)),
                };
                let secured = self.tls.connect(name, stream).await;
                let secured = secured.map_err(|error| {
                    tracing::debug!(host = host(), %error, "no TLS with the host of a URL");
                    FetchError::Certificate { host: host() }
                })?;
                Ok(Box::new(secured))
            }
        }
    }

    /// Where an origin lies, of that what may be asked.
    async fn addresses(&self, origin: &Origin) -> Result<Checked, FetchError> {
        let name = match &origin.host {
            Host::Ipv4(address) => return Ok(Checked(vec![(*address, origin.port).into()])),
            Host::Ipv6(address) => return Ok(Checked(vec![(*address, origin.port).into()])),
            Host::Domain(name) => name.clone(),
        };
        let port = origin.port;
        let found = self.look_up(move || (name.as_str(), port).to_socket_addrs());
        let found = found.await.map_err(|error| {
            tracing::debug!(host = origin.authority(), %error, "no address for the host of a URL");
            FetchError::Unreachable { host: origin.authority() }
        })?;
        checked(found, origin)
    }

    /// What a look-up finds, of that what is looked at. It keeps its place until
    /// it has ended, whoever waits for it.
    async fn look_up<A>(
        &self,
        ask: impl FnOnce() -> io::Result<A> + Send + 'static,
    ) -> io::Result<Vec<SocketAddr>>
    where
        A: Iterator<Item = SocketAddr>,
    {
        let Ok(place) = self.lookups.clone().acquire_owned().await else {
            return Err(io::ErrorKind::Other.into());
        };
        let addresses_max = limit("url_addresses", self.limits.addresses_max);
        let looking = tokio::task::spawn_blocking(move || {
            let found = ask().map(|addresses| addresses.take(addresses_max).collect());
            drop(place);
            found
        });
        looking.await.map_err(io::Error::other)?
    }

    /// A connection to the first address that takes one.
    async fn dial(&self, origin: &Origin, addresses: Checked) -> Result<TcpStream, FetchError> {
        let connect_timeout = limit("url_connect_time", self.limits.connect_timeout);
        for address in addresses.0 {
            let dialling = TcpStream::connect(address);
            match tokio::time::timeout(connect_timeout, dialling).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => tracing::debug!(%address, %error, "no connection for a URL"),
                Err(_) => tracing::debug!(%address, "no connection for a URL in time"),
            }
        }
        Err(FetchError::Unreachable { host: origin.authority() })
    }
}

/// The addresses among those of a name that its origin may have.
fn checked(found: Vec<SocketAddr>, origin: &Origin) -> Result<Checked, FetchError> {
    let reach = origin.reach();
    let fits = |address: &SocketAddr| match reach {
        Reach::AsWritten => true,
        Reach::Loopback => address.ip().is_loopback(),
        Reach::Public => is_public(address.ip()),
    };
    let host = || origin.authority();
    if found.is_empty() {
        return Err(FetchError::Unreachable { host: host() });
    }
    let kept: Vec<SocketAddr> = found.into_iter().filter(fits).collect();
    match kept.is_empty() {
        true => Err(FetchError::Address { host: host() }),
        false => Ok(Checked(kept)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{FetchLimits, Fetcher};
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;
    use tokio::net::{TcpListener, TcpSocket};
    use url::Url;

    /// Longer than anything here takes.
    const BOUND: Duration = Duration::from_secs(20);

    fn open(limits: FetchLimits) -> Open {
        Fetcher::with_limits(Vec::new(), None, limits).unwrap().open.unwrap()
    }

    fn addresses(count: u16) -> impl Iterator<Item = SocketAddr> {
        (1..=count).map(|port| SocketAddr::from(([1, 1, 1, 1], port)))
    }

    /// A socket that takes no connection any more, and what keeps it from that:
    /// the kernel answers nobody while those that it has taken are not accepted.
    async fn full() -> (TcpListener, Vec<TcpStream>) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let mut taken = Vec::new();
        loop {
            let dialling = TcpStream::connect(address);
            match tokio::time::timeout(Duration::from_millis(300), dialling).await {
                Ok(stream) => taken.push(stream.unwrap()),
                Err(_) => return (listener, taken),
            }
            assert!(taken.len() < 64, "it takes more than it was asked to");
        }
    }

    /// SUP-06: whoever answers for a name does not decide how much is looked at.
    #[tokio::test]
    async fn so_many_addresses_of_a_name_are_looked_at_and_no_more() {
        let limits = FetchLimits::default();
        let max = limits.addresses_max;
        let open = open(limits);
        let found = open.look_up(|| Ok(addresses(1000))).await.unwrap();
        assert_eq!(found, addresses(16).collect::<Vec<_>>());
        assert_eq!(max, 16);
        let fewer = open.look_up(|| Ok(addresses(3))).await.unwrap();
        assert_eq!(fewer.len(), 3);
    }

    #[tokio::test]
    async fn a_look_up_beyond_their_number_waits_though_nobody_waits_for_the_others() {
        let open = open(FetchLimits { lookups_max: 2, ..FetchLimits::default() });
        let mut answers = Vec::new();
        for _ in 0..2 {
            let (answer, asked) = mpsc::channel::<()>();
            answers.push(answer);
            let slow = open.look_up(move || {
                // Until it is answered, which takes as long as the system likes.
                let _ = asked.recv();
                Ok(addresses(1))
            });
            let mut slow = Box::pin(slow);
            // It has begun, and whoever asked leaves.
            assert!(futures_util::poll!(slow.as_mut()).is_pending());
        }
        assert_eq!(open.lookups.available_permits(), 0);
        let mut third = Box::pin(open.look_up(|| Ok(addresses(1))));
        assert!(futures_util::poll!(third.as_mut()).is_pending());
        drop(answers.pop());
        let found = tokio::time::timeout(BOUND, third).await.expect("its turn");
        assert_eq!(found.unwrap().len(), 1);
    }

    /// Where one address of a name is silent, the next is asked.
    #[tokio::test]
    async fn an_address_that_does_not_take_a_connection_in_time_is_left_for_the_next() {
        let connect_timeout = Duration::from_millis(100);
        let open = open(FetchLimits { connect_timeout, ..FetchLimits::default() });
        let (full, _taken) = full().await;
        let silent = full.local_addr().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let other = listener.local_addr().unwrap();
        let origin = Origin::of(&Url::parse(&format!("http://{silent}")).unwrap()).unwrap();
        let dial = async |addresses: Vec<SocketAddr>| {
            let dialling = open.dial(&origin, Checked(addresses));
            tokio::time::timeout(BOUND, dialling).await.expect("an end")
        };
        let refused = dial(vec![silent]).await.unwrap_err();
        assert_eq!(refused, FetchError::Unreachable { host: silent.to_string() });
        let taken = dial(vec![silent, other]).await.unwrap();
        assert_eq!(taken.peer_addr().unwrap(), other);
    }

    fn kept(url: &str, found: &[&str]) -> Result<Vec<String>, FetchError> {
        let origin = Origin::of(&Url::parse(url).unwrap()).unwrap();
        let found = found.iter().map(|address| address.parse().unwrap()).collect();
        let Checked(kept) = checked(found, &origin)?;
        Ok(kept.iter().map(SocketAddr::to_string).collect())
    }

    /// SUP-06. What a name leads to is looked at, whoever answers for the name.
    #[test]
    fn a_name_that_leads_inside_is_refused_and_only_what_is_public_is_kept() {
        let public = "https://h.example/";
        let inside = ["127.0.0.1:443", "10.0.0.7:443", "169.254.169.254:443", "[::1]:443"];
        for address in inside {
            let refused = Err(FetchError::Address { host: "h.example".into() });
            assert_eq!(kept(public, &[address]), refused, "{address}");
        }
        let mixed = kept(public, &["10.0.0.7:443", "1.1.1.1:443", "[fd00::1]:443"]);
        assert_eq!(mixed.unwrap(), ["1.1.1.1:443"]);

        let local = "https://localhost/";
        assert_eq!(kept(local, &["127.0.0.1:443", "10.0.0.7:443"]).unwrap(), ["127.0.0.1:443"]);
        assert!(kept(local, &["1.1.1.1:443"]).is_err());
        assert!(matches!(kept(public, &[]), Err(FetchError::Unreachable { .. })));
    }

    #[test]
    fn only_certificates_are_trusted() {
        let mut roots = public_roots();
        let known = roots.len();
        assert!(known > 50, "{known} public authorities");
        assert!(matches!(trust(&mut roots, b"hello"), Err(TrustError::NoCertificate)));
        let odd = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(matches!(trust(&mut roots, odd.as_bytes()), Err(TrustError::Unreadable(_))));
        assert_eq!(roots.len(), known);
    }
}
