//! How each act is tried that the jail must refuse.

use super::raw::{self, Way};
use crate::worker::jail::{Act, Need, Outcome};
use rustix::fs::{AtFlags, Mode, OFlags, openat, unlinkat};
use rustix::net::sockopt::set_socket_passcred;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, socket_with};
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::BorrowedFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

/// Tries an act. `root` is open, and is the directory that everything is in, outside of
/// the jail. The process may not come back from it, and must exit afterwards.
pub(crate) fn attempt(act: Act, root: BorrowedFd<'_>) -> Outcome {
    let tried = match act {
        Act::OpenFile => open(root, "dev/null", OFlags::RDONLY),
        Act::OpenDir => open(root, ".", OFlags::RDONLY | OFlags::DIRECTORY),
        Act::WriteFile => write_file(root),
        Act::Connect => connect(),
        Act::Fork => reached(no_program().spawn().map(drop)),
        Act::Exec => reached(Err(no_program().exec())),
        Act::Ptrace => raw::trace_me(),
        Act::Signal => signal(),
        Act::MapCode => raw::map_code(Way::Mapped).or_else(|_| raw::map_code(Way::Changed)),
    };
    match tried {
        Ok(()) => Outcome::Done,
        Err(error) => Outcome::Refused(error.raw_os_error().unwrap_or_default()),
    }
}

/// Tries what a driver needs, which has these nodes.
pub(crate) fn try_need(need: Need, nodes: &[PathBuf]) -> Outcome {
    let tried = match need {
        Need::OpenNodes => nodes
            .iter()
            .filter(|node| !node.is_dir())
            .try_for_each(|node| OpenOptions::new().read(true).write(true).open(node).map(drop)),
        Need::LoadLibrary => raw::load_library(),
        Need::NameThread => name_thread(),
        Need::Listen => listen(),
    };
    match tried {
        Ok(()) => Outcome::Done,
        Err(error) => Outcome::Refused(error.raw_os_error().unwrap_or_default()),
    }
}

/// Another one than its own, as whoever starts it does.
fn name_thread() -> io::Result<()> {
    let (told, tell) = std::sync::mpsc::channel::<()>();
    let (tid, started) = std::sync::mpsc::channel();
    let thread = std::thread::Builder::new().spawn(move || {
        let _ = tid.send(rustix::thread::gettid());
        let _ = tell.recv();
    })?;
    let tid = started.recv().map_err(io::Error::other)?;
    let comm = format!("/proc/self/task/{}/comm", tid.as_raw_nonzero());
    let named = OpenOptions::new().read(true).write(true).open(comm);
    let named = named.and_then(|mut comm| comm.write_all(b"driver"));
    drop(told);
    let _ = thread.join();
    named
}

fn listen() -> io::Result<()> {
    let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
    set_socket_passcred(&socket, true)?;
    let name = format!("ringfence-proof-{}", std::process::id());
    bind(&socket, &SocketAddrUnix::new_abstract_name(name.as_bytes())?)?;
    Ok(rustix::net::listen(&socket, 1)?)
}

fn open(root: BorrowedFd<'_>, path: &str, flags: OFlags) -> io::Result<()> {
    openat(root, path, flags | OFlags::CLOEXEC, Mode::empty())?;
    Ok(())
}

fn write_file(root: BorrowedFd<'_>) -> io::Result<()> {
    let name = format!("tmp/ringfence-proof-{}", std::process::id());
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    openat(root, &name, flags, Mode::RUSR | Mode::WUSR)?;
    unlinkat(root, &name, AtFlags::empty())?;
    Ok(())
}

/// Whether anybody listens elsewhere is not known, so it listens itself.
fn connect() -> io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    TcpStream::connect(listener.local_addr()?).map(drop)
}

/// There is none, so that nothing is run should the jail not hold. It keeps what is
/// open: to open anything else for it would be refused first, and prove nothing.
fn no_program() -> Command {
    Command::new("/ringfence-no-such-program")
}

/// Whoever gets so far that there is no such program could have run another.
fn reached(ended: io::Result<()>) -> io::Result<()> {
    match ended {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        ended => ended,
    }
}

fn signal() -> io::Result<()> {
    let parent = rustix::process::getppid().ok_or(io::ErrorKind::NotFound)?;
    Ok(rustix::process::test_kill_process(parent)?)
}
