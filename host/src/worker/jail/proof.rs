//! Acts that a jail must refuse. A process that is thrown away afterwards tries one,
//! after it has entered the jail; how it ended says whether the jail held. A report says
//! what was set up, and this what it is worth.

use super::raw::{self, Way};
use std::fs::{self, File};
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus};

/// One act that must be refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    /// Read a file that anyone may.
    OpenFile,
    /// List a directory.
    OpenDir,
    /// Make a file in the working directory.
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
            Self::Refused(_) => 0,
            Self::Done => 1,
        }
    }
}

/// Tries an act. The process may not come back from it, and must exit afterwards.
pub(crate) fn attempt(act: Act) -> Outcome {
    let tried = match act {
        Act::OpenFile => File::open("/dev/null").map(drop),
        Act::OpenDir => fs::read_dir("/").map(drop),
        Act::WriteFile => write_file(),
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
        (Some(1), _) => Err(format!("it could {}", act.as_str())),
        _ => Err(format!("the attempt to {} ended otherwise: {exit}", act.as_str())),
    }
}

fn write_file() -> io::Result<()> {
    const NAME: &str = "ringfence-proof";
    File::create(NAME)?;
    fs::remove_file(NAME)
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
        assert_eq!(exited(1).unwrap_err(), "it could start a process");
        assert!(exited(101).unwrap_err().contains("ended otherwise"));
        assert!(killed(libc::SIGKILL).unwrap_err().contains("ended otherwise"));
    }

    #[test]
    fn what_is_refused_and_what_is_done_exit_differently() {
        assert_eq!(Outcome::Refused(libc::EPERM).exit_code(), 0);
        assert_eq!(Outcome::Done.exit_code(), 1);
    }
}
