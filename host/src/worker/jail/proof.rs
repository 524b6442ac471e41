//! Acts that a jail must refuse. A process that is thrown away afterwards tries one,
//! after it has entered the jail; how it ended says whether the jail held. A report says
//! what was set up, and this what it is worth.

use super::raw::{self, Way};
use libc::{EACCES, ENOSYS, EPERM};
use rustix::fs::{AtFlags, Mode, OFlags, openat, unlinkat};
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::BorrowedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus};

/// What a process exits with that has done what it should not, and one that was refused
/// for another reason than the jail. An error on the way to it is 1.
const DONE: u8 = 7;
const UNKNOWN: u8 = 8;

/// One act that must be refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    /// Read a file that there is, and that anyone may.
    OpenFile,
    /// List the directory that everything is in.
    OpenDir,
    /// Make a file where anyone may.
    WriteFile,
    /// Connect to a socket.
    Connect,
    /// Start a process.
    Fork,
    /// Become another program.
    Exec,
    /// Be traced by the parent.
    Ptrace,
    /// Ask whether the parent could be signalled.
    Signal,
    /// Make memory that is run as code.
    MapCode,
}

impl Act {
    /// All acts.
    pub(crate) const ALL: [Self; 9] = [
        Self::OpenFile,
        Self::OpenDir,
        Self::WriteFile,
        Self::Connect,
        Self::Fork,
        Self::Exec,
        Self::Ptrace,
        Self::Signal,
        Self::MapCode,
    ];

    /// Its name, in a few words.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::OpenFile => "open a file",
            Self::OpenDir => "open a directory",
            Self::WriteFile => "write a file",
            Self::Connect => "connect to a socket",
            Self::Fork => "start a process",
            Self::Exec => "run another program",
            Self::Ptrace => "be traced",
            Self::Signal => "signal a process",
            Self::MapCode => "make code",
        }
    }
}

/// How an act went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The kernel refused it, with this error number.
    Refused(i32),
    /// It was done.
    Done,
}

impl Outcome {
    /// What the process exits with.
    pub(crate) const fn exit_code(self) -> u8 {
        match self {
            Self::Refused(EACCES | EPERM | ENOSYS) => 0,
            Self::Done => DONE,
            // It says nothing of the jail.
            Self::Refused(_) => UNKNOWN,
        }
    }
}

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

/// What the end of the process says about the jail: an error, if it did not hold or
/// nobody knows.
pub(crate) fn judge(act: Act, exit: ExitStatus) -> Result<(), String> {
    match (exit.code(), exit.signal()) {
        (Some(0), _) | (None, Some(libc::SIGSYS)) => Ok(()),
        (Some(code), _) if code == i32::from(DONE) => Err(format!("it could {}", act.as_str())),
        _ => Err(format!("the attempt to {} ended otherwise: {exit}", act.as_str())),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_says_whether_the_jail_held() {
        let exited = |code: i32| judge(Act::Fork, ExitStatus::from_raw(code << 8));
        let killed = |signal: i32| judge(Act::Fork, ExitStatus::from_raw(signal));
        assert_eq!(exited(0), Ok(()));
        assert_eq!(killed(libc::SIGSYS), Ok(()));
        assert_eq!(exited(i32::from(DONE)).unwrap_err(), "it could start a process");
        for other in [1, i32::from(UNKNOWN), 101] {
            assert!(exited(other).unwrap_err().contains("ended otherwise"));
        }
        assert!(killed(libc::SIGKILL).unwrap_err().contains("ended otherwise"));
    }

    #[test]
    fn what_is_refused_and_what_is_done_exit_differently() {
        assert_eq!(Outcome::Refused(libc::EPERM).exit_code(), 0);
        assert_eq!(Outcome::Refused(libc::ENOENT).exit_code(), UNKNOWN);
        assert_eq!(Outcome::Done.exit_code(), DONE);
    }
}
