//! Acts that a jail must refuse. A process that is thrown away afterwards tries one,
//! after it has entered the jail; how it ended says whether the jail held. A report says
//! what was set up, and this what it is worth.

use libc::{EACCES, ENOSYS, EPERM};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

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

/// One thing that must be possible where a driver is to be used, which does not begin
/// without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Open the nodes of devices.
    OpenNodes,
    /// Load a library that was not there before.
    LoadLibrary,
    /// Give a thread a name.
    NameThread,
    /// Listen on a socket under an abstract name.
    Listen,
}

impl Need {
    /// All of them.
    pub(crate) const ALL: [Self; 4] =
        [Self::OpenNodes, Self::LoadLibrary, Self::NameThread, Self::Listen];

    /// Its name, in a few words.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::OpenNodes => "open the nodes of devices",
            Self::LoadLibrary => "load a library",
            Self::NameThread => "name a thread",
            Self::Listen => "listen under an abstract name",
        }
    }

    /// What the end of the process says: an error, if it could not.
    pub(crate) fn judge(self, exit: ExitStatus) -> Result<(), String> {
        match exit.code() {
            Some(code) if code == i32::from(DONE) => Ok(()),
            _ => Err(format!("a driver could not {}: {exit}", self.as_str())),
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

/// What the end of the process says about the jail: an error, if it did not hold or
/// nobody knows.
pub(crate) fn judge(act: Act, exit: ExitStatus) -> Result<(), String> {
    match (exit.code(), exit.signal()) {
        (Some(0), _) | (None, Some(libc::SIGSYS)) => Ok(()),
        (Some(code), _) if code == i32::from(DONE) => Err(format!("it could {}", act.as_str())),
        _ => Err(format!("the attempt to {} ended otherwise: {exit}", act.as_str())),
    }
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
