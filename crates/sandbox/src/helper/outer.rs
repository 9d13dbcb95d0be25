//! The part of the helper that stays outside: it waits for the other, which is PID 1 of a pid namespace of its own and does all the
//! work. When either of them is killed, by whomever, the kernel kills everything in that namespace, and with it the builder's, which
//! is below.
//!
//! The builder's own parent-death signal does not do that: it belongs to the builder, who can put another one in its place
//! (`prctl(PR_SET_PDEATHSIG, 0)`) and would then outlive us all.

use super::forget;
use crate::{
    steps::{LeftOut, SetupStep},
    sys::fork_single_threaded,
    wire::{Doing, Failure},
};
use nix::{
    fcntl::{OFlag, open},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sched::{CloneFlags, unshare},
    sys::{prctl, signal::Signal, stat::Mode},
    unistd::{ForkResult, Pid, dup2_stdin},
};
use rustix::{
    io::Errno as RawErrno,
    process::{Pid as PidNumber, PidfdFlags, WaitOptions, pidfd_open, waitpid},
};
use std::os::fd::{AsFd, OwnedFd};

/// Returns in a child that is PID 1 of a new pid namespace, with a pidfd of its parent, which never returns.
pub(super) fn go_on_as_first_process(runner: &OwnedFd, left_out: LeftOut<'_>) -> Result<OwnedFd, Failure> {
    let outer =
        pidfd_open(super::number_of(Pid::this())?, PidfdFlags::empty()).doing("opening a pidfd of the helper")?;
    unshare(CloneFlags::CLONE_NEWPID).doing("making a pid namespace for the helper")?;
    match fork_single_threaded().doing("forking the helper")? {
        ForkResult::Child => {
            // For now: the ids will change, which clears it.
            left_out.step(SetupStep::DieWithRunner, || die_with(runner, &outer))?;
            Ok(outer)
        }
        ForkResult::Parent { child } => {
            // On any failure here the child dies with us, and the runner is told by what it left unsaid.
            let status = tie(runner).and_then(|()| wait_for(super::number_of(child)?));
            crate::leave(status.unwrap_or(1))
        }
    }
}

/// Ties this process to the one that forked it, and by that to the runner. Must come after the last change of credentials, which
/// clears the parent-death signal (prctl(2)).
pub(super) fn die_with(runner: &OwnedFd, parent: &OwnedFd) -> Result<(), Failure> {
    prctl::set_pdeathsig(Signal::SIGKILL).doing("tying the helper to the runner")?;
    // Either may have died before that line.
    are_there(runner, Some(parent))
}

/// The other end of the runner's socket is closed when it has died.
fn are_there(runner: &OwnedFd, parent: Option<&OwnedFd>) -> Result<(), Failure> {
    let mut watched = vec![PollFd::new(runner.as_fd(), PollFlags::empty())];
    watched.extend(parent.map(|parent| PollFd::new(parent.as_fd(), PollFlags::POLLIN)));
    poll(&mut watched, PollTimeout::ZERO).doing("looking for the runner")?;
    match watched.iter().any(|one| one.any() == Some(true)) {
        true => Err(Failure::Check { finding: "the runner is gone".into() }),
        false => Ok(()),
    }
}

/// The same for the part outside, whose parent is the runner; and nothing that this part holds is a sign of life any more.
fn tie(runner: &OwnedFd) -> Result<(), Failure> {
    prctl::set_pdeathsig(Signal::SIGKILL).doing("tying the helper to the runner")?;
    are_there(runner, None)?;
    prctl::set_dumpable(false).doing("becoming non-dumpable")?;
    let null = open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty()).doing("opening /dev/null")?;
    dup2_stdin(null).doing("putting /dev/null on standard input")?;
    forget::let_go_of_the_log()?;
    crate::sys::close_range(3, true).doing("closing descriptors")
}

/// Waits for the other part, and with it for everything in its namespace; returns its status as shells count.
fn wait_for(child: PidNumber) -> Result<i32, Failure> {
    let status = loop {
        match waitpid(Some(child), WaitOptions::empty()) {
            Err(RawErrno::INTR) => continue,
            waited => break waited.doing("waiting for the helper")?.map(|(_pid, status)| status),
        }
    };
    let signal = status.and_then(|status| status.terminating_signal()).map(|signal| 128 + signal);
    Ok(status.and_then(|status| status.exit_status()).or(signal).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::socket_pair;
    use std::process::{Command, Stdio};

    /// Attack: PROC-1 (whoever is killed before the tie is tied). Layer: a look at runner and parent after it.
    #[test]
    fn a_runner_or_parent_that_is_gone_already_is_noticed() {
        let (runner, other_end) = socket_pair().unwrap();
        let mut parent = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let number = PidNumber::from_raw(i32::try_from(parent.id()).unwrap()).unwrap();
        let pidfd = pidfd_open(number, PidfdFlags::empty()).unwrap();
        let own_tie = prctl::get_pdeathsig().unwrap();
        assert_eq!(die_with(&runner, &pidfd), Ok(()));
        assert_eq!(prctl::get_pdeathsig(), Ok(Some(Signal::SIGKILL)));
        assert_eq!(are_there(&runner, None), Ok(()));
        parent.wait().unwrap();
        let gone = Err(Failure::Check { finding: "the runner is gone".into() });
        assert_eq!(die_with(&runner, &pidfd), gone);
        prctl::set_pdeathsig(own_tie).unwrap();
        assert_eq!(are_there(&runner, None), Ok(()));
        drop(other_end);
        assert_eq!(are_there(&runner, None), gone);
    }
}
