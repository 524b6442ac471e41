//! Telling systemd how the host is, by the protocol of `sd_notify(3)`.
//!
//! Without a supervisor nothing is told, and none of it can fail.

use rustix::time::{ClockId, clock_gettime};
use std::convert::Infallible;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Who started the host and wants to know how it is.
#[derive(Debug, Default)]
pub(super) struct Supervisor {
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// Silence of this length is taken for a host that hangs.
    watchdog: Option<Duration>,
}

impl Supervisor {
    /// Whom the environment names.
    pub(super) fn of_environment() -> Self {
        let socket = std::env::var_os("NOTIFY_SOCKET").and_then(|name| {
            let connected = connect(&name);
            connected.inspect_err(|error| tracing::warn!(%error, "NOTIFY_SOCKET is of no use")).ok()
        });
        let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
        let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|usec| ours && *usec > 0);
        Self { socket, watchdog: watchdog.map(Duration::from_micros) }
    }

    /// The host answers.
    pub(super) fn ready(&self) {
        self.tell("READY=1");
    }

    /// The host reads its configuration again.
    pub(super) fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let micros = now.tv_sec.saturating_mul(1_000_000).saturating_add(now.tv_nsec / 1000);
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }

    /// The host drains.
    pub(super) fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// Says twice in each while that the host is alive, which it is as long as
    /// its runtime comes to this.
    pub(super) async fn reassure(&self) -> Infallible {
        let Some(watchdog) = self.watchdog.filter(|_| self.socket.is_some()) else {
            return std::future::pending().await;
        };
        let mut interval = tokio::time::interval(watchdog / 2);
        loop {
            interval.tick().await;
            self.tell("WATCHDOG=1");
        }
    }

    fn tell(&self, state: &str) {
        let Some((socket, address)) = &self.socket else { return };
        if let Err(error) = socket.send_to_addr(state.as_bytes(), address) {
            tracing::debug!(%error, "the supervisor does not listen");
        }
    }
}

/// A path, or a name without a file that begins with `@`.
fn connect(name: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match name.as_bytes() {
        [b'@', name @ ..] => without_file(name)?,
        _ => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}

#[cfg(target_os = "linux")]
fn without_file(name: &[u8]) -> io::Result<SocketAddr> {
    use std::os::linux::net::SocketAddrExt;
    SocketAddr::from_abstract_name(name)
}

/// Elsewhere each has a file.
#[cfg(not(target_os = "linux"))]
fn without_file(_: &[u8]) -> io::Result<SocketAddr> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 256];
        let count = socket.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..count].to_vec()).unwrap()
    }

    #[tokio::test]
    async fn a_supervisor_is_told_over_a_path_or_a_name() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("notify");
        let at_path = UnixDatagram::bind(&path).unwrap();
        let name = format!("ringfence-{}", folder.path().display());
        let at_name = UnixDatagram::bind_addr(&without_file(name.as_bytes()).unwrap()).unwrap();
        for (socket, name) in
            [(at_path, path.into_os_string()), (at_name, format!("@{name}").into())]
        {
            let watchdog = Some(Duration::from_millis(20));
            let supervisor = Supervisor { socket: Some(connect(&name).unwrap()), watchdog };
            supervisor.ready();
            assert_eq!(received(&socket), "READY=1");
            supervisor.reloading();
            assert!(received(&socket).starts_with("RELOADING=1\nMONOTONIC_USEC="));
            supervisor.stopping();
            assert_eq!(received(&socket), "STOPPING=1");
            tokio::select! {
                never = supervisor.reassure() => match never {},
                told = tokio::task::spawn_blocking(move || received(&socket)) => {
                    assert_eq!(told.unwrap(), "WATCHDOG=1");
                }
            }
        }
        Supervisor::default().ready();
    }
}
