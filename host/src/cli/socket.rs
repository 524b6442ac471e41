//! The operator's socket: a file in the data directory by which commands reach
//! the host that has it open. Whoever can open the file is the operator.

use rustix::fs::{Mode, OFlags, open};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tokio::net::{UnixListener, UnixStream};

const NAME: &str = "host.sock";

/// Listens in a data directory. A host without the socket serves all the same.
pub(super) fn listen(data_dir: &Path) -> Option<UnixListener> {
    let listening = || -> io::Result<UnixListener> {
        let place = Place::of(data_dir)?;
        match std::fs::remove_file(&place.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&place.path)?;
        std::fs::set_permissions(&place.path, std::fs::Permissions::from_mode(0o600))?;
        Ok(listener)
    };
    listening()
        .inspect_err(|error| {
            tracing::warn!(
                %error, "there is no socket in the data directory; commands need --base and a token"
            );
        })
        .ok()
}

/// Connects to the host that has a data directory open.
pub(super) async fn connect(data_dir: &Path) -> io::Result<UnixStream> {
    UnixStream::connect(&Place::of(data_dir)?.path).await
}

/// A name for the socket that is short, however long that of the directory is:
/// the kernel takes 107 bytes.
struct Place {
    path: PathBuf,
    _directory: rustix::fd::OwnedFd,
}

#[cfg(target_os = "linux")]
impl Place {
    fn of(data_dir: &Path) -> io::Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
        let directory = open(data_dir, flags, Mode::empty())?;
        let number = std::os::fd::AsRawFd::as_raw_fd(&directory);
        let path = PathBuf::from(format!("/proc/self/fd/{number}/{NAME}"));
        Ok(Self { path, _directory: directory })
    }
}

/// Elsewhere an open directory has no name to go on from.
#[cfg(not(target_os = "linux"))]
impl Place {
    fn of(data_dir: &Path) -> io::Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = open(data_dir, flags, Mode::empty())?;
        Ok(Self { path: data_dir.join(NAME), _directory: directory })
    }
}
