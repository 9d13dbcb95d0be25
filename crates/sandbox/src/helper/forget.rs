//! Forgetting the host: everything that execve(2) hands down without being asked. Each line is a leak that was seen in
//! some build sandbox (shared/reference/security.md, table 2a).

use super::scheduling;
use crate::{
    report::SessionKeyring,
    steps::{LeftOut, SetupStep},
    sys,
    wire::{CONTROL_GROUP_VARIABLE, Doing, Failure, OPEN_FILES_VARIABLE},
};
use nix::{
    errno::Errno,
    fcntl::{OFlag, open},
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        signal::SigSet,
        stat::{Mode, umask},
    },
    unistd::{chdir, dup2_stderr, dup2_stdin, dup2_stdout, setsid},
};
use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

/// Linux has signals 1 to 64.
const SIGNALS: std::ops::RangeInclusive<i32> = 1..=64;

pub(super) fn close_inherited() -> Result<(), Failure> {
    sys::close_range(3, true).doing("closing inherited descriptors")
}

/// Moves the report socket off descriptor 1, where the builder's log belongs.
pub(super) fn take_report_socket() -> io::Result<OwnedFd> {
    let socket = io::stdout().as_fd().try_clone_to_owned()?;
    dup2_stdout(io::stderr())?;
    Ok(socket)
}

pub(super) fn forget_the_host(left_out: LeftOut<'_>) -> Result<(), Failure> {
    left_out.step(SetupStep::ResetSignals, || {
        let mut resettable = SIGNALS.filter(|number| ![libc::SIGKILL, libc::SIGSTOP].contains(number));
        resettable.try_for_each(sys::reset_signal).doing("resetting signals")
    })?;
    left_out.step(SetupStep::UnblockSignals, || SigSet::empty().thread_set_mask().doing("unblocking signals"))?;
    left_out.step(SetupStep::ResetScheduling, scheduling::reset)?;
    umask(Mode::empty());
    // A leader already only when started by hand from a job-control shell.
    if let Err(errno) = setsid()
        && errno != Errno::EPERM
    {
        return Err(errno).doing("starting a session");
    }
    chdir("/").doing("leaving the working directory")
}

/// The descriptor is opened here, on the host: in the new root `/dev/null` is whatever the plan says it is.
pub(super) fn put_null_on_stdin() -> Result<(), Failure> {
    let null = open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty()).doing("opening /dev/null")?;
    dup2_stdin(null).doing("putting /dev/null on standard input")
}

/// The log ends when its last writer is gone; the helper must not be one.
pub(super) fn let_go_of_the_log() -> Result<(), Failure> {
    dup2_stdout(io::stdin()).doing("closing the log")?;
    dup2_stderr(io::stdin()).doing("closing the log")
}

pub(super) fn leave_session_keyring() -> Result<SessionKeyring, Failure> {
    what_is_left_of_keys(sys::join_new_session_keyring(), sys::session_keyring)
}

/// After the attempt to leave the caller's keyring, and a look for one.
fn what_is_left_of_keys(
    left: io::Result<()>,
    look: impl FnOnce() -> io::Result<i64>,
) -> Result<SessionKeyring, Failure> {
    match left {
        Ok(()) => Ok(SessionKeyring::New),
        // A filter that refuses keyctl(2) to us refuses it to the builder too, since filters are inherited; but only if
        // it refuses to look for a keyring as well.
        Err(refused) if look().is_err_and(|error| error.raw_os_error() == refused.raw_os_error()) => {
            Ok(SessionKeyring::Unreachable)
        }
        Err(error) => Err(error).doing("leaving the session keyring"),
    }
}

/// One descriptor is held for every bind of the plan, and closures are larger than the usual soft limit of 1024.
/// Returns the limits that the builder gets back.
pub(super) fn raise_open_files() -> Result<(u64, u64), Failure> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).doing("reading the limit of open files")?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).doing("raising the limit of open files")?;
    // The runner may have raised its own since.
    let asked = std::env::var(OPEN_FILES_VARIABLE).ok().and_then(|text| text.parse().ok());
    Ok((asked.unwrap_or(soft).min(hard), hard))
}

/// The way into the control group that the runner made for this build. Opened with the runner's own rights, which are what the
/// kernel asks for when it is used (since Linux 5.16).
pub(super) fn open_control_group() -> Result<Option<OwnedFd>, Failure> {
    let Some(directory) = std::env::var_os(CONTROL_GROUP_VARIABLE) else { return Ok(None) };
    let file = std::path::Path::new(&directory).join("cgroup.procs");
    let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    open(&file, flags, Mode::empty()).doing(format!("opening {}", file.display())).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Attack: ENV-2 (a filter around us that refuses part of keyctl). Layer: fail closed where the caller's keyring stays.
    #[test]
    fn keys_that_stay_within_reach_are_an_error() {
        let errno = |number| io::Error::from_raw_os_error(number);
        assert_eq!(what_is_left_of_keys(Ok(()), || Ok(7)), Ok(SessionKeyring::New));
        let unreachable = what_is_left_of_keys(Err(errno(libc::EPERM)), || Err(errno(libc::EPERM)));
        assert_eq!(unreachable, Ok(SessionKeyring::Unreachable));
        for looked in [Ok(7), Err(errno(libc::ENOKEY))] {
            assert!(what_is_left_of_keys(Err(errno(libc::EPERM)), || looked).is_err());
        }
    }
}
